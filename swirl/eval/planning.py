"""WM2Real: do plans made in a model succeed in the real world?

A goal is the state recorded T steps after another. A plan for it is found by search in the model: breadth
first over the world's actions, at most T deep, and of each depth only the states most like the goal (token F1) are gone
on from. It is then executed in the real world. Over the goals:

    wm2real_plans      a plan was found, in the model (WM); in the rows named `real-search`, by the same search in the
                       real world (Real), where it is also a way
    wm2real_reached    the model's plan reaches the goal in the real world (W2R)
    wm2real_ratio      of the plans that were found, those that do
    consistency_ratio  CR = W2R / Real; above 1 where the model finds what the same search in the real world misses

Source: Real, WM, W2R and CR: Word2World, arXiv 2512.18832, section 4, Metrics (of an agent's tasks; ours of goals).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swirl import metrics, progress
from swirl.agents.planning import Search, Task, beam
from swirl.agents.simulators import Node
from swirl.api import ForwardModel
from swirl.eval import rollouts, rows
from swirl.eval.real import Replay
from swirl.types import state_text

Rows = rows.Rows
GOALS, DEPTH, BEAM = 50, 3, 8
"""Goals that are drawn, recorded steps to each (T), and states of a depth that are gone on from."""


@dataclass(frozen=True)
class Goal:
    """A recorded stretch of steps: its first row, the text to reach, and the actions that lead to its start."""

    row: dict[str, Any]
    text: str
    past: list[str]


def goals_of(recording: Rows, pasts: dict[tuple[str, int], list[str]], depth: int, most: int, seed: int) -> list[Goal]:
    """Goals `depth` recorded steps away that differ from where they begin, `most` of them drawn."""
    found = [
        Goal(stretch[0], state_text(stretch[-1]["next_state"]), pasts[stretch[0]["trajectory"], stretch[0]["step"]])
        for stretch in rollouts.stretches(recording, depth)
        if len(stretch) == depth and (stretch[0]["trajectory"], stretch[0]["step"]) in pasts
    ]
    found = [goal for goal in found if metrics.changed(goal.row["state"], goal.text)]
    order = np.random.default_rng(seed).permutation(len(found))[:most]
    return [found[i] for i in sorted(order)]


Steps = Callable[[list[tuple[Goal, list[str], list[str]]]], list[str]]
"""The states after (goal, states so far, actions so far with the new one); "" where there is none."""


def search(goals: Sequence[Goal], steps: Steps, actions: Sequence[Sequence[str]], depth: int) -> list[list[str] | None]:
    """A plan for each goal, shortest first; `None` where the search finds none. See the module."""

    def expand(nodes: Sequence[Node], done: Sequence[str]) -> list[Node]:
        tried: list[tuple[Goal, list[str], list[str]]] = []
        for node, action in zip(nodes, done, strict=True):
            goal, past, taken = node.handle
            tried.append((goal, past, [*taken, action]))
        return [
            Node(text, terminated=not text, handle=(goal, [*past, text], taken))
            for (goal, past, taken), text in zip(tried, steps(tried), strict=True)
        ]

    tasks = []
    for i, goal in enumerate(goals):
        first = state_text(goal.row["state"])
        tasks.append(Task(Node(first, handle=(goal, [first], [])), lambda _, own=actions[i]: own, goal.text))
    plans = beam(expand, tasks, Search(depth, BEAM, discount=1.0, penalty=0.0))
    return [
        list(plan.actions) if metrics.exact_match(plan.nodes[-1].state, goal.text) else None
        for goal, plan in zip(goals, plans, strict=True)
    ]


def wm2real(forward: ForwardModel, replay: Replay, goals: Sequence[Goal], limit: int, depth: int) -> rows.Results:
    """WM2Real of a model: plans found in it, executed in the real world; nothing where the world lists no actions."""
    listed = [replay.world.actions(goal.row["state"]) for goal in goals]
    actions = [tuple(own) for own in listed if own]
    if not goals or len(actions) < len(goals):
        return []
    predict = rollouts.predictor(forward, limit)

    def imagined(tried: list[tuple[Goal, list[str], list[str]]]) -> list[str]:
        asked = [
            rollouts.continued({**goal.row, "action": taken[-1]}, states, forward.recipe.data.history)
            for goal, states, taken in tried
        ]
        return predict(asked, "plan in the model")

    def happened(tried: list[tuple[Goal, list[str], list[str]]]) -> list[str]:
        out = []
        with progress.bar("plan in the real world", len(tried)) as bar:
            for goal, _, taken in tried:
                out.append(replay.after(goal.row["trajectory"], [*goal.past, *taken]))
                bar.advance()
        return out

    plans, ways = (search(goals, steps, actions, depth) for steps in (imagined, happened))
    reached = [
        plan is not None and metrics.exact_match(replay.after(goal.row["trajectory"], [*goal.past, *plan]), goal.text)
        for goal, plan in zip(goals, plans, strict=True)
    ]
    return planned(str(forward.checkpoint), goals, plans, reached, ways)


def planned(
    model: str,
    goals: Sequence[Goal],
    plans: Sequence[list[str] | None],
    reached: Sequence[bool],
    ways: Sequence[list[str] | None],
) -> rows.Results:
    """Results of a model's plans, whether each reaches its goal, and the plans of a search in the real world."""
    clusters = rows.clusters([goal.row for goal in goals])
    found, real, got = (np.array([bool(one) for one in column]) for column in (plans, ways, reached))
    return [
        *rows.mean("real-search", "forward", "wm2real_plans", real, clusters),
        *rows.mean(model, "forward", "wm2real_plans", found, clusters),
        *rows.mean(model, "forward", "wm2real_reached", got, clusters),
        *rows.mean(model, "forward", "wm2real_ratio", got[found], clusters[found]),
        *rows.statistic(model, "forward", "consistency_ratio", rows.ratio(got, real), clusters, (0.0, np.inf)),
    ]
