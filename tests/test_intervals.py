import math

import numpy as np
import pytest

from swirl import intervals


def test_bootstrap_of_equal_values_has_no_width_within_their_range():
    assert intervals.bootstrap_interval([0.1] * 7, bounds=(0, 1)) == (0.1, 0.1)
    assert intervals.bootstrap_interval([0.7] * 6) == (0.7, 0.7)  # whose computed mean is not 0.7
    assert intervals.bootstrap_interval([0.1] * 7, clusters=list("aaabbbc")) == (0.1, 0.1)


def test_equal_values_at_the_end_of_their_range_have_the_binomial_interval_of_their_clusters():
    # 0.025 = p^n: what all of n succeed with in one case of forty; 0.1581 for 2 of 2, 0.8316 for 20 of 20.
    assert intervals.bootstrap_interval([True, True]) == pytest.approx((0.1581, 1), abs=5e-5)
    assert intervals.bootstrap_interval([False] * 40, [i // 2 for i in range(40)]) == pytest.approx(
        (0, 1 - 0.8316), abs=5e-5
    )
    assert intervals.bootstrap_interval([60.0] * 2, bounds=(0, 60)) == pytest.approx((60 * 0.1581, 60), abs=5e-3)
    surest = intervals.bootstrap_statistic(lambda index: 1.0, list("aabb"), bounds=(0, 1))
    assert surest == pytest.approx((0.1581, 1), abs=5e-5)


def test_equal_values_that_are_no_share_have_no_width():
    assert intervals.bootstrap_interval([1.0, 1.0, 1.0]) == (1, 1)  # steps of an episode, say
    assert intervals.bootstrap_interval([0.0, 0.0], bounds=(0, math.inf)) == (0, 0)
    assert intervals.bootstrap_statistic(lambda index: 1.0, list("ab"), bounds=(0, math.inf)) == (1, 1)


@pytest.mark.parametrize("clusters", [2, 3, 5, 20])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_intervals_of_a_share_hold_the_truth(clusters, share):
    # Every outcome of one success or failure per cluster, by how likely it is. Without the binomial end 20 clusters of
    # 0.95 would hold it in 64 % of the cases: in the others all succeed.
    holds = 0.0
    for right in range(clusters + 1):
        low, high = intervals.bootstrap_interval([True] * right + [False] * (clusters - right))
        chance = math.comb(clusters, right) * share**right * (1 - share) ** (clusters - right)
        holds += chance * (low <= share <= high)
    assert holds >= 0.92


def test_intervals_of_a_ratio_hold_the_truth():
    # 8 clusters of 3 rows, in 150 recordings; with draws that are not widened it is held in 87 % of them.
    rng, held = np.random.default_rng(0), 0
    clusters = np.repeat(np.arange(8), 3)
    for _ in range(150):
        below = rng.random(24) < np.repeat(rng.beta(4, 1, 8), 3)
        above = below & (rng.random(24) < np.repeat(rng.beta(3, 2, 8), 3))  # 3 / 5 of them

        def ratio(index, above=above, below=below):
            return above[index].sum() / below[index].sum() if below[index].any() else math.nan

        low, high = intervals.bootstrap_statistic(ratio, clusters, samples=300, bounds=(0, math.inf))
        held += low <= 0.6 <= high
    assert held >= 0.91 * 150


def test_bootstrap_matches_the_normal_interval():
    values = np.random.default_rng(1).normal(size=1000)
    low, high = intervals.bootstrap_interval(values, samples=4000)
    half = 1.96 * values.std() / math.sqrt(1000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.006)


def test_bootstrap_is_deterministic_in_its_seed():
    values = np.random.default_rng(1).normal(size=50)
    assert intervals.bootstrap_interval(values, seed=3) == intervals.bootstrap_interval(values, seed=3)
    assert intervals.bootstrap_interval(values, seed=3) != intervals.bootstrap_interval(values, seed=4)


def test_clusters_widen_the_interval():
    # 20 trajectories of 10 equal steps: the effective n is 20, not 200, so the width grows by about √10.
    rng = np.random.default_rng(0)
    values = np.repeat(rng.integers(0, 2, 20), 10)
    clusters = [f"t{i}" for i in range(20) for _ in range(10)]
    rows_low, rows_high = intervals.bootstrap_interval(values)
    low, high = intervals.bootstrap_interval(values, clusters)
    assert (high - low) / (rows_high - rows_low) == pytest.approx(math.sqrt(10), rel=0.1)


def test_clusters_are_weighed_by_their_size():
    # One row of 1 and three rows of 0: the draws aa, ab and bb have means 1, 1/4 and 0, never the mean of means 1/2.
    values, clusters = [1.0, 0.0, 0.0, 0.0], ["a", "b", "b", "b"]
    means = {intervals.bootstrap_interval(values, clusters, seed=seed, samples=1) for seed in range(20)}
    assert means == {(1.0, 1.0), (0.25, 0.25), (0.0, 0.0)}


def test_single_cluster_falls_back_on_rows():
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert intervals.bootstrap_interval(values, ["t"] * 5) == intervals.bootstrap_interval(values)


def test_bootstrap_in_blocks_stays_deterministic():
    values = np.random.default_rng(2).normal(size=3000)  # more draws than one block holds
    low, high = intervals.bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(3000), rel=0.1)


