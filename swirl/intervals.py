"""95 % intervals of a mean, or of any other statistic, over rows that come in clusters."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

Z95 = 1.959964
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t, 97.5 %, for 1 to 10 degrees of freedom."""
Bounds = tuple[float, float]
SHARE: Bounds = (0.0, 1.0)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | np.ndarray | None = None,
    seed: int = 0,
    samples: int = 2000,
    bounds: Bounds | None = None,
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a mean.

    With clusters, whole clusters are drawn with replacement, K of K, and each sample's mean is (sum of the drawn
    clusters' sums) / (sum of their sizes): steps of one trajectory resemble each other, so drawing them one by one
    would claim too much. A single cluster says nothing of how clusters differ; its rows are then drawn one by one and
    the interval is too narrow. What clusters differ by is widened as Student's t has it, or few of them would claim too
    much.

    Where all values are equal no draw differs from another. If that value is an end of the range, as where all succeed,
    the interval is the exact binomial one of K outcomes; any other has the width 0.

    Args:
        values: One value per row.
        clusters: One name per row (its trajectory); by default every row is its own cluster.
        seed: Seed of the draws; same arguments, same interval.
        samples: Number of bootstrap samples.
        bounds: The least and the largest that a value can be, at which the interval ends; by default `SHARE` for truth
            values, and for others what the least and the largest are.

    Raises:
        ValueError: There are no values, or not one cluster name for each.
    """
    values = np.asarray(values)
    if not len(values):
        raise ValueError("got no values, expected at least one: leave out a metric that is over no rows")
    if bounds is None and values.dtype == bool:
        bounds = SHARE
    values = values.astype(np.float64)
    least, most = float(values.min()), float(values.max())
    ids = _cluster_ids(len(values), clusters)
    # Counted from the first value, so that equal values give a width of exactly 0 instead of rounding noise.
    sums, sizes = np.bincount(ids, weights=values - values[0]), np.bincount(ids)
    if least == most:
        return _of_equal(least, len(sums), bounds)
    rng = np.random.default_rng(seed)
    means = np.empty(samples)
    block = max(1, 2_000_000 // len(sums))  # bounds the memory of the draws to about 16 MB
    for start in range(0, samples, block):
        drawn = rng.integers(len(sums), size=(min(block, samples - start), len(sums)))  # (block, K)
        means[start : start + block] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return _widened(means + values[0], sums.sum() / len(values) + values[0], len(sums), bounds or (least, most))


def bootstrap_statistic(
    statistic: Callable[[np.ndarray], float],
    clusters: Sequence[Hashable] | np.ndarray,
    seed: int = 0,
    samples: int = 1000,
    bounds: Bounds = (-np.inf, np.inf),
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of what is no mean: a ratio, an area under a curve.

    Clusters are drawn, and what they differ by is widened, as in `bootstrap_interval`; so are equal draws told. A draw
    in which the statistic is not defined is left out.

    Args:
        statistic: Gives a number for row indices, which may repeat; NaN where it is not defined.
        clusters: One name per row (its trajectory).
        seed: Seed of the draws; same arguments, same interval.
        samples: Number of bootstrap samples.
        bounds: The least and the largest that the statistic can be, at which the interval ends.

    Raises:
        ValueError: There are no rows, or the statistic is not defined over all of them.
    """
    if not len(clusters):
        raise ValueError("got no rows, expected at least one: leave out a metric that is over no rows")
    value = statistic(np.arange(len(clusters)))
    if not np.isfinite(value):
        raise ValueError("the statistic is not defined: leave out a metric that is over no rows")
    ids = _cluster_ids(len(clusters), clusters)
    members = np.split(np.argsort(ids, kind="stable"), np.cumsum(np.bincount(ids))[:-1])
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(members), size=len(members)) for _ in range(samples))
    values = np.array([statistic(np.concatenate([members[k] for k in draw])) for draw in drawn])
    defined = values[np.isfinite(values)]
    if (defined == value).all():
        return _of_equal(value, len(members), bounds)
    return _widened(defined, value, len(members), bounds)


def _widened(draws: np.ndarray, value: float, n: int, bounds: Bounds) -> tuple[float, float]:
    """The middle 95 % of draws over n clusters, farther from the value as `widening` has it, within the bounds."""
    low, high = (value + widening(n) * (np.percentile(draws, (2.5, 97.5)) - value)).clip(*bounds)
    return float(low), float(high)


def _of_equal(value: float, n: int, bounds: Bounds | None) -> tuple[float, float]:
    """The interval of n clusters that all have one value.

    At an end of the range it is that of Clopper and Pearson for n outcomes that are all alike. It holds for any mean,
    not for shares alone: where the mean is a part q of the range away from the end, at least a part q of all clusters
    is not at the end, so n of them are there with a probability of (1 - q)^n at most.
    """
    if bounds is None or value not in bounds or not np.isfinite(bounds).all():
        return float(value), float(value)
    least, most = bounds
    away = (1 - 0.025 ** (1 / n)) * (most - least)
    return (least, least + away) if value == least else (most - away, most)


def _cluster_ids(rows: int, clusters: Sequence[Hashable] | np.ndarray | None) -> np.ndarray:
    """A number per row, equal within a cluster, from 0 without gaps; each row its own where there is one cluster."""
    if clusters is None:
        return np.arange(rows)
    if len(clusters) != rows:
        raise ValueError(f"got {len(clusters)} cluster names for {rows} values, expected one for each")
    order: dict[Hashable, int] = {}
    named = np.array([order.setdefault(name, len(order)) for name in clusters])
    return named if len(order) > 1 else np.arange(rows)


def widening(n: int) -> float:
    """By how much things, such as layouts or seeds, differ more than a bootstrap over n of them sees.

    A sample of n has (n - 1) / n of their variance, and a mean over few of them strays as Student's t does. Without
    this an interval "of 95 %" of three holds the truth in three cases of four.
    """
    return float(np.sqrt(n / (n - 1)) * _student(n - 1) / Z95) if n > 1 else 1.0


def _student(freedom: int) -> float:
    """Student's t, 97.5 %; beyond the table by Cornish and Fisher's expansion."""
    if freedom <= len(T95):
        return T95[freedom - 1]
    first, second = Z95**3 + Z95, 5 * Z95**5 + 16 * Z95**3 + 3 * Z95
    third = 3 * Z95**7 + 19 * Z95**5 + 17 * Z95**3 - 15 * Z95
    return Z95 + first / (4 * freedom) + second / (96 * freedom**2) + third / (384 * freedom**3)
