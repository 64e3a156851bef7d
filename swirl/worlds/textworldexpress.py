"""TextWorldExpress: eight short text games (cooking, tidying up, maps, sums and others) in a fast simulator (Java).

    You are in the parlor. In one part of the room you see a box, that is empty.
    To the North you see the backyard. To the South you see the side yard.
    Inventory:
      a map
    The map reads: ...                      the answer to the last action

The task is not in the state. The package's own train, development and test seeds are the parts of a recording.

    swirl collect textworldexpress
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from swirl.worlds import jvm
from swirl.worlds.base import unknown
from swirl.worlds.textgame import SHARES, TextGame, chosen, paragraphs

PLANNERS = {
    "cookingworld": "CookingWorld",
    "twc": "TWC",
    "coin": "Coin",
    "mapreader": "MapReader",
    "arithmetic": "Arithmetic",
    "sorting": "Sorting",
    "simonsays": "SimonSays",
    "peckingorder": "PeckingOrder",
}
"""Name of a game -> what the package's class that plans it begins with."""
GAMES = tuple(PLANNERS)
ATTEMPTS = 25
"""How often a planner that searches by chance may try."""
PARTS = {"train": ("train", "getSeedsTrain"), "validation": ("dev", "getSeedsDev"), "test": ("test", "getSeedsTest")}


def missing() -> str | None:
    """The command that installs what TextWorldExpress needs and is not here; None if nothing is missing."""
    return jvm.missing(TextWorldExpress.package, TextWorldExpress.extra)


class TextWorldExpress(TextGame):
    """TextWorldExpress; see the module, and `TextGame` for the behaviours.

    A seed draws a game, a part and one of the part's seeds. The score of a game goes up to 1; the reward is its gain.

    Args:
        games: Any of "cookingworld", "twc", "coin", "mapreader", "arithmetic", "sorting", "simonsays" and
            "peckingorder"; none for all eight.

    Raises:
        InputError: A game is not known.
        MissingPartError: The simulator or Java is not installed.
    """

    name = "textworldexpress"
    package, extra = "textworld_express", "textworld"
    jar = "textworld-express.jar"
    interface = "textworldexpress.runtime.PythonInterface"

    def __init__(self, games: str | Sequence[str] = ()):
        super().__init__()
        self.games = chosen("game", games, GAMES)

    def begin(self, rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
        """Draws a game, a part and a seed."""
        game = self.games[rng.integers(len(self.games))]
        part = str(rng.choice(list(PARTS), p=SHARES))
        fold, get = PARTS[part]
        seeds = getattr(self._game, get)()
        self._drawn = game, int(seeds[int(rng.integers(len(seeds)))]), fold
        self._score = 0.0
        self._read(self._start(self._game))
        info = {"layout": " ".join(map(str, self._drawn)), "split": part, "task": self._game.getTaskDescription()}
        return self._describe(), info

    def apply(self, action: str) -> tuple[str, float, bool]:
        """Takes a valid action."""
        if action not in self.legal():
            raise unknown("action", action, self.legal())
        before = self._score
        self._read(self._game.stepJSON(action))
        found = self._found
        ended = found["tasksuccess"] or found["taskfailure"] or self._score >= 1
        return self._describe(), self._score - before, ended

    def valid(self) -> Iterable[str]:
        """The valid actions; one of the games gives them as the text of a list."""
        listed = self._found["validActions"]
        return listed.strip()[2:-2].split("', '") if isinstance(listed, str) else listed

    def plan(self) -> list[str]:
        """The package's gold path, its chances drawn from the game's seed; no action where it finds none.

        Asked for a path, the package would draw them from the clock.
        """
        assert self._java is not None
        game, seed, _ = self._drawn
        for attempt in range(ATTEMPTS):
            self._start(self._planner)
            agent = self._java.make(f"textworldexpress.goldagent.{PLANNERS[game]}GoldAgent", self._planner.game())
            # py4j hands a small number over as an int, which the constructor does not take.
            found = agent.mkGoldPath(self._java.make("scala.util.Random", 2**40 + ATTEMPTS * seed + attempt))
            if found._1:
                return [str(action) for action in found._2][1:]  # the first began the game
        return []

    def possible(self, action: str) -> bool:
        """Where it is valid."""
        return action in self.legal()

    def _start(self, simulator: Any) -> str:
        game, seed, fold = self._drawn
        simulator.load(game, "")
        return simulator.generateNewGameJSON(seed, fold, False)

    def _read(self, reply: str) -> None:
        self._found: dict[str, Any] = json.loads(reply)
        self._score = float(self._found["score"])

    def _describe(self) -> str:
        return paragraphs(*(self._found[key] for key in ("look", "inventory", "observation")))
