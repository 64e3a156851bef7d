"""What intervals are drawn over, and where they end."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from swirl import intervals
from swirl.eval import held_out, rows

TRAJECTORIES = ["a", "a", "b", "c", "d", "e", "f"]


def steps(layouts):
    return [{"layout": layout, "trajectory": name} for layout, name in zip(layouts, TRAJECTORIES, strict=True)]


@pytest.mark.parametrize(
    ("layouts", "expected"),
    [
        ("ppqqrst", [0, 0, 1, 1, 2, 3, 4]),
        ("ppqqrss", [0, 0, 1, 2, 3, 4, 5]),  # four say nothing of how layouts differ
        ([*"ppqqrs", None], [0, 0, 1, 2, 3, 4, 5]),  # not all are known
    ],
)
def test_intervals_are_over_layouts_or_where_there_are_few_over_trajectories(layouts, expected):
    assert rows.clusters(steps(layouts)).tolist() == expected


def test_without_layouts_or_rows_there_are_trajectories_or_nothing():
    assert rows.clusters([{"trajectory": name} for name in TRAJECTORIES]).tolist() == [0, 0, 1, 2, 3, 4, 5]
    assert rows.clusters([]).tolist() == []


def test_episodes_of_one_layout_are_drawn_together():
    told = [
        {"state": "x", "action": "a", "next_state": "y", "trajectory": f"t{i}", "layout": f"l{i // 4}"}
        for i in range(24)
    ]
    predictions = ["y" if i // 4 % 2 else "z" for i in range(24)]  # whole layouts right, whole ones wrong
    [row] = [r for r in held_out.results("forward", told, predictions) if r["metric"] == "exact_match_changed"]
    right = np.array([text == "y" for text in predictions], float)
    assert (row["low"], row["high"]) == intervals.bootstrap_interval(right, [r["layout"] for r in told])
    assert row["high"] - row["low"] > 1.5 * np.subtract(*intervals.bootstrap_interval(right)[::-1])


def test_what_a_model_has_in_every_row_is_uncertain_and_what_a_baseline_has_is_not():
    told = [{"state": "x", "action": "a b", "next_state": "y", "trajectory": f"t{i}"} for i in range(20)]

    def ends(role, predictions, baseline, metric):
        found = held_out.results(role, told, predictions, baseline=baseline)
        return next((row["low"], row["high"]) for row in found if row["metric"] == metric)

    assert ends("forward", ["y"] * 20, False, "exact_match_changed") == pytest.approx((0.8316, 1), abs=5e-5)
    assert ends("forward", ["x"] * 20, True, "exact_match_changed") == (0, 0)  # a copy of what changed
    assert ends("inverse", ["a"] * 20, False, "action_length_mean") == (1, 1)  # no share


def test_intervals_end_where_the_page_says_that_the_metric_does():
    page = (Path(__file__).parent.parent / "docs/metrics.md").read_text()
    written = {}
    for names, least, most in re.findall(r"^\| (`[^|]*`) \|.*?\| (-?\d+) (?:to (\d+)|up)[^|]*\|", page, re.MULTILINE):
        written |= {name: (float(least), float(most or "inf")) for name in re.findall(r"`(\w+)`", names)}
    told = [{"state": "x", "action": "a", "next_state": y, "trajectory": "t"} for y in ("x", "y")]
    found = held_out.results("forward", told, ["y", "y"]) + held_out.results("inverse", told, ["y", "y"])
    known = {*(row["metric"] for row in found if row["low"] is not None), *held_out.RANGES} & set(written)
    assert {name: held_out.bounds(name) for name in known} == {name: written[name] for name in known}
    assert known >= {"token_f1", "action_length_mean", "nll", "image_psnr", "image_ssim"}
    assert held_out.bounds("nll") == (0, math.inf)
