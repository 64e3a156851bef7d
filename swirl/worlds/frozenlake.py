"""FrozenLake of Gymnasium, in words: cross the ice from the start to the goal, round the holes.

    P _ _ _         P player, _ ice, O hole, G goal, X player in a hole, √ player at the goal
    _ O _ O
    _ _ _ O
    O _ _ G
    Player (P) is at (0,0); holes (O) are at (1,1), (1,3), (2,3) and (3,0); goal (G) is at (3,3).

Maps are drawn from the seed by Gymnasium's own generator and always have a way to the goal, also where both ends are
scattered over the ice; on small grids many seeds draw the same map, so parts are split by map. On slippery ice a step
goes where it should one time in three and to either side otherwise; the next state is then no function of state and
action.

    swirl collect frozenlake
"""

from importlib.util import find_spec
from typing import Any

import numpy as np

from swirl.errors import InputError, MissingPartError
from swirl.worlds.puzzle import MOVES, Cell, Puzzle, cells_text, grid_text, read_grid, search

INSTALL = "pip install gymnasium"
ACTIONS = ("Left", "Down", "Right", "Up")  # Gymnasium's actions 0 to 3


def missing() -> str | None:
    """The command that installs what FrozenLake needs and is not here; None if nothing is missing."""
    return None if find_spec("gymnasium") else INSTALL


class FrozenLake(Puzzle):
    """FrozenLake; see the module.

    Args:
        size: Cells of a side, 2 or more.
        slippery: Whether steps may go to either side.
        frozen: Share of the cells that are ice, before maps without a way are thrown away.
        scattered: Whether start and goal may be anywhere, in place of two corners.
        coordinates: Whether a state ends with the sentence of coordinates.
        max_steps: Steps after which an episode is truncated.

    Raises:
        InputError: An argument cannot be used.
        MissingPartError: Gymnasium is not installed.
    """

    name = "frozenlake"
    manual = (
        "You cross a frozen lake to the goal (G). In the grid _ is ice, O a hole, P you; coordinates are (row,column) "
        "from 0 at the top left. Who steps into a hole has lost. The ice may be slippery, so that you move sideways."
    )

    def __init__(
        self,
        size: int = 4,
        slippery: bool = False,
        frozen: float = 0.8,
        scattered: bool = False,
        coordinates: bool = True,
        max_steps: int = 30,
    ):
        try:
            _ = self._simulator
        except ImportError as error:
            raise MissingPartError(f"the world 'frozenlake' needs its simulator ({error}): {INSTALL}") from error
        if size < 2 or not 0 < frozen <= 1:
            raise InputError(f"size is {size} and frozen {frozen}: expected 2 or more, and a share above 0")
        super().__init__(coordinates, max_steps)
        self.size, self.frozen, self.scattered = size, frozen, scattered
        self.slippery, self.complete = slippery, not slippery

    @property
    def _simulator(self) -> Any:
        """Gymnasium's module; not kept, for a world is copied and a module cannot be."""
        from gymnasium.envs.toy_text import frozen_lake

        return frozen_lake

    def begin(self, rng: np.random.Generator) -> str:
        """Draws a map with a way to the goal."""
        self._map = self._simulator.generate_random_map(self.size, self.frozen, int(rng.integers(2**31)))
        if self.scattered:
            self._map = self._scatter(rng)
        self._env = self._simulator.FrozenLakeEnv(desc=self._map, is_slippery=self.slippery)
        self._env.reset(seed=int(rng.integers(2**31)))
        return "\n".join(self._map).replace("S", "F")  # a state does not show where it began

    def apply(self, action: str) -> tuple[float, bool]:
        """One move; it ends in a hole or at the goal, where the reward is 1."""
        _, reward, terminated, _, _ = self._env.step(ACTIONS.index(action))
        return float(reward), bool(terminated)

    def legal(self) -> tuple[str, ...]:
        """The four moves; one into the border changes nothing."""
        return ACTIONS

    def describe(self) -> str:
        """The map with the player on it."""
        symbols = [["_" if cell in "SF" else "O" if cell == "H" else "G" for cell in row] for row in self._map]
        row, column = player = self._player()
        symbols[row][column] = {"_": "P", "O": "X", "G": "√"}[symbols[row][column]]
        if not self.coordinates:
            return grid_text(symbols)
        holes = self._cells("H")
        dangers = "" if not holes else f"hole{'s' * (len(holes) > 1)} (O) {'are' if len(holes) > 1 else 'is'} at "
        facts = [f"Player (P) is at {cells_text([player])}", dangers + cells_text(holes) if holes else "no holes"]
        return f"{grid_text(symbols)}\n{'; '.join(facts)}; goal (G) is at {cells_text(self._cells('G'))}."

    def outcome(self, state: str, next_state: str) -> tuple[float, bool] | None:
        """1 at the goal, where it ends as in a hole; `None` where the maps differ, or show not one player each."""
        before, after = _read(state), _read(next_state)
        if before is None or after is None or before[0] != after[0]:
            return None
        return float(after[1] == "√"), after[1] in "X√"

    def solve(self) -> list[str] | None:
        """A shortest way to the goal, if every step goes where it should."""
        return search(self._player(), self._moves, lambda cell: self._map[cell[0]][cell[1]] == "G")

    def _scatter(self, rng: np.random.Generator) -> list[str]:
        """The map with its start and goal on two other cells, or the same, that have a way from one to the other."""
        ice = [cell for kind in "SFG" for cell in self._cells(kind)]
        while True:
            start, goal = (ice[i] for i in rng.permutation(len(ice))[:2])
            if search(start, self._moves, lambda cell, goal=goal: cell == goal):
                ends = {start: "S", goal: "G"}
                rows = [["H" if cell == "H" else "F" for cell in row] for row in self._map]
                return ["".join(ends.get((r, c), cell) for c, cell in enumerate(row)) for r, row in enumerate(rows)]

    def _moves(self, cell: Cell) -> list[tuple[str, Cell]]:
        after = [(action, (cell[0] + MOVES[action][0], cell[1] + MOVES[action][1])) for action in ACTIONS]
        inside = range(self.size)
        return [(a, (r, c)) for a, (r, c) in after if r in inside and c in inside and self._map[r][c] != "H"]

    def _player(self) -> Cell:
        row, column = divmod(int(self._env.s), self.size)
        return row, column

    def _cells(self, kind: str) -> list[Cell]:
        return [(r, c) for r, row in enumerate(self._map) for c, cell in enumerate(row) if cell == kind]


def _read(state: str) -> tuple[dict[Cell, str], str] | None:
    """The map that a state shows, without the player, and the player's symbol; None where there is no one player."""
    cells = read_grid(state, "P_OGX√") or {}
    players = [symbol for symbol in cells.values() if symbol in "PX√"]
    if len(players) != 1:
        return None
    return {cell: {"P": "_", "X": "O", "√": "G"}.get(symbol, symbol) for cell, symbol in cells.items()}, players[0]
