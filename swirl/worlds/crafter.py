"""Crafter: survival on a map of grass, water, caves and creatures, seen from above, as frames of 64 x 64 pixels.

The simulator is the `crafter` package. A state is the frame that it draws for players: 9 x 7 cells around the player,
and below them what the player has. It is not complete: creatures move and things grow by chance, and the rest of the
map is out of sight. By day every cell is a tile of 7 x 7 pixels; the light changes from step to step, from some 150 on
with noise. `night=False` leaves it day.

Two departures from the package. Creatures are listed by place where one of them is drawn, since in their set's order
the same seed and actions give different frames. And a map takes seconds to make, longer than an episode of a
recording: so there are `areas` of them, each is made once, and an episode draws its chances anew on a copy. The layout
is the area.

    swirl collect crafter --max-steps 200 --option areas=20
"""

import copy
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from swirl import images
from swirl.errors import InputError, MissingPartError
from swirl.types import State
from swirl.worlds.base import Step, refuse_outside_episode, unknown

INSTALL = "pip install '.[crafter]'"
MOVES = {(-1, 0): "move left", (1, 0): "move right", (0, -1): "move up", (0, 1): "move down"}
ACTIONS = (
    "noop",
    *MOVES.values(),
    "do",
    "sleep",
    *(f"place {thing}" for thing in ("stone", "table", "furnace", "plant")),
    *(f"make {material} {tool}" for tool in ("pickaxe", "sword") for material in ("wood", "stone", "iron")),
)
"""Crafter's actions 0 to 16."""
CELLS = 9
"""That a frame shows side by side."""
STRAY = 0.1
"""Share of the wanderer's steps that are random."""
DO = 0.7
"""Share of its steps before something that can be taken or hit which take or hit it."""


def missing() -> str | None:
    """The command that installs what Crafter needs and is not here; None if nothing is missing."""
    return None if find_spec("crafter") else INSTALL


class Crafter:
    """Crafter's frames; the seed of an episode picks the area.

    Behaviours: "random" draws uniformly from the actions and stays about where it is; "wander" walks on in the
    direction it looks, turns where it cannot, takes or hits what is before it, and makes and places what it can; now
    and then it strays (`STRAY`).

    Args:
        areas: Maps that there are; seed s runs area s mod their number. One takes some seconds to make.
        night: Whether days pass.
        size: Pixels a side of a frame. Nine cells lie side by side: of 64 the last row and column are black.
        max_steps: Steps after which an episode is truncated.

    Raises:
        InputError: `areas` or `max_steps` is not positive, or `size` is not enough for a pixel of each cell.
        MissingPartError: The simulator is not installed.
    """

    name = "crafter"
    behaviours = ("random", "wander")
    complete, repeatable = False, True

    def __init__(self, areas: int = 30, night: bool = True, size: int = 64, max_steps: int = 10_000):
        try:
            import crafter
            from crafter import constants
        except ImportError as error:
            raise MissingPartError(f"the world 'crafter' needs its simulator ({error}): {INSTALL}") from error
        if areas < 1 or max_steps < 1:
            raise InputError(f"areas is {areas} and max_steps {max_steps}: expected at least 1 of each")
        if size < CELLS:
            raise InputError(f"size is {size}: expected at least {CELLS} pixels, one for each cell")
        self.areas, self.night, self.max_steps = areas, night, max_steps
        self._rules: Any = constants
        self._area = lru_cache(maxsize=None)(_maker(crafter.Env, night, size, max_steps))
        self._running = False

    def reset(self, seed: int) -> tuple[State, dict[str, Any]]:
        """Starts the episode of a seed; info holds "layout"."""
        area = seed % self.areas
        self._env = copy.deepcopy(self._area(area))
        self._env._world.random.seed(seed)  # one generator, which all creatures share
        self._running = True
        return _state(self._env.render()), {"layout": f"area {area}"}

    def step(self, action: str) -> Step:
        """Takes one of the 17 actions; see `World.step`. Many change little, e.g. making what there is no wood for."""
        if action not in ACTIONS:
            raise unknown("action", action, ACTIONS)
        refuse_outside_episode(self._running)
        frame, reward, done, info = self._env.step(ACTIONS.index(action))
        self._running = not done
        dead = info["discount"] == 0
        return _state(frame), float(reward), dead, bool(done) and not dead, {}

    def actions(self, state: State) -> tuple[str, ...]:
        """The 17 actions; all can be taken in every state."""
        return ACTIONS

    def act(self, behaviour: str, rng: np.random.Generator) -> str:
        """The action that a behaviour takes now; see the class for the two behaviours."""
        if behaviour not in self.behaviours:
            raise unknown("behaviour", behaviour, self.behaviours)
        refuse_outside_episode(self._running)
        if behaviour == "random" or rng.random() < STRAY:
            return ACTIONS[rng.integers(len(ACTIONS))]
        player = self._env._player
        material, thing = self._env._world[player.pos + player.facing]
        if (thing is not None or self._can_take(material)) and rng.random() < DO:
            return "do"
        made = self._can_make()
        if made and rng.random() < DO:
            return made[rng.integers(len(made))]
        if thing is None and material in self._rules.walkable:
            dx, dy = player.facing
            return MOVES[int(dx), int(dy)]
        return list(MOVES.values())[rng.integers(len(MOVES))]

    def close(self) -> None:
        """Forgets the areas."""
        self._area.cache_clear()
        self._running = False

    def _can_take(self, material: str | None) -> bool:
        """Whether the player can take something from a cell; grass gives a sapling too seldom to stop for."""
        found = self._rules.collect.get(material) if material != "grass" else None
        return found is not None and self._has(found["require"])

    def _can_make(self) -> list[str]:
        """What the player can make that it does not have, or place that is not near."""
        player = self._env._player
        near, _ = self._env._world.nearby(player.pos, 1)
        around, _ = self._env._world.nearby(player.pos, 4)
        target, thing = self._env._world[player.pos + player.facing]
        tools = [
            name
            for name, rule in self._rules.make.items()
            if not player.inventory[name] and self._has(rule["uses"]) and all(place in near for place in rule["nearby"])
        ]
        placed = [
            name
            for name, rule in self._rules.place.items()
            if name != "stone"
            and name not in around
            and self._has(rule["uses"])
            and target in rule["where"]
            and thing is None
        ]
        return [f"make {name.replace('_', ' ')}" for name in tools] + [f"place {name}" for name in placed]

    def _has(self, things: dict[str, int]) -> bool:
        return all(self._env._player.inventory[name] >= count for name, count in things.items())


def _state(frame: np.ndarray) -> State:
    from PIL import Image

    return [{"type": "image", "image": images.data_uri(Image.fromarray(frame))}]


def _maker(base: Any, night: bool, size: int, length: int) -> Callable[[int], Any]:
    """A function that makes an area, ready to be copied."""

    class Env(base):
        def _balance_object(self, chunk: Any, objs: Any, *rest: Any) -> None:
            super()._balance_object(chunk, sorted(objs, key=lambda thing: tuple(thing.pos)), *rest)

        def _update_time(self) -> None:
            super()._update_time()
            if not night:
                self._world.daylight = 1.0

    def make(area: int) -> Any:
        env = Env(seed=area, size=(size, size), length=length)
        env.reset()
        return env

    return make
