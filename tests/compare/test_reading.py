"""Reading curves at equal cost, and intervals over seeds and layouts, by hand."""

import numpy as np
import pytest
from kept_runs import point

from swirl import intervals
from swirl.compare import reading
from swirl.compare.reading import NET, Curve, Reading, difference, estimate, gap_closed


def cell(*later, seed=0):
    """A run of two test layouts with 2 and 3 rows, warm after 30 seconds, and what came later."""
    warm = [point("warmup-forward-sft", "forward", 20, [0, 1]), point("warmup-inverse-sft", "inverse", 30, [1, 1])]
    base = [point("copy-input", "forward", None, [0, 0]), point("warmup", "forward", None, [0, 1])]
    counts = {"exact_match_changed": [2, 3]}
    rows = {"forward": counts, "inverse": counts}
    return {"seed": seed, "tested_on": "one", "points": [*base, *warm, *later], "counts": rows}


def seeds(*sums, counts=None, test="one"):
    """What is read of a metric of one part in seeds 0, 1, ...: sums over layouts, by default of a row each."""
    arrays = [np.array([one], float) for one in sums]
    rows = [np.ones(one.shape, int) if counts is None else np.array([counts]) for one in arrays]
    return {seed: Reading(*read, test) for seed, read in enumerate(zip(arrays, rows, strict=True))}


def test_a_curve_is_read_between_its_points_and_at_its_ends():
    points = seeds([0, 2], [2, 4], [6, 4], counts=[8, 12])
    curve = Curve(np.array([10.0, 20.0, 40.0]), [*points.values()])
    assert curve.at(15).sums.tolist() == [[1, 3]]
    assert curve.at(35).sums.tolist() == [[5, 4]]
    assert curve.at(3).sums.tolist() == [[0, 2]]
    assert curve.at(np.inf).sums.tolist() == [[6, 4]]
    assert curve.at(15).mean() == 4 / 20
    assert curve.values().tolist() == [2 / 20, 6 / 20, 10 / 20]


def test_a_curve_begins_when_both_roles_are_warm_and_leaves_out_what_is_no_phase():
    one = cell(point("verified1-forward-sft", "forward", 50, [2, 3]), point("verified", "forward", None, [2, 3]))
    curve = reading.curve(one, "forward", "exact_match_changed", "cpu_seconds")
    assert curve.cost.tolist() == [30, 50]  # not 20: the inverse model's warm-up had to be paid for too
    assert [read.sums.tolist() for read in curve.points] == [[[0, 1]], [[2, 3]]]
    assert reading.curve(one, "forward", "exact_match_changed", "tokens").cost.tolist() == [300, 500]
    assert reading.curve(one, "forward", "rouge_l", "tokens") is None


def test_everything_is_read_at_the_references_cost_in_its_seed_and_the_oracle_at_its_end():
    cells = {
        "verified": {0: cell(point("verified1-forward-sft", "forward", 50, [1, 2]))},
        "bootstrap": {
            0: cell(point("bootstrap1-forward-sft", "forward", 40, [1, 1]), point("b2", "forward", 60, [2, 3])),
            7: cell(point("bootstrap1-forward-sft", "forward", 40, [1, 1])),  # a seed that the reference lacks
        },
        "oracle": {0: cell(point("oracle1-forward-sft", "forward", 90, [2, 3]))},
    }
    found = reading.readings(cells, "verified", "forward", "exact_match_changed", "cpu_seconds")
    assert {name: {seed: read.sums.tolist() for seed, read in of.items()} for name, of in found.items()} == {
        "copy-input": {0: [[0, 0]]},
        "warmup": {0: [[0, 1]]},
        "verified": {0: [[1, 2]]},
        "bootstrap": {0: [[1.5, 2]]},  # halfway between 40 and 60 seconds
        "oracle": {0: [[2, 3]]},
    }


def test_each_number_of_samples_is_an_entry_with_the_warm_ups_inverse_model():
    best = [point("best-of-2", "forward", None, [1, 1]), point("best-of-4", "forward", None, [2, 1])]
    trained = cell(point("bootstrap1-inverse-sft", "inverse", 90, [2, 3]), *best)
    found = reading.entries({"best-of-n": {0: cell(*best)}, "bootstrap": {0: trained}})
    assert list(found) == ["bootstrap", "best-of-2", "best-of-4"]
    assert found["bootstrap"][0] == trained
    for name, sums in (("best-of-2", [1, 1]), ("best-of-4", [2, 1])):
        curve = reading.curve(found[name][0], "forward", "exact_match_changed", "cpu_seconds")
        assert curve.at(1000).sums.tolist() == [sums]
        inverse = reading.curve(found[name][0], "inverse", "exact_match_changed", "cpu_seconds")
        assert inverse.at(0).sums.tolist() == [[1, 1]]


def test_a_figure_is_the_mean_over_seeds_of_sums_over_rows():
    found = estimate(lambda mean: mean, [seeds([1, 0], [1, 3], counts=[1, 3])])
    assert found.value == (1 / 4 + 4 / 4) / 2
    assert found.seeds == 2


def test_only_common_seeds_count_and_none_is_no_figure():
    one, other = seeds([1], [0]), {1: seeds([1])[0], 2: seeds([0])[0]}
    found = estimate(difference, [one, other])
    assert (found.value, found.seeds) == (-1, 1)
    assert estimate(difference, [one, {5: seeds([1])[0]}]) is None


def test_a_paired_difference_has_no_width_where_the_methods_differ_by_the_same_everywhere():
    rng = np.random.default_rng(0)
    values = rng.random((5, 20))
    one, other = seeds(*values), seeds(*(values + 0.25))
    found = estimate(difference, [other, one])
    assert (found.low, found.value, found.high) == pytest.approx((0.25, 0.25, 0.25))
    alone = estimate(lambda mean: mean, [other])
    assert alone.high - alone.low > 0.02


