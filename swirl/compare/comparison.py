"""Methods compared: same data, same warm-up, same learning-rate grid, read at equal cost, paired over seeds.

    for each method:  the learning rate of the grid that is best on a tuning seed, which no table shows
    for each seed:    one warm-up, from which every method goes on
    read every method's test metrics where it has spent what the recipe's own method spends

The tuning seed has a world draw a recording of its own, and its test part decides, which no table is of. Where the data
are a file, or the world's parts are fixed, the test part is the table's: there validation decides.

`swirl compare recipes/minigrid.toml --methods bootstrap,swirl,oracle --seeds 0,1,2`
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from swirl import durable
from swirl.compare import cells as running
from swirl.compare import kept, reading, report, summary, tables
from swirl.compare.cells import Place
from swirl.compare.kept import Cell
from swirl.compare.variants import TUNED_AS, UNLIMITED, UNTUNED, own, variant, with_rate
from swirl.config import Recipe
from swirl.errors import InputError
from swirl.recipe import value_of, with_values
from swirl.types import Role

logger = logging.getLogger("swirl")

Tried = dict[str, dict[float, tuple[float, float]]]
"""Scores on the tuning seed, by method and learning rate."""


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        recipe: What all methods have in common; its own method is the reference.
        methods: Names of methods; the recipe's own is always among them.
        seeds: Of the tables.
        rates: Learning rates that every method tries; none: those of the recipe.
        tuning_seed: Where they are tried.
        vary: Keys of the recipe and their values, as many of each: the comparison is made at the first of them
            together, at the second, and so on.
        new_recordings: Whether every seed has the world draw a recording of its own, its `data.seed`; otherwise all
            seeds share the recipe's.
    """

    recipe: Recipe
    methods: Sequence[str]
    seeds: Sequence[int]
    rates: Sequence[float] = ()
    tuning_seed: int = 1000
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    new_recordings: bool = False

    def names(self) -> list[str]:
        """All methods as they were named, each once; the reference after them where it was not."""
        return list(dict.fromkeys([*self.methods, self.reference()]))

    def reference(self) -> str:
        """The method that the others are compared with: the recipe's own, else the last that was named."""
        return own(self.recipe) or self.methods[-1]


def run(plan: Plan, place: Place, processes: int) -> list[str]:
    """Run what is missing: the learning rates on the tuning seed, then the table.

    Args:
        plan: What is compared.
        place: Where runs and kept files are.
        processes: Runs at once.

    Returns:
        A line per run that failed.

    Raises:
        InputError: The plan cannot be run, or a kept file is of another recipe.
    """
    check(plan)
    failed = running.run(list(tuning_cells(plan).values()), place, processes)
    rates = chosen_rates(plan, tried_rates(plan, place))
    failed += [f"{name} is left out, for not all of its learning rates were tried" for name in _untried(plan, rates)]
    cells = {cell.name: cell for cell, _ in table_cells(plan, rates)}
    return failed + running.run(list(cells.values()), place, processes)


def missing(plan: Plan, files: Path) -> list[tuple[Cell, str]]:
    """The table's runs that have left no file, each with the values of what varies."""
    return [
        (cell, at) for cell, at in table_cells(replace(plan, rates=()), {}) if not kept.path_of(files, cell).is_file()
    ]


