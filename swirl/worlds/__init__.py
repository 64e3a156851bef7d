"""Worlds: where transitions come from. One file per world; `base.py` holds the protocol and its executable contract.

Importing this package imports no simulator. To add a world, write a class that passes `base.check_world()` and a
function `missing()` beside it, and name the class in `WORLDS`.
"""

import ast
import functools
import inspect
import json
import re
from collections.abc import Callable, Sequence
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from swirl.errors import InputError
from swirl.worlds.base import World, check_world, unknown

__all__ = ["WORLDS", "World", "availability", "behaviours", "check_world", "make", "options"]

WORLDS = {
    "crafter": "swirl.worlds.crafter:Crafter",
    "frozenlake": "swirl.worlds.frozenlake:FrozenLake",
    "minigrid": "swirl.worlds.minigrid:MiniGrid",
    "scienceworld": "swirl.worlds.scienceworld:ScienceWorld",
    "sokoban": "swirl.worlds.sokoban:Sokoban",
    "sudoku": "swirl.worlds.sudoku:Sudoku",
    "textworldexpress": "swirl.worlds.textworldexpress:TextWorldExpress",
    "toolcalls": "swirl.worlds.toolcalls:ToolCalls",
    "web": "swirl.worlds.web:Web",
}
"""Name of a world -> "module:class". The module also has `missing() -> str | None`, see `availability()`."""

KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
    str: ("a text", lambda value: isinstance(value, str)),
    # A text alone stands for a list of one.
    Sequence[str]: (
        "a text or a list of texts",
        lambda value: (
            isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(part, str) for part in value))
        ),
    ),
    type(None): ("null", lambda value: value is None),
}
"""Annotation of a world's option -> what it is to a user who writes JSON, and whether a value is one."""


def make(name: str, **options: Any) -> World:
    """Builds a world.

    Args:
        name: One of `WORLDS`.
        **options: What the world's class takes, e.g. `environments` for MiniGrid.

    Raises:
        InputError: There is no such world, or it has no such option (the message names the nearest), or an option's
            value is of another type.
        MissingPartError: The world's simulator is not installed; the message holds the command that installs it.
    """
    build = _class(name)
    known = inspect.signature(build).parameters
    for option, value in options.items():
        if option not in known:
            raise unknown(f"{name} option", option, known)
        kinds = _kinds(known[option])
        if not any(KINDS[kind][1](value) for kind in kinds):
            raise InputError(f"{option} is {value!r}, expected {_words(kinds)}")
    return build(**options)


def behaviours(name: str) -> tuple[str, ...]:
    """The ways of acting in a world, without importing its simulator.

    Raises:
        InputError: There is no such world; the message names the nearest.
    """
    return _class(name).behaviours


def options(name: str) -> list[dict[str, Any]]:
    """What `make` takes for a world, in order, without importing its simulator.

    Returns:
        For each option its name as "option", its "type" in words, its "default" as JSON has it, and its "meaning".

    Raises:
        InputError: There is no such world; the message names the nearest.
    """
    build = _class(name)
    told = _arguments(inspect.getdoc(build) or "")
    return [
        {"option": key, "type": _words(_kinds(option)), "default": option.default, "meaning": told[key]}
        for key, option in inspect.signature(build).parameters.items()
    ]


def availability(name: str) -> str | None:
    """Says whether a world can run here, without importing its simulator.

    Returns:
        None if it can, else the command that installs what is missing.

    Raises:
        InputError: There is no such world; the message names the nearest.
    """
    return import_module(_target(name)[0]).missing()


@functools.cache
def source(name: str) -> bytes:
    """The source of a world: its module, those of this package that it imports, and scripts beside them.

    A recording that another source made is not this world's.
    """
    # Read once, before a comparison's threads ask for it: `ast.parse` may fail in threads, with a SystemError, up to
    # Python 3.11 (https://github.com/python/cpython/issues/106905).
    folder, waiting, seen = Path(__file__).parent, [_target(name)[0].rpartition(".")[2]], {}
    while waiting:
        stem = waiting.pop()
        if stem not in seen and (folder / f"{stem}.py").is_file():
            seen[stem] = b"".join(file.read_bytes() for file in sorted(folder.glob(f"{stem}.*")))
            for node in ast.walk(ast.parse((folder / f"{stem}.py").read_bytes())):
                if isinstance(node, ast.ImportFrom) and node.module == __name__:
                    waiting += [imported.name for imported in node.names]
                elif isinstance(node, ast.ImportFrom) and node.module:
                    waiting.append(node.module.removeprefix(f"{__name__}."))
    return b"".join(seen[stem] for stem in sorted(seen))


def fingerprint(name: str, options: dict[str, Any]) -> str:
    """What a recording is of: differs where the world's source, its options, or a file that they name does.

    The version of its simulator is not in it.

    Raises:
        InputError: There is no such world; the message names the nearest.
    """
    whole = blake2b(source(name) + json.dumps(options, sort_keys=True).encode(), digest_size=16)
    for value in options.values():
        for named in value if isinstance(value, list | tuple) else [value]:
            if isinstance(named, str) and Path(named).is_file():
                whole.update(Path(named).read_bytes())
    return whole.hexdigest()


def _arguments(docstring: str) -> dict[str, str]:
    """Name -> meaning of what a docstring tells under `Args:`."""
    lines = docstring.partition("\nArgs:\n")[2].partition("\n\n")[0]
    found = re.findall(r"(?ms)^    (\w+): (.*?)(?=^    \w|\Z)", lines)
    return {name: " ".join(text.split()) for name, text in found}


def _kinds(option: inspect.Parameter) -> list[Any]:
    """The keys of `KINDS` that an option's annotation names; a list of texts takes a single one already."""
    named = {option.annotation, *get_args(option.annotation)}
    return [kind for kind in KINDS if kind in named and not (kind is str and Sequence[str] in named)]


def _words(kinds: list[Any]) -> str:
    return " or ".join(KINDS[kind][0] for kind in kinds)


def _class(name: str) -> Any:
    module, attribute = _target(name)
    return getattr(import_module(module), attribute)


def _target(name: str) -> tuple[str, str]:
    if name not in WORLDS:
        raise unknown("world", name, WORLDS)
    module, _, attribute = WORLDS[name].partition(":")
    return module, attribute
