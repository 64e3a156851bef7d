"""Reads a recipe: one TOML file into `swirl.config.Recipe`; any key can be overridden (`--warmup.steps 100`).

A key that no section has is an error that names the nearest one that exists, a value of another type is an error that
names the type, and a key of `[trainer]` that would undo what a run promises is an error that names what to set instead.
"""

import dataclasses
import difflib
import functools
import math
import sysconfig
import tomllib
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from swirl.config import Recipe
from swirl.errors import InputError


def load_recipe(path: str | Path, overrides: dict[str, str] | None = None) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        path: A TOML file, or the name of a recipe that comes with swirl.
        overrides: Dotted key -> value as written on a command line (TOML syntax; a bare word is a string).

    Raises:
        InputError: The file cannot be read, a key is unknown, or a value has the wrong type.
    """
    return parse_recipe(read(path, overrides or {}))


FOLDERS = (Path(__file__).parent.parent / "recipes", Path(sysconfig.get_path("data"), "share", "swirl", "recipes"))
"""Where the recipes that come with swirl lie: beside its sources, or where a wheel puts them."""
AGENTS = frozenset(
    ("seed", "device", "threads", "method", "play", "model", "base", "self_play", "tune", "clone", "rl", "evaluation")
)
"""The keys of an agent's recipe (`swirl.agents.settings`), by which one is told from a `Recipe`."""


def read(path: str | Path, overrides: Mapping[str, str], kind: type = Recipe) -> dict[str, Any]:
    """The table of a TOML file, with overrides; see `load_recipe`.

    Args:
        path: A TOML file, or the name of a recipe that comes with swirl.
        overrides: Dotted key -> value as written on a command line.
        kind: What it is read as; one of the other kind is refused with the command that it is for.
    """
    path = Path(path)
    ours = {file.relative_to(folder).with_suffix("").as_posix(): file for folder in FOLDERS for file in _toml(folder)}
    try:
        file = path if path.is_file() else ours.get(path.as_posix(), path)
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no recipe at {path}; those that come with swirl, by name: {', '.join(ours)}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; expected a recipe, a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    models = {field.name for field in dataclasses.fields(Recipe)}
    if kind is Recipe and table.keys() <= AGENTS and not table.keys() <= models:
        raise InputError(f"{path} is an agent's recipe; run: swirl agent train {path}")
    if kind is not Recipe and table.keys() <= models and not table.keys() <= AGENTS:
        raise InputError(f"{path} is no agent's recipe; run: swirl train {path}")
    for key, text in overrides.items():
        _set(table, key, _value(text))
    return table


def _toml(folder: Path) -> list[Path]:
    """The recipes of a folder and those below it, in order."""
    return [*sorted(folder.glob("*.toml")), *sorted(folder.glob("*/*.toml"))]


def parse_recipe(table: dict[str, Any]) -> Recipe:
    """Build a recipe from a parsed TOML table.

    Raises:
        InputError: A key is unknown, a value has the wrong type or range, or `[trainer]` sets what is not its to set.
    """
    recipe: Recipe = build(Recipe, table)
    _check(recipe)
    check_trainer(recipe.trainer)
    return recipe


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values of some dotted keys.

    Raises:
        InputError: There is no such key, or a value has the wrong type or range.
    """
    table = tomllib.loads(recipe.toml())
    for key, value in values.items():
        _set(table, key, value)
    return parse_recipe(table)


def value_of(recipe: Recipe, key: str) -> Any:
    """The value of a dotted key; `None` where an open table (`trainer`, `data.options`) does not have it."""
    found: Any = tomllib.loads(recipe.toml())
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _set(table: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key."""
    *parents, last = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise InputError(f"--{key}: {parent} is a value, not a section")
    table[last] = value


