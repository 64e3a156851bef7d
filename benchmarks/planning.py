"""The published table of planning, by how far it looks: `swirl plan` in learned models, put into docs/results.md.

    python benchmarks/planning.py --only sokoban --seeds 0,1,2 --processes 2

What a run measured is kept in benchmarks/results/planning/, a file per world and seed, and the table is made from those
files alone. A run whose file is there is not made again; one that was interrupted goes on.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import running
from results import NOT_YET, write

from swirl import durable
from swirl.compare import provenance
from swirl.config import Recipe
from swirl.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "results" / "planning"
PAGE = ROOT / "docs" / "results.md"
RECIPE = ROOT / "recipes" / "minigrid.toml"
HORIZONS = (1, 2, 4, 8)
EPISODES = 100
RUN = "model"
"""What a kept file calls the learned model, which `swirl plan` names by its checkpoint."""
PLANNERS = {"random": "no planning: random", RUN: "planning in the learned model", "real-world": "in the world itself"}
"""Name of a planner -> title of its line."""


@dataclass(frozen=True)
class Planned:
    """A world that is planned in.

    Attributes:
        title: In the table.
        model: Overrides of the recipe of its learned model.
    """

    title: str
    model: dict[str, str]


WORLDS = {
    "sokoban": Planned("Sokoban, 6 x 6, one box", {"data.world": "sokoban", "model.tokens": "phrases"}),
    "frozenlake": Planned("FrozenLake, 4 x 4, not slippery", {"data.world": "frozenlake", "model.tokens": "phrases"}),
}


def learn(world: str, seed: int, out: Path, **more: str) -> str:
    """Make the run of a world's learned model, or resume it; what went wrong, or "".

    Args:
        world: Which.
        seed: Of the recipe.
        out: The run folder.
        **more: Keys of the recipe's `data` and their values.
    """
    data = {f"data.{key}": value for key, value in more.items()}
    return running.swirl(["train", str(RECIPE)], {"seed": str(seed), **WORLDS[world].model, **data}, out)


def run(world: str, seed: int, runs: Path) -> str:
    """One run, planned in, and its kept file; what went wrong, or ""."""
    commit = provenance.commit()
    spec = _spec(world, seed)
    out = runs / "models" / f"{world}-seed{seed}"
    if error := learn(world, seed, out):
        return error
    found = []
    for horizon in HORIZONS:
        words = ["plan", str(out), "--world", world, "--horizon", str(horizon), "--episodes", str(EPISODES), "--real"]
        command = [sys.executable, "-m", "swirl.cli", *words, "--json"]
        code, told, error = running.CALLED.call(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if code:
            return f"{out.name}: {error.strip().rpartition(os.linesep)[2]}"
        for row in json.loads(told):
            name = row["model"] if row["model"] in ("random", "real-world") else RUN
            found.append({"planner": name, "horizon": horizon} | {k: row[k] for k in ("metric", "value", "n")})
    facts = {
        "commit": commit,
        "machine": provenance.machine(spec.device, spec.threads),
        "versions": provenance.versions(),
        "recipe": spec.toml(),
        "model": [row for row in json.loads((out / "results.json").read_text())["rows"] if row["split"] == "test"],
        "rows": found,
    }
    KEPT.mkdir(parents=True, exist_ok=True)
    durable.atomic_write(_kept(world, seed), json.dumps(facts, indent=1) + "\n")
    return ""


def _spec(world: str, seed: int) -> Recipe:
    return load_recipe(RECIPE, {"seed": str(seed), **WORLDS[world].model})


def _kept(world: str, seed: int) -> Path:
    return KEPT / f"{world}-seed{seed}.json"


def table() -> str:
    """The table of what is kept."""
    head = ["", *(f"success, horizon {h}" for h in HORIZONS), *(f"calls per action, horizon {h}" for h in HORIZONS)]
    lines = [head]
    for world, planned in WORLDS.items():
        files = [json.loads(path.read_text()) for path in sorted(KEPT.glob(f"{world}-seed*.json"))]
        if files:
            lines.append([f"*{planned.title}, {len(files)} seeds*", *[""] * (2 * len(HORIZONS))])
            lines += [[title, *_cells(files, planner)] for planner, title in PLANNERS.items()]
    return running.markdown(lines) if lines[1:] else NOT_YET


def _cells(files: Sequence[dict[str, Any]], planner: str) -> list[str]:
    """Success, per cent, and calls of a planner at each horizon."""
    rows = [row for facts in files for row in facts["rows"] if row["planner"] == planner]
    return [
        running.spread([row["value"] for row in rows if (row["metric"], row["horizon"]) == (metric, horizon)], scale)
        for metric, scale in (("plan_success", 100.0), ("plan_calls", 1.0))
        for horizon in HORIZONS
    ]


def main(words: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--only", nargs="*", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="only write the table")
    a = parser.parse_args(words)
    asked = [(world, seed) for seed in a.seeds for world in a.only]
    todo, failed = running.missing({one: (_kept(*one), _spec(*one).toml()) for one in asked})
    if not a.table:
        failed += running.side_by_side(lambda one: run(*one, a.runs), todo, a.processes, "planning")
    write(PAGE, "planning", table())
    print("\n".join(failed), end="\n" * bool(failed))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
