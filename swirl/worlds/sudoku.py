"""Sudoku: fill the grid so that every row, column and block holds each number once. Each puzzle has one solution.

    | . . | 1 4 |
    | 1 4 | . 2 |
    -------------
    | 4 . | 2 1 |
    | 2 1 | 4 . |
    Empty positions to be filled are at (1,1), (1,2), (2,3), (3,2) and (4,4).

An action writes a number into a cell, `row,col,value`, counted from 1. A cell that is given cannot be written to; one
that was filled can be written over. The episode ends with a reward of 1 when the board is full and right.

    swirl collect sudoku
"""

import re
from collections.abc import Collection, Iterator
from math import isqrt
from typing import NamedTuple

import numpy as np

from swirl.errors import InputError
from swirl.types import State, state_text
from swirl.worlds.puzzle import Cell, Puzzle, cells_text

Board = dict[Cell, int]
"""Number of each filled cell; rows and columns from 1."""


def missing() -> str | None:
    """Nothing is: the rules are here."""
    return None


class Sudoku(Puzzle):
    """Sudoku; see the module.

    Args:
        block: Cells of a block's side: 2 for 4 x 4, 3 for 9 x 9.
        empty: How many cells are empty at the start.
        coordinates: Whether a state ends with the sentence of empty positions.
        max_steps: Steps after which an episode is truncated.

    Raises:
        InputError: An argument cannot be used, or no such puzzle was found.
    """

    name = "sudoku"
    manual = (
        "You are solving a Sudoku: fill the empty cells (.) so that every row, column and block holds each number "
        "once. An action is row,column,number, counted from 1."
    )

    def __init__(self, block: int = 2, empty: int = 6, coordinates: bool = True, max_steps: int = 30):
        if block not in (2, 3) or not 1 <= empty < block**4:
            raise InputError(f"block is {block} and empty {empty}: expected 2 or 3, and fewer cells than there are")
        super().__init__(coordinates, max_steps)
        self.complete = coordinates  # the board alone does not say which numbers are given
        self.block, self.size, self.empty = block, block**2, empty
        self._cells = [(row, column) for row in range(1, self.size + 1) for column in range(1, self.size + 1)]

    def begin(self, rng: np.random.Generator) -> str:
        """Draws a full board, then takes numbers away while the solution stays the only one."""
        order = [self._cells[i] for i in rng.permutation(len(self._cells))]
        for _ in range(100):
            self._solution = next(self._solutions({}, rng))
            given = dict(self._solution)
            for cell in order:
                if len(self._cells) - len(given) == self.empty:
                    break
                rest = {key: value for key, value in given.items() if key != cell}
                solutions = self._solutions(rest)
                next(solutions)
                if next(solutions, None) is None:
                    given = rest
            if len(self._cells) - len(given) == self.empty:
                self._given, self._board = given, dict(given)
                return str(sorted(given.items()))
        raise InputError(f"no puzzle with {self.empty} empty cells and one solution was found; lower empty")

    def apply(self, action: str) -> tuple[float, bool]:
        """Writes a number, unless the cell is given."""
        row, column, value = (int(word) for word in action.split(","))
        if (row, column) not in self._given:
            self._board[row, column] = value
        solved = self._board == self._solution
        return float(solved), solved

    def legal(self) -> tuple[str, ...]:
        """Every number in every cell that is not given."""
        return self._writes(self._given)

    def actions(self, state: State) -> tuple[str, ...] | None:
        """The same of the puzzle that a state is of; None where it does not say what is given."""
        read = _read(state_text(state))
        return self._writes(read.given) if read and self.coordinates else None

    def _writes(self, given: Collection[Cell]) -> tuple[str, ...]:
        free = [cell for cell in self._cells if cell not in given]
        return tuple(f"{row},{column},{value}" for row, column in free for value in range(1, self.size + 1))

    def describe(self) -> str:
        """The board; with coordinates also which cells are given, and which are empty."""
        lines = []
        for row in range(1, self.size + 1):
            cells = [str(self._board.get((row, column), ".")) for column in range(1, self.size + 1)]
            blocks = [" ".join(cells[i : i + self.block]) for i in range(0, self.size, self.block)]
            lines.append(f"| {' | '.join(blocks)} |")
            if row % self.block == 0 and row < self.size:
                lines.append("-" * len(lines[-1]))
        if not self.coordinates:
            return "\n".join(lines)
        given = f"Given positions are {cells_text(sorted(self._given))}."
        empty = [cell for cell in self._cells if cell not in self._board]
        facts = f"Empty positions to be filled are at {cells_text(empty)}." if empty else "No position is empty."
        return "\n".join([*lines, given, facts])

    def outcome(self, state: str, next_state: str) -> tuple[float, bool] | None:
        """1 and the end for a board that is full and right; `None` where it is none, or what is given changed.

        Without coordinates a state does not say what is given.
        """
        before, after = _read(state), _read(next_state)
        if before is None or after is None or before.given != after.given:
            return None
        solved = _is_solved(after.rows)
        return float(solved), solved

    def solve(self) -> list[str] | None:
        """What is missing or wrong, in reading order."""
        wrong = [cell for cell in self._cells if self._board.get(cell) != self._solution[cell]]
        return [f"{row},{column},{self._solution[row, column]}" for row, column in wrong]

    def _solutions(self, board: Board, rng: np.random.Generator | None = None) -> Iterator[Board]:
        """Every full board that holds the given one, by trying the cell with the fewest candidates first."""
        free = {cell: self._candidates(board, cell) for cell in self._cells if cell not in board}
        if not free:
            yield board
            return
        cell = min(free, key=lambda cell: len(free[cell]))
        values = sorted(free[cell])
        for value in rng.permutation(values).tolist() if rng is not None else values:
            yield from self._solutions({**board, cell: value}, rng)

    def _candidates(self, board: Board, cell: Cell) -> set[int]:
        corner = [(i - 1) // self.block * self.block for i in cell]
        block = [(corner[0] + i, corner[1] + j) for i in range(1, self.block + 1) for j in range(1, self.block + 1)]
        lines = [(cell[0], i) for i in range(1, self.size + 1)] + [(i, cell[1]) for i in range(1, self.size + 1)]
        return set(range(1, self.size + 1)) - {board[other] for other in block + lines if other in board}


class _Shown(NamedTuple):
    """The rows of a board, and the number of each cell that is said to be given."""

    rows: list[list[str]]
    given: dict[Cell, str]


def _read(state: str) -> _Shown | None:
    """What a state shows; None where there is no board."""
    lines = state.split("\n")
    rows = [line.replace("|", " ").split() for line in lines if line.startswith("|")]
    numbers = {str(i) for i in range(1, len(rows) + 1)}
    if len(rows) not in (4, 9) or any(len(row) != len(rows) or not set(row) <= {".", *numbers} for row in rows):
        return None
    told = " ".join(line for line in lines if line.startswith("Given"))
    cells = [(int(row), int(column)) for row, column in re.findall(r"\(([1-9]),([1-9])\)", told)]
    if any(max(cell) > len(rows) for cell in cells):
        return None
    return _Shown(rows, {(row, column): rows[row - 1][column - 1] for row, column in cells})


def _is_solved(rows: list[list[str]]) -> bool:
    """Whether every row, column and block has each number once."""
    size, side = len(rows), isqrt(len(rows))
    starts = range(0, size, side)
    blocks = [[rows[r + i][c + j] for i in range(side) for j in range(side)] for r in starts for c in starts]
    return all(len(set(group)) == size and "." not in group for group in [*rows, *zip(*rows, strict=True), *blocks])