# Keys of TRL's that a key of the recipe sets already, or that exact resumption relies on; why, and what to set instead.
_RESERVED = {
    "set by the phase; change the steps of its section, as in warmup.steps": ("max_steps num_train_epochs"),
    "set by the phase; change the learning_rate of its section, as in warmup.learning_rate": "learning_rate",
    "set by the phase; change the lr_warmup of its section, as in warmup.lr_warmup": "warmup_steps",
    "set by the batch of the phase; change that, or trainer.per_device_train_batch_size": (
        "gradient_accumulation_steps generation_batch_size steps_per_generation auto_find_batch_size"
    ),
    "set by the recipe; change seed": "seed data_seed",
    "set by the recipe; change device": "use_cpu",
    "set by the recipe; change model.dtype or model.trust_remote_code": "model_init_kwargs trust_remote_code",
    "fixed, as the tokenizer is the model's; change model.name": "chat_template_path eos_token pad_token",
    "set by the recipe; change model.max_length": "max_length max_completion_length",
    "set by the recipe; change model.chat_template_kwargs": "chat_template_kwargs",
    "set by the recipe; change swirl.generations": "num_generations",
    "set by the recipe; change swirl.beta": "beta",
    "set by the recipe; change swirl.temperature": "temperature",
    "set by the recipe; change swirl.top_p": "top_p",
    "set by the recipe; change swirl.top_k": "top_k",
    "set by the recipe; change swirl.temperature, swirl.top_p or swirl.top_k": "generation_kwargs",
    "set by the recipe; change swirl.setting": "loss_type",
    "where the run folder keeps the phase; use --out": "output_dir",
    "set by the recipe, for resuming; change evaluation.checkpoints": (
        "save_strategy save_steps save_total_limit save_only_model enable_jit_checkpoint"
    ),
    "set by the recipe; change evaluation.select": "load_best_model_at_end metric_for_best_model greater_is_better",
    "not for this trainer, validation comes after it; see [evaluation]": (
        "do_eval eval_strategy eval_steps eval_on_start"
    ),
    "fixed, as a phase could not resume exactly; leave it out, seed decides the order": (
        "shuffle_dataset train_sampling_strategy ignore_data_skip"
    ),
    "fixed, as a phase could not resume exactly; leave it out": (
        "num_iterations sync_ref_model logging_strategy logging_steps logging_first_step"
    ),
    "fixed, as rows come encoded and with the columns that rewards read; leave it out": (
        "dataset_kwargs packing remove_unused_columns"
    ),
}


def check_trainer(trainer: dict[str, Any]) -> None:
    """Refuse keys of `[trainer]` that would undo what a run promises.

    `max_grad_norm` is none of them, though `swirl.max_grad_norm` exists: other phases have no key for it.

    Raises:
        InputError: A key is set elsewhere; the message says where.
    """
    for why, keys in _RESERVED.items():
        for key in keys.split():
            if key in trainer:
                raise InputError(f"trainer.{key} is {why}")


# What no run could use: a range in words, its test, and the keys that it holds for. NaN is in none of them.
Ranges = dict[str, tuple[Callable[[float], bool], str]]
_RANGES: Ranges = {
    "at least 1": (
        lambda value: value >= 1,
        "threads data.transitions data.max_steps model.max_length model.vocabulary model.hidden model.layers "
        "model.heads pretrain.steps pretrain.batch warmup.batch swirl.steps swirl.prompts swirl.replay_batch "
        "verified.candidates verified.batch inferred.rounds inferred.steps inferred.batch "
        "experience.transitions experience.states experience.alternatives experience.steps experience.batch "
        "evaluation.checkpoints evaluation.batch",
    ),
    "0 or more": (
        lambda value: 0 <= value < math.inf,
        "seed data.seed data.labels data.validation_labels data.history model.lora_rank warmup.steps swirl.rounds "
        "swirl.patience swirl.beta swirl.top_k swirl.max_grad_norm swirl.min_spread swirl.replay swirl.fidelity "
        "verified.rounds verified.patience verified.pairs verified.steps evaluation.max_rows "
        "pretrain.lr_warmup warmup.lr_warmup swirl.lr_warmup verified.lr_warmup inferred.pairs inferred.lr_warmup "
        "experience.lr_warmup",
    ),
    "more than 0": (
        lambda value: 0 < value < math.inf,
        "model.lora_alpha pretrain.learning_rate warmup.learning_rate swirl.learning_rate verified.learning_rate "
        "inferred.learning_rate inferred.change_weight experience.learning_rate "
        "swirl.temperature swirl.distance",
    ),
    "less than 0, and finite: an infinite reward destroys the weights": (
        lambda value: -math.inf < value < 0,
        "swirl.floor",
    ),
    "a share, more than 0 and at most 1": (lambda value: 0 < value <= 1, "swirl.top_p verified.precision"),
    "a share, at least 0 and at most 1": (lambda value: 0 <= value <= 1, "verified.coverage swirl.easy"),
    "a share, at least 0 and less than 1": (
        lambda value: 0 <= value < 1,
        "data.validation data.test verified.label_share inferred.label_share experience.label_share",
    ),
}


