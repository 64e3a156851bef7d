"""What is measured of episodes, against numbers worked out by hand."""

import itertools

import pytest

from swirl.agents.episodes import Episode, Turn
from swirl.agents.measures import measure, monitored, pass_at_k
from swirl.agents.replies import Reply


def test_pass_at_k_is_the_share_of_draws_that_have_a_success():
    samples = [True, True, False, False, False]
    for k in range(1, 6):
        draws = list(itertools.combinations(samples, k))
        assert pass_at_k(5, 2, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize("k", [0, 6])
def test_pass_at_k_of_more_than_there_are_is_refused(k):
    with pytest.raises(ValueError, match="expected 1 to 5"):
        pass_at_k(5, 2, k)


def turn(state, states, read, unknown=0, penalty=0.0, finished=True, text="a"):
    actions = ["Up"] * len(states)
    return Turn(state, [1], [2, 3], text, read, finished, actions, states, [-0.1] * len(states), unknown, penalty)


def values(episodes, ks=(1,)):
    return {row["metric"]: row["value"] for row in measure(episodes, ks, "whole")}


def test_passing_is_over_seeds():
    tries = [True, False, False, False], [False] * 4, [True] * 4
    played = [turn("s0", ["s1"], Reply(("Up",)))]
    episodes = [Episode(seed, f"room {seed}", played, success) for seed, group in enumerate(tries) for success in group]
    found = {row["metric"]: row for row in measure(episodes, [1, 2], "whole")}
    assert found["pass_at_1"]["value"] == pytest.approx((0.25 + 0 + 1) / 3)
    assert found["pass_at_2"]["value"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert found["pass_at_1"]["n"] == 3
    assert (found["pass_at_1"]["successes"], found["pass_at_1"]["samples"]) == ([1, 0, 4], 4)


def test_intervals_are_over_layouts():
    played = [turn("s0", ["s1"], Reply(("Up",)))]
    for rooms, least in ((4, 0.9), (12, 0.2)):  # four layouts of three seeds each are four draws, not twelve
        episodes = [Episode(seed, f"room {seed % rooms}", played, seed % 4 < 2) for seed in range(12)]
        [row] = [row for row in measure(episodes, [1], "whole") if row["metric"] == "pass_at_1"]
        assert row["value"] == 0.5
        assert (row["high"] - row["low"] >= least) and (rooms == 4 or row["high"] - row["low"] < 0.9)


def test_an_episode_that_the_model_could_not_go_on_reading_is_counted():
    played = [turn("s0", ["s1"], Reply(("Up",)))]
    found = values([Episode(0, "a", played, outgrown=True), Episode(1, "b", played), Episode(2, "c", played)])
    assert found["outgrown"] == pytest.approx(1 / 3)


def test_what_is_watched_while_training():
    good, bad = turn("s0", ["s1", "s1"], Reply(("Up", "Up"))), turn("s2", [], None, penalty=-0.1)
    found = monitored([Episode(0, "", [good, bad], True), Episode(0, "", [good])])
    assert found == {
        "success": 0.5,
        "score": pytest.approx((-0.3 - 0.2) / 2),
        "steps": 4,
        "episodes": 2,
        "readable": pytest.approx(2 / 3),
        "reply_tokens": 2,
        "repeated_replies": 1.0,
    }


def test_replies_are_measured():
    good = turn("s0", ["s1", "s1"], Reply(("Up", "Up"), "", "s0", "s2"))
    odd = turn("s1", ["s2"], Reply(("Up", "Fly"), "", "s0", "s2"), unknown=1, penalty=-0.1, text="b")
    bad = turn("s2", [], None, penalty=-0.1, finished=False)
    assert "uncertainty" not in values([Episode(7, "", [good, odd, bad])]), "of a world"
    good.doubts, odd.doubts = [0.5, 0.0], [1.0]
    assert monitored([Episode(7, "", [good, odd, bad])])["uncertainty"] == pytest.approx(0.5)
    found = values([Episode(7, "", [good, odd, bad])])
    assert found["uncertainty"] == pytest.approx((0.25 + 1) / 2)
    assert found["score"] == pytest.approx(-0.1 * 3 - 0.2)
    assert found["steps"] == 3
    assert found["readable"] == pytest.approx(2 / 3)
    assert found["cut_off"] == pytest.approx(1 / 3)
    assert found["valid_actions"] == pytest.approx((1 + 0.5) / 2), "of those that wrote any"
    assert found["effective_actions"] == pytest.approx((0.5 + 1) / 2)
    assert found["observation_exact"] == pytest.approx(0.5)
    assert found["prediction_exact"] == pytest.approx(0.5), "the first expects s2 and gets s1"
    assert found["reply_tokens"] == 2
    assert found["repeated_replies"] == pytest.approx(1 / 3), "a, b and a: one of three pairs"


@pytest.mark.parametrize("times", [1, 40])
def test_how_often_replies_repeat_does_not_depend_on_how_many_there_are(times):
    played = [turn("s0", ["s1"], Reply(("Up",)), text=str(i % 5)) for i in range(100 * times)]
    assert values([Episode(0, "", played)])["repeated_replies"] == pytest.approx(1 / 5, abs=0.01)
