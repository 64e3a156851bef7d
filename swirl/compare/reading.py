"""Curves of held-out quality over cost, read where methods have spent the same, with intervals over seeds.

- **Equal cost.** In every seed the reference's own cost is the budget; each method's curve is read there, linearly
  between the phases that it trained, and at its end where it spent less. An oracle is read at its end.
- **Intervals** by bootstrap over seeds and test layouts: a sample draws seeds with replacement, and layouts.
  Where the test part is the same for every seed, one draw of layouts serves all seeds of a sample; drawing them anew
  in every seed would take the same layouts for independent ones. Where every seed has a recording of its own, seeds
  differ by their layouts too, and a sample draws seeds alone.
- **Few seeds, few layouts** say little: what they differ by is widened as Student's t has it. Of one seed the interval
  is over layouts alone.
- **Differences are paired**: one sample draws the same seeds and layouts for both methods.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from swirl import intervals
from swirl.compare.kept import BASELINES
from swirl.compare.variants import UNLIMITED
from swirl.metrics import HEADLINE
from swirl.types import Role

SAMPLES = 2000
NET = "exact_match_net"
"""Exact matches where something changed less the false changes where nothing did, both as shares.

Copying scores 0, and so does a model that gets every change right and changes whatever stands still: by the exact
matches alone it would be the best. What share of a recording stands still makes no difference.
"""
PARTS = {NET: {"exact_match_changed": 1, "false_change_rate": -1}}
"""What is made of other metrics: of which, with which sign."""
SCORE: dict[Role, str] = {"forward": NET, "inverse": HEADLINE["inverse"]}
"""What methods are judged by."""
Cells = dict[str, dict[int, dict[str, Any]]]
"""Kept files, by method and seed."""


class Reading(NamedTuple):
    """A metric of one entry in one seed, as it is read for the table.

    Attributes:
        sums: The sum of each of the metric's parts over each test layout (K, T); the metric is the sum of its parts'
            means, one part but for `NET`.
        counts: Rows in each layout that each part is over (K, T).
        test: Which test part that is, a hash.
    """

    sums: np.ndarray
    counts: np.ndarray
    test: str = ""

    def mean(self) -> float:
        """The metric."""
        return float((self.sums.sum(axis=1) / self.counts.sum(axis=1)).sum())


class Curve(NamedTuple):
    """A metric of one method in one seed.

    Attributes:
        cost: What had been spent at each point, rising (P,).
        points: The metric there (P).
    """

    cost: np.ndarray
    points: list[Reading]

    def at(self, budget: float) -> Reading:
        """The metric when so much was spent; before the first point that point's, after the last the last's."""
        place = float(np.interp(budget, self.cost, np.arange(len(self.cost))))
        before = int(place)
        one, other = self.points[before], self.points[min(before + 1, len(self.points) - 1)]
        return one._replace(sums=(1 - place + before) * one.sums + (place - before) * other.sums)

    def values(self) -> np.ndarray:
        """The metric at each point (P,)."""
        return np.array([point.mean() for point in self.points])


def curve(cell: dict[str, Any], role: Role, metric: str, unit: str) -> Curve | None:
    """The curve of a kept cell from the end of its warm-up on, over `cpu_seconds` or `tokens`.

    Returns:
        `None` where the metric is over no rows.
    """
    known = [
        (point[unit], found)
        for point in cell["points"]
        if unit in point and (found := at_point(cell, point, role, metric))
    ]
    if not known:
        return None
    cost, points = zip(*known, strict=True)
    # A role is not done when its own warm-up is: the other's has to be paid for too.
    return Curve(np.maximum(cost, warmed(cell, unit)), list(points))


def at_point(cell: dict[str, Any], point: dict[str, Any], role: Role, metric: str) -> Reading | None:
    """A metric of a role at a point of a kept cell; `None` where the point is of the other role, or it has no rows."""
    rows = cell["counts"].get(role, {})
    parts = {name: sign for name, sign in PARTS.get(metric, {metric: 1}).items() if sum(rows.get(name, ()))}
    if point["role"] != role or not parts:
        return None
    sums = np.array([sign * np.array(point["sums"][name]) for name, sign in parts.items()])
    return Reading(sums, np.array([rows[name] for name in parts]), cell["tested_on"])


def warmed(cell: dict[str, Any], unit: str) -> float:
    """What a cell had spent when both roles were warm."""
    return max(point[unit] for point in cell["points"] if unit in point and point["phase"].startswith("warmup-"))


def spent(cell: dict[str, Any], unit: str) -> float:
    """What a cell had spent at its end."""
    return max(point[unit] for point in cell["points"] if unit in point)


def entries(cells: Cells) -> Cells:
    """The rows of a table: every method, and for `best-of-n` each number of samples that it verified at test time.

    Other methods that verify at test time say so in their own results: at equal cost they would have to be tested so at
    every phase.
    """
    found: Cells = {method: by_seed for method, by_seed in cells.items() if method != "best-of-n"}
    for seed, cell in cells.get("best-of-n", {}).items():
        warm = [
            point for point in cell["points"] if point["phase"].startswith("warmup-") and point["role"] == "inverse"
        ]
        cost = {unit: spent(cell, unit) for unit in ("cpu_seconds", "tokens")}
        for point in cell["points"]:  # they train nothing: what they spend is spent at every prediction
            if point["phase"].startswith("best-of-"):
                found.setdefault(point["phase"], {})[seed] = {**cell, "points": [*warm, {**point, **cost}]}
    return found


def readings(cells: Cells, reference: str, role: Role, metric: str, unit: str) -> dict[str, dict[int, Reading]]:
    """Every entry at the reference's cost, by entry and seed; and its warm-up and the baselines."""
    found: dict[str, dict[int, Reading]] = {}
    for seed, cell in cells[reference].items():
        for point in cell["points"]:
            if point["phase"] in BASELINES and (baseline := at_point(cell, point, role, metric)):
                found.setdefault(point["phase"], {})[seed] = baseline
        mine = curve(cell, role, metric, unit)
        if mine:
            found.setdefault("warmup", {})[seed] = mine.at(warmed(cell, unit))
    for method, by_seed in cells.items():
        for seed, cell in by_seed.items():
            drawn = curve(cell, role, metric, unit)
            if method != "warmup" and drawn and seed in cells[reference]:
                budget = np.inf if method in UNLIMITED else spent(cells[reference][seed], unit)
                found.setdefault(method, {})[seed] = drawn.at(budget)
    return found