def check_ranges(recipe: Any, ranges: Ranges) -> None:
    """Refuse values that are not in the range of their key.

    Args:
        recipe: A recipe of any kind.
        ranges: A range in words, its test, and the dotted keys that it holds for.

    Raises:
        InputError: A value is outside of its range.
    """
    for expected, (fits, keys) in ranges.items():
        for key in keys.split():
            value = functools.reduce(getattr, key.split("."), recipe)
            if not fits(typing.cast(float, value)):
                raise InputError(f"{key} = {value}, expected {expected}")


def _check(recipe: Recipe) -> None:
    """Refuse values that no run could use."""
    check_ranges(recipe, _RANGES)
    if recipe.swirl.generations < 2:
        raise InputError(f"swirl.generations = {recipe.swirl.generations}, expected at least 2: a group needs a spread")
    if any(n < 2 for n in recipe.evaluation.best_of):
        raise InputError(f"evaluation.best_of = {list(recipe.evaluation.best_of)}, expected numbers of 2 or more")
    if recipe.model.name == "tiny" and recipe.model.hidden % (2 * recipe.model.heads):
        raise InputError(
            f"model.hidden = {recipe.model.hidden}, expected a multiple of twice model.heads = {recipe.model.heads}"
        )
    if recipe.inferred.change_weight != 1 and "-change" in recipe.model.prompt:
        raise InputError(
            f"inferred.change_weight = {recipe.inferred.change_weight} with model.prompt = {recipe.model.prompt!r}, "
            "where next states are written as changes and every token is of the change; leave it at 1"
        )
    if recipe.data.validation + recipe.data.test >= 1:
        raise InputError("data.validation + data.test must leave something for training; expected shares under 1")
    if recipe.data.labels and recipe.data.validation_labels >= recipe.data.labels:
        raise InputError(
            f"data.validation_labels = {recipe.data.validation_labels} uses up data.labels = {recipe.data.labels}; "
            "the budget counts both, so give validation less"
        )


def _value(text: str) -> Any:
    """A value from a command line: TOML where it parses, else the bare word."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def build(cls: type, table: dict[str, Any], prefix: str = "") -> Any:
    """A recipe, or the section of one at `prefix`, from a table.

    Raises:
        InputError: A key is unknown, or a value has the wrong type.
    """
    hints = typing.get_type_hints(cls)
    for key in table:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            known = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(hints)}"
            raise InputError(f"unknown recipe key {prefix}{key}; {known}")
    return cls(**{key: _convert(hints[key], value, prefix + key) for key, value in table.items()})


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Check a TOML value against a type hint; integers are accepted for floats."""
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise InputError(f"{key} = {value!r}, expected a section [{key}]")
        return build(typing.cast(type, hint), value, f"{key}.")
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in args:
            return value
        raise InputError(f"{key} = {value!r}, expected one of {', '.join(map(repr, args))}")
    if origin is tuple and args[0] is str and isinstance(value, str):
        return (value,)  # one name
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(args[0], item, key) for item in value)
    if origin is dict and isinstance(value, dict):
        return {name: value[name] if args[1] is Any else _convert(args[1], value[name], key) for name in value}
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1023:
        return float(value)
    expected = origin or hint
    if isinstance(value, expected) and isinstance(value, bool) == (expected is bool):
        return value
    raise InputError(f"{key} = {value!r}, expected {_TYPES[expected]}")


_TYPES = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list",
    dict: "a section",
}
