"""The table at the end of a run, made from `results.json` alone."""

from pathlib import Path
from typing import Any

from swirl import progress
from swirl.metrics import HEADLINE

COLUMNS = (
    ("forward", "exact_match_changed", "next state, exact"),
    ("forward", "changed_facts_f1", "changed facts F1"),
    ("forward", "false_change_rate", "false changes"),
    ("forward", "nll_per_token", "forward NLL/token"),
    ("inverse", "action_exact_match_changed", "action, exact"),
    ("inverse", "nll_changed", "inverse NLL"),
    ("both", "cycle_exact_match_changed", "cycle"),
)
OVER = "false changes: of unchanged transitions; forward NLL/token: of all; the others: of changed ones"
"""What the columns are over."""


def show(results: dict[str, Any], folder: Path) -> None:
    """Print validation by phase and the test, forward and inverse."""
    for split in ("validation", "test"):
        rows = [row for row in results["rows"] if row["split"] == split]
        if rows:
            progress.table(f"{split.capitalize()} ({OVER})", *_cells(rows))
    for alarm in results["alarms"]:
        print(f"alarm: {alarm}")
    print(
        f"forward {folder / results['forward']}\ninverse {folder / results['inverse']}\nresults {folder}/results.json"
    )


def _cells(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    found = {(row["phase"], row["role"], row["metric"]): row for row in rows}
    table = []
    for phase in phases:
        cells = [found.get((phase, role, metric)) for role, metric, _ in COLUMNS]
        table.append([phase, *(cell(row) for row in cells)])
    return ["phase", *(title for _, _, title in COLUMNS)], table


def cell(row: dict[str, Any] | None) -> str:
    """A metric and its interval in words; "" where there is none."""
    if row is None:
        return ""
    if row["low"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def shortfalls(results: dict[str, Any]) -> list[str]:
    """A line for each role that does not end above its warm-up on the test part, with both numbers.

    What a role ends with is the checkpoint of the last method; verification at test time (`best-of-N`) is none.
    """
    lines = []
    for role, metric in HEADLINE.items():
        values = {
            r["phase"]: r["value"]
            for r in results["rows"]
            if r["split"] == "test" and (r["role"], r["metric"]) == (role, metric)
            if not r["phase"].startswith("best-of-")
        }
        last = list(values)[-1] if values else ""
        if "warmup" not in values:
            lines.append(f"whether the {role} model gained cannot be told: no test of it after the method warmup")
        elif values[last] <= values["warmup"]:
            ends, began = f"{values[last]:.4f} after {last}", f"{values['warmup']:.4f} after warmup"
            lines.append(f"the {role} model did not gain: its {metric} on the test part is {ends}, and was {began}")
    return lines
