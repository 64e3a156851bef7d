"""A whole run of an agent: start, stages, one reading of the test, results. `swirl agent train` is this and no more."""

import json
from pathlib import Path
from typing import Any

import torch

from swirl import durable, ledger, progress
from swirl.agents.learned import check_world
from swirl.agents.settings import AgentRecipe
from swirl.agents.spa import spa
from swirl.agents.stages import Stages
from swirl.errors import InputError
from swirl.eval.summary import cell

SHOWN = ("pass_at_1", "greedy_pass_at_1", "pass_at_8", "score", "readable", "prediction_exact")
"""Metrics of the printed table."""


def run_recipe(recipe: AgentRecipe, out: Path) -> dict[str, Any]:
    """Run a recipe, or continue it.

    Args:
        recipe: The resolved recipe.
        out: The run folder.

    Returns:
        What `results.json` holds: the policy's folder, the actions that its stages took in the world itself (`steps`),
        and a row per policy, form of reply and metric.

    Raises:
        InputError: The recipe or the run folder cannot be used.
        MissingPartError: The recipe asks for a part that is not installed.
    """
    torch.set_num_threads(recipe.threads)
    models = [("rl.model", run) for run in recipe.rl.model]
    for key, place in (*models, ("clone.data", recipe.clone.data), ("clone.inverse", recipe.clone.inverse)):
        if place and not Path(place).exists():
            raise InputError(f"{key} = {place!r} is not there; give the path of one that is")
        check_world(place, recipe.play.world)
    with ledger.Run.open(out, recipe.toml()) as run:
        stages = Stages(run, recipe)
        # For `data.leave_out`, of models that agents train in.
        durable.atomic_write(out / "layouts.txt", "".join(f"{name}\n" for name in sorted(stages.arena.held_out)))
        policy = spa(stages, stages.start())
        rows = json.loads((stages.test() / "phase.json").read_text())["test"]
        made = {phase.name: run.folder / phase.folder for phase in run.phases}
        curve = [json.loads(line) for line in _text(made.get("rl"), "log.jsonl").splitlines()]
        facts = json.loads(_text(made.get("self-play"), "phase.json") or "{}")
        results = {
            "policy": str(policy.relative_to(out)),
            "steps": {
                "self-play": facts.get("steps", 0),
                "rl": 0 if recipe.rl.model else sum(row["steps"] for row in curve),
            },
            "self_play": facts,
            "rows": rows,
        }
        durable.atomic_write(out / "results.json", json.dumps(results, indent=1) + "\n")
        durable.atomic_write(out / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in curve))
    return results


def _text(folder: Path | None, name: str) -> str:
    """A phase's file; "" where the recipe has no such phase."""
    return (folder / name).read_text() if folder else ""


def show(results: dict[str, Any], out: Path) -> None:
    """Print what a run's policies do on the seeds of validation."""
    by_policy: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in results["rows"]:
        by_policy.setdefault((row["policy"], row["form"], row["arena"]), {})[row["metric"]] = row
    rows = [[*name, *(cell(found.get(metric)) for metric in SHOWN)] for name, found in by_policy.items()]
    progress.table(f"{out}: layouts never trained on", ["policy", "form", "world", *SHOWN], rows)
