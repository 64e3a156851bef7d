"""What is learned from an episode: rows, and the weight of each of their tokens."""

from dataclasses import replace

import numpy as np
import pytest

from swirl import models, tiny
from swirl.agents import selfplay
from swirl.agents.episodes import Episode, Turn
from swirl.agents.replies import Reply, parse
from swirl.config import Model

TELLS = "<think><observation>at 9</observation>go<prediction>at 9</prediction></think><answer>Up</answer>"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    tiny.build(["at 1", "at 2"], folder, Model(vocabulary=300, hidden=32, layers=1, heads=2), seed=0)
    return models.load_tokenizer(folder)


@pytest.fixture
def episode(tokenizer):
    """Of three turns: two that tell wrong states, and between them one that cannot be read."""

    def turn(text, state, after):
        ids = tokenizer(text.removeprefix("<think>"))["input_ids"]
        return Turn(state, tokenizer(f"{state}?")["input_ids"], ids, text, parse(text), True, ["Up"], [after])

    return Episode(0, "", [turn(TELLS, "at 1", "at 2"), turn("<think>no", "at 2", "at 2"), turn(TELLS, "at 2", "at 3")])


def learned(tokenizer, row):
    (_, completion), weights = row
    assert len(completion) == len(weights)
    return tokenizer.decode([token for token, weight in zip(completion, weights, strict=True) if weight])


def test_an_episode_is_one_row_whose_states_are_put_right(tokenizer, episode):
    [row] = selfplay.rows(tokenizer, episode, selfplay.put_right(episode, "whole"))
    first = "<observation>at 1</observation>go<prediction>at 2</prediction></think><answer>Up</answer>"
    third = "<observation>at 2</observation>go<prediction>at 3</prediction></think><answer>Up</answer>"
    assert learned(tokenizer, row) == f"{first}<|end|>{third}<|end|>"
    assert tokenizer.decode(row[0][0]) == "at 1?"
    # The turn that cannot be read stays in the conversation as it was written.
    assert tokenizer.decode(row[0][1]) == f"{first}<|end|>at 2?noat 2?{third}<|end|>"


def test_actions_for_which_there_was_no_room_are_not_learned(episode):
    text = (
        "<think><observation>at 9</observation>go<prediction>at 9</prediction></think><answer>Up || Fly || Up</answer>"
    )
    turn = Turn("at 1", [1], [2], text, parse(text), True, ["Up"], ["at 2"], unknown=1)
    for ended, actions in ((False, ("Up", "Fly")), (True, ("Up", "Fly", "Up"))):
        episode.turns, episode.ended = [turn], ended
        [reply] = selfplay.put_right(episode, "whole")
        assert reply == Reply(actions, "go", "at 1", "at 2")
    episode.turns.append(replace(turn))  # that one ended it, the first did not
    assert [len(reply.actions) for reply in selfplay.put_right(episode, "whole")] == [2, 3]


def test_turns_that_are_read_alone_are_rows_and_what_cannot_be_read_is_none(tokenizer, episode):
    rows = selfplay.rows(tokenizer, episode, selfplay.put_right(episode, "whole"), context="turn")
    assert [tokenizer.decode(asked) for (asked, _), _ in rows] == ["at 1?", "at 2?"]
    assert [learned(tokenizer, row).count("<observation>") for row in rows] == [1, 1]


def test_states_that_are_believed_stay_and_those_that_are_masked_are_not_learned(tokenizer, episode):
    [row, _] = selfplay.rows(tokenizer, episode, selfplay.as_written(episode, "states"), masked=True, context="turn")
    assert learned(tokenizer, row) == "go</think><answer>Up</answer><|end|>"
    assert "<observation>at 9</observation>" in tokenizer.decode(row[0][1])


def test_replies_stay_as_they_are_in_the_form_that_was_asked_for_alone(episode):
    plain = "<think>go</think><answer>Up</answer>"
    episode.turns.append(Turn("at 3", [1], [2], plain, parse(plain), True, ["Up"], ["at 4"]))
    assert selfplay.as_written(episode, "plain") == [None, None, None, parse(plain)]
    assert selfplay.as_written(episode, "states") == [parse(TELLS), None, parse(TELLS), None]


def test_states_that_are_dealt_out_are_those_that_others_told():
    def turn(number):
        text = f"<think><observation>at {number}</observation>go<prediction>to {number}</prediction></think>"
        return Turn("", [1], [2], "", parse(f"{text}<answer>Up {number}</answer>"), True)

    unread = Turn("", [1], [2], "", None, True)
    episodes = [Episode(0, "", [turn(0), unread, *map(turn, range(1, 20))]), Episode(1, "", [turn(20)])]
    new = selfplay.dealt_out(episodes, np.random.default_rng(0))
    assert [len(replies) for replies in new] == [21, 1]
    assert new[0].pop(1) is None
    replies = [reply for of_episode in new for reply in of_episode]
    assert [reply.actions for reply in replies] == [(f"Up {number}",) for number in range(21)]
    for at, word in (("observation", "at"), ("prediction", "to")):
        dealt = [getattr(reply, at) for reply in replies]
        assert sorted(dealt) == sorted(f"{word} {number}" for number in range(21))
        assert sum(text == f"{word} {number}" for number, text in enumerate(dealt)) < 4
    # Neither state tells the other.
    assert sum(reply.observation[3:] == reply.prediction[3:] for reply in replies) < 4


def test_replies_that_tell_no_states_stay_as_they_are():
    plain = parse("<think>go</think><answer>Up</answer>")
    episode = Episode(0, "", [Turn("", [1], [2], "", plain, True)])
    assert selfplay.dealt_out([episode], np.random.default_rng(0)) == [[plain]]


def test_where_nothing_can_be_read_there_is_no_row(tokenizer, episode):
    for context in ("episode", "turn"):
        assert selfplay.rows(tokenizer, episode, [None] * 3, context=context) == []


def test_rows_that_are_evened_weigh_the_same(tokenizer, episode):
    [row] = selfplay.rows(tokenizer, episode, selfplay.put_right(episode, "whole"))
    encoded, weights = selfplay.evened(row)
    assert encoded == row[0]
    assert sum(weights) == pytest.approx(1)
    assert [weight > 0 for weight in weights] == [weight > 0 for weight in row[1]]
    assert len({weight for weight in weights if weight}) == 1
