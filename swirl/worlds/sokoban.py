"""Sokoban: push every box onto a target. Rooms are generated, and every one of them can be solved.

    # # # # # #     # wall, _ floor, O target, X box, √ box on a target, P player, S player on a target
    # _ _ O _ #
    # _ _ X _ #
    # _ _ P _ #
    # _ _ _ # #
    # # # # # #
    Player (P) is at (3,3); box (X) is at (2,3); target (O) is at (1,3).

A room is its walls and targets; player and boxes move. A generated room is kept if a breadth-first search finds that it
can be solved, in `pushes` pushes or more and, where that is bounded, in `moves` moves or fewer. The search sees 100,000
positions at most, and a room that takes more is not kept: 3 boxes are feasible up to size 8, 2 boxes up to size 12.
Rewards are those of gym-sokoban: -0.1 a step, 1 for a box that comes onto a target and -1 for one that leaves it, 10
for the last.

    swirl collect sokoban
"""

from collections.abc import Iterator

import numpy as np

from swirl.errors import InputError
from swirl.worlds.puzzle import MOVES, Cell, Puzzle, TooLargeError, cells_text, grid_text, read_grid, search

ACTIONS = ("Up", "Down", "Left", "Right")
WALLS = 0.15
"""Share of the inner cells that are walls, before rooms without a solution are thrown away."""
KINDS = ("#", "O√S", "X√", "PS")
"""The symbols of walls, targets, boxes and the player."""
TRIES = 10_000
GIVE_UP = 20
"""Rooms too large to be searched through, after which none is drawn any more."""

Boxes = frozenset[Cell]


def missing() -> str | None:
    """Nothing is: the rules are here."""
    return None


