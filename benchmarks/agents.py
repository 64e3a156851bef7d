"""The published tables of agents: runs of `swirl agent train`, put into docs/results.md.

    python benchmarks/agents.py --only sokoban --seeds 0,1,2 --processes 2

What a run measured is kept in benchmarks/results/agents/, a file per row and seed, and the tables are made from those
files alone. A run whose file is there is not run again; one that was interrupted goes on. All rows of a world and seed
begin with one policy, the start of the world's recipe, which is trained once.
"""

import argparse
import json
import os
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import planning
import running
from results import NOT_YET, write

from swirl import durable
from swirl.agents import settings
from swirl.compare import provenance

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "results" / "agents"
PAGE = ROOT / "docs" / "results.md"


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: In the table.
        paper: Pass@1 / Pass@8 of Qwen2.5-1.5B in the paper, per cent, by world.
        overrides: Of the world's recipe; `MODEL` and `DEMONSTRATIONS` stand for what is made for the row.
        only: The worlds that it is run in; empty: all.
    """

    name: str
    paper: dict[str, str] = field(default_factory=dict)
    overrides: dict[str, str] = field(default_factory=dict)
    only: tuple[str, ...] = ()


def _paper(sokoban: str, frozenlake: str = "", sudoku: str = "") -> dict[str, str]:
    return {"sokoban": sokoban, "frozenlake": frozenlake, "sudoku": sudoku}


START = "<the policy that all rows begin with>"
MODEL, DEMONSTRATIONS = "<a learned model that knows no tested layout>", "<the solver's episodes>"
RL = {"method": "rl"}
CLONE = {"method": "clone", "clone.data": DEMONSTRATIONS, "clone.learning_rate": "1e-3"}
DEMONSTRATED = 2_000
"""Transitions of the solver's episodes."""
EIGHT = {"evaluation.last_samples": "8"}
"""Of ablations: Pass@64 costs a third of a run, and is for the systems that are compared."""
ROWS = {
    # in the paper's order, then this project's own; `base` is the start of `spa`
    "vanilla": Row("vanilla RL", _paper("25.6/34.0", "22.1/30.7", "0/0"), {**RL, "play.options.coordinates": "false"}),
    "state-estimation": Row("RL + state estimation", _paper("52.7/53.9", "27.6/34.8", "39.1/72.3"), RL),
    "online": Row(
        "online world modelling",
        _paper("44.5/50.0", "37.7/43.0", "0/0"),
        {"method": "rl", "rl.form": "states", "rl.state_reward": "1"},
    ),
    "spa": Row("SPA", _paper("59.8/69.5", "70.9/75.0", "59.6/94.9")),
    "one-epoch": Row("SPA, 1 epoch of SFT", _paper("29.2/52.7"), EIGHT | {"tune.epochs": "1"}, ("sokoban",)),
    "random": Row("SPA, random actions", _paper("20.2/50.0"), EIGHT | {"self_play.actions": "random"}, ("sokoban",)),
    "believed": Row(
        "SPA, believed states", _paper("39.2/44.2"), EIGHT | {"self_play.states": "believed"}, ("sokoban",)
    ),
    "no-coordinates": Row(
        "SPA, no coordinates", _paper("36.3/40.6"), EIGHT | {"play.options.coordinates": "false"}, ("sokoban",)
    ),
    "masked": Row("SPA, states masked in SFT", _paper("no gain"), EIGHT | {"tune.masked": "true"}, ("sokoban",)),
    "unrehearsed": Row("SPA, plain replies not rehearsed", {}, EIGHT | {"self_play.rehearse": "false"}, ("sokoban",)),
    "states": Row("RL, states told in replies", {}, RL | EIGHT | {"rl.form": "states"}),
    "spa-states": Row("SPA, states told in replies", {}, EIGHT | {"rl.form": "states"}),
    "imagined": Row("RL in the learned model", {}, RL | EIGHT | {"rl.model": MODEL}, ("sokoban",)),
    "cloned": Row("cloning the solver, all actions given", {}, CLONE, ("sokoban",)),
    "cloned-inferred": Row(
        "cloning the solver, actions inferred from 400 labels", {}, {**CLONE, "clone.inverse": MODEL}, ("sokoban",)
    ),
}
METRICS = {
    "pass_at_1": "Pass@1",
    "pass_at_8": "Pass@8",
    "pass_at_64": "Pass@64",
    "greedy_pass_at_1": "greedy",
    "prediction_exact": "prediction right",
    "effective_actions": "effective actions",
    "imagined": "Pass@1 in the model",
}
"""Columns of a table, per cent."""
BASE = _paper("16.3/47.3", "17.2/49.2", "1.6/11.3")
WORLDS = ("sokoban",)


