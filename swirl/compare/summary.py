"""The figures of a comparison, which `results.json` holds."""

from itertools import pairwise
from typing import Any

import numpy as np

from swirl.compare import provenance, reading
from swirl.compare.kept import BASELINES
from swirl.compare.reading import NET, SCORE
from swirl.compare.variants import UNLIMITED, shared_part
from swirl.eval import held_out
from swirl.methods import ORACLE_ROUNDS
from swirl.recipe import parse_recipe
from swirl.types import ROLES, Role

UNITS = ("cpu_seconds", "tokens")
OF_WORDS = ("rouge_l", "bert_score")
"""Metrics of language, which the codes of an image are not."""
METRICS: dict[Role, tuple[str, ...]] = {
    "forward": (
        *(NET, "exact_match_changed", "false_change_rate", "unreadable_rate", "changed_facts_f1"),
        *OF_WORDS,
        *("image_changed_f1", "image_psnr_changed", "image_psnr_ceiling"),
    ),
    "inverse": ("action_exact_match_changed",),
}
ALIKE = ("image_psnr_ceiling",)
"""What no method has a part in: it is told, and not compared."""
GAPS = (NET, "exact_match_changed", "changed_facts_f1", "action_exact_match_changed")
"""Metrics of which a share of the oracle's gain is told; of false changes it has none to gain."""
UNEVEN = 1.25
"""How many times as many CPU seconds a token may take in one seed as in another before that is told."""
Rows = list[dict[str, Any]]


def summarise(cells: reading.Cells, reference: str) -> Rows:
    """Every figure of a comparison.

    Args:
        cells: Kept files, by method and seed.
        reference: The method that sets the budget, and with which the others are compared.

    Returns:
        Rows {"method", "role", "metric", "unit", "statistic", "value", "low", "high", "seeds"}; the statistic is
        `value`, `difference` (to the reference), `gap_closed`, or `cost`: what a method had spent where it is read,
        seconds or tokens, mean over seeds, with the "share" of the budget of these seeds that this is. A gap has no
        interval where the oracle's own gain is not certain.
    """
    cells = reading.entries(cells)
    rows = _costs(cells, reference)
    for role, metrics in METRICS.items():
        for metric in metrics:
            first = next(iter(cells[reference].values()))
            images = "image_exact_match" in first["counts"].get(role, {})
            for unit in UNITS if not (images and metric in OF_WORDS) else ():
                found = reading.readings(cells, reference, role, metric, unit)
                common = {"role": role, "metric": metric, "unit": unit}
                rows += [{**common, **row} for row in _statistics(found, reference, metric)]
    return rows


def _costs(cells: reading.Cells, reference: str) -> Rows:
    rows: Rows = []
    for unit in UNITS:
        budgets = {seed: reading.spent(cell, unit) for seed, cell in cells[reference].items()}
        warm = {seed: reading.warmed(cell, unit) for seed, cell in cells[reference].items()}
        rows.append(_cost("warmup", unit, warm, budgets))
        for method, by_seed in cells.items():
            if method == "warmup":
                continue
            at_end = {seed: reading.spent(cell, unit) for seed, cell in by_seed.items() if seed in budgets}
            limited = method not in UNLIMITED
            spent = {seed: min(cost, budgets[seed]) if limited else cost for seed, cost in at_end.items()}
            rows += [_cost(method, unit, spent, budgets)] if spent else []
    return rows


def _cost(method: str, unit: str, spent: dict[int, float], budgets: dict[int, float]) -> dict[str, Any]:
    mean, budget = np.mean(list(spent.values())), np.mean([budgets[seed] for seed in spent])
    facts = {"value": float(mean), "low": None, "high": None, "seeds": len(spent), "share": float(mean / budget)}
    return {"role": "both", "metric": "cost", "unit": unit, "method": method, "statistic": "cost", **facts}


