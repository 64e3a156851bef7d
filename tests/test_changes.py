import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl.changes import apply, changed_tokens, describe, shortest

LINES = st.lists(st.sampled_from(["", "a", "b", "-a", "+b", "@1", "=", "agent 1 2 up"]), max_size=8).map("\n".join)


def test_a_changed_line_is_written_as_what_goes_and_what_comes():
    assert describe("room\nagent 1 2 up\ngoal", "room\nagent 1 1 up\ngoal") == "-agent 1 2 up\n+agent 1 1 up"


def test_a_new_line_is_placed_by_number():
    assert describe("a\nc", "a\nb\nc") == "@1\n+b"


def test_nothing_changed():
    assert describe("a", "a") == "="
    assert apply("a\nb", "=") == "a\nb"


def test_a_line_that_occurs_twice_is_placed_by_number():
    assert describe("a\nb\na", "a\nb\nc") == "@2\n-a\n+c"
    assert apply("a\nb\na", "-a\n+c") == "c\nb\na"


def test_what_hardly_keeps_anything_is_written_whole():
    assert describe("hall\nlamp\ndoor", "kitchen\ndoor") == "-hall\n-lamp\n+kitchen"
    assert shortest("hall\nlamp\ndoor", "kitchen\ndoor") == "*\nkitchen\ndoor"  # 14 characters for 19
    assert shortest("a\nb\nc", "a\nd\nc") == "-b\n+d"
    assert shortest("ab", "a") == "*\na" and shortest("a", "b") == "*\nb"
    assert shortest("a", "a") == "="
    assert shortest("abcdefgh\nzz", "\n\n") == describe("abcdefgh\nzz", "\n\n")
    assert shortest("abcd", "") == "-abcd\n+"


def test_a_whole_next_state_is_read_whatever_stands_behind_its_mark():
    assert apply("a", "* \r\nkitchen\n door") == "kitchen\n door"
    for change in ("*", "*kitchen", "* kitchen", "-a\n*\nkitchen"):
        assert apply("a", change) is None


@given(st.one_of(LINES, st.text()), st.one_of(LINES, st.text()))
def test_the_shortest_form_gives_the_next_state_and_is_no_longer_than_either(state, next_state):
    form = shortest(state, next_state)
    assert apply(state, form) == next_state
    whole = [len(next_state) + 2] if next_state and not next_state[-1].isspace() else []
    assert len(form) == min(len(describe(state, next_state)), *whole, 10**9)


@given(LINES, LINES)
def test_applying_what_was_described_gives_the_next_state(state, next_state):
    assert apply(state, describe(state, next_state)) == next_state


@given(st.text(), st.text())
def test_any_text_comes_back(state, next_state):
    assert apply(state, describe(state, next_state)) == next_state


@given(LINES, st.one_of(LINES, st.text()))
def test_any_reply_is_applied_or_refused(state, change):
    assert apply(state, change) is None or isinstance(apply(state, change), str)


def test_what_does_not_fit_is_refused():
    for change in ("", "nonsense", "-z\n+b", "@9\n+b", "@x\n+b", "@0", "+b", "-a\n+b\nrest", "=\n-a", "@1\n-a"):
        assert apply("a\nb", change) is None, change


@pytest.mark.parametrize(
    ("before", "after", "marked"),
    [
        ("abcd", "abcd", "...."),
        ("abcd", "abXd", "..x."),  # in place of c
        ("abcd", "abXcd", "..x.."),  # comes in between
        ("abcd", "abd", "..x"),  # where copying on would write c
        ("abcd", "bcd", "x.."),
        ("abcd", "abc", "..."),  # nothing stands behind it: in completions the end token does
        ("abcd", "XYcd", "xx.."),
        ("ab", "", ""),
        ("", "ab", "xx"),
    ],
)
def test_tokens_of_what_changed_are_those_that_copying_on_would_miss(before, after, marked):
    assert changed_tokens(list(map(ord, before)), list(map(ord, after))) == [mark == "x" for mark in marked]
