"""MiniGrid: small rooms with keys, doors and boxes, described in words or drawn.

The simulator is the `minigrid` package. A state is the whole room, one fact per line:

    room 11 6                   grid of 11 x 6 cells, x to the right, y downwards, walls all around
    agent 2 3 right
    carrying nothing            or `carrying key red`
    wall 5 1 5 4                from cell (5, 1) to cell (5, 4); a door in a wall is part of its run
    door red 5 2 locked         or `closed`, `open`
    box blue 8 3                `holding key red` follows where something is inside
    key red 2 2

Where the border is not all wall, the first line reads `grid 25 25` and every wall is listed. Objects are in the order
of type, colour, position, so that one that moves seldom changes its line's place. The mission is not in the state: it
decides the reward and the end, never the next state, which is a function of the text and the action.

The layout is read off the text of any state of the episode, as the facts that no action can change: the size, walls,
goals, lava, doors without their open, closed or locked, and which keys and balls there are (anywhere: they can be
moved but not destroyed). So states of different layouts differ by construction. Boxes are left out: a toggle
destroys them. MiniGrid's seventh action, `done`, does nothing in these environments and is left out.

With `view="image"` a state is one image that says the same (`minigrid_frame.py`); layouts stay those of the text.

    swirl collect minigrid
    swirl collect minigrid --option view=image --option 'environments=["MiniGrid-DoorKey-8x8-v0"]'
"""

import hashlib
import re
from collections import deque
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from swirl import images
from swirl.errors import InputError, MissingPartError
from swirl.types import State
from swirl.worlds.base import Step, refuse_outside_episode, unknown
from swirl.worlds.minigrid_frame import draw

INSTALL = "pip install minigrid gymnasium"
ACTIONS = ("left", "right", "forward", "pickup", "drop", "toggle")  # MiniGrid's actions 0 to 5
DIRECTIONS = ("right", "down", "left", "up")  # MiniGrid's directions 0 to 3
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
DEFAULT_ENVIRONMENTS = ("MiniGrid-Fetch-6x6-N2-v0", "MiniGrid-DoorKey-8x8-v0", "MiniGrid-UnlockPickup-v0")
VIEWS = ("text", "image")
SLIP = 0.15
"""Share of the solver's steps that are random, so that it does not always take the same path."""

Cell = tuple[int, int]
Pose = tuple[int, int, int]
"""x, y and direction."""


def missing() -> str | None:
    """The command that installs what MiniGrid needs and is not here; None if nothing is missing."""
    return None if find_spec("minigrid") and find_spec("gymnasium") else INSTALL


