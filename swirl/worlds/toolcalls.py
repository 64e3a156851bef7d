"""Tool calls: the executable back-ends of the Berkeley Function Calling Leaderboard (BFCL), with its multi-turn tasks.

A task has a user with requests, one or two APIs in a given state, and the gold calls that do what the user asks. A
state holds the requests, what the last call gave back, and the APIs' objects, one fact per line:

    user: Gas is low: fill the tank up, then start the engine.
    output: {"fuelLevel": 50.0}
    VehicleControlAPI.fuelLevel 50.0
    VehicleControlAPI.engine_state "stopped"
    GorillaFileSystem /workspace/archive/
    GorillaFileSystem /workspace/notes.txt "buy milk"

An action is a call, `fillFuelTank(fuelAmount=40.0)`; its arguments are literals, and nothing else is ever evaluated.
The call itself is not in the state that follows, or nothing would be left to infer. All requests stand in the state
from the start, since no model could foresee the next one. `random_draws` counts the numbers that an API has drawn from
its seeded generator, so that the next booking's number follows from the state.

What fits: a line keeps its first `width` characters and an API its first `facts` lines, followed by how many there
are in all. The world is complete where nothing is cut.

    swirl collect toolcalls
"""

import ast
import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from swirl.errors import InputError, MissingPartError
from swirl.types import State
from swirl.worlds import bfcl
from swirl.worlds.base import Step, refuse_outside_episode, unknown
from swirl.worlds.bfcl import CATEGORIES, missing

__all__ = ["ToolCalls", "missing"]

LARGEST = 10**15
"""Whole numbers beyond it are refused: no back-end means them, and with thousands of digits they cannot be written."""
Call = tuple[str, dict[str, Any]]  # a function and its arguments, by their names


