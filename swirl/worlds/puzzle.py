"""What the puzzles share: episodes, behaviours, and states as a grid of symbols with a sentence of coordinates.

    # # # #
    # P X #
    # _ O #
    # # # #
    Player (P) is at (1,1); box (X) is at (1,2); target (O) is at (2,2).

The sentence is what makes such grids readable for a language model (Internalizing World Models via Self-Play
Finetuning, arXiv 2510.15047, section 4). Rows and columns are counted from 0 at the top left.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any, TypeVar

import numpy as np

from swirl.errors import InputError
from swirl.types import State
from swirl.worlds.base import Step, refuse_outside_episode, unknown

Cell = tuple[int, int]
"""Row and column."""
MOVES: dict[str, Cell] = {"Up": (-1, 0), "Down": (1, 0), "Left": (0, -1), "Right": (0, 1)}
SLIP = 0.15
"""Share of the solver's steps that are random, so that it does not always take the same path."""
NODES = 100_000
"""Positions that a search sees, at most: a second or two."""
Node = TypeVar("Node", bound=Hashable)


class Puzzle(ABC):
    """A puzzle as a world; a subclass has the rules.

    Behaviours: "random" draws uniformly from the actions; "curious" takes the action least taken so far in this episode
    in the current state; "solver" follows a solution and slips at random now and then (`SLIP`), and is curious where
    there is none, or none was found within `NODES` positions.

    Args:
        coordinates: Whether a state ends with the sentence of coordinates.
        max_steps: Steps after which an episode is truncated.

    Raises:
        InputError: An argument cannot be used.
    """

    name: str
    manual: str
    """For an agent that is told what it plays."""
    behaviours = ("random", "curious", "solver")
    complete = repeatable = True

    def __init__(self, coordinates: bool, max_steps: int):
        if max_steps < 1:
            raise InputError(f"max_steps is {max_steps}: expected at least 1")
        self.coordinates, self.max_steps = coordinates, max_steps
        self._running = False

    @abstractmethod
    def begin(self, rng: np.random.Generator) -> str:
        """Makes a puzzle; returns what no step can change, which names the layout."""

    @abstractmethod
    def apply(self, action: str) -> tuple[float, bool]:
        """Takes a legal action; returns the reward and whether the episode has ended."""

    @abstractmethod
    def describe(self) -> str:
        """The state in words."""

    @abstractmethod
    def legal(self) -> tuple[str, ...]:
        """The actions, all of which can be taken in every state."""

    @abstractmethod
    def outcome(self, state: str, next_state: str) -> tuple[float, bool]:
        """Reward of a step and whether it ended the episode, read off the two states; see `base.Rules`."""

    @abstractmethod
    def solve(self) -> list[str] | None:
        """The rest of a solution from here; None where there is none.

        Raises:
            TooLargeError: Nothing was decided within `NODES` positions.
        """

    def reset(self, seed: int) -> tuple[State, dict[str, Any]]:
        """Makes the puzzle of a seed; see `World.reset`."""
        fixed = self.begin(np.random.default_rng(seed))
        self._steps, self._running = 0, True
        self._counts: dict[str, dict[str, int]] = {}
        self._plan: deque[str] = deque()
        self._text = self.describe()
        return self._text, {"layout": hashlib.sha256(fixed.encode()).hexdigest()[:16]}

    def step(self, action: str) -> Step:
        """Takes an action; see `World.step`."""
        actions = self.legal()
        if action not in actions:
            raise unknown("action", action, actions)
        refuse_outside_episode(self._running)
        counts = self._counts.setdefault(self._text, dict.fromkeys(actions, 0))
        counts[action] += 1
        if self.complete and self._plan and self._plan[0] == action:
            self._plan.popleft()
        else:  # also where chance may have led elsewhere
            self._plan.clear()
        reward, terminated = self.apply(action)
        self._text = self.describe()
        self._steps += 1
        truncated = not terminated and self._steps >= self.max_steps
        self._running = not (terminated or truncated)
        return self._text, float(reward), terminated, truncated, {}

    def actions(self, state: State) -> tuple[str, ...]:
        """The actions; see `legal`."""
        return self.legal()

    def act(self, behaviour: str, rng: np.random.Generator) -> str:
        """The action that a behaviour takes now; see the class for the three behaviours."""
        if behaviour not in self.behaviours:
            raise unknown("behaviour", behaviour, self.behaviours)
        refuse_outside_episode(self._running)
        actions = self.legal()
        if behaviour == "random" or (behaviour == "solver" and rng.random() < SLIP):
            return actions[rng.integers(len(actions))]
        if behaviour == "solver":
            with suppress(TooLargeError):
                self._plan = self._plan or deque(self.solve() or ())
            if self._plan:
                return self._plan[0]
        counts = self._counts.get(self._text, dict.fromkeys(actions, 0))
        least = [action for action in actions if counts[action] == min(counts.values())]
        return least[rng.integers(len(least))]

    def close(self) -> None:
        """Ends the episode."""
        self._running = False


def grid_text(rows: Iterable[Sequence[str]]) -> str:
    """The symbols of a grid, with spaces between."""
    return "\n".join(" ".join(row) for row in rows)


def read_grid(state: str, symbols: str) -> dict[Cell, str] | None:
    """The symbol of each cell of the grid in a state; None where the text is no such grid.

    Args:
        state: What `grid_text` wrote, or a model: a grid, and one line below it at most.
        symbols: Those that a cell may have.
    """
    rows = list(takewhile(lambda row: row and set(row) <= set(symbols), map(str.split, state.split("\n"))))
    below = state.count("\n") + 1 - len(rows)
    if not rows or below > 1 or len({len(row) for row in rows}) > 1:
        return None
    return {(r, c): symbol for r, row in enumerate(rows) for c, symbol in enumerate(row)}


def cells_text(cells: Sequence[Cell]) -> str:
    """Cells in words: "(0,1), (2,2) and (3,1)"."""
    words = [f"({row},{column})" for row, column in cells]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


class TooLargeError(Exception):
    """A search saw `NODES` positions and no goal."""


def search(
    start: Node, neighbours: Callable[[Node], Iterable[tuple[str, Node]]], goal: Callable[[Node], bool]
) -> list[str] | None:
    """The actions of a shortest path to a goal, breadth-first; None where there is none.

    Raises:
        TooLargeError: Nothing was decided within `NODES` positions.
    """
    came_from: dict[Node, tuple[Node, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        if len(came_from) > NODES:
            raise TooLargeError
        node = queue.popleft()
        if goal(node):
            path = []
            while (last := came_from[node]) is not None:
                node, action = last
                path.append(action)
            return path[::-1]
        for action, after in neighbours(node):
            if after not in came_from:
                came_from[after] = node, action
                queue.append(after)
    return None
