"""What intervals are drawn over."""

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
