"""The published tables: every recipe and seed, from collection to the test part, into docs/results.md.

    make results                                         everything that is not finished yet
    python benchmarks/results.py --only minigrid --seeds 0,1

A cell is one `swirl train` in a process of its own; a finished one is skipped, an interrupted one continues. What a
cell measured is kept in benchmarks/results/ as JSON, and the tables are made from those files alone. Those of
`COMPARED` are comparisons, as by `swirl compare`, whose files are in a folder of their own.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from swirl.compare import comparison, summary
from swirl.compare.cells import Place
from swirl.metrics import HEADLINE
from swirl.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "results"
BASELINES = ("copy-input", "majority-action")

CELLS = {
    # name in the table: recipe, overrides
    "minigrid": ("minigrid", {}),
    "minigrid-published": ("minigrid-published", {}),
    "minigrid-elbo": ("minigrid-published", {"swirl.setting": "elbo"}),
    "minigrid-anchored": ("minigrid-anchored", {}),
    "minigrid-plain-warmup": ("minigrid", {"methods": '["warmup"]', "warmup.steps": "600"}),
    "minigrid-oracle": ("minigrid-oracle", {}),
}
COMPARED = {
    # mark of the table in docs/results.md and folder of its files: recipe, methods beside its own, seeds
    "scienceworld": ("scienceworld", ("warmup",), (0,)),
}
PAGES = (
    # page, mark of its table, runs in it
    ("docs/results.md", "results", tuple(CELLS)),
    ("README.md", "results", ("minigrid",)),
)
COLUMNS = (
    ("forward", "exact_match_changed", "next state, exact"),
    ("forward", "changed_facts_f1", "changed facts F1"),
    ("forward", "false_change_rate", "false changes"),
    ("inverse", "action_exact_match_changed", "action, exact"),
    ("both", "cycle_exact_match_changed", "cycle"),
)


def run(name: str, seed: int, runs: Path) -> str:
    """Train one cell and keep what it measured; returns a line on how it went."""
    kept = KEPT / f"{name}-seed{seed}.json"
    if kept.is_file():
        return f"{kept.name}: kept from before"
    recipe, overrides = CELLS[name]
    out = runs / f"{name}-seed{seed}"
    command = [sys.executable, "-m", "swirl.cli", "train", f"recipes/{recipe}.toml", "--seed", str(seed)]
    command += ["--out", str(out), "--cache", str(runs / "cache")]
    command += [word for key, value in overrides.items() for word in (f"--{key}", value)]
    runs.mkdir(parents=True, exist_ok=True)
    # Before the run: what is committed while it runs is not what ran.
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    with (runs / f"{name}-seed{seed}.log").open("a") as log:
        done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        return f"{name} seed {seed}: failed with exit code {done.returncode}, see {runs}/{name}-seed{seed}.log"
    ledger = json.loads((out / "ledger.json").read_text())
    facts = {
        "recipe": recipe,
        "overrides": overrides,
        "seed": seed,
        "commit": commit.stdout.strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, 1 thread",
        "cpu_seconds": {phase["name"]: round(phase["seconds_cpu"], 1) for phase in ledger["phases"]},
        **json.loads((out / "results.json").read_text()),
    }
    KEPT.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(facts, indent=1) + "\n")
    return f"{kept.name}: done"


def tables(runs: Sequence[str] = tuple(CELLS)) -> str:
    """Markdown: one row per run and stage, mean and range over seeds; then each run's gain over its own warm-up."""
    found = {name: [json.loads(path.read_text()) for path in sorted(KEPT.glob(f"{name}-seed*.json"))] for name in CELLS}
    found = {name: cells for name, cells in found.items() if cells}
    if not found:
        raise SystemExit(f"{KEPT} holds no finished run; the tables are left as they are")
    stages = [["run", "stage", "seeds", "CPU s", *(title for *_, title in COLUMNS)]]
    for name, cells in found.items():
        if name not in runs:
            continue
        for stage in dict.fromkeys(r["phase"] for facts in cells for r in facts["rows"] if r["split"] == "test"):
            spent = "" if stage in BASELINES else f"{np.mean([_spent(facts, stage) for facts in cells]):.0f}"
            values = [_summary([_test(facts, stage, *column[:2]) for facts in cells]) for column in COLUMNS]
            stages.append([name, stage, str(len(cells)), spent, *values])
    gains = [["run", "seeds", *(f"{role}: {what}" for role in HEADLINE for what in ("better", "gain", "gap closed"))]]
    for name, cells in found.items():
        last = cells[0]["rows"][-1]["phase"]
        oracles = {facts["seed"]: facts for facts in found.get(f"{name.partition('-')[0]}-oracle", [])}
        if name in runs and last not in ("warmup", *BASELINES):
            gains.append([name, str(len(cells)), *(x for role in HEADLINE for x in _gain(cells, last, role, oracles))])
    return _markdown(stages) + ("\n" + _markdown(gains) if len(gains) > 1 else "")


