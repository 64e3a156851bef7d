"""Act in the real world by plans: after every few steps plan anew from where it stands (model-predictive control).

lake, forward = worlds.make("frozenlake"), swirl.load_forward("runs/lake")
planner = partial(beam, search=Search(horizon=6, width=8))
episodes = control(lake, Imagined([forward], by_rules(lake)), planner, seeds=range(20))
results("runs/lake", episodes)  # success, return, steps, and what looking ahead cost
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swirl import metrics, progress
from swirl.agents.planning import Plan, Planner, Task, Value
from swirl.agents.simulators import Expand, Node, Simulator
from swirl.errors import InputError
from swirl.eval import rows
from swirl.types import State, state_text
from swirl.worlds import World

LONGEST = 100
"""Steps after which an episode is broken off where its world does not end it."""


@dataclass(frozen=True)
class Episode:
    """What became of an episode.

    Attributes:
        seed: What the world was reset with.
        success: Whether the goal was reached; without one, whether a reward above 0 came with the end.
        total: Sum of its rewards, not discounted (its return).
        steps: How many were taken.
        calls: Of the simulator; see `Simulator.calls`.
    """

    seed: int
    success: bool
    total: float
    steps: int
    calls: int


def control(
    world: World,
    simulator: Simulator,
    planner: Planner,
    seeds: Sequence[int],
    replan: int = 1,
    goal: str | None = None,
    value: Value | None = None,
) -> list[Episode]:
    """Plays an episode per seed by planning in a simulator.

    Where a plan is empty, for nothing leads anywhere new, an action is drawn evenly.

    Args:
        world: The real world.
        simulator: Where plans are made; `Real(world)` for the bound that a perfect model would set.
        planner: `beam` or `cem` with a `Search`, or `at_random`.
        seeds: What the world is reset with.
        replan: Steps of a plan that are taken before the next plan is made.
        goal: State to reach; an episode ends there.
        value: See `Task`.

    Raises:
        InputError: The world lists no actions and the planner's search has no policy, or `replan` is below 1.
    """
    if replan < 1:
        raise InputError(f"replan is {replan}, expected at least 1")
    episodes = []
    with progress.bar("plan and act", len(seeds)) as bar:
        for seed in seeds:
            episodes.append(_episode(world, simulator, planner, seed, replan, goal, value))
            bar.advance(success=sum(episode.success for episode in episodes) / len(episodes))
    return episodes


def _episode(
    world: World,
    simulator: Simulator,
    planner: Planner,
    seed: int,
    replan: int,
    goal: str | None,
    value: Value | None,
) -> Episode:
    states: list[State] = [world.reset(seed)[0]]
    rng, before, total, ended = np.random.default_rng(seed), simulator.calls, 0.0, False
    success = _reached(states[-1], goal)
    while not (success or ended):
        here, listed = simulator.start(states), world.actions(states[-1])
        task = Task(here, lambda node, listed=listed: world.actions(node.state) or listed, goal, value)
        [plan] = planner(simulator.expand, [task])
        for action in plan.actions[:replan] or (_any(listed, rng),):
            state, reward, terminated, truncated, _ = world.step(action)
            states.append(state)
            total += reward
            success = _reached(state, goal) if goal is not None else terminated and reward > 0
            ended = terminated or truncated or len(states) > LONGEST
            if success or ended:
                break
    return Episode(seed, success, total, len(states) - 1, simulator.calls - before)


def _reached(state: State, goal: str | None) -> bool:
    return goal is not None and metrics.exact_match(state_text(state), goal)


def _any(actions: Sequence[str] | None, rng: np.random.Generator) -> str:
    if not actions:
        raise InputError("the plan is empty and the world lists no actions to take instead; give a policy")
    return actions[int(rng.integers(len(actions)))]


class Blind:
    """A simulator of nothing, for planners that do not look ahead; it makes no predictions."""

    calls = 0

    def start(self, states: Sequence[State]) -> Node:
        """See `Simulator.start`."""
        return Node(state_text(states[-1]))

    def expand(self, nodes: Sequence[Node], actions: Sequence[str]) -> list[Node]:
        """Nothing is known of what follows."""
        return [Node("", terminated=True, uncertainty=1.0) for _ in nodes]


def at_random(expand: Expand, tasks: Sequence[Task]) -> list[Plan]:
    """No plan for any task: `control` then draws each action evenly, by the episode's seed."""
    return [Plan((), (task.start,)) for task in tasks]


def results(name: str, episodes: Sequence[Episode]) -> rows.Results:
    """Rows of a planner: shares and means over episodes with 95 % intervals, and its calls per action.

    Args:
        name: Of the planner, as `model` of the rows.
        episodes: What `control` gave.
    """
    each = {
        "plan_success": [episode.success for episode in episodes],
        "plan_return": [episode.total for episode in episodes],
        "plan_steps": [episode.steps for episode in episodes],
    }
    seeds = [episode.seed for episode in episodes]
    out = [row for metric, values in each.items() for row in rows.mean(name, "forward", metric, values, seeds)]
    steps = sum(episode.steps for episode in episodes)
    calls = sum(episode.calls for episode in episodes)
    return out + rows.plain(name, "forward", "plan_calls", calls / max(steps, 1), steps)
