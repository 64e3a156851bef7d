"""The published tables: every recipe and seed, from collection to the test part, into docs/results.md.

    make results                                         everything that is not finished yet
    python benchmarks/results.py --only minigrid --seeds 0,1

A cell is one `swirl train` in a process of its own; a finished one is skipped, an interrupted one continues. What a
cell measured is kept in benchmarks/results/ as JSON, and the tables are made from those files alone.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "results"
CELLS = {
    # name in the table: recipe, overrides
    "minigrid": ("minigrid", {}),
    "minigrid-published": ("minigrid-published", {}),
    "minigrid-elbo": ("minigrid-published", {"swirl.setting": "elbo"}),
    "minigrid-anchored": ("minigrid-anchored", {}),
    "minigrid-plain-warmup": ("minigrid", {"methods": '["warmup"]', "warmup.steps": "600"}),
    "minigrid-oracle": ("minigrid-oracle", {}),
}
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
    # One thread per process: two processes of one thread beat one of two.
    command = [sys.executable, "-m", "swirl.cli", "train", f"recipes/{recipe}.toml", "--seed", str(seed)]
    command += ["--out", str(out), "--cache", str(runs / "cache"), "--threads", "1"]
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


def table() -> str:
    """Markdown: one row per cell and stage, mean and range over seeds."""
    lines = ["| run | stage | seeds | CPU s | " + " | ".join(title for *_, title in COLUMNS) + " |"]
    lines.append("|---|---|---|---|" + "---|" * len(COLUMNS))
    for name in CELLS:
        found = [json.loads(path.read_text()) for path in sorted(KEPT.glob(f"{name}-seed*.json"))]
        stages = dict.fromkeys(r["phase"] for facts in found for r in facts["rows"] if r["split"] == "test")
        for stage in stages:
            spent = (
                ""
                if stage in ("copy-input", "majority-action")
                else f"{np.mean([_spent(f, stage) for f in found]):.0f}"
            )
            cells = [_cell(found, stage, role, metric) for role, metric, _ in COLUMNS]
            lines.append(f"| {name} | {stage} | {len(found)} | {spent} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _spent(facts: dict, stage: str) -> float:
    """CPU seconds of all phases up to and including a stage; the test is not counted."""
    names = list(facts["cpu_seconds"])
    mine = [i for i, name in enumerate(names) if name.startswith(stage)]
    return sum(facts["cpu_seconds"][name] for name in names[: (mine[-1] + 1) if mine else 0])


def _cell(found: list[dict], stage: str, role: str, metric: str) -> str:
    """Mean and range over seeds of a test metric."""
    key = (stage, role, metric)
    values = [
        r["value"]
        for f in found
        for r in f["rows"]
        if r["split"] == "test" and (r["phase"], r["role"], r["metric"]) == key
    ]
    if not values:
        return ""
    return f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def main() -> int:
    """Run what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--only", nargs="*", choices=CELLS, default=list(CELLS))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="only write the tables")
    a = parser.parse_args()
    failed = False
    if not a.table:
        cells = [(name, int(seed)) for name in a.only for seed in a.seeds.split(",")]
        with ThreadPoolExecutor(a.processes) as pool:
            for line in pool.map(lambda cell: run(*cell, a.runs), cells):
                print(line, flush=True)
                failed |= "failed" in line
    for page in (ROOT / "docs" / "results.md", ROOT / "README.md"):
        text = page.read_text(encoding="utf-8")
        before, _, rest = text.partition("<!-- results:begin -->")
        _, _, after = rest.partition("<!-- results:end -->")
        page.write_text(f"{before}<!-- results:begin -->\n\n{table()}\n<!-- results:end -->{after}", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
