"""The puzzles: their rules against independent solvers, their texts against hand-drawn ones."""

import itertools
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl import worlds
from swirl.errors import InputError
from swirl.worlds.base import check_world
from swirl.worlds.frozenlake import FrozenLake
from swirl.worlds.sokoban import Sokoban
from swirl.worlds.sudoku import Sudoku

DIRECTIONS = {"Left": (0, -1), "Down": (1, 0), "Right": (0, 1), "Up": (-1, 0)}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("frozenlake", {}),
        ("frozenlake", {"size": 6, "slippery": True}),
        ("frozenlake", {"coordinates": False}),
        ("frozenlake", {"scattered": True}),
        ("sokoban", {}),
        ("sokoban", {"size": 7, "boxes": 2, "coordinates": False}),
        ("sudoku", {}),
        ("sudoku", {"coordinates": False}),
        ("sudoku", {"block": 3, "empty": 20}),
    ],
)
def test_the_contract_holds(name, options):
    check_world(worlds.make(name, **options), seeds=range(4))


def test_rooms_too_large_to_be_solved_are_refused(monkeypatch):
    monkeypatch.setattr("swirl.worlds.puzzle.NODES", 500)  # as with the real bound, only sooner
    message = (
        "size is 12 and boxes 4: 20 rooms were too large to be solved; give smaller values, e.g. size 8 and boxes 2"
    )
    with pytest.raises(InputError, match=message):
        Sokoban(size=12, boxes=4).reset(0)


def test_rooms_that_can_be_solved_are_kept_beside_some_that_are_too_large(monkeypatch):
    monkeypatch.setattr("swirl.worlds.puzzle.NODES", 500)
    sokoban = Sokoban(size=7)  # 25 floor cells at most, and so 600 positions, of which a solution needs fewer
    for seed in range(5):
        sokoban.reset(seed)
        assert sokoban.solve()
    monkeypatch.setattr("swirl.worlds.puzzle.NODES", 1)  # the solver finds nothing now: it goes on, curious
    assert sokoban.act("solver", np.random.default_rng(0)) in sokoban.legal()


def grid(state):
    return [line.split() for line in state.split("\n") if line[0] in "#_POGXS√"]


def test_both_ends_of_a_lake_may_be_anywhere_and_there_is_a_way():
    lake = FrozenLake(frozen=0.6, scattered=True)
    starts, goals = set(), set()
    for seed in range(60):
        state, _ = lake.reset(seed)
        rows = [line.split() for line in state.split("\n")[:4]]
        [start], [goal] = ([(r, c) for r in range(4) for c in range(4) if rows[r][c] == end] for end in "PG")
        starts, goals = starts | {start}, goals | {goal}
        # By hand, through the grid alone.
        (r, c), way = start, lake.solve()
        assert way
        for action in way:
            r, c = r + DIRECTIONS[action][0], c + DIRECTIONS[action][1]
            assert 0 <= r < 4 and 0 <= c < 4 and rows[r][c] in "_G"
        assert (r, c) == goal
        *_, (_, reward, terminated, *_) = (lake.step(action) for action in way)
        assert (reward, terminated) == (1.0, True)
    assert len(starts) >= 12 and len(goals) >= 12  # of 16 cells


def test_lakes_that_differ_in_where_they_begin_are_one_layout():
    """Or what is tested could be trained on: a state does not show its beginning."""
    lake, lakes = FrozenLake(size=3, scattered=True), {}
    for seed in range(100):
        state, info = lake.reset(seed)
        holes_and_goal = state.rpartition("\n")[2].partition("; ")[2]
        lakes.setdefault(holes_and_goal, set()).add((lake._player(), info["layout"]))
    alike = [found for found in lakes.values() if len({player for player, _ in found}) > 1]
    assert len(alike) > 10
    assert all(len({layout for _, layout in found}) == 1 for found in alike)


def test_the_actions_of_a_sudoku_are_read_off_its_state():
    sudoku, fresh = Sudoku(), Sudoku()
    state, _ = sudoku.reset(3)
    assert fresh.actions(state) == sudoku.legal()
    assert len(sudoku.legal()) == 6 * 4
    state, *_ = sudoku.step(sudoku.legal()[5])
    other, _ = sudoku.reset(4)
    assert sudoku.actions(state) == fresh.actions(state) != sudoku.legal() == sudoku.actions(other)
    assert fresh.actions("no board") is None
    assert Sudoku(coordinates=False).actions(state) is None


