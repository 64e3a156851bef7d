"""The tables of a comparison, made from `results.json` alone."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swirl import progress
from swirl.compare.kept import BASELINES
from swirl.compare.reading import NET, SCORE
from swirl.compare.summary import METRICS, UNITS, Rows
from swirl.types import ROLES, Role

TITLES = {
    NET: "next state, net",
    "exact_match_changed": "exact on changed",
    "changed_facts_f1": "changed facts F1",
    "false_change_rate": "false changes",
    "unreadable_rate": "unreadable",
    "rouge_l": "ROUGE-L",
    "bert_score": "BERTScore",
    "image_changed_f1": "changed region F1",
    "image_psnr_changed": "PSNR on changed, dB",
    "image_psnr_ceiling": "the tokenizer's own, dB",
    "action_exact_match_changed": "action, exact",
}
NEAR = 0.95
"""The share of the budget from which a method counts as having spent it."""
COSTS = {"cpu_seconds": "CPU s", "tokens": "tokens"}
HEADS = {"cpu_seconds": "At equal CPU seconds", "tokens": "At equal tokens of training"}


def tables(results: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Every table by its title: methods at the reference's CPU seconds and at its tokens, or by what was varied."""
    if results["vary"]:
        return varied(results)
    found: dict[str, list[list[str]]] = {}
    for unit in UNITS:
        found[HEADS[unit]] = table(results, unit)
        found[f"{HEADS[unit]}, less `{results['reference']}`"] = compared(results, unit, "difference")
        gaps = compared(results, unit, "gap_closed")
        found |= {f"{HEADS[unit]}, gap closed": gaps} if len(gaps) > 1 else {}
    return found | _rewards(results["rewards"]) | _tried(results["tried"])


def _tried(rows: Rows) -> dict[str, list[list[str]]]:
    """What learning rates scored, and how the best was found where two of them tie.

    Where the best is the first or the last of them a better one may lie beyond. Of two it always is: that says nothing.
    """
    rates = sorted({row["learning_rate"] for row in rows})
    lines = [["method", *(f"{rate:g}" for rate in rates), ""]]
    for method in dict.fromkeys(row["method"] for row in rows):
        known = {row["learning_rate"]: (row["score"], row["facts"]) for row in rows if row["method"] == method}
        best = max(known, key=known.__getitem__)
        tied = [facts for value, facts in known.values() if value == known[best][0]]
        how = "by changed facts F1" if tied.count(max(tied)) == 1 else "given first"
        remarks = [f"tie, {best:g} {how}"] * (len(tied) > 1)
        remarks += ["best at the edge"] * (best in (rates[0], rates[-1]) and len(rates) > 2)
        values = (f"{known[rate][0]:.3f}" if rate in known else "" for rate in rates)
        lines.append([f"`{method}`", *values, "; ".join(remarks)])
    return {"Learning rates on the tuning seed, both scores added up": lines} if rows else {}


def _rewards(rows: Rows) -> dict[str, list[list[str]]]:
    lines = [["method", "phase", "seeds", "reward, first tenth", "last tenth", "score, before", "after"]]
    for row in rows:
        values = [f"{row[name]:.3f}" for name in ("first", "last", "before", "after")]
        lines.append([f"`{row['method']}`", row["phase"], str(row["seeds"]), *values])
    return {"Reward beside held-out quality, by phase": lines} if rows else {}


def show(results: dict[str, Any], out: Path) -> None:
    """Print what a terminal has room for, what speaks against it, and where the rest is."""
    for title, lines in narrow(results).items():
        columns, *rows = filled(lines)
        progress.table(title, columns, rows)
    print(*results["warnings"], f"report {out}/report.html", f"results {out}/results.json", sep="\n")