def prepare(world: str, seed: int, needed: Collection[str], runs: Path) -> tuple[dict[str, str], str]:
    """Make what rows of a world and seed share.

    Args:
        world: Which.
        seed: Which.
        needed: Of `MODEL` and `DEMONSTRATIONS`, those that are.
        runs: Where runs are made.

    Returns:
        Where each is, and the policy that all begin with (`START`); what went wrong, or "".
    """
    out = runs / "agents" / world / f"start-seed{seed}"
    given = {"seed": str(seed), **RL, "rl.iterations": "0", "evaluation.samples": "1", "evaluation.last_samples": "1"}
    if error := _train(world, given, out):
        return {}, error
    made = {START: str(out / json.loads((out / "results.json").read_text())["policy"])}
    if MODEL in needed:
        made[MODEL] = str(runs / "models" / f"{world}-apart-seed{seed}")
        error = planning.learn(world, seed, Path(made[MODEL]), leave_out=str(out / "layouts.txt"))
    if DEMONSTRATIONS in needed and not error:
        recording = runs / "agents" / world / f"solver-seed{seed}.parquet"
        options = settings.load(_recipe(world)).play.options.items()
        # Of a seed of its own: the recordings of learned models begin with the world's first.
        words = ["collect", world, "--behaviour", "solver", "--transitions", str(DEMONSTRATED)]
        words += [word for key, value in options for word in ("--option", f"{key}={json.dumps(value)}")]
        error = "" if recording.is_file() else running.swirl(words, {"seed": str(DEMONSTRATED + seed)}, recording)
        made[DEMONSTRATIONS] = str(recording)
    return made, error


