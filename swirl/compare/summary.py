"""`results.json` of a comparison and its tables, which are made from it alone."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from swirl import progress
from swirl.compare import reading
from swirl.compare.kept import BASELINES
from swirl.compare.reading import NET, SCORE
from swirl.compare.variants import UNLIMITED
from swirl.types import ROLES, Role

UNITS = ("cpu_seconds", "tokens")
METRICS: dict[Role, tuple[str, ...]] = {
    "forward": (NET, "exact_match_changed", "false_change_rate", "changed_facts_f1", "rouge_l", "bert_score"),
    "inverse": ("action_exact_match_changed",),
}
TITLES = {
    NET: "next state, net",
    "exact_match_changed": "exact on changed",
    "changed_facts_f1": "changed facts F1",
    "false_change_rate": "false changes",
    "rouge_l": "ROUGE-L",
    "bert_score": "BERTScore",
    "action_exact_match_changed": "action, exact",
}
GAPS = (NET, "exact_match_changed", "changed_facts_f1", "action_exact_match_changed")
"""Metrics of which a share of the oracle's gain is told; of false changes it has none to gain."""
Rows = list[dict[str, Any]]


def summarise(cells: reading.Cells, reference: str) -> Rows:
    """Every figure of a comparison.

    Args:
        cells: Kept files, by method and seed.
        reference: The method that sets the budget, and with which the others are compared.

    Returns:
        Rows {"method", "role", "metric", "unit", "statistic", "value", "low", "high", "seeds"}; the statistic is
        `value`, `difference` (to the reference), `gap_closed`, or `cost`: what a method had spent where it is read,
        seconds or tokens, mean over seeds. A gap has no interval where the oracle's own gain is not certain.
    """
    cells = reading.entries(cells)
    rows = _costs(cells, reference)
    for role, metrics in METRICS.items():
        for metric in metrics:
            first = next(iter(cells[reference].values()))
            counts = reading.counts(first, role, metric)
            for unit in UNITS if len(counts) else ():
                found = reading.readings(cells, reference, role, metric, unit)
                common = {"role": role, "metric": metric, "unit": unit}
                rows += [{**common, **row} for row in _statistics(found, reference, counts, metric)]
    return rows


def _costs(cells: reading.Cells, reference: str) -> Rows:
    rows: Rows = []
    for unit in UNITS:
        warm = [reading.warmed(cell, unit) for cell in cells[reference].values()]
        rows.append(_cost("warmup", unit, warm))
        for method, by_seed in cells.items():
            if method == "warmup":
                continue
            spent = [
                reading.spent(cell, unit)
                if method in UNLIMITED
                else min(reading.spent(cell, unit), reading.spent(cells[reference][seed], unit))
                for seed, cell in by_seed.items()
                if seed in cells[reference]
            ]
            rows += [_cost(method, unit, spent)] if spent else []
    return rows


def _cost(method: str, unit: str, spent: Sequence[float]) -> dict[str, Any]:
    facts = {"value": float(np.mean(spent)), "low": None, "high": None, "seeds": len(spent)}
    return {"role": "both", "metric": "cost", "unit": unit, "method": method, "statistic": "cost", **facts}


def _statistics(found: dict[str, dict[int, np.ndarray]], reference: str, counts: np.ndarray, metric: str) -> Rows:
    rows: Rows = []

    def add(method: str, statistic: str, estimate: reading.Estimate | None) -> None:
        if estimate:
            rows.append({"method": method, "statistic": statistic, **estimate._asdict()})

    least = -1.0 if metric in reading.PARTS else 0.0
    gain = "oracle" in found and reading.estimate(reading.difference, [found["oracle"], found["warmup"]], counts)
    for method, sums in found.items():
        value = reading.estimate(lambda mean: mean, [sums], counts)
        # A wide interval over few seeds says nothing of values that a metric cannot have.
        add(method, "value", value and value._replace(low=max(value.low, least), high=min(value.high, 1.0)))
        if method not in (reference, *BASELINES):
            add(method, "difference", reading.estimate(reading.difference, [sums, found[reference]], counts))
        if gain and metric in GAPS and method not in ("warmup", "oracle", *BASELINES):
            bounds = [sums, found["warmup"], found["oracle"]]
            closed = reading.estimate(reading.gap_closed, bounds, counts)
            if closed and gain.low <= 0:
                closed = closed._replace(low=None, high=None)
            add(method, "gap_closed", closed)
    return rows