def test_on_slippery_ice_with_both_ends_anywhere_ten_actions_are_enough_half_the_time():
    """For the best policy there is, by value iteration over Gymnasium's own chances."""
    lake, reached = FrozenLake(slippery=True, scattered=True), []
    for seed in range(300):
        lake.reset(seed)
        over = [cell in "HG" for row in lake._map for cell in row]
        worth = [0.0] * 16
        for _ in range(10):
            worth = [0.0 if over[cell] else best(lake._env.P[cell].values(), worth) for cell in range(16)]
        reached.append(worth[lake._env.s])
    assert np.mean(reached) == pytest.approx(0.497, abs=5e-4)


def best(actions, worth):
    """The chance of the goal after the best of some actions; of each, what may come of it."""
    return max(sum(chance * (reward + worth[to]) for chance, to, reward, _ in ways) for ways in actions)


def test_rooms_are_as_easy_as_is_asked():
    """Of the same draws those are left that the bound allows; one bound lower loses some."""
    lengths = []
    for moves in (3, 4):
        rooms = Sokoban(moves=moves)
        for seed in range(30):
            rooms.reset(seed)
            lengths.append((moves, len(rooms.solve())))
    assert {length for moves, length in lengths if moves == 3} == {1, 2, 3}
    assert {length for moves, length in lengths if moves == 4} == {1, 2, 3, 4}


def test_a_lake_in_words():
    lake = FrozenLake()
    lake.reset(0)
    lake._map = ["SFHF", "FFFF", "FHFF", "FFFG"]
    lake._env = lake._simulator.FrozenLakeEnv(desc=lake._map, is_slippery=False)
    lake._env.reset(seed=0)
    assert lake.describe() == (
        "P _ O _\n_ _ _ _\n_ O _ _\n_ _ _ G\n"
        "Player (P) is at (0,0); holes (O) are at (0,2) and (2,1); goal (G) is at (3,3)."
    )
    assert [lake.step(a)[1:3] for a in ("Right", "Left", "Up")] == [(0.0, False)] * 3
    assert lake.step("Down")[0].startswith("_ _ O _\nP _ _ _")
    for action in ("Right", "Right", "Right", "Down"):
        lake.step(action)
    state, reward, terminated, *_ = lake.step("Down")
    assert (reward, terminated) == (1.0, True)
    assert "_ _ _ √" in state
    lake.reset(0)
    lake._map = ["SHFF", "FFFF", "FFFF", "FFFG"]
    lake._env = lake._simulator.FrozenLakeEnv(desc=lake._map, is_slippery=False)
    lake._env.reset(seed=0)
    state, reward, terminated, *_ = lake.step("Right")
    assert (reward, terminated) == (0.0, True)
    assert state.startswith("_ X _ _\n")
    assert "hole (O) is at (0,1); goal" in state


def shortest(start, after, goal):
    """Length of a shortest path: a flood fill, written apart from the worlds' own search."""
    seen, front, length = {start}, {start}, 0
    while front:
        if any(goal(node) for node in front):
            return length
        front = {other for node in front for other in after(node)} - seen
        seen |= front
        length += 1
    return None


@given(st.integers(0, 10_000), st.sampled_from([3, 4, 6]))
def test_every_lake_can_be_crossed_and_the_solver_crosses_it_by_a_shortest_way(seed, size):
    lake = FrozenLake(size=size)
    state, _ = lake.reset(seed)
    cells = grid(state)

    def after(cell):
        for down, right in DIRECTIONS.values():
            row, column = cell[0] + down, cell[1] + right
            if 0 <= row < size and 0 <= column < size and cells[row][column] != "O":
                yield row, column

    plan = lake.solve()
    assert len(plan) == shortest((0, 0), after, lambda cell: cells[cell[0]][cell[1]] == "G")
    for action in plan:
        _, reward, terminated, *_ = lake.step(action)
    assert (reward, terminated) == (1.0, True)


def test_on_slippery_ice_a_step_goes_to_either_side_as_often():
    counts = dict.fromkeys(["down", "left", "right", "other"], 0)
    lake = FrozenLake(size=5, slippery=True, frozen=1.0, max_steps=10)
    assert not lake.complete
    for seed in range(900):
        lake.reset(seed)
        lake._env.s = 12  # the middle
        at = lake.step("Down")[0].split("Player (P) is at ")[1][:5]
        counts[{"(3,2)": "down", "(2,1)": "left", "(2,3)": "right"}.get(at, "other")] += 1
    assert counts.pop("other") == 0
    assert all(300 - 75 < count < 300 + 75 for count in counts.values())  # five standard deviations


