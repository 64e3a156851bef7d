import math

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from swirl import api
from swirl.eval import trust

SURE = np.array([0.9, 0.6, 0.8, 0.3])
RIGHT = np.array([1.0, 0.0, 1.0, 1.0])


def test_calibration_by_hand():
    # In two bins: {0.3, 0.6} with accuracy 1/2, {0.8, 0.9} with accuracy 1.
    assert trust.bins(SURE, 2).tolist() == [1, 0, 1, 0]
    assert trust.reliability(SURE, RIGHT, 2) == [(pytest.approx(0.45), 0.5, 2), (pytest.approx(0.85), 1.0, 2)]
    assert trust.ece(SURE, RIGHT, 2) == pytest.approx((2 * 0.05 + 2 * 0.15) / 4)
    assert trust.ece(SURE, RIGHT, 1) == pytest.approx(0.75 - 0.65)
    assert trust.ece(np.array([1.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0])) == 0
    assert trust.ece(np.ones(4), np.array([1.0, 0.0, 0.0, 0.0])) == 0.75


def test_bins_have_equal_mass_and_equals_share_one():
    assert np.bincount(trust.bins(np.linspace(0, 1, 10) ** 4, 3)).tolist() == [4, 3, 3]
    tied = np.array([0.5, 0.1, 0.5, 0.5])
    assert len(set(trust.bins(tied, 4)[[0, 2, 3]])) == 1
    assert trust.ece(tied, np.array([1.0, 0.0, 0.0, 0.0]), 4) == trust.ece(tied, np.array([0.0, 0.0, 0.0, 1.0]), 4)


def test_bins_and_calibration_are_those_of_a_reference():
    rng = np.random.default_rng(0)
    sure = rng.random(200)
    right = (rng.random(200) < sure**2).astype(float)
    accuracy, mean = calibration_curve(right, sure, n_bins=10, strategy="quantile")
    table = trust.reliability(sure, right)
    assert [row[0] for row in table] == pytest.approx(mean.tolist())
    assert [row[1] for row in table] == pytest.approx(accuracy.tolist())
    assert [row[2] for row in table] == [20] * 10
    assert trust.ece(sure, right) == pytest.approx(np.abs(accuracy - mean).mean())


def test_selective_accuracy_by_hand():
    assert trust.selective_accuracy(SURE, RIGHT, 0.5) == 1.0  # 0.9 and 0.8
    assert trust.selective_accuracy(SURE, RIGHT, 0.75) == pytest.approx(2 / 3)  # and 0.6
    assert trust.selective_accuracy(SURE, RIGHT, 0.51) == pytest.approx(2 / 3)  # three rows cover half and more
    assert trust.selective_accuracy(SURE, RIGHT, 1.0) == 0.75
    # The third of three equals is as right as they are together.
    assert trust.selective_accuracy(np.array([0.9, 0.5, 0.5, 0.5]), RIGHT, 0.5) == pytest.approx((1 + 2 / 3) / 2)
    assert trust.selective_accuracy(np.linspace(0, 1, 15), np.array([1.0] * 3 + [0.0] * 12), 0.8) == 0.0


def test_area_under_the_risk_coverage_curve_by_hand():
    # Surest first: right, right, wrong, right. Risks 0, 0, 1/3, 1/4.
    assert trust.aurc(SURE, RIGHT) == pytest.approx((1 / 3 + 1 / 4) / 4)
    assert trust.aurc(-SURE, RIGHT) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert trust.aurc(np.ones(4), RIGHT) == pytest.approx(0.25)  # no order at all: the error rate


def test_a_better_order_has_a_smaller_area_and_the_slow_way_agrees():
    rng = np.random.default_rng(1)
    sure, right = rng.integers(0, 20, 60) / 20, rng.integers(0, 2, 60).astype(float)
    slow = []
    for _ in range(4000):  # equals in any order
        order = np.lexsort((rng.random(60), -sure))
        slow.append(np.mean([1 - right[order[:k]].mean() for k in range(1, 61)]))
    assert trust.aurc(sure, right) == pytest.approx(np.mean(slow), abs=0.002)
    assert trust.aurc(right, right) < trust.aurc(sure, right) < trust.aurc(1 - right, right)


ROWS = [
    {"state": f"door {a}", "action": f"go {b}", "next_state": f"door {b}", "trajectory": t, "step": i, "history": []}
    for i, (a, b, t) in enumerate([("shut", "left", "a"), ("left", "left", "a"), ("open", "right", "b")])
]


