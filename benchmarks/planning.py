"""The published table of planning, by how far it looks: `swirl plan` in learned models, put into docs/results.md.

    python benchmarks/planning.py --only sokoban --seeds 0,1,2 --processes 2

The policy that the world's agents begin with proposes what is tried, and is measured without planning. What a run
measured is kept in benchmarks/results/planning/, a file per world and seed, and the table is made from those files
alone. A run whose file is there is not made again; one that was interrupted goes on.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import acting
import running
from results import write

from swirl import durable
from swirl.compare import provenance
from swirl.compare.reading import Reading

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "results" / "planning"
PAGE = ROOT / "docs" / "results.md"
HORIZONS = (1, 2, 4, 8)
EPISODES = 100
RUN = "model"
"""What a kept file calls the learned model, which `swirl plan` names by its checkpoint."""
BASELINES = {
    "policy": "the policy without planning, its likeliest action",
    "policy-sampled": "the policy without planning, an action drawn",
}
"""What planning is compared with."""
PLANNERS = {
    "random": "random actions",
    **BASELINES,
    RUN: "planning in the learned model",
    "real-world": "planning in the world itself",
}
"""Name of a planner -> title of its line."""
WORLDS = {"sokoban": "Sokoban, 6 x 6, one box", "frozenlake": "FrozenLake, 4 x 4, not slippery"}


def run(world: str, seed: int, runs: Path) -> str:
    """One run, planned in, and its kept file; what went wrong, or ""."""
    commit, spec = provenance.commit(), acting.model_spec(world, seed)
    policy, error = acting.start(world, seed, runs)
    out, error = (policy, error) if error else acting.learn(world, seed, policy, runs)
    if error:
        return error
    found, layouts = [], []
    for horizon in HORIZONS:
        words = ["plan", str(out), "--world", world, "--policy", str(policy), "--real"]
        words += ["--horizon", str(horizon), "--episodes", str(EPISODES), *acting.options(world)]
        command = [sys.executable, "-m", "swirl.cli", *words, "--json"]
        code, told, error = running.CALLED.call(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if code:
            return f"{out.name}: {error.strip().rpartition(os.linesep)[2]}"
        for row in json.loads(told):
            name = row["model"] if row["model"] in PLANNERS else RUN
            layouts = row.pop("layouts", layouts)  # the same for all: they play the same episodes
            keep = ("metric", "value", "n", "successes")
            found.append({"planner": name, "horizon": horizon} | {key: row[key] for key in keep if key in row})
    facts = {
        "commit": commit,
        "machine": provenance.machine(spec.device, spec.threads),
        "versions": provenance.versions(),
        "recipe": acting.recipes(world, seed),
        "model": [row for row in json.loads((out / "results.json").read_text())["rows"] if row["split"] == "test"],
        "layouts": layouts,
        "rows": found,
    }
    KEPT.mkdir(parents=True, exist_ok=True)
    durable.atomic_write(_kept(world, seed), json.dumps(facts) + "\n")
    return ""


def _kept(world: str, seed: int) -> Path:
    return KEPT / f"{world}-seed{seed}.json"


def _asked(world: str, seed: int) -> tuple[Path, str]:
    """The kept file of a run, and its recipes."""
    return _kept(world, seed), acting.recipes(world, seed)


def table() -> str:
    """The table of what is kept, and what planning gains."""
    rows = {world: running.kept({seed: _asked(world, seed) for seed in running.SEEDS}) for world in WORLDS}
    if not any(rows.values()):
        return running.NOT_YET
    success = [f"success, horizon {h}" for h in HORIZONS]
    lines = [["", *success, *(f"calls per action, horizon {h}" for h in HORIZONS), "seeds"]]
    gains = [["", "less", *success]]
    for world, by_seed in rows.items():
        for planner, title in PLANNERS.items() if by_seed else ():
            name = f"{WORLDS[world]}: {title}"
            shares = [_success(by_seed, planner, h) for h in HORIZONS]
            calls = [[_row(facts, planner, h, "plan_calls")["value"] for facts in by_seed.values()] for h in HORIZONS]
            costs = [running.mean(values, 1.0) for values in calls]
            lines.append([name, *map(running.interval, shares), *costs, str(len(by_seed))])
            for baseline, other in BASELINES.items() if planner in (RUN, "real-world") else ():
                without = [_success(by_seed, baseline, h) for h in HORIZONS]
                gains.append([name, other, *map(running.interval, shares, without)])
    lacking = running.not_run({WORLDS[world]: by_seed for world, by_seed in rows.items()})
    return f"{lacking}{running.markdown(lines)}\nDifferences, in the same episodes:\n\n{running.markdown(gains)}"


def _success(by_seed: Mapping[int, dict[str, Any]], planner: str, horizon: int) -> dict[int, Reading]:
    """Success of a planner by seed."""
    return {
        seed: running.by_layout(_row(facts, planner, horizon, "plan_success")["successes"], facts["layouts"])
        for seed, facts in by_seed.items()
    }


def _row(facts: dict[str, Any], planner: str, horizon: int, metric: str) -> dict[str, Any]:
    """What a kept file has of a planner."""
    asked = {"planner": planner, "horizon": horizon, "metric": metric}
    return next(row for row in facts["rows"] if row | asked == row)


def main(words: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--only", nargs="*", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=running.SEEDS)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="only write the table")
    a = parser.parse_args(words)
    asked = [(world, seed) for seed in a.seeds for world in a.only]
    todo, failed = running.missing({one: _asked(*one) for one in asked})
    if not a.table:
        failed += running.side_by_side(lambda one: run(*one, a.runs), todo, a.processes, "planning")
    write(PAGE, "planning", table())
    print("\n".join(failed), end="\n" * bool(failed))
    return int(bool(failed))


if __name__ == "__main__":
    running.finish(main)
