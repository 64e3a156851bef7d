"""What is learned from an episode: rows, and the weight of each of their tokens."""

import pytest

from swirl import models, tiny
from swirl.agents import selfplay
from swirl.agents.episodes import Episode, Turn
from swirl.agents.replies import parse
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


def test_turns_that_are_read_alone_are_rows_and_what_cannot_be_read_is_none(tokenizer, episode):
    rows = selfplay.rows(tokenizer, episode, selfplay.put_right(episode, "whole"), context="turn")
    assert [tokenizer.decode(asked) for (asked, _), _ in rows] == ["at 1?", "at 2?"]
    assert [learned(tokenizer, row).count("<observation>") for row in rows] == [1, 1]


def test_states_that_are_believed_stay_and_those_that_are_masked_are_not_learned(tokenizer, episode):
    [row, _] = selfplay.rows(tokenizer, episode, selfplay.as_written(episode), masked=True, context="turn")
    assert learned(tokenizer, row) == "go</think><answer>Up</answer><|end|>"
    assert "<observation>at 9</observation>" in tokenizer.decode(row[0][1])


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