def test_confidence_is_the_probability_of_the_models_own_reply(run_folder):
    forward, inverse = api.load_forward(run_folder, "cpu"), api.load_inverse(run_folder, "cpu")
    texts, sure = trust.replies(forward, ROWS, 40)
    for row, text, share in zip(ROWS, texts, sure, strict=True):
        assert text == forward.predict(row["state"], row["action"], max_new_tokens=40)[0]
        assert share == pytest.approx(math.exp(forward.log_likelihood(row["state"], row["action"], text)), rel=1e-3)
    assert ((sure > 0) & (sure <= 1)).all()
    cut, _ = trust.replies(inverse, ROWS, 1)
    assert cut == [""] * 3  # an action that was cut off is no action, as in the one-step metrics


def test_a_reply_that_was_cut_off_is_as_sure_as_the_tokens_that_there_are(run_folder):
    forward = api.load_forward(run_folder, "cpu")
    whole, cut = (trust.replies(forward, ROWS, limit)[1] for limit in (40, 1))
    logits = [forward.scorer.model(torch.tensor([forward.encode(row)[0]])).logits[0, -1] for row in ROWS]
    assert cut == pytest.approx([float(row.softmax(-1).max()) for row in logits], rel=1e-4)
    assert (cut > whole).all()


def test_confidence_is_among_the_tokens_that_a_reply_may_have(run_folder, monkeypatch):
    forward = api.load_forward(run_folder, "cpu")
    logits = forward.scorer.model(torch.tensor([forward.encode(ROWS[0])[0]])).logits[0, -1]
    likeliest = int(logits.argmax())
    monkeypatch.setattr(forward.scorer, "suppressed", lambda role, style: [likeliest])
    _, [sure] = trust.replies(forward, ROWS[:1], 1)
    logits[likeliest] = -torch.inf
    assert sure == pytest.approx(float(logits.softmax(-1).max()), rel=1e-4)


def test_a_list_of_actions_gives_the_normalised_posterior(run_folder):
    inverse = api.load_inverse(run_folder, "cpu")
    actions = ("go left", "go right", "key")
    found = {r["metric"]: r for r in trust.measure(inverse, ROWS, 8, lambda state: actions)}
    shares, right = [], []
    for row in ROWS:
        nats = [inverse.log_likelihood(row["state"], row["next_state"], action) for action in actions]
        odds = np.exp(np.array(nats) - max(nats))
        shares.append((odds / odds.sum()).max())
        right.append(float(actions[int(np.argmax(nats))] == row["action"]))
    assert found["trust_listed_ece"]["value"] == pytest.approx(trust.ece(np.array(shares), np.array(right)), abs=1e-5)
    table = sorted(r["value"] for name, r in found.items() if name.startswith("trust_listed_confidence_b"))
    assert table == pytest.approx(sorted(shares), abs=1e-5)


def test_results_name_bins_coverages_and_changed_rows():
    sure = np.array([0.9, 0.8, 0.1])
    results = trust.results("m", "forward", "trust", ROWS, ["door left", "door left", "door left"], sure)
    found = {r["metric"]: (r["value"], r["n"]) for r in results}
    assert found["trust_ece"] == (pytest.approx((0.1 + 0.2 + 0.1) / 3), 3)  # right, right, wrong; a bin each
    assert found["trust_ece_changed"] == (pytest.approx((0.1 + 0.1) / 2), 2)  # the second changes nothing
    assert found["trust_selective_50"] == (1.0, 3)
    assert found["trust_selective_80"] == (pytest.approx(2 / 3), 3)
    assert found["trust_aurc_changed"] == (pytest.approx((0 + 1 / 2) / 2), 2)
    assert (found["trust_confidence_b1"], found["trust_accuracy_b1"]) == ((0.1, 1), (0.0, 1))
    assert {r["role"] for r in results} == {"forward"}
    # Chance only adds to an ECE: resampled, it would be greater than what it is an interval of.
    bare = {r["metric"].rpartition("_b")[0] or r["metric"] for r in results if r["low"] is None}
    assert bare == {"trust_ece", "trust_ece_changed", "trust_confidence", "trust_accuracy"}
    assert trust.results("m", "forward", "trust", [], [], np.empty(0)) == []


def test_a_model_that_was_always_right_is_not_sure_to_be():
    rows = [{**ROWS[0], "trajectory": f"t{i}", "layout": f"l{i}"} for i in range(20)]
    results = trust.results("m", "forward", "trust", rows, [rows[0]["next_state"]] * 20, np.linspace(0.5, 1, 20))
    found = {r["metric"]: (r["low"], r["high"]) for r in results}
    assert found["trust_selective_50"] == pytest.approx((0.8316, 1), abs=5e-5)  # as 20 of 20
    assert found["trust_aurc"] == pytest.approx((0, 1 - 0.8316), abs=5e-5)
