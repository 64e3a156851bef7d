"""Reward and end read off two texts: those of every real step, and nothing off what is no state."""

import copy

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swirl import worlds
from swirl.worlds.base import Rules, check_world

WORLDS = [
    ("frozenlake", {}),
    ("frozenlake", {"size": 6, "slippery": True}),
    ("frozenlake", {"scattered": True}),
    ("frozenlake", {"size": 3, "slippery": True, "coordinates": False}),
    ("sokoban", {"size": 5}),
    ("sokoban", {"size": 7, "boxes": 2, "coordinates": False}),
    ("sokoban", {"size": 7, "boxes": 3}),
    ("sudoku", {}),
    ("sudoku", {"coordinates": False, "empty": 3}),
    ("sudoku", {"block": 3, "empty": 12, "max_steps": 60}),
]


def played(world, seeds):
    """Every step of every behaviour: state, next state, and what `step` gave."""
    for seed in seeds:
        for number, behaviour in enumerate(world.behaviours):
            state, _ = world.reset(seed)
            rng, ended = np.random.default_rng([seed, number]), False
            while not ended:
                after, reward, terminated, truncated, _ = world.step(world.act(behaviour, rng))
                yield state, after, (reward, terminated)
                state, ended = after, terminated or truncated


@pytest.mark.parametrize(("name", "options"), WORLDS)
def test_what_is_read_is_what_the_step_gave(name, options):
    world, other = worlds.make(name, **options), worlds.make(name)  # which is in no episode, and of other options
    assert isinstance(world, Rules)
    found = set()
    for state, after, given_ in played(world, range(25)):
        assert other.outcome(state, after) == given_
        found.add(given_)
    assert {end for _, end in found} == {False, True}
    assert len(found) > 1


def test_ends_of_all_kinds_are_met():
    lake = {outcome for *_, outcome in played(worlds.make("frozenlake", slippery=True), range(25))}
    assert lake == {(0.0, False), (0.0, True), (1.0, True)}
    rooms = {outcome for *_, outcome in played(worlds.make("sokoban", size=7, boxes=2), range(25))}
    assert {round(reward, 1) for reward, _ in rooms} == {-1.1, -0.1, 0.9, 10.9}


LAKE = "P _ O\n_ _ _\n_ _ G\nPlayer (P) is at (0,0); hole (O) is at (0,2); goal (G) is at (2,2)."
ROOM = "# # # # #\n# P X O #\n# _ _ _ #\n# _ _ _ #\n# # # # #"
BOARD = "| 1 2 | 3 4 |\n| 3 4 | 1 2 |\n-------------\n| 2 1 | 4 3 |\n| 4 3 | 2 . |"
SHIFTED = "| 1 2 | 3 4 |\n| 2 3 | 4 1 |\n-------------\n| 3 4 | 1 2 |\n| 4 1 | 2 . |"
GIVEN = "\nGiven positions are (1,1) and (1,2).\nEmpty positions to be filled are at (4,4)."