def test_few_maps_are_drawn_on_small_lakes_and_layouts_are_maps():
    lake, maps = FrozenLake(size=2), {}
    for seed in range(60):
        state, info = lake.reset(seed)
        maps.setdefault(info["layout"], set()).add(state)
    assert len(maps) == 3  # the corners are fixed; both other cells cannot be holes
    assert all(len(states) == 1 for states in maps.values())


def room(text):
    """A Sokoban in a given position."""
    sokoban = Sokoban(size=len(text.split("\n")))
    sokoban.reset(0)
    cells = {(r, c): symbol for r, line in enumerate(text.split("\n")) for c, symbol in enumerate(line.split())}
    sokoban._floor = frozenset(cell for cell, symbol in cells.items() if symbol != "#")
    sokoban._targets = frozenset(cell for cell, symbol in cells.items() if symbol in "OS√")
    sokoban._boxes = frozenset(cell for cell, symbol in cells.items() if symbol in "X√")
    [sokoban._player] = [cell for cell, symbol in cells.items() if symbol in "PS"]
    return sokoban


def test_a_room_in_words_and_its_rewards():
    text = "# # # # #\n# _ O _ #\n# _ X _ #\n# _ P O #\n# # # # #"
    sokoban = room(text.replace("_ P O", "_ P _"))
    assert sokoban.describe() == (
        "# # # # #\n# _ O _ #\n# _ X _ #\n# _ P _ #\n# # # # #\n"
        "Player (P) is at (3,2); box (X) is at (2,2); target (O) is at (1,2)."
    )
    state, reward, terminated, *_ = sokoban.step("Up")
    assert (reward, terminated) == (pytest.approx(10.9), True)
    assert state.startswith("# # # # #\n# _ √ _ #\n# _ P _ #")
    two = room("# # # # # #\n# _ _ _ _ #\n# _ √ S _ #\n# _ X P _ #\n# _ _ _ _ #\n# # # # # #".replace("S", "O"))
    assert two.step("Left")[1] == pytest.approx(-0.1)
    two = room("# # # # # #\n# _ O _ _ #\n# _ √ P _ #\n# _ _ X _ #\n# _ _ _ _ #\n# # # # # #")
    state, reward, *_ = two.step("Left")  # off its target
    assert reward == pytest.approx(-1.1)
    assert "# X S _ _ #" in state
    assert "boxes (X) are at (2,1) and (3,3); targets (O) are at (1,2) and (2,2)." in state


@pytest.mark.parametrize("blocked", ["# # # # #\n# _ _ O #\n# _ X _ #\n# _ P _ #\n# # # # #"])
def test_a_box_is_not_pushed_into_a_wall_or_a_box_nor_pulled(blocked):
    sokoban = room(blocked)
    sokoban.step("Up")
    before = sokoban.describe()
    assert "# _ X O #" in before
    assert sokoban.step("Up")[0] == before  # into the wall
    assert "# _ X O #" in sokoban.step("Down")[0]  # not pulled
    two = room("# # # # # #\n# O _ _ _ #\n# P X X O #\n# _ _ _ _ #\n# _ _ _ _ #\n# # # # # #")
    before = two.describe()
    assert two.step("Right")[0] == before  # two boxes in a row


@given(st.integers(0, 10_000), st.sampled_from([(5, 1), (6, 1), (6, 2)]))
def test_every_room_can_be_solved_and_the_solver_needs_no_move_too_many(seed, shape):
    size, boxes = shape
    sokoban = Sokoban(size=size, boxes=boxes)
    state, _ = sokoban.reset(seed)
    cells = {(r, c): symbol for r, row in enumerate(grid(state)) for c, symbol in enumerate(row)}
    targets = frozenset(cell for cell, symbol in cells.items() if symbol in "OS√")
    start = next(cell for cell, symbol in cells.items() if symbol in "PS")
    begin = (start, frozenset(cell for cell, symbol in cells.items() if symbol in "X√"))

    def after(node):
        (row, column), loose = node
        for down, right in DIRECTIONS.values():
            ahead, beyond = (row + down, column + right), (row + 2 * down, column + 2 * right)
            if cells[ahead] == "#" or (ahead in loose and (cells[beyond] == "#" or beyond in loose)):
                continue
            yield ahead, frozenset(beyond if box == ahead else box for box in loose)

    plan = sokoban.solve()
    assert len(plan) == shortest(begin, after, lambda node: node[1] == targets)
    ends = [sokoban.step(action)[2] for action in plan]
    assert ends == [False] * (len(plan) - 1) + [True]


