import math

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from swirl import health


def test_action_health_by_hand():
    signs = health.action_health(["go up", "Go Up", "wait", "go left now"])
    assert signs == pytest.approx(
        {
            "unique_share": 0.75,
            "length_mean": (2 + 2 + 1 + 3) / 4,
            "entropy": 0.5 * math.log(2) + 0.5 * math.log(4),
            "top_share": 0.5,
        }
    )
    assert health.action_health(["a", "a"])["entropy"] == 0.0
    assert health.action_health([]) == {}


def test_reward_hacking_rings_when_reward_rises_and_validation_falls():
    rewards = [-1.0, -1.0, -0.8, -0.7, -0.6, -0.5, -0.4, -0.3, -0.2, -0.2]
    message = health.reward_hacking(rewards, [0.6, 0.9, 0.4], n=100, metric="exact_match_changed")
    assert message is not None
    assert "from -1.000 to -0.200" in message
    assert "exact_match_changed fell from 0.600 to 0.400 (n = 100" in message


@pytest.mark.parametrize(
    ("rewards", "validation", "n"),
    [
        ([0.0, 1.0], [0.5, 0.6], 100),  # both rise
        ([1.0, 0.0], [0.6, 0.4], 100),  # both fall
        ([0.0, 1.0], [0.6, 0.5], 10),  # the fall is within √((0.24 + 0.25) / 10) = 0.22
        ([0.0, 1.0], [0.5, 0.5], 100),
        ([0.0], [0.6, 0.4], 100),
        ([0.0, 1.0], [0.6], 100),
        ([0.0, float("nan")], [0.6, 0.4], 100),
        ([0.0, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 10.0], [0.9, 0.1], 100),  # 0.05 up in windows that vary by 5
    ],
)
def test_reward_hacking_stays_quiet(rewards, validation, n):
    assert health.reward_hacking(rewards, validation, n) is None


def test_reward_hacking_refuses_metrics_that_are_not_shares():
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        health.reward_hacking([0.0, 1.0], [-3.0, -4.0], 10)


def test_mutual_information_by_hand():
    assert health.action_nmi(["a", "b"], ["x", "y"]) == pytest.approx(1)  # a private code says as much
    assert health.action_nmi(["a", "a", "b", "b"], ["x", "y", "x", "y"]) == pytest.approx(0)
    assert health.action_nmi(["a"] * 4, ["x", "y", "x", "y"]) == 0
    assert health.action_nmi(["Go  A", "go a"], ["x", "X"]) == 1  # neither varies
    # a a b | x y y: H = (0.6365, 0.6365), joint ln 3 = 1.0986, so I = 0.1744.
    h = math.log(3) - 2 / 3 * math.log(2)
    assert health.action_nmi(["a", "a", "b"], ["x", "y", "y"]) == pytest.approx((2 * h - math.log(3)) / h)
    with pytest.raises(ValueError, match="as many"):
        health.action_nmi(["a"], [])


def test_mutual_information_is_that_of_a_reference():
    rng = np.random.default_rng(0)
    for kinds in (2, 5, 40):
        ours, theirs = rng.integers(0, kinds, 60), rng.integers(0, 4, 60)
        theirs[:30] = ours[:30] % 4
        labels = [[f"go {x}" for x in labels] for labels in (ours, theirs)]
        assert health.action_nmi(*labels) == pytest.approx(normalized_mutual_info_score(ours, theirs))


def test_perplexity_ratio_by_hand():
    # Inferred: two tokens of 1/2 each; recorded: 1/8 in one token and 1/2 in another, geometric mean 1/4.
    inferred = ([2 * math.log(1 / 2)], [2])
    assert health.perplexity_ratio(inferred, ([math.log(1 / 8), math.log(1 / 2)], [1, 1])) == pytest.approx(2 / 4)
    assert health.perplexity_ratio(inferred, inferred) == 1


def test_collapsed_actions_ring_and_healthy_ones_do_not():
    recorded = ["go left", "go right", "pick up key", "drop key"] * 5
    assert health.collapse(recorded, recorded, 0.9) == []
    assert health.collapse([], []) == []
    [few] = health.collapse(["go left", "go right", "drop key", "drop key"] * 5, recorded, 2.5)
    assert "perplexity_ratio 2.5 (n = 20), expected 0.1 to 2" in few
    names = " ".join(health.collapse(["x"] * 20, recorded, 0.05))
    for name in ("unique_ratio 0.25", "nmi 0", "perplexity_ratio 0.05"):
        assert name in names
    assert "length_ratio" in " ".join(
        health.collapse([f"{a} and then all of the rest of it" for a in recorded], recorded)
    )
