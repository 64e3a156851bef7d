"""The Berkeley Function Calling Leaderboard (BFCL): its multi-turn tasks and the objects of its executable back-ends.

A back-end is a Python object, and a call a method of it. What is never called: the back-ends that reach services or
models, and what could keep one busy for days (see `Apis.call`).
"""

import copy
import decimal
import hashlib
import inspect
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# The package's own list of requirements pins other versions of what this one needs; its back-ends need mpmath alone.
INSTALL = "pip install '.[tools]' && pip install --no-deps bfcl-eval==2026.3.23"
CATEGORIES = ("base", "miss_func", "miss_param", "long_context")
APART = ("WebSearch", "Memory")  # back-ends that call services, or models
HIDDEN = ("_api_description", "_random", "_current_dir", "long_context", "root")  # no facts; files are paths
DIGITS = ("precision", "decimal_places")  # of a result
MOST_DIGITS = 1000


def missing() -> str | None:
    """The command that installs what the back-ends need and is not here; None if nothing is missing."""
    return None if find_spec("bfcl_eval") and find_spec("mpmath") else INSTALL


@dataclass(frozen=True)
class Task:
    """A task of the benchmark.

    Attributes:
        name: Its id.
        requests: What the user asks for, in order.
        gold: The calls that do it, as Python writes them.
        objects: The initial state of each API, by its name; an API without one has {}.
        apart: Functions that may not be called.
        layout: A hash of the objects, the same for the task in every category.
        long_context: Whether the objects are filled up to be much larger.
    """

    name: str
    requests: tuple[str, ...]
    gold: tuple[str, ...]
    objects: dict[str, dict[str, Any]]
    apart: tuple[str, ...]
    layout: str
    long_context: bool


def tasks(category: str) -> list[Task]:
    """The tasks of a category; the n-th of each category has the same objects."""
    return [
        Task(
            name=row["id"],
            requests=tuple(message["content"] for turn in row["question"] for message in turn),
            gold=tuple(call for turn in answer["ground_truth"] for call in turn),
            objects={api: row["initial_config"].get(api, {}) for api in row["involved_classes"]},
            apart=tuple(row.get("excluded_function", ())),
            layout=hashlib.sha256(json.dumps(base["initial_config"], sort_keys=True).encode()).hexdigest()[:16],
            long_context=category == "long_context",
        )
        for row, answer, base in zip(
            _rows("", category), _rows("possible_answer", category), _rows("", "base"), strict=True
        )
    ]


def _rows(folder: str, category: str) -> list[dict[str, Any]]:
    spec = find_spec("bfcl_eval")
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).parent / "data" / folder / f"BFCL_v4_multi_turn_{category}.json"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]  # an object per line


@cache
def classes() -> dict[str, type]:
    """The back-ends' classes by their names."""
    modules = import_module("bfcl_eval.constants.executable_backend_config").CLASS_FILE_PATH_MAPPING
    return {
        name: getattr(import_module(module), name) for name, module in modules.items() if not name.startswith(APART)
    }


@cache
def signatures() -> dict[str, inspect.Signature]:
    """The signature of every function of every API, by its name; `self` comes first."""
    found = [pair for api in classes().values() for pair in inspect.getmembers(api, inspect.isfunction)]
    return {name: inspect.signature(function) for name, function in found if not name.startswith("_")}


class Apis:
    """The APIs of a task, in its initial state.

    Attributes:
        owner: The API of every function that may be called, by the function's name.
    """

    def __init__(self, task: Task):
        self._apis = {name: classes()[name]() for name in task.objects}
        for name, api in self._apis.items():
            if hasattr(api, "_load_scenario"):
                api._load_scenario(copy.deepcopy(task.objects[name]), long_context=task.long_context)
            if hasattr(api, "_random"):
                seeded, api._random = api._random, _Dice()
                api._random.setstate(seeded.getstate())
        self.owner = {
            function: name
            for name, api in self._apis.items()
            for function in signatures()
            if hasattr(api, function) and function not in task.apart
        }

    def call(self, name: str, positional: list[Any], named: dict[str, Any]) -> str:
        """Makes a call.

        Whole numbers are raised to a power as floats, and a result has 1,000 digits at most: more can take days.

        Returns:
            Its output; where the API refuses it, or the arguments do not fit, the error, as the benchmark writes it.
        """
        parameters = signatures()[name].parameters
        try:
            for digits in set(DIGITS) & named.keys():
                if type(named[digits]) is not int or abs(named[digits]) > MOST_DIGITS:
                    raise ValueError(f"{digits} is not a whole number up to {MOST_DIGITS}")
            if name == "power":
                named = {key: float(value) if isinstance(value, int) else value for key, value in named.items()}
            # A back-end may change a list that is its default, which would reach into other episodes.
            lists = {key: list(p.default) for key, p in parameters.items() if isinstance(p.default, list)}
            with decimal.localcontext():  # which a back-end sets
                result = getattr(self._apis[self.owner[name]], name)(
                    *positional, **({} if positional else lists) | named
                )
                return result if isinstance(result, str) else json.dumps(result, default=str)
        except Exception as error:
            return f"Error during execution: {error}"

    def facts(self) -> dict[str, list[str]]:
        """What each API's object holds, a fact per line."""
        return {name: list(_api_facts(name, api)) for name, api in self._apis.items()}


class _Dice(random.Random):
    """A back-end's generator that counts what is drawn from it."""

    draws = 0

    def randint(self, a: int, b: int) -> int:
        self.draws += 1
        return super().randint(a, b)

    def uniform(self, a: float, b: float) -> float:
        self.draws += 1
        return super().uniform(a, b)


def _api_facts(name: str, api: Any) -> Iterator[str]:
    if hasattr(api, "_current_dir"):
        yield f"{name} in {api.pwd()['current_working_directory']}"
        yield from _facts(f"{name} /{api.root.name}", api.root)
    for key, value in vars(api).items():
        if key not in HIDDEN:
            yield from _facts(f"{name}.{key}", value)
    if hasattr(api, "_random"):
        yield f"{name}.random_draws {api._random.draws}"


def _facts(path: str, value: Any) -> Iterator[str]:
    """A value, a line for each part that holds no further parts; directories have `contents`, files `content`."""
    if hasattr(value, "contents"):
        yield from [f"{path}/"] if not value.contents else ()
        for key, item in value.contents.items():
            yield from _facts(f"{path}/{key}", item)
        return
    parts = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
    if any(isinstance(part, dict | list) for part in parts.values()):
        for key, part in parts.items():
            yield from _facts(f"{path}.{key}", part)
        return
    value = sorted(value) if isinstance(value, set) else getattr(value, "content", value)
    yield f"{path} {json.dumps(value, ensure_ascii=False, default=str)}"