def test_bootstrap_refuses_what_it_cannot_resample():
    with pytest.raises(ValueError, match="no values"):
        intervals.bootstrap_interval([])
    with pytest.raises(ValueError, match="1 cluster names for 2 values"):
        intervals.bootstrap_interval([1.0, 2.0], ["a"])


def test_the_interval_of_a_mean_is_the_same_by_the_general_way():
    values, clusters = np.random.default_rng(1).normal(size=60), [f"t{i // 3}" for i in range(60)]
    general = intervals.bootstrap_statistic(lambda index: float(values[index].mean()), clusters, samples=4000)
    assert intervals.bootstrap_interval(values, clusters, samples=4000) == pytest.approx(general, abs=0.02)


def test_the_interval_of_few_clusters_is_that_of_students_t_and_ends_where_the_range_does():
    values = np.repeat([0.2, 0.3, 0.5, 0.6, 0.9], 8)
    clusters = np.repeat(list("abcde"), 8)
    mean, half = 0.5, 2.776 * np.std([0.2, 0.3, 0.5, 0.6, 0.9], ddof=1) / math.sqrt(5)
    assert intervals.bootstrap_interval(values, clusters) == pytest.approx((mean - half, mean + half), abs=0.04)
    assert intervals.bootstrap_interval([0.4, 0.6, 0.8], list("abc")) == (0.4, 0.8)  # of a range that nobody told
    assert intervals.bootstrap_interval([0.4, 0.6, 0.8], list("abc"), bounds=(0, 1)) == pytest.approx(
        (0.0, 1.0), abs=0.1
    )
    assert intervals.bootstrap_interval([0.0, 1.0, 1.0], list("abc"), bounds=(0, 1)) == (0, 1)


def test_draws_in_which_a_statistic_is_not_defined_are_left_out():
    above, below = np.array([1.0, 1.0]), np.array([1.0, 0.0])

    def ratio(index):
        return above[index].sum() / below[index].sum() if below[index].any() else math.nan

    # The draws of two rows: both the first (1), one of each (2), both the second (not defined). 2 - 9.2 * (2 - 1).
    low, high = intervals.bootstrap_statistic(ratio, ["a", "b"])
    assert (low, high) == (pytest.approx(2 - 12.706 * math.sqrt(2) / 1.96, abs=1e-3), 2.0)
    assert intervals.bootstrap_statistic(ratio, ["a", "b"], bounds=(0, math.inf)) == (0.0, 2.0)


def test_students_t_beyond_the_table():
    assert [round(intervals._student(n), 3) for n in (1, 10, 11, 13, 29, 1000)] == [
        12.706,
        2.228,
        2.201,
        2.16,
        2.045,
        1.962,
    ]