class Sokoban(Puzzle):
    """Sokoban; see the module.

    Args:
        size: Cells of a side, border included, 5 or more.
        boxes: How many, and how many targets.
        pushes: The least pushes that a solution needs.
        moves: The most moves that a shortest solution has; 0: however many.
        coordinates: Whether a state ends with the sentence of coordinates.
        max_steps: Steps after which an episode is truncated.

    Raises:
        InputError: An argument cannot be used, or no such room was found, e.g. since rooms are too large to be solved.
    """

    name = "sokoban"
    manual = (
        "You are solving a Sokoban puzzle: push every box (X) onto a target (O). In the grid # is a wall, _ floor, P "
        "you, S you on a target, √ a box on its target; coordinates are (row,column), from 0 at the top left. You push "
        "a box by moving into it. You cannot pull one, nor push it into a wall or another box."
    )

    def __init__(
        self,
        size: int = 6,
        boxes: int = 1,
        pushes: int = 1,
        moves: int = 0,
        coordinates: bool = True,
        max_steps: int = 30,
    ):
        if size < 5 or boxes < 1 or pushes < 1 or moves < 0:
            raise InputError(
                f"size is {size}, boxes {boxes}, pushes {pushes}, moves {moves}: expected at least 5, 1, 1 and 0"
            )
        super().__init__(coordinates, max_steps)
        self.size, self.boxes, self.pushes, self.moves = size, boxes, pushes, moves

    def begin(self, rng: np.random.Generator) -> str:
        """Draws rooms until one can be solved."""
        inner = [(r, c) for r in range(1, self.size - 1) for c in range(1, self.size - 1)]
        too_large = 0
        for _ in range(TRIES):
            walls = {cell for cell in inner if rng.random() < WALLS}
            floor = [cell for cell in inner if cell not in walls]
            if len(floor) < 2 * self.boxes + 1:
                continue
            drawn = [floor[i] for i in rng.permutation(len(floor))[: 2 * self.boxes + 1]]
            self._floor, self._player = frozenset(floor), drawn[0]
            self._targets, self._boxes = Boxes(drawn[1 : self.boxes + 1]), Boxes(drawn[self.boxes + 1 :])
            try:
                solution = self.solve()
            except TooLargeError:
                too_large += 1
                if too_large == GIVE_UP:
                    raise InputError(
                        f"size is {self.size} and boxes {self.boxes}: {GIVE_UP} rooms were too large to be solved; "
                        f"give smaller values, e.g. size {min(self.size, 8)} and boxes {min(self.boxes, 2)}"
                    ) from None
                continue
            if solution is not None and self._is_wanted(solution):
                return f"{self.size} {sorted(self._floor)} {sorted(self._targets)}"
        bound, mend = (f" and at most {self.moves} moves", ", more moves") if self.moves else ("", "")
        raise InputError(
            f"no room of size {self.size} with {self.boxes} boxes needs {self.pushes} pushes{bound}; give a larger "
            f"size{mend} or fewer boxes"
        )

    def apply(self, action: str) -> tuple[float, bool]:
        """One move or push; against a wall, or a box that cannot move, nothing happens."""
        on = len(self._boxes & self._targets)
        self._player, self._boxes = self._moved(self._player, self._boxes, action)
        return _reward(on, len(self._boxes & self._targets), len(self._boxes))

    def legal(self) -> tuple[str, ...]:
        """The four moves."""
        return ACTIONS

    def describe(self) -> str:
        """The room with everything in it."""
        symbols = [[self._symbol((r, c)) for c in range(self.size)] for r in range(self.size)]
        if not self.coordinates:
            return grid_text(symbols)
        facts = [f"Player (P) is at {cells_text([self._player])}"]
        for name, symbol, cells in (("box", "X", self._boxes), ("target", "O", self._targets)):
            plural = {"box": "boxes", "target": "targets"}[name] if len(cells) > 1 else name
            facts.append(f"{plural} ({symbol}) {'are' if len(cells) > 1 else 'is'} at {cells_text(sorted(cells))}")
        return f"{grid_text(symbols)}\n{'; '.join(facts)}."

    def outcome(self, state: str, next_state: str) -> tuple[float, bool] | None:
        """Counts boxes on targets; `None` where the rooms differ, or hold not one player and a box per target."""
        before, after = _read(state), _read(next_state)
        if before is None or after is None or before[0] != after[0]:
            return None
        return _reward(before[1], after[1], len(after[0][1]))

    def solve(self) -> list[str] | None:
        """A shortest solution from here, in moves."""

        def after(node: tuple[Cell, Boxes]) -> Iterator[tuple[str, tuple[Cell, Boxes]]]:
            for action in ACTIONS:
                yield action, self._moved(*node, action)

        return search((self._player, self._boxes), after, lambda node: node[1] == self._targets)

    def _moved(self, player: Cell, boxes: Boxes, action: str) -> tuple[Cell, Boxes]:
        (row, column), (down, right) = player, MOVES[action]
        ahead, beyond = (row + down, column + right), (row + 2 * down, column + 2 * right)
        if ahead not in self._floor:
            return player, boxes
        if ahead not in boxes:
            return ahead, boxes
        if beyond not in self._floor or beyond in boxes:
            return player, boxes
        return ahead, boxes - {ahead} | {beyond}

    def _is_wanted(self, solution: list[str]) -> bool:
        return self._count_pushes(solution) >= self.pushes and len(solution) <= (self.moves or len(solution))

    def _count_pushes(self, solution: list[str]) -> int:
        player, boxes, pushes = self._player, self._boxes, 0
        for action in solution:
            before = boxes
            player, boxes = self._moved(player, boxes, action)
            pushes += boxes != before
        return pushes

    def _symbol(self, cell: Cell) -> str:
        on_target = cell in self._targets
        if cell == self._player:
            return "S" if on_target else "P"
        if cell in self._boxes:
            return "√" if on_target else "X"
        return "O" if on_target else "_" if cell in self._floor else "#"


def _reward(before: int, after: int, boxes: int) -> tuple[float, bool]:
    """Reward of a step and whether all is done, from the boxes on targets before and after it, of so many."""
    solved = after == boxes
    return -0.1 + (after - before) + 10.0 * solved, solved


def _read(state: str) -> tuple[tuple[set[Cell], set[Cell]], int] | None:
    """The walls and targets of the room in a state, and how many boxes stand on targets; None where it is no room."""
    cells = read_grid(state, "#_OX√PS") or {}
    walls, targets, boxes, players = ({cell for cell, symbol in cells.items() if symbol in of} for of in KINDS)
    if len(players) != 1 or not 0 < len(boxes) == len(targets):
        return None
    return (walls, targets), len(boxes & targets)
