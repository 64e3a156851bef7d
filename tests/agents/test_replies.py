"""Replies: both forms, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl.agents.replies import Reply, parse, state_spans, told, with_states

STATES = "<think><observation>at 1</observation>go up<prediction>at 2</prediction></think><answer>Up || Up</answer>"


def test_a_reply_in_the_plain_form():
    assert parse("<think>go up</think>\n<answer> Up ||Left </answer>\n") == Reply(("Up", "Left"), "go up")


def test_a_reply_that_tells_states():
    assert parse(STATES) == Reply(("Up", "Up"), "go up", "at 1", "at 2")
    assert parse(STATES).text() == STATES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Up",
        "<answer>Up</answer>",
        "<think>go</think><answer></answer>",
        "<think>go</think><answer> || </answer>",
        "<think>go</think><answer>Up</answer> and more",
        "<think>go<think>again</think><answer>Up</answer>",
        "<think>go</think><answer>Up</answer><answer>Down</answer>",
        "<think><observation>at 1</observation>go</think><answer>Up</answer>",
        "<think><prediction>at 1</prediction>go</think><answer>Up</answer>",
        "<think>go</think>Up<answer>Up</answer>",
    ],
)
def test_what_is_no_reply(text):
    assert parse(text) is None


def test_an_answer_is_never_taken_apart_into_characters():
    assert parse("<think></think><answer>Up</answer>").actions == ("Up",)


WORDS = st.text(st.characters(exclude_characters="<>|", exclude_categories=["Cs"]), max_size=20).map(str.strip)
ACTIONS = st.lists(WORDS.filter(bool), min_size=1, max_size=5).map(tuple)


@given(ACTIONS, WORDS, st.none() | st.tuples(WORDS, WORDS))
def test_what_is_written_is_read_back(actions, thoughts, states):
    reply = Reply(actions, thoughts, *(states or (None, None)))
    assert parse(reply.text()) == reply


@given(st.text(st.sampled_from("<>/|aU \nthinkanswerobservation"), max_size=60))
def test_any_text_is_read_or_not_but_never_breaks(text):
    assert parse(text) is None or parse(text).actions


def test_states_are_put_right_and_nothing_else_is():
    right = with_states(parse(STATES), "at 3", "at 4")
    assert right.text() == STATES.replace("at 1", "at 3").replace("at 2", "at 4")


def test_where_the_states_stand():
    spans = [STATES[begin:end] for begin, end in state_spans(STATES)]
    assert spans == ["<observation>at 1</observation>", "<prediction>at 2</prediction>"]
    assert state_spans("<think>go</think><answer>Up</answer>") == []


def test_what_is_told_of_a_state():
    assert told("# P\nPlayer (P) is at (0,1).", "facts") == "Player (P) is at (0,1)."
    assert told("# P\n# #", "facts") == "# P\n# #", "without coordinates the grid is all there is to tell"
    assert told("# P\nx", "whole") == "# P\nx"