@pytest.mark.parametrize(
    ("name", "state", "after", "expected"),
    [
        ("frozenlake", LAKE, "_ _ O\n_ _ _\n_ _ √", (1.0, True)),  # whatever stands below the grid, or does not
        ("frozenlake", LAKE, "_  _ X \n_ _ _\n_ _ G\nPlayer (P) is lost.", (0.0, True)),  # and between the symbols
        ("frozenlake", LAKE, "_ _ O\n_ _ _\n_ _ G", None),  # no player
        ("frozenlake", LAKE, "P _ O\n_ _ _\n_ _ √", None),  # two
        ("frozenlake", LAKE, "_ _ X\n_ P _\n_ _ G", None),
        ("frozenlake", LAKE, "_ _ O\n_ √ _\n_ _ _", None),  # the goal has moved
        ("frozenlake", LAKE, "_ _ O\n_ _ _\n_ _", None),
        ("frozenlake", LAKE, "_ _ O\n_ _ _\n_ _ √\none\ntwo", None),
        ("frozenlake", "", "", None),
        ("sokoban", ROOM, ROOM.replace("P X O", "_ P √"), (10.9, True)),
        ("sokoban", ROOM, ROOM.replace("P X O", "P _ √"), (10.9, True)),  # how it got there is not asked
        ("sokoban", ROOM, ROOM.replace("P X O", "_ P O"), None),  # the box is gone
        ("sokoban", ROOM, ROOM.replace("X O", "_ _"), None),  # the target with it
        ("sokoban", ROOM.replace("X O", "_ _"), ROOM.replace("X O", "_ _"), None),  # nothing to be done
        ("sokoban", ROOM, ROOM.replace("P X O #", "_ P √ _"), None),  # a wall
        ("sudoku", BOARD, BOARD.replace(".", "1"), (1.0, True)),
        ("sudoku", BOARD, BOARD.replace(".", "2"), (0.0, False)),
        ("sudoku", SHIFTED, SHIFTED.replace(".", "3"), (0.0, False)),  # rows and columns are right, blocks are not
        ("sudoku", BOARD + GIVEN, BOARD.replace(".", "1") + GIVEN, (1.0, True)),
        ("sudoku", BOARD.replace("1 2 | 3", "2 1 | 3") + GIVEN, BOARD.replace(".", "1") + GIVEN, None),
        ("sudoku", BOARD, BOARD.replace(".", "9"), None),
        ("sudoku", BOARD, BOARD.replace("| 4 3 | 2 . |", "| 4 3 | 2 |"), None),
        ("sudoku", BOARD + "\nGiven (9,9).", BOARD.replace(".", "1") + "\nGiven (9,9).", None),
    ],
)
def test_outcomes_by_hand(name, state, after, expected):
    found = worlds.make(name).outcome(state, after)
    assert found == (expected and (pytest.approx(expected[0]), expected[1]))


GRIDS = st.text("P_OGX√S#.|1249 \n-(,)Given", max_size=60)


@given(st.sampled_from(["frozenlake", "sokoban", "sudoku"]), GRIDS | st.text(), GRIDS | st.text())
@example("sudoku", "| ² |\n" * 4, "| ² |\n" * 4)
@example("sudoku", "Given (1,1)", "Given (1,1)")
def test_wild_texts_are_read_without_an_error(name, state, after):
    found = worlds.make(name).outcome(state, after)
    assert found is None or [*map(type, found)] == [float, bool]


@given(st.integers(0, 200), st.data())
def test_a_state_with_a_line_lost_or_a_symbol_wrong_gives_nothing_but_the_step(seed, data):
    """A model's commonest errors never earn a reward that the real step did not give, nor end what it did not end."""
    lake = worlds.make("frozenlake", size=3)
    state, _ = lake.reset(seed % 7)
    after, reward, terminated, *_ = lake.step(data.draw(st.sampled_from(["Down", "Right"])))
    lines = after.split("\n")
    row = data.draw(st.integers(0, 2))
    if data.draw(st.booleans()):
        del lines[row]
    else:
        symbols = lines[row].split()
        symbols[data.draw(st.integers(0, 2))] = data.draw(st.sampled_from("_OGPX√"))
        lines[row] = " ".join(symbols)
    read = lake.outcome(state, "\n".join(lines))
    assert read in {None, (0.0, False), (reward, terminated)}


def test_a_world_whose_outcome_is_wrong_breaks_its_contract():
    sokoban = worlds.make("sokoban")
    sokoban.outcome = lambda state, after: (0.0, False)
    with pytest.raises(ValueError, match=r"outcome\(\) gave \(0.0, False\) for .* step\('\w+'\) \(-0.1, False\)"):
        check_world(sokoban)


@pytest.mark.parametrize("name", ["frozenlake", "sokoban", "sudoku"])
def test_a_copy_of_a_world_goes_its_own_way(name):
    world = worlds.make(name)
    first, _ = world.reset(1)
    actions = world.actions(first)
    copied = copy.deepcopy(world)
    there = [copied.step(action)[:4] for action in actions[:3]]
    assert [world.step(action)[:4] for action in actions[:3]] == there
