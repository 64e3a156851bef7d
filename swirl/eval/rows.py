"""Rows of results: of one metric (`result`), and, as the parts of the suite give them, with the name of their model.

Intervals are by bootstrap over whole clusters of rows, see `clusters`: steps that resemble each other are no
independent evidence.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from swirl import intervals
from swirl.types import Role

Rows = Sequence[dict[str, Any]]
Results = list[dict[str, Any]]
"""Rows {"model", "role", "metric", "value", "low", "high", "n"}."""
LAYOUTS = 5
"""Fewer say nothing of how layouts differ: then trajectories are taken for them."""


def clusters(rows: Rows) -> np.ndarray:
    """The layout of each transition, by number: episodes in one layout are no independent evidence.

    The trajectory, where there are fewer than `LAYOUTS`, or not all are known.
    """
    names = [row.get("layout") for row in rows]
    if None in names or len(set(names)) < LAYOUTS:
        names = [row["trajectory"] for row in rows]
    return np.unique(np.array(names, object), return_inverse=True)[1]


def mean(
    model: str,
    role: Role,
    metric: str,
    values: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | np.ndarray,
    bounds: intervals.Bounds | None = None,
) -> Results:
    """The mean of a value per row and its interval; nothing where there are no rows."""
    if not len(values):
        return []
    low, high = intervals.bootstrap_interval(values, clusters, bounds=bounds)
    return [{"model": model, **result(role, metric, float(np.mean(values)), low, high, len(values))}]


def statistic(
    model: str,
    role: Role,
    metric: str,
    function: Callable[[np.ndarray], float],
    clusters: Sequence[Hashable] | np.ndarray,
    bounds: intervals.Bounds,
) -> Results:
    """What a function of row indices gives over all rows, and its interval; nothing where it is not defined."""
    value = function(np.arange(len(clusters))) if len(clusters) else np.nan
    if not np.isfinite(value):
        return []
    low, high = intervals.bootstrap_statistic(function, clusters, bounds=bounds)
    return [{"model": model, **result(role, metric, float(value), low, high, len(clusters))}]


def ratio(above: Sequence[float] | np.ndarray, below: Sequence[float] | np.ndarray) -> Callable[[np.ndarray], float]:
    """The ratio of two means over the same rows, as a statistic; NaN where the lower one is 0."""
    over, under = np.asarray(above, float), np.asarray(below, float)
    return lambda index: float(over[index].sum() / under[index].sum()) if under[index].any() else np.nan


def plain(model: str, role: Role, metric: str, value: float, n: int) -> Results:
    """A number without an interval: a count, or what chance gives."""
    return [{"model": model, **result(role, metric, value, None, None, n)}]


def interval(found: dict[str, Any]) -> str:
    """The interval of a row in words."""
    return "" if found["low"] is None else f"{found['low']:.3f} to {found['high']:.3f}"


def result(role: str, metric: str, value: float, low: float | None, high: float | None, n: int) -> dict[str, Any]:
    """A metric of a role, or of "both"."""
    return {"role": role, "metric": metric, "value": value, "low": low, "high": high, "n": n}
