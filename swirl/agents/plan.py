"""What `swirl plan` measures: episodes of a world by plans made in a model, beside acting at random.

    swirl plan runs/lake --world frozenlake --horizon 6 --real

Episodes begin in layouts that the run did not train on. Reward and end of imagined steps are read off the states where
the world has rules for that (`base.Rules`); else a head is fitted on the run's labelled transitions. A policy proposes
what is tried where one is given, and is measured without planning too.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

from swirl import api, progress
from swirl.agents import agent, proposals
from swirl.agents.control import Blind, at_random, control, results
from swirl.agents.learned import Run, check_world, outcome_of, trained_layouts
from swirl.agents.planning import METHODS, Plan, Planner, Search, Task
from swirl.agents.proposals import Proposals
from swirl.agents.simulators import Expand, Imagined, Real, Simulator, no_outcome
from swirl.errors import InputError
from swirl.eval import rows
from swirl.worlds import World
from swirl.worlds.base import unknown

DRAWS = 50
"""Seeds that are tried for each episode, until one draws a layout that is not trained on."""


def measure(
    world: World,
    runs: Sequence[Run],
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
    policy: Run | None = None,
) -> rows.Results:
    """Success, return, steps and calls per action of planning, with their intervals over episodes.

    Args:
        world: Where to act.
        runs: Run folders or checkpoints of forward models, several an ensemble; of a run folder no layout is met that
            it trained on.
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
        policy: Run folder of an agent, which proposes what is tried.

    Returns:
        Rows of `random`, of `policy` and `policy-sampled` without plans, of the checkpoint and of `real-world`; see
        `eval.rows`.

    Raises:
        InputError: A number or a name cannot be used, a model cannot be loaded or is of another world, rewards are
            neither read off states nor can be learned, or the world draws trained layouts only.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    for name, value, least in (("--episodes", episodes, 1), ("--seed", seed, 0)):
        if value < least:
            raise InputError(f"{name} {value}, expected at least {least}")
    if model and not runs:
        raise InputError("no model to plan in; give a run, or --no-model to plan in the world itself")
    for run in runs:
        check_world(run, world.name)
    forwards = [api.load_forward(run, device) for run in runs] if model else []
    first = (forwards[0], runs[0]) if forwards else (None, None)
    outcome = no_outcome if goal is not None else outcome_of(world, *first)
    seeds = list(islice(_unseen(world, trained_layouts(runs), seed, episodes * DRAWS), episodes))
    if len(seeds) < episodes:
        raise InputError(
            f"{world.name} drew {len(seeds)} layouts that {', '.join(map(str, runs))} did not train on, expected "
            f"{episodes}; give fewer --episodes, or options that make more layouts"
        )
    propose = None if policy is None else _proposals(world, policy, seed)
    search = replace(search, policy=propose)

    def planner(expand: Expand, tasks: Sequence[Task]) -> list[Plan]:
        return METHODS[method](expand, tasks, search)

    def played(name: str, simulator: Simulator, planner: Planner, replan: int) -> rows.Results:
        episodes = control(world, simulator, planner, seeds, replan, goal)
        return results(name, episodes, simulator.calls)

    out = played("random", Blind(), at_random, 1)
    if propose is not None:
        out += played("policy", Blind(), proposals.alone(propose), 1)
        out += played("policy-sampled", Blind(), proposals.alone(propose, seed), 1)
    if forwards:
        name = " + ".join(str(forward.checkpoint) for forward in forwards)
        out += played(name, Imagined(forwards, outcome, samples), planner, replan)
    if real:
        out += played("real-world", Real(), planner, replan)
    return out


def _proposals(world: World, run: Run, seed: int) -> Proposals:
    """What an agent of the same world would do.

    Raises:
        InputError: It cannot be loaded, or plays another world.
    """
    loaded = agent.load(run)
    if loaded.recipe.play.world != world.name:
        raise InputError(f"{run} plays {loaded.recipe.play.world!r}, not {world.name!r}; give an agent that does")
    state, _ = world.reset(seed)
    return Proposals(loaded, getattr(world, "manual", ""), world.actions(state) or (), seed=seed)


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
        label = " + ".join(Path(one).name for one in name.split(" + "))
        table.append([label, success["n"], *cells, of["steps"]["value"], of["calls"]["value"]])
    progress.table("Planning", columns, table)
