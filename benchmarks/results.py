"""The published tables: comparisons, as by `swirl compare`, put into the pages that show them.

    make results                                         everything that is not finished yet
    python benchmarks/results.py --only minigrid --seeds 0,1

What a run measured is kept in benchmarks/results/, a folder per recipe, and the tables are made from those files alone.
A run whose file is there is not run again; one that was interrupted goes on.
"""

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import running

from swirl.compare import comparison, kept, tables
from swirl.compare.cells import Place
from swirl.compare.variants import prefix
from swirl.errors import InputError
from swirl.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "results"
SHORT = ("method", "CPU s", "next state, net", "exact on changed", "false changes", "action, exact")
"""Columns of a table where it is shown in short."""


@dataclass(frozen=True)
class Table:
    """A comparison that is published.

    Attributes:
        recipe: Of `recipes/`, and the folder of its files.
        methods: Beside the reference.
        reference: What sets the cost and the others are compared with; empty: the recipe's own method.
        seeds: Of the table.
        rates: Learning rates that every method tries.
        vary: Keys of the recipe and their values: a comparison at each, see `swirl.compare.comparison.Plan`.
        new_recordings: Whether every seed has a recording of its own, see there too.
        pages: Where it is shown; its first part alone, in short, on all but the first page.
        brief: Whether it is shown at equal CPU seconds alone.
    """

    recipe: str
    methods: tuple[str, ...]
    reference: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    rates: tuple[float, ...] = ()
    vary: dict[str, tuple[int, ...]] = field(default_factory=dict)
    new_recordings: bool = False
    pages: tuple[str, ...] = ("docs/results.md",)
    brief: bool = False

    def plan(self, seeds: Sequence[int] = ()) -> comparison.Plan:
        """The comparison, of all seeds or of some."""
        recipe = load_recipe(ROOT / "recipes" / f"{self.recipe}.toml")
        methods = self.methods
        if self.reference:
            recipe, methods = replace(recipe, methods=prefix(recipe)), (*methods, self.reference)
        return comparison.Plan(
            recipe,
            methods,
            seeds or self.seeds,
            self.rates,
            vary=self.vary,
            new_recordings=self.new_recordings,
        )


MINIGRID = partial(Table, "minigrid", seeds=(1, 2, 3, 4, 5), rates=(3e-5, 3e-4, 3e-3), new_recordings=True)
TABLES = {
    # by the mark of the table in its pages
    "minigrid": MINIGRID(
        ("warmup", "bootstrap", "bootstrap-all", "swirl", "oracle"), pages=("docs/results.md", "README.md")
    ),
    "minigrid-methods": MINIGRID(
        (
            *("warmup", "sft-continue", "sft-merge", "bootstrap", "bootstrap-all", "best-of-n"),
            *("swirl", "swirl-iterative", "swirl-shared", "swirl-elbo", "swirl-anchored"),
            *("rlvr", "rwml", "inverse-reward", "early-experience", "verified-sampled", "oracle"),
        ),
        brief=True,
    ),
    # 0.5, 1, 2, 5, 10 and 50 % of 20,000
    "minigrid-labels": MINIGRID(
        ("warmup", "bootstrap-all", "swirl"),
        seeds=(1, 2, 3),
        vary={
            "data.labels": (100, 200, 400, 1_000, 2_000, 10_000),
            "data.validation_labels": (50, 100, 100, 100, 100, 100),
        },
    ),
    "minigrid-anchors": MINIGRID(
        ("warmup", "swirl-replay", "swirl-fidelity", "swirl-spread", "swirl-select"), "swirl", brief=True
    ),
    "minigrid-random-label": MINIGRID(("warmup", "verified"), "random-label", brief=True),
    "minigrid-shuffled-reward": MINIGRID(("warmup", "swirl"), "shuffled-reward", brief=True),
    "minigrid-rgb": Table("minigrid-rgb", ("warmup", "oracle"), brief=True),
    "crafter-rgb": Table("crafter-rgb", ("warmup", "oracle"), brief=True),
    "scienceworld": Table("scienceworld", ("warmup", "bootstrap", "swirl", "oracle"), rates=(3e-4, 2e-3)),
}


def write(page: Path, mark: str, text: str) -> None:
    """Put a table between its marks.

    Raises:
        InputError: The page does not have them.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {mark}:begin -->")
    _, end, after = rest.partition(f"<!-- {mark}:end -->")
    if not end:
        raise InputError(f"{page} has no place for a table; put <!-- {mark}:begin --> and <!-- {mark}:end --> there")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}", encoding="utf-8")


def shortened(rows: list[list[str]]) -> list[list[str]]:
    """The columns of `SHORT`, without intervals."""
    kept = [rows[0].index(title) for title in SHORT]
    return [[re.sub(r" \[.*?\]", "", row[i]) for i in kept] for row in rows]


def missing(table: Table, files: Path) -> str:
    """What of a table has not run yet, in a line; "" where nothing is missing.

    By method, with its seeds where some of them have run; of a table in which something varies, by its values.
    """
    plan = table.plan()
    lacking: dict[str, dict[str, list[int]]] = {}
    for cell, at in comparison.missing(plan, files):
        lacking.setdefault(at, {}).setdefault(cell.method, []).append(cell.recipe.seed)
    told = []
    for at, by_method in lacking.items():
        methods = [running.of_seeds(f"`{name}`", seeds, plan.seeds) for name, seeds in by_method.items()]
        if not at:
            told += methods
        elif sum(map(len, by_method.values())) == len(plan.names()) * len(plan.seeds):
            told.append(at)
        else:
            told.append(f"{at}: {', '.join(methods)}")
    return running.told_missing(told)


def unread(table: Table, files: Path) -> bool:
    """Whether no run of the reference is kept, without which there is no table."""
    plan = table.plan()
    wanted = comparison.table_cells(replace(plan, rates=()), {})
    cells = [cell for cell, _ in wanted if cell.method == plan.reference()]
    return not any(kept.path_of(files, cell).is_file() for cell in cells)


def main(words: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--only", nargs="*", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[])
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="only write the tables")
    a = parser.parse_args(words)
    failed: list[str] = []
    for name in a.only:
        table = TABLES[name]
        place = Place(a.runs / table.recipe, KEPT / table.recipe, a.runs / "cache")
        try:
            failed += [] if a.table else comparison.run(table.plan(a.seeds), place, a.processes)
            results = comparison.write(table.plan(), place, a.runs / name)
        except InputError as error:
            failed.append(f"{name}: {error}")
            if unread(table, place.files):
                for page in table.pages:
                    write(ROOT / page, name, running.NOT_YET)
            continue
        first, *others = table.pages
        write(ROOT / first, name, missing(table, place.files) + tables.text(results, table.brief))
        for page in others:
            write(ROOT / page, name, tables.markdown(shortened(next(iter(tables.tables(results).values())))))
    print("\n".join(failed), end="\n" * bool(failed))
    return int(bool(failed))


if __name__ == "__main__":
    running.finish(main)