def rewarded(cells: reading.Cells) -> Rows:
    """Reward and held-out quality side by side: what phases with a reward made of both, means over seeds.

    Returns:
        Rows {"method", "phase", "role", "seeds", "first", "last", "before", "after"}: the reward in the first and in
        the last tenth of the phase, and the role's score on the test part before and after it.
    """
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for method, by_seed in cells.items():
        for cell in by_seed.values():
            for role in ROLES:
                curve = reading.curve(cell, role, SCORE[role], "cpu_seconds")
                phases = [p["phase"] for p in cell["points"] if p["role"] == role and "cpu_seconds" in p]
                for phase, (before, after) in zip(phases[1:], pairwise(curve.values() if curve else ()), strict=True):
                    if phase in cell["rewards"]:
                        row = {**cell["rewards"][phase], "before": before, "after": after}
                        found.setdefault((method, phase, role), []).append(row)
    return [
        {"method": method, "phase": phase, "role": role, "seeds": len(rows)}
        | {name: float(np.mean([row[name] for row in rows])) for name in ("first", "last", "before", "after")}
        for (method, phase, role), rows in found.items()
    ]


COSTS = {"cpu_seconds": "CPU s", "tokens": "tokens"}
HEADS = {"cpu_seconds": "At equal CPU seconds", "tokens": "At equal tokens of training"}


