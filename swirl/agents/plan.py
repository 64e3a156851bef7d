"""What `swirl plan` measures: episodes of a world by plans made in a model, beside acting at random.

    swirl plan runs/lake --world frozenlake --horizon 6 --real

Episodes begin in layouts that the run did not train on. Reward and end of imagined steps are read off the states where
the world has rules for that (`base.Rules`); else a head is fitted on the run's labelled transitions.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from swirl import api, progress
from swirl.agents import head
from swirl.agents.control import Blind, at_random, control, results
from swirl.agents.planning import METHODS, Plan, Planner, Search, Task
from swirl.agents.simulators import Expand, Imagined, Outcome, Real, Simulator, by_rules, no_outcome
from swirl.api import ForwardModel
from swirl.errors import InputError
from swirl.eval import rows
from swirl.worlds import World
from swirl.worlds.base import Rules, unknown

DRAWS = 50
"""Seeds that are tried for each episode, until one draws a layout that is not trained on."""


def measure(
    world: World,
    run: str | Path | None,
    search: Search,
    method: str = "beam",
    episodes: int = 20,
    seed: int = 0,
    goal: str | None = None,
    model: bool = True,
    real: bool = False,
    device: str = "auto",
    replan: int = 1,
    samples: int = 1,
) -> rows.Results:
    """Success, return, steps and calls per action of planning, with their intervals over episodes.

    Args:
        world: Where to act.
        run: Run folder or checkpoint of a forward model; of a run folder no layout is met that it trained on.
        search: How to search.
        method: One of `planning.METHODS`.
        episodes: How many; all planners play the same.
        seed: The first seed of a world.
        goal: A state to reach, in place of the world's reward.
        model: Whether to plan in the model.
        real: Whether to plan in copies of the world itself too, as the bound.
        device: Where to compute.
        replan: Steps of a plan that are taken before the next one is made.
        samples: Predictions of an imagined step, see `simulators.Imagined`; of one every step is sure.

    Returns:
        Rows of `random`, of the checkpoint and of `real-world`; see `eval.rows`.

    Raises:
        InputError: A number or a name cannot be used, the model cannot be loaded, rewards are neither read off states
            nor can be learned, or the world draws trained layouts only.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if episodes < 1:
        raise InputError(f"--episodes {episodes}, expected at least 1")
    if model and run is None:
        raise InputError("no model to plan in; give a run, or --no-model to plan in the world itself")
    forward = api.load_forward(run, device) if model and run is not None else None
    outcome = no_outcome if goal is not None else outcome_of(world, forward, run)
    seeds = list(islice(_unseen(world, trained_layouts(run), seed, episodes * DRAWS), episodes))
    if len(seeds) < episodes:
        raise InputError(
            f"{world.name} drew {len(seeds)} layouts that {run} did not train on, expected {episodes}; give fewer "
            "--episodes, or options that make more layouts"
        )

    def planner(expand: Expand, tasks: Sequence[Task]) -> list[Plan]:
        return METHODS[method](expand, tasks, search)

    def played(name: str, simulator: Simulator, planner: Planner, replan: int) -> rows.Results:
        episodes = control(world, simulator, planner, seeds, replan, goal)
        return results(name, episodes, simulator.calls)

    out = played("random", Blind(), at_random, 1)
    if forward is not None:
        out += played(str(forward.checkpoint), Imagined([forward], outcome, samples), planner, replan)
    if real:
        out += played("real-world", Real(), planner, replan)
    return out


def outcome_of(world: World, forward: ForwardModel | None, run: str | Path | None) -> Outcome:
    """How rewards and ends of imagined steps are known: by the world's rules, or a head fitted on a run's labels.

    Raises:
        InputError: There are neither.
    """
    if isinstance(world, Rules):
        return by_rules(world)
    if forward is None or run is None:
        return no_outcome
    labelled = Path(run) / "data" / "labelled.parquet"
    if not labelled.is_file():
        raise InputError(
            f"the states of {world.name} do not tell its reward, and {run} has no labelled transitions to learn it "
            "from; give a run folder, or plan for a --goal"
        )
    return head.fit(forward, pq.read_table(labelled).to_pylist()).outcome


def trained_layouts(run: str | Path | None) -> set[str]:
    """Names of the layouts that a run trained or validated on; none for what is no run folder."""
    if run is None:
        return set()
    parts = [Path(run) / "data" / f"{part}.parquet" for part in ("labelled", "state_only", "validation")]
    tables = [pq.read_table(part, columns=["layout"]) for part in parts if part.is_file()]
    return {name for table in tables for name in table["layout"].unique().to_pylist() if name is not None}


def _unseen(world: World, trained: set[str], first: int, most: int) -> Iterator[int]:
    """Seeds from the first on whose layouts are not trained on."""
    return (seed for seed in islice(count(first), most) if world.reset(seed)[1]["layout"] not in trained)


def show(found: rows.Results, as_json: bool) -> None:
    """Prints the rows, as JSON or as a table of a line per planner."""
    if as_json:
        print(json.dumps(found))
        return
    named: dict[str, dict[str, dict[str, Any]]] = {}
    for row in found:
        named.setdefault(row["model"], {})[row["metric"].removeprefix("plan_")] = row
    columns = ["planner", "episodes", "success", "95 %", "return", "95 %", "steps", "calls/action"]
    table = []
    for name, of in named.items():
        success, total = of["success"], of["return"]
        cells = [success["value"], rows.interval(success), total["value"], rows.interval(total)]
        label = name if name in ("random", "real-world") else Path(name).name
        table.append([label, success["n"], *cells, of["steps"]["value"], of["calls"]["value"]])
    progress.table("Planning", columns, table)