def _statistics(found: dict[str, dict[int, reading.Reading]], reference: str, metric: str) -> Rows:
    rows: Rows = []

    def add(method: str, statistic: str, estimate: reading.Estimate | None) -> None:
        if estimate:
            rows.append({"method": method, "statistic": statistic, **estimate._asdict()})

    least, most = (-1.0, 1.0) if metric in reading.PARTS else held_out.bounds(metric)
    gain = "oracle" in found and reading.estimate(reading.difference, [found["oracle"], found["warmup"]])
    for method, mine in found.items():
        value = reading.estimate(lambda mean: mean, [mine])
        add(method, "value", _within(value, least, most))
        if method not in (reference, *BASELINES) and metric not in ALIKE:
            apart = reading.estimate(reading.difference, [mine, found[reference]])
            add(method, "difference", _within(apart, least - most, most - least))
        if gain and metric in GAPS and method not in ("warmup", "oracle", *BASELINES):
            closed = reading.estimate(reading.gap_closed, [mine, found["warmup"], found["oracle"]])
            if closed and gain.low <= 0:
                closed = closed._replace(low=None, high=None)
            add(method, "gap_closed", closed)
    return rows


def warnings(files: dict[str, reading.Cells]) -> list[str]:
    """Sentences on what the figures do not mean; none where nothing is known against them.

    Args:
        files: Kept files, by the value of what varies, method and seed.
    """
    groups = [(method, [*by_seed.values()]) for cells in files.values() for method, by_seed in cells.items()]
    cells = [cell for _, group in groups for cell in group]
    by_seed: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for at, methods in files.items():
        for runs in methods.values():
            for seed, cell in runs.items():
                by_seed.setdefault((at, seed), []).append(cell)
    told = provenance.mixed(cells)
    told += provenance.warnings([[cell["machine"] for cell in group] for group in by_seed.values()])
    anew = sorted({seed for (_, seed), group in by_seed.items() if _warmed_anew(group)})
    if anew:
        told.append(
            f"In seed{'s' * (len(anew) > 1)} {', '.join(map(str, anew))} not all runs begin from one warm-up: it was "
            "trained anew, on another machine or by other code, and differences are also those of the warm-ups."
        )
    uneven, method = max((_unevenness(group), method) for method, group in groups)
    if uneven > UNEVEN:
        told.append(
            f"A token took {uneven:.2f} times as many CPU seconds in one seed of `{method}` as in another: equal CPU "
            "seconds are equal cost only so far."
        )
    bounds = [cell for method, group in groups for cell in group if method == "oracle"]
    at_limit = sum(any(p["phase"].startswith(f"oracle{ORACLE_ROUNDS}-") for p in cell["points"]) for cell in bounds)
    if at_limit:
        told.append(
            f"{at_limit} of {len(bounds)} runs of `oracle` did all of their {ORACLE_ROUNDS} rounds and may not have "
            "stopped improving: the bound may be too low."
        )
    return told


def _warmed_anew(group: list[dict[str, Any]]) -> bool:
    """Whether runs of a seed that share a warm-up by their recipes were tested with different ones."""
    found: dict[str, list[Any]] = {}
    for cell in group:
        warm = [(p["phase"], p["sums"]) for p in cell["points"] if p["phase"].startswith("warmup-")]
        found.setdefault(shared_part(parse_recipe(cell["recipe"])).toml(), []).append(warm)
    return any(one != others[0] for others in found.values() for one in others)


def _unevenness(group: list[dict[str, Any]]) -> float:
    """The most CPU seconds per token among runs, by the least."""
    paces = [reading.spent(cell, "cpu_seconds") / reading.spent(cell, "tokens") for cell in group]
    return max(paces) / min(paces)


def _within(estimate: reading.Estimate | None, low: float, high: float) -> reading.Estimate | None:
    """An interval without values that cannot be, of which a wide one over few seeds says nothing."""
    return estimate and estimate._replace(low=max(estimate.low, low), high=min(estimate.high, high))


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
                if curve is None:  # its score is over no rows
                    continue
                for phase, (before, after) in zip(phases[1:], pairwise(curve.values()), strict=True):
                    if phase in cell["rewards"]:
                        row = {**cell["rewards"][phase], "before": before, "after": after}
                        found.setdefault((method, phase, role), []).append(row)
    return [
        {"method": method, "phase": phase, "role": role, "seeds": len(rows)}
        | {name: float(np.mean([row[name] for row in rows])) for name in ("first", "last", "before", "after")}
        for (method, phase, role), rows in found.items()
    ]