def tables(results: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Every table by its title: methods at the reference's CPU seconds and at its tokens, or by what was varied."""
    if results["vary"]:
        return {f"By {results['vary']}: {lines[0][0]}": lines for lines in varied(results)}
    found: dict[str, list[list[str]]] = {}
    for unit in UNITS:
        found[HEADS[unit]] = table(results, unit)
        found[f"{HEADS[unit]}, less `{results['reference']}`"] = compared(results, unit, "difference")
        gaps = compared(results, unit, "gap_closed")
        found |= {f"{HEADS[unit]}, gap closed": gaps} if len(gaps) > 1 else {}
    return found | _rewards(results["rewards"]) | _tried(results["tried"])


def _tried(rows: Rows) -> dict[str, list[list[str]]]:
    """What learning rates scored; where the best is the first or the last of them, a better one may lie beyond."""
    rates = sorted({row["learning_rate"] for row in rows})
    score = {(row["method"], row["learning_rate"]): row["score"] for row in rows}
    lines = [["method", *(f"{rate:g}" for rate in rates), ""]]
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [score.get((method, rate)) for rate in rates]
        known = [value for value in mine if value is not None]
        edge = max(known) in (mine[0], mine[-1]) and len(rates) > 1
        values = ("" if value is None else f"{value:.3f}" for value in mine)
        lines.append([f"`{method}`", *values, "best at the edge" * edge])
    return {"Learning rates on the tuning seed, both scores added up": lines} if rows else {}


def _rewards(rows: Rows) -> dict[str, list[list[str]]]:
    lines = [["method", "phase", "seeds", "reward, first tenth", "last tenth", "score, before", "after"]]
    for row in rows:
        values = [f"{row[name]:.3f}" for name in ("first", "last", "before", "after")]
        lines.append([f"`{row['method']}`", row["phase"], str(row["seeds"]), *values])
    return {"Reward beside held-out quality, by phase": lines} if rows else {}


def show(results: dict[str, Any], out: Path) -> None:
    """Print the tables, and where the rest is."""
    for title, (columns, *rows) in tables(results).items():
        progress.table(title, columns, rows)
    print(f"report {out}/report.html\nresults {out}/results.json")


def told(results: dict[str, Any]) -> str:
    """What the tables are of, in a few sentences."""
    seeds, tuned = ", ".join(map(str, results["seeds"])), results["tuning_seed"]
    rates = "learning rates of the recipe" if tuned is None else f"learning rates chosen on seed {tuned}"
    bounds = ", `oracle` at its end" if "oracle" in results["methods"] else ""
    return (
        f"Seeds {seeds}; {rates}. Every method is read where it has spent what `{results['reference']}` "
        f"spends{bounds}. In brackets: 95 % intervals by bootstrap over seeds and test layouts; differences "
        "are paired. Net: the exact matches where something changed less the false changes where nothing did, shares."
    )


def text(results: dict[str, Any], brief: bool = False) -> str:
    """The tables in Markdown; in brief, those at equal CPU seconds alone."""
    found = tables(results)
    shown = [title for title in found if not brief or title.startswith(HEADS["cpu_seconds"])]
    parts = [f"{title}:\n\n{markdown(found[title])}" for title in shown]
    return "\n".join([f"{told(results)}\n", *parts])


def table(results: dict[str, Any], unit: str) -> list[list[str]]:
    """A row per method, below a row of titles."""
    rows = [row for row in results["rows"] if row["unit"] == unit]
    cells = {(r["method"], r["role"], r["metric"], r["statistic"]): r for r in rows}
    known = list(dict.fromkeys(row["method"] for row in rows))
    columns = [
        (role, metric, "value", TITLES[metric])
        for role in ROLES
        for metric in METRICS[role]
        if any(key[1:3] == (role, metric) for key in cells)
    ]
    lines = [["method", "seeds", "learning rate", COSTS[unit], *(title for *_, title in columns)]]
    for method in _in_order(known, results["methods"]):
        mine = [cells.get((method, *column[:3])) for column in columns]
        seeds = max(row["seeds"] for row in rows if row["method"] == method)
        rate = results["learning_rates"].get(method)
        spent = cells.get((method, "both", "cost", "cost"))
        begin = [f"`{method}`", str(seeds), f"{rate:g}" if rate else "", f"{spent['value']:.0f}" if spent else ""]
        lines.append([*begin, *(_cell(row, seeds) for row in mine)])
    return lines


def compared(results: dict[str, Any], unit: str, statistic: str) -> list[list[str]]:
    """Differences to the reference, or gaps closed, of every metric that has them; a row per method."""
    rows = [row for row in results["rows"] if row["unit"] == unit and row["statistic"] == statistic]
    cells = {(row["method"], row["role"], row["metric"]): row for row in rows}
    columns = [
        (role, metric) for role in ROLES for metric in METRICS[role] if any(k[1:] == (role, metric) for k in cells)
    ]
    lines = [["method", *(TITLES[metric] for _, metric in columns)]]
    for method in _in_order(list(dict.fromkeys(row["method"] for row in rows)), results["methods"]):
        mine = [cells.get((method, *column)) for column in columns]
        lines.append([f"`{method}`", *(_cell(row, len(results["seeds"])) for row in mine)])
    return lines


def _in_order(known: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Baselines, the warm-up, the methods as asked for, the oracle."""
    last = [name for name in ("oracle",) if name in known]
    rest = [name for name in known if name not in last]
    first = [name for name in (*BASELINES, "warmup") if name in rest]
    middle = [name for name in asked if name in rest and name not in first]
    others = [name for name in rest if name not in (*first, *middle)]
    return [*first, *others, *middle, *last]


def _cell(row: dict[str, Any] | None, seeds: int) -> str:
    if row is None:
        return ""
    sign = "+" if row["statistic"] == "difference" else ""
    fewer = f", {row['seeds']} of {seeds} seeds" if row["seeds"] < seeds else ""
    if row["low"] is None:
        return f"{row['value']:{sign}.3f} (the oracle's gain is uncertain){fewer}"
    return f"{row['value']:{sign}.3f} [{row['low']:{sign}.3f}, {row['high']:{sign}.3f}]{fewer}"


def scores(rows: Rows, role: Role) -> Rows:
    """What every method scores at equal CPU seconds."""
    asked = {"role": role, "metric": SCORE[role], "unit": "cpu_seconds", "statistic": "value"}
    return [row for row in rows if all(row[key] == value for key, value in asked.items())]


def varied(results: dict[str, Any]) -> list[list[list[str]]]:
    """The score of every method at every value of what was varied, a table per role."""
    parts = []
    for role in ROLES:
        rows = scores(results["rows"], role)
        if not rows:
            continue
        values = list(dict.fromkeys(row["at"] for row in rows))
        cells = {(row["method"], row["at"]): row for row in rows}
        methods = _in_order(list(dict.fromkeys(row["method"] for row in rows)), results["methods"])
        lines = [[f"{TITLES[SCORE[role]]}, by `{results['vary']}`", *map(str, values)]]
        seeds = max(row["seeds"] for row in rows)
        lines += [
            [f"`{method}`", *(_cell(cells.get((method, value)), seeds) for value in values)] for method in methods
        ]
        parts.append(lines)
    return parts


def markdown(rows: list[list[str]]) -> str:
    """A table, without the columns that are empty."""
    known = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    head, *body = ["| " + " | ".join(row[i] for i in known) + " |\n" for row in rows]
    return head + "|---" * len(known) + "|\n" + "".join(body)