class MiniGrid:
    """MiniGrid environments as one world; the seed of an episode picks the environment.

    Behaviours: "random" draws uniformly from the actions; "curious" takes the action least taken so far in this
    episode in the current state (ties are drawn; the counts end with the episode, so that an episode is a function of
    its seeds); "solver" plans the mission breadth-first and slips at random now and then (`SLIP`). Where the solver
    knows no way, it is curious.

    Args:
        environments: Gymnasium ids; seed s runs environment s mod their number.
        max_steps: Steps after which an episode is truncated; None for each environment's own limit.
        view: What a state is, "text" or "image".

    Raises:
        InputError: An environment is unknown or draws chances in `step`, `max_steps` is not positive, or there is no
            such view.
        MissingPartError: The simulator is not installed.
    """

    name = "minigrid"
    behaviours = ("random", "curious", "solver")
    complete = repeatable = True

    def __init__(
        self,
        environments: Sequence[str] = DEFAULT_ENVIRONMENTS,
        max_steps: int | None = None,
        view: str = "text",
    ):
        try:
            import gymnasium
            import minigrid  # noqa: F401  (registers the environments)
        except ImportError as error:
            raise MissingPartError(f"the world 'minigrid' needs its simulator ({error}): {INSTALL}") from error
        self.environments = (environments,) if isinstance(environments, str) else tuple(environments)
        self.max_steps, self.view = max_steps, view
        known = [i for i in gymnasium.registry if i.startswith("MiniGrid-") and "Dynamic" not in i]
        if not self.environments:
            raise InputError("no environments given: expected at least one, e.g. 'MiniGrid-DoorKey-8x8-v0'")
        for environment in self.environments:
            if "Dynamic" in environment:
                raise InputError(f"{environment!r} moves its obstacles by chance: give one without chance in its steps")
            if environment not in known:
                raise unknown("environment", environment, known)
        if max_steps is not None and max_steps < 1:
            raise InputError(f"max_steps is {max_steps}: expected at least 1, or None for the environment's own limit")
        if view not in VIEWS:
            raise unknown("view", view, VIEWS)
        self._make = gymnasium.make
        self._simulators: dict[str, Any] = {}
        self._running = False

    def reset(self, seed: int) -> tuple[State, dict[str, Any]]:
        """Starts the episode of a seed; info holds "layout" and "environment".

        Raises:
            InputError: Something lies in a box, where an image does not show it.
        """
        environment = self.environments[seed % len(self.environments)]
        if environment not in self._simulators:
            options = {} if self.max_steps is None else {"max_steps": self.max_steps}
            self._simulators[environment] = self._make(environment, disable_env_checker=True, **options).unwrapped
        self._env = self._simulators[environment]
        self._env.reset(seed=seed)
        if self.view == "image" and any(thing.contains for _, thing in _things(self._env.grid)):
            raise InputError(
                f"{environment!r} puts things into boxes, where an image does not show them: give view = 'text', or "
                "another environment"
            )
        self._fixed = _fixed_lines(self._env.grid)
        self._counts: dict[str, list[int]] = {}
        self._drawn: dict[str, str] = {}
        self._plan: deque[str] = deque()
        self._running = True
        self._text = self._describe()
        return self._state(), {"layout": layout(self._text), "environment": environment}

    def step(self, action: str) -> Step:
        """Takes one of the six actions; see `World.step`."""
        if action not in ACTIONS:
            raise unknown("action", action, ACTIONS)
        refuse_outside_episode(self._running)
        index = ACTIONS.index(action)
        self._counts.setdefault(self._text, [0] * len(ACTIONS))[index] += 1
        if self._plan and self._plan[0] == action:
            self._plan.popleft()
        else:
            self._plan.clear()
        _, reward, terminated, truncated, _ = self._env.step(index)
        self._running = not (terminated or truncated)
        self._text = self._describe()
        return self._state(), float(reward), bool(terminated), bool(truncated), {}

    def actions(self, state: State) -> tuple[str, ...]:
        """The six actions; all can be taken in every state, many change nothing."""
        return ACTIONS

    def act(self, behaviour: str, rng: np.random.Generator) -> str:
        """The action that a behaviour takes now; see the class for the three behaviours."""
        if behaviour not in self.behaviours:
            raise unknown("behaviour", behaviour, self.behaviours)
        refuse_outside_episode(self._running)
        if behaviour == "random" or (behaviour == "solver" and rng.random() < SLIP):
            return ACTIONS[rng.integers(len(ACTIONS))]
        if behaviour == "solver":
            if not self._plan:
                self._plan.extend(_plan(self._env))
            if self._plan:
                return self._plan[0]
        counts = self._counts.get(self._text, [0] * len(ACTIONS))
        least = [index for index, count in enumerate(counts) if count == min(counts)]
        return ACTIONS[least[rng.integers(len(least))]]

    def close(self) -> None:
        """Closes the simulators."""
        for simulator in self._simulators.values():
            simulator.close()
        self._simulators.clear()
        self._running = False

    def _state(self) -> State:
        if self.view == "text":
            return self._text
        if self._text not in self._drawn:
            self._drawn[self._text] = images.data_uri(draw(self._env))
        return [{"type": "image", "image": self._drawn[self._text]}]

    def _describe(self) -> str:
        env = self._env
        x, y = env.agent_pos
        first, walls = self._fixed
        doors, things = [], []
        for (i, j), thing in _things(env.grid):
            if thing.type == "door":
                state = "open" if thing.is_open else "locked" if thing.is_locked else "closed"
                doors.append(("door", thing.color, i, j, state))
            elif thing.type in ("goal", "lava"):
                things.append((thing.type, "", i, j, ""))
            else:
                things.append((thing.type, thing.color, i, j, _inside(thing)))
        carried = env.carrying
        carrying = f"{carried.type} {carried.color} {_inside(carried)}".rstrip() if carried else "nothing"
        facts = [" ".join(str(word) for word in fact if word != "") for fact in sorted(doors) + sorted(things)]
        agent = f"agent {x} {y} {DIRECTIONS[env.agent_dir]}"
        return "\n".join([first, agent, f"carrying {carrying}", *walls, *facts])


def layout(text: str) -> str:
    """The layout of a state's text: a hash of what no action can change. See the module's docstring."""
    facts = []
    for line in text.split("\n"):
        kind = line.split(" ", 1)[0]
        if kind in ("room", "grid", "wall", "goal", "lava", "floor"):
            facts.append(line)
        elif kind == "door":
            facts.append(line.rsplit(" ", 1)[0])
    facts += sorted(re.findall(r"\b(?:key|ball) [a-z]+", text))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _inside(thing: Any) -> str:
    """What a box holds, in words; empty for a thing that holds nothing."""
    held = thing.contains
    return f"holding {held.type} {held.color} {_inside(held)}".rstrip() if held else ""


