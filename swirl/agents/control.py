"""Act in the real world by plans: after every few steps plan anew from where it stands (model-predictive control).

lake, forward = worlds.make("frozenlake"), swirl.load_forward("runs/lake")
planner = partial(beam, search=Search(horizon=6, width=8))
simulator = Imagined([forward], by_rules(lake))
episodes = control(lake, simulator, planner, seeds=range(20))
results("runs/lake", episodes, simulator.calls)  # success, return, steps, and what looking ahead cost
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swirl import metrics, progress
from swirl.agents.planning import Plan, Planner, Task, Value
from swirl.agents.simulators import Expand, Node, Simulator, copied
from swirl.errors import InputError
from swirl.eval import rows
from swirl.types import State, state_text
from swirl.worlds import World

LONGEST = 100
"""Steps after which an episode is broken off where its world does not end it."""
TOGETHER = 32
"""Episodes that are played side by side, so that a model is asked about all of them at once."""


@dataclass(frozen=True)
class Episode:
    """What became of an episode.

    Attributes:
        seed: What the world was reset with.
        layout: Of the world.
        success: Whether the goal was reached; without one, whether a reward above 0 came with the end.
        total: Sum of its rewards, not discounted (its return).
        steps: How many were taken.
    """

    seed: int
    layout: str
    success: bool
    total: float
    steps: int


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

    Episodes are played side by side, in copies of the world; one after another where it cannot be copied. Where a plan
    is empty, for nothing leads anywhere new, an action is drawn evenly.

    Args:
        world: The real world.
        simulator: Where plans are made; `Real()` for the bound that a perfect model would set.
        planner: `beam` or `cem` with a `Search`, or `at_random`.
        seeds: What the world is reset with.
        replan: Steps of a plan that are taken before the next plan is made.
        goal: State to reach; an episode ends there.
        value: See `Task`.

    Returns:
        The episodes, in the order of the seeds.

    Raises:
        InputError: The world lists no actions and the planner's search has no policy, or `replan` is below 1.
    """
    if replan < 1:
        raise InputError(f"replan is {replan}, expected at least 1")
    free, waiting = _places(world, len(seeds)), deque(enumerate(seeds))
    going: dict[int, _Playing] = {}
    done: dict[int, Episode] = {}
    with progress.bar("plan and act", len(seeds)) as bar:
        while waiting or going:
            while free and waiting:
                number, seed = waiting.popleft()
                going[number] = _Playing(free.pop(), seed, goal)
            open_ones = [playing for playing in going.values() if not playing.over]
            plans = planner(simulator.expand, [playing.task(simulator, value) for playing in open_ones])
            for playing, plan in zip(open_ones, plans, strict=True):
                playing.follow(plan, replan)
            for number in [number for number, playing in going.items() if playing.over]:
                playing = going.pop(number)
                done[number] = playing.episode()
                free.append(playing.world)
                bar.advance(success=sum(episode.success for episode in done.values()) / len(done))
    return [done[number] for number in range(len(seeds))]


def _places(world: World, episodes: int) -> list[World]:
    """Worlds to play in at once: copies, or the world alone where it cannot be copied."""
    try:
        return [copied(world) for _ in range(min(episodes, TOGETHER))]
    except InputError:
        return [world]


class _Playing:
    """An episode under way.

    Attributes:
        world: Where it is played, and nothing else at the same time.
        over: Whether it has ended.
    """

    def __init__(self, world: World, seed: int, goal: str | None) -> None:
        self.world, self._seed, self._goal = world, seed, goal
        self._rng = np.random.default_rng(seed)
        state, info = world.reset(seed)
        self._states: list[State] = [state]
        self._layout = info["layout"]
        self._total = 0.0
        self._success = self.over = self._at_goal()

    def task(self, simulator: Simulator, value: Value | None) -> Task:
        """What to plan now."""
        here, listed = simulator.start(self._states, self.world), self.world.actions(self._states[-1])
        return Task(here, lambda node: self.world.actions(node.state) or listed, self._goal, value)

    def follow(self, plan: Plan, most: int) -> None:
        """Take the first steps of a plan, `most` of them at most; a drawn one where it is empty."""
        for action in plan.actions[:most] or (self._any(),):
            state, reward, terminated, truncated, _ = self.world.step(action)
            self._states.append(state)
            self._total += reward
            self._success = terminated and reward > 0 if self._goal is None else self._at_goal()
            self.over = self._success or terminated or truncated or len(self._states) > LONGEST
            if self.over:
                break

    def episode(self) -> Episode:
        """What became of it."""
        return Episode(self._seed, self._layout, self._success, self._total, len(self._states) - 1)

    def _at_goal(self) -> bool:
        return self._goal is not None and metrics.exact_match(state_text(self._states[-1]), self._goal)

    def _any(self) -> str:
        listed = self.world.actions(self._states[-1])
        if not listed:
            raise InputError("the plan is empty and the world lists no actions to take instead; give a policy")
        return listed[int(self._rng.integers(len(listed)))]


class Blind:
    """A simulator of nothing, for planners that do not look ahead; it makes no predictions."""

    calls = 0

    def start(self, states: Sequence[State], world: World | None = None) -> Node:
        """See `Simulator.start`."""
        return Node(state_text(states[-1]))

    def expand(self, nodes: Sequence[Node], actions: Sequence[str]) -> list[Node]:
        """Nothing is known of what follows."""
        return [Node("", terminated=True, uncertainty=1.0) for _ in nodes]


def at_random(expand: Expand, tasks: Sequence[Task]) -> list[Plan]:
    """No plan for any task: `control` then draws each action evenly, by the episode's seed."""
    return [Plan((), (task.start,)) for task in tasks]


def results(name: str, episodes: Sequence[Episode], calls: int) -> rows.Results:
    """Rows of a planner: shares and means over episodes with 95 % intervals over layouts, and its calls per action.

    That of `plan_success` has the "successes" of each episode and their "layouts" too, so that planners can be compared
    by pairs.

    Args:
        name: Of the planner, as `model` of the rows.
        episodes: What `control` gave.
        calls: Of the simulator, over all of them.
    """
    each = {
        "plan_success": [episode.success for episode in episodes],
        "plan_return": [episode.total for episode in episodes],
        "plan_steps": [episode.steps for episode in episodes],
    }
    layouts = [episode.layout for episode in episodes]
    out = [row for metric, values in each.items() for row in rows.mean(name, "forward", metric, values, layouts)]
    out[0] |= {"successes": list(map(int, each["plan_success"])), "layouts": layouts}
    steps = sum(episode.steps for episode in episodes)
    return out + rows.plain(name, "forward", "plan_calls", calls / max(steps, 1), steps)
