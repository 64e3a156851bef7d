import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl.labelling import Candidate
from swirl.posterior import Posterior, certain, check, fit, idle


def pair(inverse, forward, actions="ab"):
    """Candidates with these log-likelihoods, best by the forward model first."""
    group = [Candidate(a, q, p) for a, q, p in zip(actions, inverse, forward, strict=True)]
    return sorted(group, key=lambda c: -c.forward)


def test_the_posterior_weighs_both_models_by_hand():
    group = pair([math.log(0.1), math.log(0.9)], [math.log(0.4), math.log(0.1)])
    action, probability = Posterior().best(group)
    assert (action, probability) == ("b", pytest.approx(0.09 / 0.13))
    action, probability = Posterior(inverse=0.5, forward=1.0, absent=0.2).best(group)
    root = math.sqrt(0.1) * 0.4, math.sqrt(0.9) * 0.1
    assert (action, probability) == ("a", pytest.approx(root[0] / (sum(root) + 0.2)))
    assert [c.action for c in Posterior().ranked(group)] == ["b", "a"]
    assert [c.action for c in Posterior(inverse=0.5).ranked(group)] == ["a", "b"]
    assert [c.action for c in Posterior(0.0, 0.0).ranked(group)] == [c.action for c in group]
    assert Posterior().best([Candidate("a", -700.0, -900.0), Candidate("b", -800.0, -900.0)]) == ("a", 1.0)
    assert Posterior(absent=1e-9).best([Candidate("a", -700.0, -900.0)]) == ("a", pytest.approx(0.0))
    assert Posterior().best([Candidate("a", math.log(0.6)), Candidate("b", math.log(0.2))])[1] == pytest.approx(0.75)


def test_an_overconfident_model_is_believed_as_often_as_it_is_right():
    """Ten nats sure and right three times in four: sigmoid(10 a) = 3/4 at a = ln 3 / 10 = 0.11."""
    groups = [pair([0.0, -10.0], [-1.0, -1.0])] * 4
    fitted = fit(groups, ["a", "a", "a", "b"])
    assert fitted.inverse == pytest.approx(0.1)
    assert fitted.covered == 1.0
    assert fitted.best(groups[0])[1] == pytest.approx(1 / (1 + math.exp(-1)))


def test_the_model_that_knows_outweighs_the_one_that_guesses():
    sure_of_a, sure_of_b = [-0.1, -9.0], [-9.0, -0.1]
    groups = [pair(sure_of_a, sure_of_b), pair(sure_of_b, sure_of_b), pair(sure_of_a, sure_of_a)] * 5
    by_forward = fit(groups, ["b", "b", "a"] * 5)
    assert by_forward.forward > by_forward.inverse
    assert [by_forward.best(group)[0] for group in groups[:3]] == ["b", "b", "a"]
    by_inverse = fit(groups, ["a", "b", "a"] * 5)
    assert by_inverse.inverse > by_inverse.forward
    assert [by_inverse.best(group)[0] for group in groups[:3]] == ["a", "b", "a"]


def test_none_of_the_candidates_is_expected_as_often_as_it_was_so():
    groups = [pair([0.0, -9.0], [-1.0, -9.0])] * 4
    fitted = fit(groups, ["a", "A ", "c", "d"])
    assert fitted.covered == 0.5
    assert fitted.best(groups[0])[1] == pytest.approx(0.5, abs=0.01)  # the other candidate has the rest
    assert certain(groups, fitted, 0.6) == ({}, {})
    never = fit([*groups, []], ["c"] * 5)
    assert never.covered == 0.0 and never.best(groups[0])[1] == pytest.approx(0.0)
    assert fit([[], []], ["a", "b"]).covered == 0.0
    with pytest.raises(ValueError, match="no labelled transitions"):
        fit([], [])


def test_a_candidate_that_both_models_find_unlikely_is_not_sure_for_being_alone():
    likely, poor = [Candidate("a", -0.1, -0.1)], [Candidate("x", -6.0, -9.0)]
    fitted = fit([likely, poor] * 10, ["a", "b"] * 10)
    assert fitted.best(likely)[1] > 0.95 and fitted.best(poor)[1] < 0.05
    # as sure as both are, a mean of 0.9 admits the likely ones alone
    assert set(certain([poor, likely, poor, likely], fitted, 0.9)[0]) == {1, 3}


def test_pairs_without_candidates_do_not_change_how_the_others_are_judged():
    groups = [pair([0.0, -10.0], [-1.0, -1.0])] * 4
    plain, more = fit(groups, ["a", "a", "a", "b"]), fit([*groups, []], ["a", "a", "a", "b", "a"])
    assert (more.inverse, more.forward, more.absent, more.covered) == (plain.inverse, plain.forward, 0.0, 0.8)


@given(st.lists(st.tuples(st.floats(-50, 0), st.floats(-500, 0), st.booleans()), min_size=1, max_size=20))
def test_expected_and_observed_share_of_none_agree(rows):
    """The derivative of the likelihood by the weight of "none" is their difference."""
    groups = [[Candidate("a", q, p)] for q, p, _ in rows]
    fitted = fit(groups, ["a" if right else "b" for *_, right in rows])
    expected = sum(1 - fitted.best(group)[1] for group in groups)
    assert expected == pytest.approx(sum(not right for *_, right in rows), abs=1e-6)


