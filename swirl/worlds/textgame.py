"""What the text games share: a simulator in Java that knows the valid actions and, if asked, a path to the goal.

A state is what the player reads: the room, what is carried, and the answer to the last action. Other rooms, and most of
what is inside things, are hidden, so a state does not say everything and layouts can share states.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from swirl.errors import MissingPartError
from swirl.types import State
from swirl.worlds import jvm
from swirl.worlds.base import Step, refuse_outside_episode, unknown

SHARES = (0.8, 0.1, 0.1)
"""Of the episodes, for training, validation and test, however many games each part has."""
DETOUR = 0.2
"""Share of the steps of "mixed" that are random."""
AWAY = ("go ", "move ", "teleport ", "focus ", "reset ")
"""Beginnings of actions that can end the game or leave the room, so that the rest of the path leads nowhere."""


class TextGame(ABC):
    """A text game as a world; a subclass has the simulator's own.

    Behaviours: "gold" follows the simulator's own path to the goal; "random" draws a verb, then one of its valid
    actions, so that verbs with many objects do not crowd out the others; "mixed" follows the path and takes a random
    action now and then (`DETOUR`) that does not leave the room. Where the path ends, or its next action cannot be
    taken, actions are random.

    Java starts with the first episode.

    Raises:
        MissingPartError: The simulator or Java is not installed.
    """

    name: str
    behaviours = ("gold", "random", "mixed")
    complete, repeatable = False, True
    package: str
    extra: str
    jar: str
    interface: str

    def __init__(self) -> None:
        command = jvm.missing(self.package, self.extra)
        if command:
            raise MissingPartError(f"the world {self.name!r} needs its simulator and Java: {command}")
        self._java: jvm.Java | None = None
        self._running = False

    @abstractmethod
    def begin(self, rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
        """Draws and starts a game; returns the first state, and the info of `reset`."""

    @abstractmethod
    def apply(self, action: str) -> tuple[str, float, bool]:
        """Takes an action; returns the state, the reward, and whether the game has ended.

        Raises:
            InputError: There is no such action; nothing has changed.
        """

    @abstractmethod
    def valid(self) -> Iterable[str]:
        """The valid actions of the current state, as the simulator lists them."""

    @abstractmethod
    def plan(self) -> list[str]:
        """The simulator's path from the start of this game to its goal."""

    def reset(self, seed: int) -> tuple[State, dict[str, Any]]:
        """Starts the game of a seed; see `World.reset`."""
        if self._java is None:
            self._java = jvm.Java(self.package, self.jar)
            # The planner works a game out without touching the one that is played.
            self._game, self._planner = (self._java.make(self.interface) for _ in range(2))
        self._path: list[str] | None = None
        self._taken, self._legal = 0, None
        self._text, info = self.begin(np.random.default_rng(seed))
        self._running = True
        return self._text, info

    def step(self, action: str) -> Step:
        """Takes an action; see `World.step`. The simulator alone never truncates an episode."""
        refuse_outside_episode(self._running)
        self._text, reward, terminated = self.apply(action)
        self._taken += action == self._next()
        self._legal = None
        self._running = not terminated
        return self._text, float(reward), bool(terminated), False, {}

    def actions(self, state: State) -> tuple[str, ...] | None:
        """The valid actions, and the next one of the path once it is followed; None for all states but the current."""
        if not self._running or state != self._text:
            return None
        following = self._next()
        return self.legal() + ((following,) if following and following not in self.legal() else ())

    def act(self, behaviour: str, rng: np.random.Generator) -> str:
        """The action that a behaviour takes now; see the class for the three behaviours."""
        if behaviour not in self.behaviours:
            raise unknown("behaviour", behaviour, self.behaviours)
        refuse_outside_episode(self._running)
        if behaviour == "gold" or (behaviour == "mixed" and rng.random() >= DETOUR):
            self.path()
            following = self._next()
            if following and self.possible(following):
                return following
        actions = self.legal()
        if behaviour == "mixed":
            actions = [action for action in actions if not action.startswith(AWAY)] or actions
        verbs = sorted({action.split()[0] for action in actions})
        verb = verbs[rng.integers(len(verbs))]
        actions = [action for action in actions if action.split()[0] == verb]
        return actions[rng.integers(len(actions))]

    @abstractmethod
    def possible(self, action: str) -> bool:
        """Whether the next action of the path can be taken now: a detour may have made it impossible."""

    def legal(self) -> tuple[str, ...]:
        """The valid actions of the current state, sorted."""
        if self._legal is None:
            self._legal = tuple(sorted(set(self.valid())))
        return self._legal

    def path(self) -> list[str]:
        """The path to the goal, worked out once a game."""
        if self._path is None:
            self._path = self.plan()
        return self._path

    def close(self) -> None:
        """Ends the Java process."""
        if self._java is not None:
            self._java.close()
        self._java, self._running = None, False

    def _next(self) -> str | None:
        return self._path[self._taken] if self._path and self._taken < len(self._path) else None


def chosen(what: str, given: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The names that were given, as a sequence or with commas between, or all where there are none.

    Raises:
        InputError: One is not known; the message names the nearest.
    """
    names = tuple(given.split(",") if isinstance(given, str) else given) if given else tuple(known)
    for name in names:
        if name not in known:
            raise unknown(what, name, known)
    return names


def paragraphs(*texts: str) -> str:
    """The texts below each other, without blank lines, trailing blanks, or a text that was there already."""
    cleaned = ["\n".join(line.rstrip() for line in text.split("\n") if line.strip()) for text in texts]
    return "\n".join(dict.fromkeys(text for text in cleaned if text))
