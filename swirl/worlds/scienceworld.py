"""ScienceWorld: thirty tasks of school science in a house with ten rooms, in the benchmark's own simulator (Java).

    This room is called the hallway. In it, you see:
        the agent
        a substance called air
        a drawing
    You also see:
        A door to the kitchen (that is open)
    In your inventory, you see:
        an orange
    The door is now open.                   the answer to the last action

The task is not in the state: it decides the reward and the end, never what an action does. The benchmark's own
train, development and test variations of every task are the parts of a recording. Some actions have more than one
meaning; then the answer is a question, and its numbers are the next valid actions.

    swirl collect scienceworld
"""

import json
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from swirl.errors import InputError
from swirl.worlds import jvm
from swirl.worlds.base import unknown
from swirl.worlds.textgame import SHARES, TextGame, chosen, paragraphs

SIMPLIFICATIONS = (
    "easy",
    "noElectricalAction",
    "openContainers",
    "openDoors",
    "selfWateringFlowerPots",
    "teleportAction",
)
ELECTRICAL = ("power-component", "test-conductivity")
PARTS = {"train": "getVariationsTrain", "validation": "getVariationsDev", "test": "getVariationsTest"}
UNKNOWN = "No known action matches that input."


def missing() -> str | None:
    """The command that installs what ScienceWorld needs and is not here; None if nothing is missing."""
    return jvm.missing(ScienceWorld.package, ScienceWorld.extra)


class ScienceWorld(TextGame):
    """ScienceWorld; see the module, and `TextGame` for the behaviours.

    A seed draws a task, a part, and one of the part's variations of the task. The score is in percent; the reward is
    what it gains. An action that is listed, or on the path, and still not understood changes nothing but the answer.

    Args:
        tasks: Names of the tasks, e.g. "boil"; none for all thirty.
        simplifications: Names of the benchmark's simplifications, e.g. "openDoors", "teleportAction" or "easy".
        observation: Whether a state ends with the answer to the last action.

    Raises:
        InputError: A task or a simplification is not known, or the two do not go together.
        MissingPartError: The simulator or Java is not installed.
    """

    name = "scienceworld"
    package = extra = "scienceworld"
    jar = "scienceworld.jar"
    interface = "scienceworld.runtime.pythonapi.PythonInterface"

    def __init__(
        self, tasks: str | Sequence[str] = (), simplifications: str | Sequence[str] = (), observation: bool = True
    ):
        super().__init__()
        self.tasks = chosen("task", tasks, _task_names())
        self.simplifications = chosen("simplification", simplifications, SIMPLIFICATIONS) if simplifications else ()
        self.observation = observation
        electrical = [task for task in self.tasks if task.startswith(ELECTRICAL)]
        if electrical and "noElectricalAction" in self.simplifications:
            raise InputError(f"the task {electrical[0]!r} needs electrical actions: leave 'noElectricalAction' out")
        self._variations: dict[str, dict[str, list[int]]] = {}

    def begin(self, rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
        """Draws a task, a part, and a variation."""
        task = self.tasks[rng.integers(len(self.tasks))]
        if task not in self._variations:
            self._game.load(task, 0, "", False)
            self._variations[task] = {part: list(getattr(self._game, get)()) for part, get in PARTS.items()}
        part = str(rng.choice(list(PARTS), p=SHARES))
        variations = self._variations[task][part]
        variation = variations[rng.integers(len(variations))]
        self._load = task, variation, ",".join(self.simplifications)
        assert self._java is not None
        self._random = self._java.static("scala.util.Random$", "MODULE$")
        self._chance, self._moves = int(rng.integers(2**31)), 0
        self._settle_chance()
        self._game.load(*self._load, False)
        self._game.reset()
        # As the benchmark's own reset does; until a step the score is that of the game before.
        self._game.step("look around")
        self._score, self._asked = 0, False
        info = {"layout": f"{task} {variation}", "split": part}
        return self._describe(""), info | {"task": self._game.getTaskDescription()}

    def apply(self, action: str) -> tuple[str, float, bool]:
        """Takes an action that is listed, or on the path, or understood: the simulator knows more than it lists."""
        if self._asked and action not in self.legal():
            raise unknown("action", action, self.legal())
        self._settle_chance()
        answer = self._game.step(action)
        if answer.startswith(UNKNOWN) and action not in self.legal() and action not in self.path():
            raise unknown("action", action, self.legal())
        self._moves += 1
        self._asked = answer.startswith("Ambiguous request")
        before, self._score = self._score, round(100 * self._game.getScore())
        ended = self._game.getCompleted() or self._score < 0
        return self._describe(answer), self._score - before, ended

    def valid(self) -> Iterable[str]:
        """The valid actions; see `TextGame.valid`."""
        self._settle_chance()
        found = json.loads(self._game.getValidActionObjectCombinationsJSON())
        return [action["action"] for action in found["validActions"]]

    def plan(self) -> list[str]:
        """The benchmark's gold path; the simulator takes seconds to find it."""
        self._settle_chance()
        self._planner.load(*self._load, True)
        return [str(action) for action in self._planner.getGoldActionSequence()]

    def possible(self, action: str) -> bool:
        """Not where the simulator has asked a question that the action does not answer."""
        return not self._asked or action in self.legal()

    def _settle_chance(self) -> None:
        """What a step draws (bees fly where they like) depends on the seed and on how many steps were taken.

        The simulator has one generator for everything, so it is seeded before each thing that is asked of it.
        """
        self._random.setSeed(self._chance + self._moves)

    def _describe(self, answer: str) -> str:
        room, carried = self._game.freeActionLook(), self._game.freeActionInventory()
        return paragraphs(room, carried, answer if self.observation else "")


def _task_names() -> list[str]:
    spec = find_spec("scienceworld")
    assert spec is not None and spec.origin is not None
    return [task["task_name"] for task in json.loads((Path(spec.origin).parent / "tasks.json").read_text())]
