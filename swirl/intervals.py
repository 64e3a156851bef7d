"""95 % intervals of a mean, or of any other statistic, over rows that come in clusters."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

Z95 = 1.959964
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t, 97.5 %, for 1 to 10 degrees of freedom."""


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | np.ndarray | None = None,
    seed: int = 0,
    samples: int = 2000,
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a mean.

    With clusters, whole clusters are drawn with replacement, K of K, and each sample's mean is (sum of the drawn
    clusters' sums) / (sum of their sizes): steps of one trajectory resemble each other, so drawing them one by one
    would claim too much. A single cluster says nothing of how clusters differ; its rows are then drawn one by one and
    the interval is too narrow. What clusters differ by is widened as Student's t has it, or few of them would claim too
    much; the interval ends where the values do. Where all values are equal the width is 0.

    Args:
        values: One value per row.
        clusters: One name per row (its trajectory); by default every row is its own cluster.
        seed: Seed of the draws; same arguments, same interval.
        samples: Number of bootstrap samples.

    Raises:
        ValueError: There are no values, or not one cluster name for each.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("got no values, expected at least one: leave out a metric that is over no rows")
    ids = _cluster_ids(len(values), clusters)
    # Counted from the first value, so that equal values give a width of exactly 0 instead of rounding noise.
    sums, sizes = np.bincount(ids, weights=values - values[0]), np.bincount(ids)
    rng = np.random.default_rng(seed)
    means = np.empty(samples)
    block = max(1, 2_000_000 // len(sums))  # bounds the memory of the draws to about 16 MB
    for start in range(0, samples, block):
        drawn = rng.integers(len(sums), size=(min(block, samples - start), len(sums)))  # (block, K)
        means[start : start + block] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    mean = sums.sum() / len(values)
    ends = mean + widening(len(sums)) * (np.percentile(means, (2.5, 97.5)) - mean) + values[0]
    low, high = ends.clip(values.min(), values.max())
    return float(low), float(high)


def bootstrap_statistic(
    statistic: Callable[[np.ndarray], float],
    clusters: Sequence[Hashable] | np.ndarray,
    seed: int = 0,
    samples: int = 1000,
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of what is no mean: a ratio, a calibration error.

    Clusters are drawn as in `bootstrap_interval`; nothing is widened, for the statistic's range is not known. A draw in
    which the statistic is not defined is left out.

    Args:
        statistic: Gives a number for row indices, which may repeat; NaN where it is not defined.
        clusters: One name per row (its trajectory).
        seed: Seed of the draws; same arguments, same interval.
        samples: Number of bootstrap samples.

    Raises:
        ValueError: There are no rows, or the statistic is defined in no draw.
    """
    if not len(clusters):
        raise ValueError("got no rows, expected at least one: leave out a metric that is over no rows")
    ids = _cluster_ids(len(clusters), clusters)
    members = np.split(np.argsort(ids, kind="stable"), np.cumsum(np.bincount(ids))[:-1])
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(members), size=len(members)) for _ in range(samples))
    values = np.array([statistic(np.concatenate([members[k] for k in draw])) for draw in drawn])
    defined = values[np.isfinite(values)]
    if not len(defined):
        raise ValueError("the statistic is defined in no draw: leave out a metric that is over no rows")
    low, high = np.percentile(defined, (2.5, 97.5))
    return float(low), float(high)


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