def narrow(results: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Tables for a terminal, by title: the scores below each other, other metrics without their intervals."""
    by = f", by `{results['vary']}`" if results["vary"] else ""
    found = {
        f"{HEADS[unit]}{by}: {TITLES[SCORE[role]]}": lines
        for role in ROLES
        for unit in UNITS
        if len(lines := _judged(results, unit, role)) > 1
    }
    if results["vary"]:
        return found
    scores = ("seeds", "learning rate", COSTS["cpu_seconds"], *(TITLES[SCORE[role]] for role in ROLES))
    wide = table(results, "cpu_seconds")
    kept = [i for i, title in enumerate(wide[0]) if title not in scores]
    rest = [[re.sub(r" \[.*?\]", "", line[i]) for i in kept] for line in wide if any(line[i] for i in kept[1:])]
    found |= {f"{HEADS['cpu_seconds']}: other metrics": rest} if len(kept) > 1 else {}
    return found | _rewards(results["rewards"]) | _tried(results["tried"])


def _judged(results: dict[str, Any], unit: str, role: Role) -> list[list[str]]:
    """The score of every method and its difference to the reference, a row each; of each value of what varies."""
    rows = [row for statistic in ("value", "difference") for row in scores(results["rows"], role, statistic, unit)]
    cells = {(row["at"], row["method"], row["statistic"]): row for row in rows}
    cost = {
        (row["at"], row["method"]): row for row in results["rows"] if (row["unit"], row["metric"]) == (unit, "cost")
    }
    lines = [["value", "method", COSTS[unit], TITLES[SCORE[role]], f"less `{results['reference']}`"]]
    for at in dict.fromkeys(row["at"] for row in rows):
        for method in _in_order(list(dict.fromkeys(r["method"] for r in rows if r["at"] == at)), results["methods"]):
            mine = (_cell(cells.get((at, method, kind)), len(results["seeds"])) for kind in ("value", "difference"))
            lines.append([at, f"`{method}`", _spent(cost.get((at, method))), *mine])
    return lines


def told(results: dict[str, Any]) -> str:
    """What the tables are of, in a few sentences."""
    seeds, tuned = results["seeds"], results["tuning_seed"]
    rates = "learning rates of the recipe" if tuned is None else f"learning rates chosen on seed {tuned}"
    bounds = "; `oracle` at its end" if "oracle" in results["methods"] else ""
    if len(seeds) == 1:
        drawn = "test layouts, for there is one seed"
    else:
        drawn = "seeds, each with a recording of its own" if results["new_recordings"] else "seeds and test layouts"
    named = f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    words = (
        f"{named}; {rates}. Every method is read where it has spent what `{results['reference']}` spends, or at its "
        f"end where it spent less (a share below {100 * NEAR:g} % stands beside the cost){bounds}. In brackets: 95 % "
        f"intervals by bootstrap over {drawn}; differences are paired. "
        "Net: the exact matches where something changed less the false changes where nothing did, shares."
    )
    return " ".join([words, *results["warnings"]])


def text(results: dict[str, Any], brief: bool = False) -> str:
    """The tables in Markdown; in brief, those at equal CPU seconds alone."""
    found = tables(results)
    shown = [title for title in found if not brief or title.startswith(HEADS["cpu_seconds"])]
    parts = [f"{title}:\n\n{markdown(found[title])}" for title in shown]
    return "\n".join([f"{told(results)}\n", *parts])


def _spent(row: dict[str, Any] | None) -> str:
    """What a method had spent, with its share of the budget where it ended before; a warm-up is read at its own end."""
    if row is None:
        return ""
    less = row["share"] < NEAR and row["method"] != "warmup"
    return f"{row['value']:.0f}" + f" ({100 * row['share']:.0f} %)" * less


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
        begin = [f"`{method}`", str(seeds), f"{rate:g}" if rate else "", _spent(spent)]
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


def scores(rows: Rows, role: Role, statistic: str = "value", unit: str = "cpu_seconds") -> Rows:
    """What every method scores at equal cost, or its difference to the reference, or the gap that it closes."""
    asked = {"role": role, "metric": SCORE[role], "unit": unit, "statistic": statistic}
    return [row for row in rows if all(row[key] == value for key, value in asked.items())]


def varied(results: dict[str, Any]) -> dict[str, list[list[str]]]:
    """The score of each role at every value of what varies, differences in it and gaps closed, by title."""
    values = list(dict.fromkeys(row["at"] for row in results["rows"]))
    statistics = {"value": "", "difference": f", less `{results['reference']}`", "gap_closed": ", gap closed"}
    found = {}
    for role in ROLES:
        for statistic, of in statistics.items():
            rows = scores(results["rows"], role, statistic)
            cells = {(row["method"], row["at"]): row for row in rows}
            methods = _in_order(list(dict.fromkeys(row["method"] for row in rows)), results["methods"])
            lines = [
                [f"`{method}`", *(_cell(cells.get((method, value)), len(results["seeds"])) for value in values)]
                for method in methods
            ]
            title = f"{TITLES[SCORE[role]].capitalize()}, by `{results['vary']}`{of}"
            found |= {title: [["method", *values], *lines]} if lines else {}
    return found


def filled(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """A table without the columns that are empty."""
    known = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    return [[row[i] for i in known] for row in rows]


def markdown(rows: list[list[str]]) -> str:
    """A table in Markdown, without the columns that are empty."""
    found = filled(rows)
    head, *body = ["| " + " | ".join(row) + " |\n" for row in found]
    return head + "|---" * len(found[0]) + "|\n" + "".join(body)