def test_candidates_are_dropped_only_where_their_weighted_probability_is_small():
    assert Posterior(1.0).least(0.01) == pytest.approx(0.01)
    assert Posterior(0.5).least(0.01) == pytest.approx(0.0001)
    assert Posterior(0.0).least(0.01) == 0.0


def test_the_surest_labels_are_kept_while_their_mean_is_precise_enough():
    shares = [0.6, 0.99, 0.9, 0.8]
    groups = [pair([math.log(p), math.log(1 - p)], [-1.0, -1.0]) for p in shares]
    kept, least = certain([*groups, []], Posterior(), 0.94)
    assert list(kept.items()) == [(1, "a"), (2, "a")]
    assert least == {"a": pytest.approx(0.9)}
    assert list(certain(groups, Posterior(), 0.82)[0]) == [1, 2, 3, 0]
    assert certain(groups, Posterior(), 1.0) == ({}, {})


def test_a_least_share_of_every_action_is_kept_however_unsure():
    groups = [pair([math.log(p), math.log(1 - p)], [-1.0, -1.0]) for p in [0.6, 0.99, 0.9, 0.8, 0.3, 0.45]]  # a, then b
    assert list(certain([*groups, []], Posterior(), math.inf, 0.5)[0].items()) == [(1, "a"), (2, "a"), (4, "b")]
    assert list(certain(groups, Posterior(), math.inf, 0.49)[0]) == [1]  # 1.96 of four, 0.98 of two
    kept, least = certain(groups, Posterior(), 0.94, 0.5)
    assert list(kept) == [1, 2, 4]  # the first two are precise enough by themselves
    assert least == {"a": pytest.approx(0.9), "b": pytest.approx(0.7)}
    assert list(certain(groups, Posterior(), 0.89, 0.5)[0]) == [1, 2, 3, 4]
    assert list(certain(groups, Posterior(), math.inf, 1.0)[0]) == [1, 2, 3, 4, 0, 5]
    rare = [
        [Candidate(f"c{i}", math.log(p)), Candidate("-", math.log(1 - p))] for i, p in enumerate([0.6, 0.9, 0.8, 0.7])
    ]
    assert list(certain([*groups, *rare], Posterior(), math.inf, 0.5)[0]) == [1, 2, 7, 8, 4]  # two of the four together
    spelt = [pair([0.0, -9.0], [-1.0, -1.0], [name, "b"]) for name in ("Go north", "go  north")]
    assert len(certain(spelt, Posterior(), math.inf, 0.5)[0]) == 1


def test_what_is_kept_is_checked_where_the_truth_is_known():
    groups = [pair([math.log(p), math.log(1 - p)], [-1.0, -1.0]) for p in [0.6, 0.99, 0.9]]
    truths = ["a", "a", "b", "a"]
    counts = check([*groups, []], truths, Posterior(), {"a": 0.9 - 1e-9})
    assert counts == {"validation": 4, "validation_kept": 2, "validation_right": 1}
    assert check([*groups, []], truths, Posterior(), {"b": 0.1})["validation_kept"] == 0


def test_what_changed_nothing_gets_an_action_as_often_as_it_is_taken_and_changes_nothing():
    """P(z) is 2/10, 6/10 and 2/10, each action counted once more; times P(x | x, z): 0.02, 0.3 and 0.08 of 0.4."""
    group = pair([-5.0, -0.1, -9.0], [math.log(0.1), math.log(0.5), math.log(0.4)], "abc")
    drawn = idle([group, [], *[group] * 2000], ["a", "B ", "b", "b", "b", "b", "c"], seed=0)
    assert sorted(drawn) == [0, *range(2, 2002)]
    counts = {action: list(drawn.values()).count(action) for action in "abc"}
    assert counts["a"] == pytest.approx(2001 * 0.05, abs=50)  # five standard deviations
    assert counts["b"] == pytest.approx(2001 * 0.75, abs=100)
    assert idle([group] * 9, [], seed=1) == idle([group] * 9, [], seed=1)
    unlikely = pair([0.0, 0.0], [-900.0, -990.0])
    assert idle([unlikely], [], seed=0) == {0: "a"}


@given(
    st.lists(st.tuples(st.floats(-30, 0), st.floats(-30, 0)), min_size=1, max_size=20),
    st.floats(0.05, 0.99),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_no_larger_set_of_the_surest_would_do(scores, precision, a, b):
    groups = [pair([q, -2.0], [p, -2.0]) for q, p in scores]
    posterior = Posterior(a, b)
    kept, _ = certain(groups, posterior, precision)
    sure = sorted((posterior.best(group)[1] for group in groups), reverse=True)
    means = [sum(sure[:n]) / n for n in range(1, len(sure) + 1)]
    assert len(kept) in [sum(mean >= precision + error for mean in means) for error in (-1e-9, 0, 1e-9)]
    assert all(action == posterior.best(groups[i])[0] for i, action in kept.items())