class Estimate(NamedTuple):
    """A figure over seeds, with its 95 % interval."""

    value: float
    low: float
    high: float
    seeds: int


def estimate(
    statistic: Callable[..., np.ndarray], entries: Sequence[dict[int, Reading]], samples: int = SAMPLES
) -> Estimate | None:
    """A statistic of the means of some entries, over the seeds that all of them have.

    Args:
        statistic: Of one mean per entry, elementwise over arrays of them.
        entries: Per entry, what is read in each seed.
        samples: Bootstrap samples.

    Returns:
        `None` where the entries have no seed in common, or the statistic is not defined.
    """
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in entries)))
    if not seeds:
        return None
    table = [[by_seed[seed] for seed in seeds] for by_seed in entries]  # (entries, S)
    means = np.array([[one.mean() for one in row] for row in table])
    value = float(statistic(*means.mean(axis=1)))
    if not np.isfinite(value):
        return None
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), samples) / len(seeds)  # (D, S)
    if len({one.test for one in table[0]}) > 1:
        sampled = statistic(*(_widened(means) @ drawn.T))
    else:
        sums = np.array([[one.sums for one in row] for row in table])
        sampled = statistic(*_over_layouts(sums, table[0][0].counts, drawn, rng))
    low, high = np.percentile(sampled[np.isfinite(sampled)], (2.5, 97.5))
    return Estimate(value, float(low), float(high), len(seeds))


def _over_layouts(sums: np.ndarray, counts: np.ndarray, drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means of each entry in samples of seeds, and of layouts that all seeds have in common.

    Args:
        sums: Of the metric's parts (entries, S, K, T).
        counts: Rows that they are over (K, T).
        drawn: The share of each seed in each sample (D, S).
        rng: Draws layouts.

    Returns:
        (entries, samples in which every part has rows).
    """
    layouts = counts.shape[1]
    times = rng.multinomial(layouts, np.full(layouts, 1 / layouts), len(drawn))  # (D, T)
    rows = times @ counts.T  # (D, K)
    full = (rows > 0).all(axis=1)
    drawn, times, rows = drawn[full], times[full], rows[full]
    means = np.einsum("eskt,dt,ds,dk->ed", _widened(sums), times, drawn, 1 / rows, optimize=True)
    exact = (sums.sum(axis=3).mean(axis=1) / counts.sum(axis=1)).sum(axis=1)
    of_layouts = np.einsum("ekt,dt,dk->ed", sums.mean(axis=1), times, 1 / rows, optimize=True)
    return means + (intervals.widening(layouts) - 1) * (of_layouts - exact[:, None])


def _widened(by_seed: np.ndarray) -> np.ndarray:
    """Values of entries and seeds (entries, S, ...), the seeds farther from their mean: see `intervals.widening`."""
    middle = by_seed.mean(axis=1, keepdims=True)
    return middle + intervals.widening(by_seed.shape[1]) * (by_seed - middle)


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How much better one method is than another."""
    return one - other


def gap_closed(method: np.ndarray, warmup: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    """The share of the oracle's gain over the warm-up that a method has; undefined where the oracle gains nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(oracle == warmup, np.nan, (method - warmup) / (oracle - warmup))
