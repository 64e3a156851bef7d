"""The rules by which long states are cut, by hand and on wild ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl.importers.cutting import POLICIES, shortened
from swirl.importers.rows import Row

TEN = [f"line {number}" for number in range(10)]
TEXTS = st.lists(st.sampled_from(["a", "bb", "ccc", "", "a long line of text"]), min_size=1, max_size=30).map("\n".join)


def cut(state, next_state, longest, policy="truncate-unchanged"):
    row = Row("f:1", state, next_state)
    result = shortened(row, longest, policy)
    return result, row.state.split("\n"), row.next_state.split("\n")


def test_lines_near_a_change_are_kept():
    new = [*TEN[:5], "line five", *TEN[6:]]
    left_out = ["… 4 lines", "line 4", "line 5", "line 6", "… 3 lines"]
    assert cut("\n".join(TEN), "\n".join(new), 43) == (True, left_out, [*left_out[:2], "line five", *left_out[3:]])
    assert cut("\n".join(TEN), "\n".join(new), 42)[1] == ["… 5 lines", "line 5", "… 4 lines"]
    assert cut("\n".join(TEN), "\n".join(new), 72) == (False, TEN, new)  # the longer one has 72


def test_between_two_changes_lines_are_kept_near_both():
    new = ["first", *TEN[1:9], "last"]
    state, next_state = cut("\n".join(TEN), "\n".join(new), 40)[1:]
    assert state == ["line 0", "line 1", "… 6 lines", "line 8", "line 9"]
    assert next_state == ["first", "line 1", "… 6 lines", "line 8", "last"]


def test_a_change_that_is_too_long_by_itself_is_left_out():
    assert cut("a\nb", "a\n" + "c" * 50, 40)[0] is None


def test_without_a_change_the_end_is_dropped():
    assert cut("\n".join(TEN), "\n".join(TEN), 13) == (True, TEN[:2], TEN[:2])


@pytest.mark.parametrize("policy", POLICIES[2:])
@given(state=TEXTS, next_state=TEXTS, longest=st.integers(1, 60))
def test_what_is_cut_fits_and_equal_states_stay_equal(policy, state, next_state, longest):
    result, old, new = cut(state, next_state, longest, policy)
    fits = max(len(state), len(next_state)) <= longest
    assert (result is False) == fits
    if result is None:
        assert policy == "truncate-unchanged"
        assert (old, new) == (state.split("\n"), next_state.split("\n"))
        return
    assert max(len("\n".join(old)), len("\n".join(new))) <= longest
    assert state != next_state or old == new
    if policy == "truncate-unchanged" and state != next_state:
        assert old != new
        for before, after in ((state, old), (next_state, new)):
            stood_for = [int(line.split()[1]) if line.startswith("… ") else 1 for line in after]
            assert sum(stood_for) == len(before.split("\n"))
