"""The published tables of agents: runs of `swirl agent train`, put into docs/results.md.

    python benchmarks/agents.py --only sokoban --seeds 0,1,2 --processes 2

What a run measured is kept in benchmarks/results/agents/, a file per row and seed, and the tables are made from those
files alone. A run whose file is there is not run again; one that was interrupted goes on. All rows of a world and seed
begin with one policy, the start of the world's recipe, which is trained once.
"""

import argparse
import hashlib
import json
import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import acting
import numpy as np
import running
from results import write

from swirl import durable
from swirl.agents import measures, settings
from swirl.agents.arena import WorldArena
from swirl.compare import provenance
from swirl.compare.reading import Curve, Reading

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
    # What is asked for in the form of self-play needs no plain replies.
    "spa-states": Row("SPA, states told in replies", {}, EIGHT | {"rl.form": "states", "self_play.rehearse": "false"}),
    "imagined": Row("RL in the learned model", {}, RL | EIGHT | {"rl.model": MODEL}, ("sokoban",)),
    "cloned": Row("cloning the solver, all actions given", {}, CLONE, ("sokoban",)),
    "cloned-inferred": Row(
        "cloning the solver, actions inferred from 400 labels", {}, {**CLONE, "clone.inverse": MODEL}, ("sokoban",)
    ),
}
PASSED = {
    "Pass@1": ("real", "pass_at_1", 1),
    "Pass@8": ("real", "pass_at_1", 8),
    "Pass@64": ("real", "pass_at_1", 64),
    "greedy": ("real", "greedy_pass_at_1", 1),
    "Pass@1 in the model": ("imagined", "pass_at_1", 1),
}
"""Columns of a table that have intervals: of which arena and metric, and of how many tries."""
SHARES = {"prediction_exact": "prediction right", "effective_actions": "effective actions"}
"""Columns that have none, per cent."""
BASE = _paper("16.3/47.3", "17.2/49.2", "1.6/11.3")
WORLDS = ("sokoban", "frozenlake", "sudoku")


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
    out, error = acting.start(world, seed, runs)
    if error:
        return {}, error
    made = {START: str(out / json.loads((out / "results.json").read_text())["policy"])}
    if MODEL in needed:
        learned, error = acting.learn(world, seed, out, runs)
        made[MODEL] = str(learned)
    if DEMONSTRATIONS in needed and not error:
        recording = runs / "agents" / world / f"solver-seed{seed}.parquet"
        # Of a seed of its own: the recordings of learned models begin with the world's first.
        words = ["collect", world, "--behaviour", "solver", "--transitions", str(DEMONSTRATED), *acting.options(world)]
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
    keep = ("iteration", "steps", "success", "entropy", "reply_tokens", "repeated_replies")
    keep += ("validation_pass_at_1", "validation_successes", "validation_samples")
    arena = WorldArena(spec.play.world, spec.play.options, spec.evaluation.seeds)
    facts = {
        "commit": commit,
        "machine": provenance.machine(spec.device, spec.threads),
        "versions": provenance.versions(),
        "recipe": spec.toml(),
        "start": hashlib.sha256((Path(made[START]) / "model.safetensors").read_bytes()).hexdigest(),
        "seconds_cpu": sum(phase["seconds_cpu"] for phase in phases if phase["name"] != "test"),
        "layouts": [arena.layout(one) for one in arena.tested()],
        "results": json.loads((out / "results.json").read_text()),
        "curve": [{key: line[key] for key in keep if key in line} for line in curve],
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    durable.atomic_write(kept, json.dumps(facts) + "\n")
    return ""


def _spec(world: str, row: str, seed: int) -> settings.AgentRecipe:
    return settings.load(acting.recipe_of(world), _given(row, seed))


def _given(row: str, seed: int) -> dict[str, str]:
    return {"seed": str(seed), **ROWS[row].overrides}


def _kept(world: str, row: str, seed: int) -> Path:
    return KEPT / world / f"{row}-seed{seed}.json"


def _asked(world: str, row: str, seed: int) -> tuple[Path, str]:
    """The kept file of a run, and its recipe."""
    return _kept(world, row, seed), _spec(world, row, seed).toml()


def _train(world: str, given: Mapping[str, str], out: Path) -> str:
    return running.swirl(["agent", "train", str(acting.recipe_of(world))], given, out)


def table(world: str) -> str:
    """The table of a world, of what is kept, and by how much rows differ."""
    rows = {
        row: running.kept({seed: _asked(world, row, seed) for seed in running.SEEDS})
        for row in ROWS
        if _has(world, row)
    }
    taken = [steps for by_seed in rows.values() for facts in by_seed.values() if (steps := _steps(facts))]
    if not any(rows.values()):
        return running.NOT_YET
    budget = min(taken, default=0)
    at = f"Pass@1 at {budget:,} actions"
    lines = [["", "paper", *PASSED, *SHARES.values(), at, "CPU min", "seeds"]]
    if rows["spa"]:
        lines.append(["base", BASE[world], *_cells(rows["spa"], "base")])
        lines.append(["after self-play and SFT", "", *_cells(rows["spa"], "tune")])
        lines.append(["the world's solver", "", *_cells(rows["spa"], "solver")])
    if rows["vanilla"]:
        lines.append(["base, without coordinates", "", *_cells(rows["vanilla"], "base")])
    lines += [
        [ROWS[row].name, ROWS[row].paper.get(world, ""), *_cells(by_seed, _last(row), budget)]
        for row, by_seed in rows.items()
        if by_seed
    ]
    apart = [["", "less", "Pass@1", "Pass@8", at, "seeds"], *_differences(rows, budget)]
    text = running.not_run({ROWS[row].name: by_seed for row, by_seed in rows.items()}) + _mixed(rows)
    text += running.markdown(lines)
    return f"{text}\nDifferences, paired by seed and layout:\n\n{running.markdown(apart)}" if apart[1:] else text


def _has(world: str, row: str) -> bool:
    """Whether a row is run in a world."""
    return not ROWS[row].only or world in ROWS[row].only


Kept = Mapping[int, dict[str, Any]]
"""What is kept of a row, by seed."""


def _mixed(rows: Mapping[str, Kept]) -> str:
    """A line on the seeds whose rows do not all begin with one policy; "" where there are none."""
    starts: dict[int, set[str]] = {}
    for by_seed in rows.values():
        for seed, facts in by_seed.items():
            starts.setdefault(seed, set()).add(facts["start"])
    mixed = [str(seed) for seed in sorted(starts) if len(starts[seed]) > 1]
    if not mixed:
        return ""
    return (
        f"In seed{'s' * (len(mixed) > 1)} {', '.join(mixed)} not all rows begin with one policy: it was trained anew, "
        "on another machine or by other code, and differences are also those of the starts.\n\n"
    )


def _cells(by_seed: Kept, policy: str, budget: int | None = None) -> list[str]:
    """A line of the table, of the policies that a stage made; with a budget of those that runs ended with."""
    passed = [running.interval(_passed(by_seed, policy, *of)) for of in PASSED.values()]
    shares = [
        running.mean([v for facts in by_seed.values() if (v := _share(facts, policy, name)) is not None])
        for name in SHARES
    ]
    ended = [] if budget is None else [facts["seconds_cpu"] for facts in by_seed.values()]
    return [
        *passed,
        *shares,
        "" if budget is None else running.interval(_at(by_seed, budget)),
        running.mean(ended, 1 / 60),
        str(len(by_seed)),
    ]


def _differences(rows: Mapping[str, Kept], budget: int) -> list[list[str]]:
    """By how much every row is above SPA, and reinforcement learning with coordinates above that without."""
    lines = []
    for row, other in [*((row, "spa") for row in rows if row != "spa"), ("state-estimation", "vanilla")]:
        both = [(rows[name], _last(name)) for name in (row, other)]
        cells = [running.interval(*(_passed(*one, *PASSED[title]) for one in both)) for title in ("Pass@1", "Pass@8")]
        at = running.interval(*(_at(by_seed, budget) for by_seed, _ in both))
        if common := rows[row].keys() & rows[other].keys():
            lines.append([ROWS[row].name, ROWS[other].name, *cells, at, str(len(common))])
    return lines


def _last(row: str) -> str:
    """The policy that a row's run ends with."""
    return "clone" if ROWS[row].overrides.get("method") == "clone" else "rl"


def _passed(by_seed: Kept, policy: str, arena: str, metric: str, k: int) -> dict[int, Reading]:
    """Pass@k of a policy, by seed, where it was tried so often; see `PASSED`."""
    found = {seed: _row(facts, policy, metric, arena) for seed, facts in by_seed.items()}
    return {
        seed: _reading(row["successes"], row["samples"], by_seed[seed], k)
        for seed, row in found.items()
        if row and row["samples"] >= k
    }


def _reading(successes: Sequence[int], samples: int, facts: Mapping[str, Any], k: int = 1) -> Reading:
    """Pass@k of the successes of each seed of validation."""
    return running.by_layout([measures.pass_at_k(samples, won, k) for won in successes], facts["layouts"])


def _share(facts: Mapping[str, Any], policy: str, metric: str) -> float | None:
    """A metric of a policy in the world itself; how often it predicts right is read where it was asked for states."""
    row = _row(facts, policy, metric, "real", "states" if metric == "prediction_exact" else "")
    return row and row["value"]


def _row(facts: Mapping[str, Any], policy: str, metric: str, arena: str, form: str = "") -> dict[str, Any] | None:
    """A row of a run's results; by default in the form of reply that reinforcement learning has."""
    form = form or tomllib.loads(facts["recipe"])["rl"]["form"]
    asked = {"policy": policy, "metric": metric, "arena": arena, "form": form}
    return next((row for row in facts["results"]["rows"] if row | asked == row), None)


def _steps(facts: Mapping[str, Any]) -> int:
    """Actions in the world that a run took before its end, those of self-play among them."""
    return sum(facts["results"]["steps"].values())


def _at(by_seed: Kept, budget: int) -> dict[int, Reading]:
    """Pass@1 where runs had taken so many actions, by seed; of those that took some."""
    return {seed: _curve(facts).at(budget) for seed, facts in by_seed.items() if _steps(facts)}


def _curve(facts: Mapping[str, Any]) -> Curve:
    """Pass@1 by the actions taken: at the start, after self-play, at every validation, and of the test at the end."""
    stages = {"base": 0, "tune": facts["results"]["steps"]["self-play"]}
    known = [(taken, row) for policy, taken in stages.items() if (row := _row(facts, policy, "pass_at_1", "real"))]
    points = [(taken, _reading(row["successes"], row["samples"], facts)) for taken, row in known]
    taken = stages["tune"]
    for line in facts["curve"][:-1]:
        taken += line["steps"]
        if "validation_successes" in line:
            points.append((taken, _reading(line["validation_successes"], line["validation_samples"], facts)))
    [end] = _passed({0: facts}, "rl", *PASSED["Pass@1"]).values()
    cost, readings = zip(*points, (_steps(facts), end), strict=True)
    return Curve(np.array(cost), list(readings))


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
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--only", nargs="*", choices=WORLDS, default=WORLDS)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=running.SEEDS)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="only write the tables")
    a = parser.parse_args(words)
    asked = [(world, row, seed) for seed in a.seeds for world in a.only for row in a.rows if _has(world, row)]
    todo, failed = running.missing({one: _asked(*one) for one in asked})
    if not a.table:
        failed += carry_out(todo, a.runs, a.processes)
    for world in a.only:
        write(PAGE, f"agents-{world}", table(world))
    print("\n".join(failed), end="\n" * bool(failed))
    return int(bool(failed))


if __name__ == "__main__":
    running.finish(main)