def _gain(cells: list[dict], stage: str, role: str, oracles: dict[int, dict]) -> list[str]:
    """Seeds in which a role ends above its warm-up, its mean gain, and the share of the oracle's that it is."""
    pairs = [(_test(f, "warmup", role, HEADLINE[role]), _test(f, stage, role, HEADLINE[role]), f) for f in cells]
    gains = [after - before for before, after, _ in pairs]
    bounds = [
        (after - before) / (_test(oracles[facts["seed"]], "warmup", role, HEADLINE[role]) - before)
        for before, after, facts in pairs
        if facts["seed"] in oracles
    ]
    fewer = f", {len(bounds)} of {len(gains)} seeds" if 0 < len(bounds) < len(gains) else ""
    return [f"{sum(gain > 0 for gain in gains)} of {len(gains)}", _summary(gains), _summary(bounds) + fewer]


def _spent(facts: dict, stage: str) -> float:
    """CPU seconds of all phases up to and including a stage; the test is not counted."""
    names = list(facts["cpu_seconds"])
    mine = [i for i, name in enumerate(names) if name.startswith(stage)]
    return sum(facts["cpu_seconds"][name] for name in names[: (mine[-1] + 1) if mine else 0])


def _test(facts: dict, stage: str, role: str, metric: str) -> float | None:
    """A metric on the test part."""
    key = ("test", stage, role, metric)
    return next((r["value"] for r in facts["rows"] if (r["split"], r["phase"], r["role"], r["metric"]) == key), None)


def _summary(values: list[float | None]) -> str:
    """Mean and range of what there is."""
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.3f} ({min(known):.3f}–{max(known):.3f})" if known else ""


def _markdown(rows: list[list[str]]) -> str:
    """A table, without the columns that are empty."""
    known = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    head, *body = ["| " + " | ".join(row[i] for i in known) + " |\n" for row in rows]
    return head + "|---" * len(known) + "|\n" + "".join(body)


def compared(name: str, runs: Path, processes: int) -> tuple[str, list[str]]:
    """The table of a comparison, and a line per run that failed; `processes` 0: only the table."""
    recipe, methods, seeds = COMPARED[name]
    plan = comparison.Plan(load_recipe(ROOT / "recipes" / f"{recipe}.toml"), methods, seeds)
    place = Place(runs / name, KEPT / name, runs / "cache")
    failed = comparison.run(plan, place, processes) if processes else []
    return summary.text(comparison.write(plan, place, runs / name)), failed


def write(page: str, mark: str, text: str) -> None:
    """Put a table between its marks."""
    before, begin, rest = (ROOT / page).read_text(encoding="utf-8").partition(f"<!-- {mark}:begin -->")
    _, end, after = rest.partition(f"<!-- {mark}:end -->")
    (ROOT / page).write_text(f"{before}{begin}\n\n{text}\n{end}{after}", encoding="utf-8")


def main() -> int:
    """Run what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--only", nargs="*", choices=[*CELLS, *COMPARED], default=[*CELLS, *COMPARED])
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="only write the tables")
    a = parser.parse_args()
    failed: list[str] = []
    if not a.table:
        cells = [(name, int(seed)) for name in a.only if name in CELLS for seed in a.seeds.split(",")]
        with ThreadPoolExecutor(a.processes) as pool:
            for line in pool.map(lambda cell: run(*cell, a.runs), cells):
                print(line, flush=True)
                failed += [line] if "failed" in line else []
    for page, mark, runs in PAGES:
        write(page, mark, tables(runs))
    for name in a.only:
        if name in COMPARED:
            text, lines = compared(name, a.runs, 0 if a.table else a.processes)
            print("\n".join(lines), end="\n" * bool(lines))
            write("docs/results.md", name, text)
            failed += lines
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