def write(plan: Plan, place: Place, out: Path) -> dict[str, Any]:
    """Write `results.json`, `comparison.md` and `report.html` from what is kept.

    Returns:
        What `results.json` holds.

    Raises:
        InputError: Nothing is kept that could be compared, or a kept file cannot be read.
    """
    tried = tried_rates(plan, place)
    rates = chosen_rates(plan, tried)
    files, rows, rewards = _kept(table_cells(plan, rates), place), [], []
    for at, found in files.items():
        if plan.reference() in found:
            rows += [{**row, "at": at} for row in summary.summarise(found, plan.reference())]
            rewards += [{**row, "at": at} for row in summary.rewarded(found)]
    if not rows:
        raise InputError(f"{place.files} has no run of {plan.reference()}, with which the others are compared")
    results = {
        "reference": plan.reference(),
        "methods": plan.names(),
        "seeds": sorted({seed for found in files.values() for seed in found.get(plan.reference(), {})}),
        "learning_rates": rates,
        "tried": [
            {"method": name, "learning_rate": rate, "score": score, "facts": facts}
            for name, by_rate in tried.items()
            for rate, (score, facts) in by_rate.items()
        ],
        "tuning_seed": plan.tuning_seed if plan.rates else None,
        "vary": ", ".join(plan.vary),
        "new_recordings": plan.new_recordings,
        "warnings": summary.warnings(files),
        "rows": rows,
        "rewards": rewards,
    }
    out.mkdir(parents=True, exist_ok=True)
    durable.atomic_write(out / "results.json", json.dumps(results, indent=1) + "\n")
    durable.atomic_write(out / "comparison.md", tables.text(results))
    durable.atomic_write(out / "report.html", report.page(results, files))
    return results


def check(plan: Plan) -> None:
    """Refuse a comparison that cannot be run.

    Raises:
        InputError: It cannot; the message says why.
    """
    if not (plan.methods or own(plan.recipe)):
        raise InputError("--methods names none, and the recipe has none after its warm-up; name some")
    if plan.reference() in (*UNTUNED, *UNLIMITED):
        raise InputError(
            f"nothing can be compared with {plan.reference()}; name a method that trains as the last of --methods, or "
            "give a recipe that has one after its warm-up"
        )
    if not plan.seeds:
        raise InputError("--seeds names none; give some, e.g. 0,1,2")
    if min(*plan.seeds, plan.tuning_seed) < 0:
        raise InputError(
            f"a seed is {min(*plan.seeds, plan.tuning_seed)}; expected 0 or more in --seeds and --tuning-seed"
        )
    if plan.recipe.data.path and not Path(plan.recipe.data.path).is_file():
        raise InputError(f"no recording at {plan.recipe.data.path}; check --data, or the recipe's data.path")
    if plan.new_recordings and (plan.recipe.data.path or "data.seed" in plan.vary):
        why = f"{plan.recipe.data.path} is one" if plan.recipe.data.path else "--vary data.seed says which"
        raise InputError(
            f"--new-recordings has a world draw a recording for each seed, and {why}; leave one of them out"
        )
    for key in plan.vary:
        if plan.rates and key.endswith("learning_rate"):
            raise InputError(f"--vary {key} with --learning-rates: give one of the two")
    if len({len(values) for values in plan.vary.values()}) > 1:
        told = ", ".join(f"{key} has {len(values)}" for key, values in plan.vary.items())
        raise InputError(f"--vary: {told}; give each as many values")
    if plan.rates and plan.tuning_seed in plan.seeds:
        raise InputError(f"--tuning-seed {plan.tuning_seed} is one of the table's --seeds; give another")
    if plan.rates and plan.recipe.data.path and plan.recipe.data.labels and not plan.recipe.data.validation_labels:
        raise InputError("--learning-rates are chosen on validation, and data.validation_labels = 0; raise it")
    if not all(0 < rate < math.inf for rate in plan.rates):
        raise InputError(f"--learning-rates {', '.join(f'{rate:g}' for rate in plan.rates)}: expected more than 0 each")
    twice = [rate for rate, times in Counter(f"{rate:g}" for rate in plan.rates).items() if times > 1]
    if twice:  # by which their runs are named
        raise InputError(f"--learning-rates has {', '.join(twice)} more than once; give each once")
    if "swirl.rounds" in plan.vary:
        raise InputError(
            "--vary swirl.rounds: the published settings have rounds of their own; compare swirl-iterative"
        )
    for cell, _ in table_cells(replace(plan, rates=()), {}):
        if cell.recipe.warmup.steps == 0:
            raise InputError("warmup.steps = 0: methods are compared from a warm-up; give it some steps")


def tuning_cells(plan: Plan) -> dict[tuple[str, float], Cell]:
    """The runs on the tuning seed, by method and learning rate.

    A file is split as for the table: split anew, what decides there could be the table's test rows.
    """
    seed, data = plan.tuning_seed, plan.recipe.data
    other = replace(plan.recipe, seed=seed, data=data if data.path else replace(data, seed=seed))
    return {
        (name, rate): Cell(name, with_rate(variant(other, name), rate), f"tune-{name}-{rate:g}")
        for name in dict.fromkeys(TUNED_AS.get(name, name) for name in plan.names())
        if name not in UNTUNED
        for rate in plan.rates
    }