def run(world: str, row: str, seed: int, runs: Path, made: Mapping[str, str]) -> str:
    """One run and its kept file; what went wrong, or "".

    Args:
        world: Which.
        row: Which.
        seed: Which.
        runs: Where runs are made.
        made: What it stands on, see `prepare`.
    """
    spec = _spec(world, row, seed)
    kept, out, commit = _kept(world, row, seed), runs / "agents" / world / f"{row}-seed{seed}", provenance.commit()
    actual = {key: made.get(value, value) for key, value in _given(row, seed).items()}
    if error := _train(world, {**actual, "model.name": made[START]}, out):
        return error
    curve = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    phases = json.loads((out / "ledger.json").read_text())["phases"]
    keep = ("iteration", "steps", "success", "entropy", "reply_tokens", "repeated_replies", "validation_pass_at_1")
    facts = {
        "commit": commit,
        "machine": provenance.machine(spec.device, spec.threads),
        "versions": provenance.versions(),
        "recipe": spec.toml(),
        "seconds_cpu": sum(phase["seconds_cpu"] for phase in phases if phase["name"] != "test"),
        "results": json.loads((out / "results.json").read_text()),
        "curve": [{key: line[key] for key in keep if key in line} for line in curve],
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    durable.atomic_write(kept, json.dumps(facts, indent=1) + "\n")
    return ""


def _spec(world: str, row: str, seed: int) -> settings.AgentRecipe:
    return settings.load(_recipe(world), _given(row, seed))


def _given(row: str, seed: int) -> dict[str, str]:
    return {"seed": str(seed), **ROWS[row].overrides}


def _recipe(world: str) -> Path:
    return ROOT / "recipes" / f"spa-{world}.toml"


def _kept(world: str, row: str, seed: int) -> Path:
    return KEPT / world / f"{row}-seed{seed}.json"


def _train(world: str, given: Mapping[str, str], out: Path) -> str:
    return running.swirl(["agent", "train", str(_recipe(world))], given, out)


def table(world: str) -> str:
    """The table of a world, of what is kept."""
    kept = {row: _read(world, row) for row in ROWS}
    if not any(kept.values()):
        return NOT_YET
    taken = [steps for files in kept.values() for facts in files if (steps := _steps(facts))]
    budget = min(taken, default=0)
    head = ["", "paper", *METRICS.values(), f"Pass@1 at {budget:,} actions", "CPU min", "seeds"]
    lines = [head]
    if kept["spa"]:
        lines.append(["base", BASE[world], *_cells(kept["spa"], "base", budget)])
        lines.append(["after self-play and SFT", "", *_cells(kept["spa"], "tune", budget)])
        lines.append(["the world's solver", "", *_cells(kept["spa"], "solver", budget)])
    if kept["vanilla"]:
        lines.append(["base, without coordinates", "", *_cells(kept["vanilla"], "base", budget)])
    lines += [
        [ROWS[row].name, ROWS[row].paper.get(world, ""), *_cells(files, _last(row), budget)]
        for row, files in kept.items()
        if files
    ]
    return running.markdown(lines)


def _read(world: str, row: str) -> list[dict[str, Any]]:
    """What is kept of a row, of the recipe as it is."""
    found = [json.loads(path.read_text()) for path in sorted((KEPT / world).glob(f"{row}-seed*.json"))]
    return [
        facts for facts in found if _spec(world, row, tomllib.loads(facts["recipe"])["seed"]).toml() == facts["recipe"]
    ]


def _cells(files: Sequence[dict[str, Any]], policy: str, budget: int) -> list[str]:
    found = [_measured(facts, policy) for facts in files]
    cells = [running.spread([one[metric] for one in found if metric in one]) for metric in METRICS]
    trained = files if policy in ("rl", "clone") else []
    minutes = f"{np.mean([facts['seconds_cpu'] for facts in trained]) / 60:.0f}" if trained else ""
    at_budget = [_at(facts, budget) for facts in trained if _steps(facts)]
    return [*cells, running.spread(at_budget), minutes, str(len(files))]


def _last(row: str) -> str:
    """The policy that a row's run ends with."""
    return "clone" if ROWS[row].overrides.get("method") == "clone" else "rl"


def _measured(facts: dict[str, Any], policy: str) -> dict[str, float]:
    """Metrics of a policy in the world itself, in the form of reply that reinforcement learning has.

    How often it predicts right is read where it was asked for states; `imagined` is its Pass@1 in a model.
    """
    form = tomllib.loads(facts["recipe"])["rl"]["form"]
    own = [
        row
        for row in facts["results"]["rows"]
        if row["policy"] == policy and row["form"] == ("states" if row["metric"] == "prediction_exact" else form)
    ]
    told = {row["metric"]: row["value"] for row in own if row["arena"] == "real"}
    for row in own:
        if (row["arena"], row["metric"]) == ("imagined", "pass_at_1"):
            told["imagined"] = row["value"]
    return told


def _steps(facts: dict[str, Any]) -> int:
    """Actions in the world that a run took before its end, those of self-play among them."""
    return sum(facts["results"]["steps"].values())


def _at(facts: dict[str, Any], budget: int) -> float:
    """Pass@1 where a run had taken so many actions: of the last checkpoint until then, the start of RL among them."""
    taken = facts["results"]["steps"]["self-play"]
    last = (_measured(facts, "tune") or _measured(facts, "base"))["pass_at_1"]
    for line in facts["curve"]:
        taken += line["steps"]
        if taken <= budget:
            last = line.get("validation_pass_at_1", last)
    return last


def carry_out(todo: Sequence[tuple[str, str, int]], runs: Path, processes: int) -> list[str]:
    """Runs, world, row and seed each, after what they share; what went wrong."""
    needed: dict[tuple[str, int], set[str]] = {}
    for world, row, seed in todo:
        needed.setdefault((world, seed), set()).update(ROWS[row].overrides.values())
    made: dict[tuple[str, int], dict[str, str]] = {}

    def begin(one: tuple[str, int]) -> str:
        found, error = prepare(*one, needed[one], runs)
        made.update({} if error else {one: found})
        return error

    failed = running.side_by_side(begin, list(needed), processes, "what rows share")
    ready = [(world, row, seed) for world, row, seed in todo if (world, seed) in made]
    return failed + running.side_by_side(lambda one: run(*one, runs, made[one[0], one[2]]), ready, processes, "agents")


def main(words: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--only", nargs="*", choices=WORLDS, default=WORLDS)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="only write the tables")
    a = parser.parse_args(words)
    asked = [
        (world, row, seed)
        for seed in a.seeds
        for world in a.only
        for row in a.rows
        if not ROWS[row].only or world in ROWS[row].only
    ]
    todo, failed = running.missing({one: (_kept(*one), _spec(*one).toml()) for one in asked})
    if not a.table:
        failed += carry_out(todo, a.runs, a.processes)
    for world in a.only:
        write(PAGE, f"agents-{world}", table(world))
    print("\n".join(failed), end="\n" * bool(failed))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