def _things(grid: Any) -> Iterator[tuple[Cell, Any]]:
    """Everything on the grid that is not a wall, with its cell."""
    for index, thing in enumerate(grid.grid):
        if thing is not None and thing.type != "wall":
            yield (index % grid.width, index // grid.width), thing


def _fixed_lines(grid: Any) -> tuple[str, list[str]]:
    """The first line, and the walls as maximal straight runs of two or more cells, or single cells."""
    width, height = grid.width, grid.height
    cells = {(i % width, i // width): thing.type for i, thing in enumerate(grid.grid) if thing is not None}
    inner = {(x, y) for x in range(1, width - 1) for y in range(1, height - 1)}
    border = {(x, y) for x in range(width) for y in range(height)} - inner
    walled = all(cells.get(cell) == "wall" for cell in border)
    scope = inner if walled else inner | border
    solid = {cell for cell in scope if cells.get(cell) in ("wall", "door")}
    runs = []
    covered = set()
    for dx, dy in ((0, 1), (1, 0)):
        for x, y in sorted(solid):
            if (x - dx, y - dy) in solid:
                continue
            run = [(x, y)]
            while (run[-1][0] + dx, run[-1][1] + dy) in solid:
                run.append((run[-1][0] + dx, run[-1][1] + dy))
            if len(run) > 1 and any(cells[cell] == "wall" for cell in run):
                runs.append((run[0], run[-1]))
                covered.update(run)
    runs += [(cell, cell) for cell in solid - covered if cells[cell] == "wall"]
    lines = [f"wall {x1} {y1} {x2} {y2}" for (x1, y1), (x2, y2) in sorted(runs)]
    return f"{'room' if walled else 'grid'} {width} {height}", lines


def _front(pose: Pose) -> Cell:
    x, y, direction = pose
    return x + STEPS[direction][0], y + STEPS[direction][1]


def _plan(env: Any) -> list[str]:
    """The actions to the mission's next subgoal; empty where the solver knows no way."""
    came_from, facing = _explore(env)
    subgoal = _subgoal(env, facing)
    if subgoal is None:
        return []
    cell, last = subgoal
    plan = [last]
    pose = facing[cell]
    while came_from[pose] is not None:
        pose, action = came_from[pose]
        plan.append(action)
    return plan[::-1]


def _explore(env: Any) -> tuple[dict[Pose, Any], dict[Cell, Pose]]:
    """Breadth-first over the poses that moves alone reach.

    Returns:
        Each pose's (previous pose, action), None for the first; and for each cell that can be faced, nearest first,
        the nearest pose that faces it.
    """
    start: Pose = (int(env.agent_pos[0]), int(env.agent_pos[1]), int(env.agent_dir))
    came_from: dict[Pose, Any] = {start: None}
    facing: dict[Cell, Pose] = {}
    queue = deque([start])
    while queue:
        pose = queue.popleft()
        x, y, direction = pose
        ahead = _front(pose)
        facing.setdefault(ahead, pose)
        moves = [((x, y, (direction - 1) % 4), "left"), ((x, y, (direction + 1) % 4), "right")]
        thing = env.grid.get(*ahead)
        # Goals and lava end the episode: they are faced, never crossed.
        if thing is None or (thing.can_overlap() and thing.type not in ("goal", "lava")):
            moves.append(((*ahead, direction), "forward"))
        for pose_after, action in moves:
            if pose_after not in came_from:
                came_from[pose_after] = pose, action
                queue.append(pose_after)
    return came_from, facing


def _target(env: Any) -> tuple[Cell, str] | None:
    """The cell that the mission ends at and the action that ends it there."""
    wanted = getattr(env, "targetType", None), getattr(env, "targetColor", None)  # Fetch
    for cell, thing in _things(env.grid):
        if thing.type == "goal":
            return cell, "forward"
        if thing is getattr(env, "obj", None) or (thing.type, thing.color) == wanted:
            return cell, "pickup"
    return None


def _subgoal(env: Any, facing: dict[Cell, Pose]) -> tuple[Cell, str] | None:
    """The cell to face next and what to do there: the target, else a door, a key, or what is in the way."""
    held = env.carrying
    target = _target(env)
    things: dict[Cell, Any] = dict(_things(env.grid))
    doors = {cell: thing for cell, thing in things.items() if thing.type == "door"}
    beside = {(x + dx, y + dy) for x, y in doors for dx, dy in STEPS}
    # What is put down beside a door may block it: only where there is no other place.
    free = sorted((cell for cell in facing if env.grid.get(*cell) is None), key=lambda cell: cell in beside)
    drop = (free[0], "drop") if free else None
    if target and target[0] in facing:
        return drop if target[1] == "pickup" and held else target
    shut = [cell for cell, door in doors.items() if not door.is_open]
    for cell in (cell for cell in facing if cell in shut):
        key = ("key", doors[cell].color)
        if not doors[cell].is_locked or (held and (held.type, held.color) == key):
            return cell, "toggle"
        keys = (other for other in facing if other in things and (things[other].type, things[other].color) == key)
        nearest = next(keys, None)
        if nearest:
            return drop if held else (nearest, "pickup")
    if target is None and all(cell in facing for cell in shut):
        return None
    if held:
        return drop
    loose = [cell for cell in facing if cell in things and things[cell].can_pickup()]
    return next(((cell, "pickup") for cell in sorted(loose, key=lambda cell: cell not in beside)), None)