def chosen_rates(plan: Plan, tried: Tried) -> dict[str, float]:
    """The learning rate of each method that is best on the tuning seed, where all have been tried."""
    whole = {name: by_rate for name, by_rate in tried.items() if len(by_rate) == len(plan.rates)}
    best = {name: max(by_rate, key=by_rate.__getitem__) for name, by_rate in whole.items()}
    return {name: best[of] for name in plan.names() if (of := TUNED_AS.get(name, name)) in best}


def tried_rates(plan: Plan, place: Place) -> Tried:
    """What each learning rate scored on the tuning seed, by method."""
    score: Tried = {}
    for (name, rate), cell in tuning_cells(plan).items():
        if found := kept.find(place.files, cell):
            score.setdefault(name, {})[rate] = _tuned(found)
    return score


def _untried(plan: Plan, rates: dict[str, float]) -> list[str]:
    """Methods that have to wait for their learning rate."""
    return [name for name in plan.names() if plan.rates and name not in (*UNTUNED, *rates)]


def _tuned(cell: dict[str, Any]) -> tuple[float, float]:
    """The scores of both roles together at the end of a run on the tuning seed; where those tie, the facts' F1."""

    def last(role: Role, metric: str) -> float:
        if cell["drawn"]:
            found = reading.curve(cell, role, metric, "cpu_seconds")
            return float(found.values()[-1]) if found else 0.0
        parts = reading.PARTS.get(metric, {metric: 1})
        return sum(sign * cell["validation"].get(name, 0.0) for name, sign in parts.items())

    return sum(last(role, metric) for role, metric in reading.SCORE.items()), last("forward", "changed_facts_f1")


def table_cells(plan: Plan, rates: dict[str, float]) -> list[tuple[Cell, str]]:
    """The table's runs, each with the values of what varies; seed by seed, so that what is done can be read.

    A run is named by those that it reads: where they change nothing for a method, its run is that of the comparison in
    which nothing varies.
    """

    def asked(recipe: Recipe, name: str, seed: int) -> Recipe:
        found = replace(variant(recipe, name), seed=seed)
        return with_rate(found, rates[name]) if name in rates else found

    names = [name for name in plan.names() if name not in _untried(plan, rates)]
    cells = []
    for together in zip(*plan.vary.values(), strict=True) if plan.vary else [()]:
        for seed in plan.seeds:
            values = dict(zip(plan.vary, together, strict=True))
            values |= {"data.seed": seed} if plan.new_recordings else {}
            recipe = with_values(plan.recipe, values)
            for name in names:
                mine, plain = asked(recipe, name, seed), asked(plan.recipe, name, seed)
                told = [
                    f"-{key}={values[key]}" for key in sorted(values) if value_of(mine, key) != value_of(plain, key)
                ]
                cell = Cell(name, mine, f"{name}{''.join(told).replace('/', '_')}-seed{seed}")
                cells.append((cell, ", ".join(map(str, together))))
    return cells


def _kept(cells: Sequence[tuple[Cell, str]], place: Place) -> dict[str, reading.Cells]:
    """What the table's runs left, by the value of what varies, method and seed.

    Raises:
        InputError: Two of one recording were tested on different rows, and cannot stand in one table.
    """
    files: dict[str, reading.Cells] = {}
    tested: dict[tuple[str, int], tuple[str, str]] = {}
    for cell, at in cells:
        if found := kept.find(place.files, cell):
            files.setdefault(at, {}).setdefault(cell.method, {})[cell.recipe.seed] = found
            of = (at, cell.recipe.data.seed)
            name, rows = tested.setdefault(of, (cell.name, found["tested_on"]))
            if rows != found["tested_on"]:
                raise InputError(
                    f"{place.files}: {cell.name} and {name} were tested on different rows; remove what is older than "
                    "the recording"
                )
    return files
