"""What a comparison would run, and for how long: `swirl compare RECIPE --methods A,B --dry-run`."""

import json
from dataclasses import replace
from typing import Any

from swirl import progress
from swirl.compare import cells as running
from swirl.compare import comparison, kept
from swirl.compare.cells import Place
from swirl.compare.comparison import Plan
from swirl.compare.kept import Cell
from swirl.methods import plan as dry_run


def show(plan: Plan, place: Place, processes: int, as_json: bool = False) -> None:
    """Print the runs of a comparison.

    Raises:
        InputError: The comparison would be refused.
    """
    found = forecast(plan, place)
    if as_json:
        print(json.dumps(found))
        return
    rows = [[run["run"], "kept" if run["kept"] else dry_run.time_of(run["seconds"])] for run in found["runs"]]
    progress.table("Runs", ["run", "time"], rows)
    seconds = found["seconds"] / processes
    print(f"time  {dry_run.time_of(seconds)}, {processes} at once, each as fast as alone; an estimate, see swirl train")


def forecast(plan: Plan, place: Place) -> dict[str, Any]:
    """The runs in the order in which they are wanted: each with whether it is kept, else its seconds.

    A warm-up that several runs begin from is a run of its own. Time does not depend on the learning rate, so rates that
    are yet to be chosen do not matter.

    Raises:
        InputError: The comparison would be refused.
    """
    comparison.check(plan)
    rates = comparison.chosen_rates(plan, comparison.tried_rates(plan, place))
    wanted = [(cell, "") for cell in comparison.tuning_cells(plan).values()]
    wanted += comparison.table_cells(replace(plan, rates=()), rates)
    phases: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def seconds(cell: Cell, at: str, without: set[str]) -> float:
        if (cell.method, at) not in phases:
            phases[cell.method, at] = dry_run.plan(cell.recipe, place.cache)["phases"]
        return sum(phase["seconds"] for phase in phases[cell.method, at] if phase["phase"] not in without)

    runs: dict[str, dict[str, Any]] = {}
    for cell, at in wanted:
        if kept.path_of(place.files, cell).is_file():
            runs[cell.name] = {"run": cell.name, "kept": True, "seconds": 0.0}
            continue
        base = replace(running.base_of(cell), method=f"before {cell.method}")
        own = seconds(base, at, set())
        if base.name not in runs:
            runs[base.name] = {"run": base.name, "kept": False, "seconds": own}
        shared = {phase["phase"] for phase in phases[base.method, at]} - {"test"}
        if cell.name not in runs:
            runs[cell.name] = {"run": cell.name, "kept": False, "seconds": seconds(cell, at, shared)}
    return {"runs": list(runs.values()), "seconds": sum(run["seconds"] for run in runs.values())}