def test_a_room_that_cannot_be_found_is_said():
    with pytest.raises(InputError, match="no room of size 5 with 1 boxes needs 50 pushes; give a larger size or fewer"):
        Sokoban(size=5, pushes=50).reset(0)
    with pytest.raises(InputError, match="needs 3 pushes and at most 2 moves; give a larger size, more moves or fewer"):
        Sokoban(size=5, pushes=3, moves=2).reset(0)


def full_boards(board, block):
    """Every way to fill a board: plain backtracking in reading order, written apart from the world's own."""
    size = block**2
    empty = next((i for i, value in enumerate(board) if not value), None)
    if empty is None:
        yield tuple(board)
        return
    row, column = divmod(empty, size)
    for value in range(1, size + 1):
        clash = any(
            board[i] == value
            and (
                i // size == row
                or i % size == column
                or (i // size // block, i % size // block) == (row // block, column // block)
            )
            for i in range(size * size)
        )
        if not clash:
            yield from full_boards([*board[:empty], value, *board[empty + 1 :]], block)


def board_of(state):
    return [
        0 if word == "." else int(word)
        for line in state.split("\n")
        if line[0] == "|"
        for word in line.split()
        if word != "|"
    ]


@given(st.integers(0, 10_000), st.integers(1, 9))
def test_every_sudoku_has_one_solution_and_the_solver_writes_it(seed, empty):
    sudoku = Sudoku(empty=empty)
    state, _ = sudoku.reset(seed)
    board = board_of(state)
    assert board.count(0) == empty
    assert (only := list(itertools.islice(full_boards(board, 2), 2))) and len(only) == 1
    for action in sudoku.solve():
        state, reward, terminated, *_ = sudoku.step(action)
    assert (reward, terminated) == (1.0, True)
    assert tuple(board_of(state)) == only[0]
    assert "No position is empty." in state


def test_a_sudoku_in_words_and_what_may_be_written():
    sudoku = Sudoku(empty=2)
    sudoku.reset(0)
    solution = [[1, 2, 3, 4], [3, 4, 1, 2], [2, 1, 4, 3], [4, 3, 2, 1]]
    sudoku._solution = {(r + 1, c + 1): value for r, row in enumerate(solution) for c, value in enumerate(row)}
    sudoku._given = {cell: value for cell, value in sudoku._solution.items() if cell not in ((1, 1), (4, 4))}
    sudoku._board = dict(sudoku._given)
    assert sudoku.describe().split("\n")[:5] == [
        "| . 2 | 3 4 |",
        "| 3 4 | 1 2 |",
        "-------------",
        "| 2 1 | 4 3 |",
        "| 4 3 | 2 . |",
    ]
    assert sudoku.describe().endswith("Empty positions to be filled are at (1,1) and (4,4).")
    assert sudoku.legal() == tuple(f"{cell},{value}" for cell in ("1,1", "4,4") for value in range(1, 5))
    assert sudoku.step("1,1,3")[:3] == (sudoku.describe(), 0.0, False)  # wrong, and can be written over
    assert "| 3 2 | 3 4 |" in sudoku.describe()
    with pytest.raises(InputError, match="unknown action '1,2,3'"):
        sudoku.step("1,2,3")
    sudoku.step("4,4,1")
    assert sudoku.step("1,1,1")[1:3] == (1.0, True)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FrozenLake(size=1), "size is 1"),
        (lambda: FrozenLake(frozen=0.0), "frozen 0.0"),
        (lambda: Sokoban(size=4), "size is 4"),
        (lambda: Sudoku(block=4), "block is 4"),
        (lambda: Sudoku(empty=16), "empty 16"),
        (lambda: Sokoban(max_steps=0), "max_steps is 0"),
    ],
)
def test_arguments_that_cannot_be_used(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_solved_puzzles_are_not_all_the_solver_meets():
    """It slips, so that recordings hold more than one path."""
    sokoban, paths = Sokoban(), set()
    for number in range(8):
        sokoban.reset(3)
        rng, path = np.random.default_rng(number), deque()
        for _ in range(8):
            path.append(sokoban.act("solver", rng))
            if sokoban.step(path[-1])[2]:
                break
        paths.add(tuple(path))
    assert len(paths) > 1