MINIGRID = (2, 118, 66, 10, 3, 257, 2, 186, 50, 36, 10, 49, 230, 60)
"""Changed rows in each layout of MiniGrid's test part."""


@pytest.mark.parametrize(
    ("number", "sizes", "by_seed", "widened", "plain"),
    [
        (3, (1,) * 30, 0.1, 187, 157),
        (5, (1,) * 30, 0.1, 191, 170),
        (1, (1,) * 6, 0, 185, 165),
        (5, (1,) * 14, 0, 191, 178),
        # Few layouts have most rows: what they leave open is more than their number says.
        (1, MINIGRID, 0, 185, 179),
        (5, MINIGRID, 0, 183, 180),
        (5, MINIGRID, 0.1, 191, 175),
    ],
)
def test_an_interval_holds_the_truth_about_as_often_as_it_says(number, sizes, by_seed, widened, plain, monkeypatch):
    """Of 200 simulated comparisons; 190 are asked for. `plain`: by a bootstrap of seeds and layouts as they are."""
    assert _held(number, sizes, by_seed) == pytest.approx(widened, abs=2)
    monkeypatch.setattr(intervals, "widening", lambda n: 1.0)
    assert _held(number, sizes, by_seed) == pytest.approx(plain, abs=2)


def _held(number, sizes, by_seed):
    """How often the interval holds the truth, where layouts of so many rows differ by 0.1 and seeds by `by_seed`."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        common = rng.normal(0, 0.1, len(sizes))
        drawn = [common + rng.normal(0.5, by_seed) + rng.normal(0, 0.02, len(sizes)) for _ in range(number)]
        found = estimate(lambda mean: mean, [seeds(*(np.array(drawn) * sizes), counts=sizes)], samples=400)
        held += found.low <= 0.5 <= found.high
    return held


def test_of_one_seed_the_interval_is_over_layouts():
    found = estimate(lambda mean: mean, [seeds([0, 1] * 10)])
    assert (found.value, found.high - found.low) == (0.5, pytest.approx(2 * 2.093 * np.sqrt(0.25 / 19), rel=0.1))


def test_a_metric_of_two_parts_is_the_sum_of_their_means():
    """Of 4 changed rows 3 are right, of 2 unchanged ones 1 is changed; copying scores nothing."""
    one = cell(point("verified1-forward-sft", "forward", 50, [1, 2]))
    one["counts"]["forward"] = {"exact_match_changed": [2, 2], "false_change_rate": [0, 2]}
    for p in one["points"]:
        p["sums"]["false_change_rate"] = [0, 1] if p["phase"] == "verified1-forward-sft" else [0, 0]
    curve = reading.curve(one, "forward", NET, "cpu_seconds")
    assert curve.points[0].counts.tolist() == [[2, 2], [0, 2]]
    assert curve.values().tolist() == [1 / 4, 3 / 4 - 1 / 2]
    found = reading.readings({"verified": {0: one}}, "verified", "forward", NET, "cpu_seconds")
    assert estimate(lambda mean: mean, [found["verified"]]).value == pytest.approx(1 / 4)
    assert estimate(lambda mean: mean, [found["copy-input"]]).value == 0
    del one["counts"]["forward"]["false_change_rate"]  # nothing ever stands still there
    assert reading.curve(one, "forward", NET, "cpu_seconds").values().tolist() == [1 / 4, 3 / 4]


def test_more_seeds_on_the_same_layouts_do_not_narrow_what_layouts_leave_open():
    width = {}
    for number in (1, 16):
        found = estimate(lambda mean: mean, [seeds(*[[0, 1] * 10] * number)])
        width[number] = found.high - found.low
    assert width[16] == pytest.approx(width[1], rel=0.1)
    # As the mean of 20 shares has it: 0.5 +- t sqrt(s^2 / 20) with 19 degrees of freedom.
    assert width[1] == pytest.approx(2 * 2.093 * np.sqrt(0.25 / 19), rel=0.1)


def test_seeds_with_recordings_of_their_own_differ_by_their_layouts_too():
    """The mean of five shares, 0.5 +- t sqrt(s^2 / 5) with 4 degrees of freedom, whatever lies within each."""
    shares = [0.3, 0.4, 0.5, 0.6, 0.7]
    halves = [([4 * share, 0], [4, 1]) for share in shares]  # 4 / 5 of the share, layouts as unlike as can be
    own = {seed: Reading(np.array([sums]), np.array([rows]), f"{seed}") for seed, (sums, rows) in enumerate(halves)}
    found = estimate(lambda mean: mean, [own])
    assert (found.value, found.seeds) == (pytest.approx(0.4), 5)
    assert found.high - found.low == pytest.approx(
        2 * 2.776 * np.std([0.8 * s for s in shares], ddof=1) / 5**0.5, rel=0.1
    )
    # Of another number of layouts in each seed, and of one seed alone over its layouts.
    own[5] = Reading(np.array([[1.0, 0.0, 1.0]]), np.ones((1, 3), int), "5")
    assert estimate(lambda mean: mean, [own]).value == pytest.approx((5 * 0.4 + 2 / 3) / 6)
    assert estimate(lambda mean: mean, [{5: own[5]}]).low < 0.4


def test_gap_closed():
    assert gap_closed(np.array([0.6]), np.array([0.2]), np.array([0.7])).tolist() == pytest.approx([0.8])
    assert np.isnan(gap_closed(np.array([0.6]), np.array([0.2]), np.array([0.2]))).all()