class ToolCalls:
    """BFCL's multi-turn tasks as a world; see the module.

    Behaviours: "gold" makes the task's gold calls in their order; "perturbed" makes them too, but every other call on
    average is one beside it: the same with another argument, or another function of the same API; "random" calls any
    function of the task's APIs. Arguments are drawn from the gold calls' own. The episode ends, with the reward 1,
    when all gold calls have been made in their order, whatever else was called in between.

    Args:
        categories: Kinds of tasks: "base", and those that hold its tasks again with a request that comes late
            ("miss_func"), says less at first ("miss_param"), or with much larger objects ("long_context").
        width: Most characters of a line; None cuts none.
        facts: Most lines of an API; None cuts none.

    Raises:
        InputError: An argument cannot be used.
        MissingPartError: The back-ends are not installed.
    """

    name = "toolcalls"
    behaviours = ("gold", "perturbed", "random")
    repeatable = True

    def __init__(self, categories: Sequence[str] = ("base",), width: int | None = 240, facts: int | None = 60):
        self.categories = (categories,) if isinstance(categories, str) else tuple(categories)
        for category in self.categories or ("",):
            if category not in CATEGORIES:
                raise unknown("category", category, CATEGORIES)
        for what, limit in (("width", width), ("facts", facts)):
            if limit is not None and limit < 1:
                raise InputError(f"{what} is {limit}: expected at least 1, or None to cut nothing")
        if command := missing():
            raise MissingPartError(f"the world 'toolcalls' needs the benchmark's back-ends: {command}")
        self.width, self.facts, self.complete = width, facts, width is None and facts is None
        self._tasks = [
            (task, [_parse(call, bfcl.signatures()) for call in task.gold])
            for category in self.categories
            for task in bfcl.tasks(category)
        ]
        self._values = _values(call for _, gold in self._tasks for call in gold)
        self._running = False

    def reset(self, seed: int) -> tuple[State, dict[str, Any]]:
        """Starts a task; seed s runs task s mod their number. Info holds "layout" and "task"."""
        task, gold = self._tasks[seed % len(self._tasks)]
        self._apis = bfcl.Apis(task)
        self._gold, self._own = list(gold), _values(gold)
        self._requests, self._output, self._running = task.requests, "", True
        return self._describe(), {"layout": task.layout, "task": task.name}

    def step(self, action: str) -> Step:
        """Makes a call; one that an API refuses, or whose arguments do not fit, gives its error as output."""
        refuse_outside_episode(self._running)
        name, arguments = _parse(action, self._apis.owner)
        if (name, arguments) == self._gold[0]:
            self._gold.pop(0)
        named = {key: value for key, value in arguments.items() if key}
        self._output = self._apis.call(name, arguments.get("", []), named)
        self._running = bool(self._gold)
        return self._describe(), float(not self._running), not self._running, False, {}

    def actions(self, state: State) -> None:
        """Calls cannot be listed: their arguments are open."""

    def act(self, behaviour: str, rng: np.random.Generator) -> str:
        """The call that a behaviour makes now; see the class."""
        if behaviour not in self.behaviours:
            raise unknown("behaviour", behaviour, self.behaviours)
        refuse_outside_episode(self._running)
        name, arguments = self._gold[0]
        if behaviour == "gold" or (behaviour == "perturbed" and rng.random() < 0.5):
            return _text(name, arguments)
        if behaviour == "perturbed" and arguments and rng.random() < 0.5:
            changed = list(arguments)[rng.integers(len(arguments))]
            others = [value for value in self._values[changed] if value != arguments[changed]]
            if others:
                return _text(name, {**arguments, changed: others[rng.integers(len(others))]})
        owner = self._apis.owner
        names = [other for other in owner if behaviour == "random" or owner[other] == owner.get(name)]
        name, arguments = names[rng.integers(len(names))], {}
        for key, parameter in list(bfcl.signatures()[name].parameters.items())[1:]:
            if parameter.default is parameter.empty or rng.random() < 0.5:
                values = (
                    self._own.get(key) or self._values.get(key) or [1, *(x for own in self._own.values() for x in own)]
                )
                arguments[key] = values[rng.integers(len(values))]
        return _text(name, arguments)

    def close(self) -> None:
        """Ends the episode."""
        self._running = False

    def _describe(self) -> str:
        lines = [f"user: {request}" for request in self._requests]
        lines += [f"output: {self._output}"] if self._output else []
        for name, facts in self._apis.facts().items():
            lines += facts if self.facts is None else _cut(facts, self.facts, [f"{name} … {len(facts)} lines"])
        lines = [" ".join(line.splitlines()) for line in lines]
        return "\n".join(x if self.width is None else _cut(x, self.width, f" … {len(x)} characters") for x in lines)


def _parse(action: str, known: Collection[str]) -> Call:
    """The function and its arguments by name; where they do not fit it, the positional ones stay, as ""."""
    try:
        tree = ast.parse(action.strip(), mode="eval").body
        if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and all(k.arg for k in tree.keywords)):
            raise ValueError
        numbers = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        if any(isinstance(number, int) and number > LARGEST for number in numbers):
            raise ValueError
        positional = [ast.literal_eval(value) for value in tree.args]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords}
        json.dumps([positional, named], ensure_ascii=False, allow_nan=False).encode()  # or it fits in no state
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise InputError(
            f"{action[:200]!r} is no call: expected e.g. cd(folder='docs'), with literal arguments that JSON can hold"
            f" and whole numbers up to {LARGEST:.0e}"
        ) from None
    name = tree.func.id
    if name not in known:
        raise unknown("function", name, known)
    try:
        bound = bfcl.signatures()[name].bind(None, *positional, **named)
        return name, dict(list(bound.arguments.items())[1:])
    except TypeError:
        return name, {**named, **({"": positional} if positional else {})}


def _values(calls: Iterable[Call]) -> dict[str, list[Any]]:
    """The different values that calls give to each parameter, by its name, in order of appearance."""
    values: dict[str, dict[str, Any]] = {}
    for _, arguments in calls:
        for key, value in arguments.items():
            values.setdefault(key, {})[repr(value)] = value
    return {key: list(known.values()) for key, known in values.items()}


def _text(name: str, arguments: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def _cut(whole: Any, limit: int, end: Any) -> Any:
    """A text or a list; where it is longer than the limit, its beginning and an end that says how long it is."""
    return whole if len(whole) <= limit else whole[:limit] + end
