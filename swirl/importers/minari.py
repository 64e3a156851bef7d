"""A Minari dataset: a folder of one, or the id of one that is on this machine; nothing is downloaded.

An observation becomes text by its space: text as it is; a dict or tuple one line for each entry, `name value`; an array
of numbers one line for each row; a number alone `value 3`. Numbers that are not whole have four significant digits: two
states are the same only where their texts are. Pictures (8-bit arrays of three dimensions) are refused. An action is
its numbers in a row.
"""

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from swirl.errors import InputError, MissingPartError
from swirl.importers.context import Context
from swirl.importers.rows import Fault, Row

INSTALL = "pip install '.[minari]'"


def missing() -> str | None:
    """The command that installs what reading Minari datasets needs and is not here; None if nothing is missing."""
    return None if find_spec("minari") and find_spec("h5py") else INSTALL


def read(paths: list[str], context: Context) -> Iterator[Row | Fault]:
    """Transitions of all episodes.

    Raises:
        InputError: A dataset is not there, or its observations are pictures.
        MissingPartError: Minari is not installed.
    """
    if missing():
        raise MissingPartError(f"importing Minari datasets needs the package minari; install it: {INSTALL}")
    paths = list({Path(path).resolve(): path for path in paths}.values())
    loaded = [(path, _load(path)) for path in paths]
    total = sum(dataset.total_episodes for _, dataset in loaded) or 1
    done = 0
    for path, dataset in loaded:
        name = Path(path).name if len(paths) == 1 else path
        for number in range(dataset.total_episodes):
            yield from _episode(dataset, number, name, context)
            done += 1
            context.reached(done / total)


def _load(path: str) -> Any:
    minari = import_module("minari")
    folder = Path(path)
    try:
        if folder.is_dir():
            return minari.MinariDataset(folder / "data" if (folder / "data").is_dir() else folder)
        return minari.load_dataset(path)
    except Exception as error:  # h5py, json and Minari itself each have their own for a damaged folder
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: cannot be read as a Minari dataset ({line}); give its folder, or the id of a local one"
        ) from error


def _episode(dataset: Any, number: int, name: str, context: Context) -> Iterator[Row | Fault]:
    where = f"{name}:{number}"
    try:
        episode = dataset[number]
        steps = len(episode.rewards)
        others = (episode.actions, episode.terminations, episode.truncations)
        if _lengths(episode.observations) != {steps + 1} or any(_lengths(other) != {steps} for other in others):
            yield Fault(where, f"{steps} rewards, but not so many actions and ends, and one more observation")
            return
        states = [context.text(_lines(_at(episode.observations, step))) for step in range(steps + 1)]
        actions = [context.text(_numbers(_at(episode.actions, step))) for step in range(steps)]
        ends = [(bool(episode.terminations[i]), bool(episode.truncations[i])) for i in range(steps)]
    except InputError:
        raise
    except Exception as error:  # as above
        yield Fault(where, f"the episode cannot be read ({type(error).__name__}: {error})")
        return
    for step in range(steps):
        terminated, truncated = ends[step]
        reward = float(episode.rewards[step])
        yield Row(
            where,
            states[step],
            states[step + 1],
            actions[step],
            f"{name}/{number}",
            step,
            terminated,
            truncated or (step == steps - 1 and not terminated),
            reward,
        )


def _lengths(values: Any) -> set[int]:
    """Of what Minari stacks: how many steps its parts have."""
    parts = values.values() if isinstance(values, dict) else values if isinstance(values, tuple) else None
    return {len(values)} if parts is None else set().union(*map(_lengths, parts))


def _at(values: Any, step: int) -> Any:
    """One step of what Minari stacks: an array, a list of texts, or dicts and tuples of them."""
    if isinstance(values, dict):
        return {key: _at(value, step) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(_at(value, step) for value in values)
    return values[step]


def _lines(value: Any, name: str = "value") -> str:
    """An observation as text.

    Raises:
        InputError: It is a picture.
    """
    if isinstance(value, str | bytes):
        return value if isinstance(value, str) else value.decode()
    if isinstance(value, dict | tuple):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        return "\n".join(f"{key} {_indented(_lines(entry, ''))}" for key, entry in entries)
    array = np.asarray(value)
    if array.dtype == np.uint8 and array.ndim == 3:
        raise InputError("the observations are pictures; write each to a file, and import a table of image parts")
    if array.ndim == 0:
        return f"{name} {_number(array[()])}".strip()
    if array.ndim == 1:
        return "\n".join(f"{index} {_number(entry)}" for index, entry in enumerate(array)) if name else _numbers(array)
    return "\n".join(_numbers(row) for row in array.reshape(array.shape[0], -1))


def _indented(text: str) -> str:
    return text if "\n" not in text else "\n  " + text.replace("\n", "\n  ")


def _numbers(value: Any) -> str:
    """An action, or a row of an array, on one line."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return " ".join(f"{key} {_numbers(entry)}" for key, entry in value.items())
    if isinstance(value, tuple):
        return " ".join(_numbers(entry) for entry in value)
    return " ".join(_number(entry) for entry in np.asarray(value).reshape(-1))


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, np.floating) else str(int(value))
