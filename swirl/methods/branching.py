"""A run that begins where another one ended: the phases that both have are taken from it and not made again.

So methods are compared from the same warm-up, and another method is tried without paying for it twice.
"""

import dataclasses
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from swirl import durable, ledger, parallel
from swirl.config import Evaluation, Recipe
from swirl.errors import InputError
from swirl.methods import METHODS
from swirl.recipe import load_recipe

Work = Callable[[Path], None]


class Base:
    """The run that another one begins from.

    Args:
        folder: Its run folder.
        recipe: The recipe of the run that begins.

    Raises:
        InputError: It is no run folder, or its phases would not be those of the recipe.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        _, phases = ledger.read_ledger(folder)
        self._folder, self._phases = folder, {phase.name: phase for phase in phases if phase.name != "test"}
        _refuse_differences(folder, load_recipe(folder / "recipe.toml", {}), recipe)

    def has(self, name: str) -> tuple[Work, float] | None:
        """What fetches a phase, and the CPU seconds that it took there; `None` where that run does not have it."""
        phase = self._phases.get(name)
        return phase and (partial(_fetch, self._folder, phase), phase.seconds_cpu)


def _refuse_differences(folder: Path, base: Recipe, recipe: Recipe) -> None:
    if base.methods != recipe.methods[: len(base.methods)]:
        raise InputError(
            f"{folder} ran {list(base.methods)}, which is not what methods = {list(recipe.methods)} begins with"
        )
    base, recipe = (dataclasses.replace(one, evaluation=_for_phases(one.evaluation)) for one in (base, recipe))
    free = {"methods", *METHODS.values()}.difference(METHODS[name] for name in base.methods)
    for field in dataclasses.fields(Recipe):
        was, now = getattr(base, field.name), getattr(recipe, field.name)
        if field.name not in free and was != now:
            raise InputError(f"{folder} was made with another recipe: {field.name} was {was}, now {now}")


def _for_phases(spec: Evaluation) -> Evaluation:
    """What phases read of it: not what the test alone does."""
    return dataclasses.replace(spec, max_rows=0, best_of=(), test_phases=False, encoder="")


def _fetch(base: Path, phase: ledger.Phase, staging: Path) -> None:
    if not parallel.is_main():
        return
    for fault in durable.faults(base / phase.folder, phase.files):
        raise InputError(f"{fault}; mend that run first")
    shutil.copytree(base / phase.folder, staging, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    """Committed files never change, so two runs can share them where the disk can."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
