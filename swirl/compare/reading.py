"""Curves of held-out quality over cost, read where methods have spent the same, with intervals over seeds.

- **Equal cost.** In every seed the reference's own cost is the budget; each method's curve is read there, linearly
  between the phases that it trained, and at its end where it spent less. An oracle is read at its end.
- **Intervals** by bootstrap over seeds and test layouts: a sample draws seeds with replacement, and layouts.
  The test part is the same for every seed, so one draw of layouts serves all seeds of a sample; drawing them anew
  in every seed would take the same layouts for independent ones.
- **Few seeds, few layouts** say little: what they differ by is widened as Student's t has it. Of one seed the interval
  is over layouts alone.
- **Differences are paired**: one sample draws the same seeds and layouts for both methods.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

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
Z95 = 1.959964
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t, 97.5 %, for 1 to 10 degrees of freedom."""
Cells = dict[str, dict[int, dict[str, Any]]]
"""Kept files, by method and seed."""


class Curve(NamedTuple):
    """A metric of one method in one seed.

    Attributes:
        cost: What had been spent at each point, rising (P,).
        sums: The sum of each of the metric's parts over each test layout (P, K, T); the metric is the sum of its
            parts' means, one part but for `NET`.
        counts: Rows in each layout that each part is over (K, T).
    """

    cost: np.ndarray
    sums: np.ndarray
    counts: np.ndarray

    def at(self, budget: float) -> np.ndarray:
        """The sums when so much was spent; before the first point that point's, after the last the last's (K, T)."""
        place = float(np.interp(budget, self.cost, np.arange(len(self.cost))))
        before = int(place)
        after = min(before + 1, len(self.cost) - 1)
        return (1 - place + before) * self.sums[before] + (place - before) * self.sums[after]

    def values(self) -> np.ndarray:
        """The metric's mean at each point (P,)."""
        return (self.sums.sum(axis=-1) / self.counts.sum(axis=-1)).sum(axis=-1)


def curve(cell: dict[str, Any], role: Role, metric: str, unit: str) -> Curve | None:
    """The curve of a kept cell from the end of its warm-up on, over `cpu_seconds` or `tokens`.

    Returns:
        `None` where the metric is over no rows.
    """
    over = counts(cell, role, metric)
    points = [point for point in cell["points"] if point["role"] == role and unit in point]
    if not len(over) or not points:
        return None
    # A role is not done when its own warm-up is: the other's has to be paid for too.
    warm = warmed(cell, unit)
    cost = np.maximum([point[unit] for point in points], warm)
    return Curve(cost, np.array([sums(cell, point, metric) for point in points]), over)


def counts(cell: dict[str, Any], role: Role, metric: str) -> np.ndarray:
    """Rows in each test layout that each part of a metric is over (K, T); no parts where the cell lacks it."""
    return np.array([cell["counts"][role][name] for name in _parts(cell, role, metric)])


def sums(cell: dict[str, Any], point: dict[str, Any], metric: str) -> np.ndarray:
    """The sum of each part of a metric over each test layout at a point (K, T)."""
    parts = _parts(cell, point["role"], metric)
    return np.array([sign * np.array(point["sums"][name]) for name, sign in parts.items()])


def _parts(cell: dict[str, Any], role: Role, metric: str) -> dict[str, int]:
    """What a metric is made of, and its sign, as far as the cell has rows for it."""
    rows = cell["counts"].get(role, {})
    return {name: sign for name, sign in PARTS.get(metric, {metric: 1}).items() if sum(rows.get(name, ()))}


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


def readings(cells: Cells, reference: str, role: Role, metric: str, unit: str) -> dict[str, dict[int, np.ndarray]]:
    """Every entry's sums at the reference's cost, by entry and seed; and those of its warm-up and the baselines."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for seed, cell in cells[reference].items():
        for point in cell["points"]:
            if point["phase"] in BASELINES and point["role"] == role:
                found.setdefault(point["phase"], {})[seed] = sums(cell, point, metric)
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
    statistic: Callable[..., np.ndarray],
    sums: Sequence[dict[int, np.ndarray]],
    counts: np.ndarray,
    samples: int = SAMPLES,
) -> Estimate | None:
    """A statistic of the means of some entries, over the seeds that all of them have.

    Args:
        statistic: Of one mean per entry, elementwise over arrays of them.
        sums: Per entry and seed, the sums of the metric's parts over layouts (K, T).
        counts: Rows in each layout that each part is over (K, T).
        samples: Bootstrap samples.

    Returns:
        `None` where the entries have no seed in common, or the statistic is not defined.
    """
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in sums)))
    if not seeds:
        return None
    table = np.array([[by_seed[seed] for seed in seeds] for by_seed in sums])  # (entries, S, K, T)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), samples) / len(seeds)  # (D, S)
    layouts = counts.shape[1]
    times = rng.multinomial(layouts, np.full(layouts, 1 / layouts), samples)  # (D, T)
    rows = times @ counts.T  # (D, K)
    full = (rows > 0).all(axis=1)
    drawn, times, rows = drawn[full], times[full], rows[full]
    middle = table.mean(axis=1, keepdims=True)
    wide = middle + _widening(len(seeds)) * (table - middle)
    means = np.einsum("eskt,dt,ds,dk->ed", wide, times, drawn, 1 / rows, optimize=True)
    exact = (table.sum(axis=3).mean(axis=1) / counts.sum(axis=1)).sum(axis=1)
    value = float(statistic(*exact))
    if not np.isfinite(value):
        return None
    over_layouts = np.einsum("ekt,dt,dk->ed", table.mean(axis=1), times, 1 / rows, optimize=True)
    means += (_widening(layouts) - 1) * (over_layouts - exact[:, None])
    sampled = statistic(*means)
    low, high = np.percentile(sampled[np.isfinite(sampled)], (2.5, 97.5))
    return Estimate(value, float(low), float(high), len(seeds))


def _widening(n: int) -> float:
    """By how much seeds, or layouts, differ more than a bootstrap over n of them sees.

    A sample of n has (n - 1) / n of their variance, and a mean over few of them strays as Student's t does. Without
    this an interval "of 95 %" of three seeds holds the truth in three cases of four.
    """
    return float(np.sqrt(n / (n - 1)) * _student(n - 1) / Z95) if n > 1 else 1.0


def _student(freedom: int) -> float:
    """Student's t, 97.5 %; beyond the table by Cornish and Fisher's expansion."""
    if freedom <= len(T95):
        return T95[freedom - 1]
    first, second = Z95**3 + Z95, 5 * Z95**5 + 16 * Z95**3 + 3 * Z95
    third = 3 * Z95**7 + 19 * Z95**5 + 17 * Z95**3 - 15 * Z95
    return Z95 + first / (4 * freedom) + second / (96 * freedom**2) + third / (384 * freedom**3)


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How much better one method is than another."""
    return one - other


def gap_closed(method: np.ndarray, warmup: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    """The share of the oracle's gain over the warm-up that a method has; undefined where the oracle gains nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(oracle == warmup, np.nan, (method - warmup) / (oracle - warmup))
