"""Planning by looking ahead: propose actions, imagine what they lead to, score that, act on the best.

    score = sum over steps t of discount^t (reward_t - penalty uncertainty_t) + discount^T value(last state)

`beam` goes through the tree of actions breadth first and of each depth goes on from the best states only. `cem` draws
whole sequences of actions and refits what it draws from to the best of them (the cross-entropy method). Both ask the
simulator (`simulators`) for a whole depth at once:

    [plan] = beam(simulator.expand, [Task(simulator.start([state]), lambda node: ("left", "right"))], Search(horizon=5))

A plan is as long as the horizon, unless the episode ends before or nothing new is left to reach. Among equal scores
one comes first that leaves the episode going, then the likelier under the policy, then the shorter, then the first in
the order of the actions' names.

Towards a *goal*, a state, rewards are not looked at: the value is 1 at the goal, half the token F1 of any other state,
and 0 where the episode has ended elsewhere.

Source: planning with a learned simulator by CEM: PETS, arXiv 1805.12114, section 5; CEM for sequences of discrete
choices: de Boer et al., A Tutorial on the Cross-Entropy Method, 2005.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from swirl import metrics
from swirl.agents.simulators import Expand, Node
from swirl.errors import InputError

SMOOTHING = 0.1
"""What `cem` keeps of its last chances when it refits them, so that none is gone for good after one draw."""

Value = Callable[[Sequence[Node]], Sequence[float]]
"""What states are worth, beyond the rewards up to them; asked of those that are not terminated."""
Policy = Callable[[Sequence[str]], Sequence[Sequence[tuple[str, float]]]]
"""Actions to try in each state, with their log-probabilities (nats)."""


@dataclass(frozen=True)
class Task:
    """What to plan.

    Attributes:
        start: Where from; a node of the simulator.
        actions: Those that can be taken at a node; `None` where they cannot be listed, which takes a policy.
        goal: A state to reach, in place of rewards.
        value: Of the last states; without it they are worth nothing. Not beside a goal, which has its own.
    """

    start: Node
    actions: Callable[[Node], Sequence[str] | None]
    goal: str | None = None
    value: Value | None = None


@dataclass(frozen=True)
class Search:
    """How to search.

    Attributes:
        horizon: Steps to look ahead.
        width: `beam`: states of a depth that are gone on from; 1 is greedy. `cem`: elites.
        discount: Of a step's reward against that of the step before.
        penalty: Reward that a step of uncertainty 1 costs.
        samples: `cem`: sequences per iteration.
        iterations: `cem`: how often they are drawn.
        seed: `cem`: of the draws.
        policy: Proposes what is tried, of what can be taken; by default all of it, equally.

    Raises:
        InputError: A number is out of its range.
    """

    horizon: int = 8
    width: int = 8
    discount: float = 0.99
    penalty: float = 1.0
    samples: int = 64
    iterations: int = 3
    seed: int = 0
    policy: Policy | None = None

    def __post_init__(self) -> None:
        for name in ("horizon", "width", "samples", "iterations"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not 0 < self.discount <= 1 or self.penalty < 0:
            raise InputError(
                f"discount is {self.discount} and penalty {self.penalty}, expected above 0 and up to 1, and at least 0"
            )


@dataclass(frozen=True)
class Plan:
    """Actions, and where a simulator says that they lead.

    Attributes:
        actions: What to do, in order; none where nothing leads anywhere new.
        nodes: The start, and what each action leads to.
        score: See the module.
        gained: What of the score is not value: discounted rewards less penalties.
        likelihood: Of the actions under the policy, nats; 0 without one.
    """

    actions: tuple[str, ...]
    nodes: tuple[Node, ...]
    score: float = 0.0
    gained: float = 0.0
    likelihood: float = 0.0


Planner = Callable[[Expand, Sequence[Task]], list[Plan]]
"""`beam` or `cem` with a `Search`: a plan per task."""


@dataclass
class _Tree:
    """A beam search under way.

    Attributes:
        task: What is planned.
        edge: Plans to go on from; at the end, those to choose among beside `ended`.
        seen: The best gain of each state that was reached.
        ended: Plans with which the episode ends.
        idle: Plans after which some action leads back; to choose among once nothing new is left.
        closed: Whether the search is over.
    """

    task: Task
    edge: list[Plan]
    seen: dict[str, float]
    ended: list[Plan] = field(default_factory=list)
    idle: list[Plan] = field(default_factory=list)
    closed: bool = False


def beam(expand: Expand, tasks: Sequence[Task], search: Search) -> list[Plan]:
    """The best plan for each task that a beam search finds; see the module.

    A state that was reached before, and not for less, is not gone on from. Towards a goal, the first plan that reaches
    it is taken. Tasks are searched side by side: a depth of all of them is one call of `expand`.
    """
    trees = []
    for task in tasks:
        root = _scored(task, search, [Plan((), (task.start,))])
        trees.append(_Tree(task, root, {metrics.normalise(task.start.state): 0.0}, closed=task.start.terminated))
    for _ in range(search.horizon):
        if not (going := [tree for tree in trees if not tree.closed]):
            break
        tried = [
            (tree, plan, *proposed)
            for tree in going
            for plan, proposals in zip(tree.edge, _propose(tree.task, tree.edge, search), strict=True)
            for proposed in proposals
        ]
        nodes = expand([plan.nodes[-1] for _, plan, *_ in tried], [action for *_, action, _ in tried])
        for tree in going:
            own = [(of, node) for of, node in zip(tried, nodes, strict=True) if of[0] is tree]
            grown = [_grown(tree.task, search, *of[1:], node) for of, node in own]
            _deepen(tree, [of[1] for of, _ in own], _scored(tree.task, search, grown), search.width)
    return [min([*tree.ended, *tree.edge] or [Plan((), (tree.task.start,))], key=_rank) for tree in trees]


def _deepen(tree: _Tree, parents: Sequence[Plan], plans: Sequence[Plan], width: int) -> None:
    """One depth more: the best plans to a state each, that is new or was reached for less.

    Args:
        tree: The search.
        parents: Of each plan, the one that it has grown from.
        plans: The depth.
        width: Plans to keep.
    """
    reached = [plan for plan in plans if _is_goal(tree.task, plan.nodes[-1])]
    if reached:
        tree.ended, tree.edge, tree.closed = [], reached[:1], True
        return
    found: dict[str, Plan] = {}
    for parent, plan in zip(parents, plans, strict=True):
        state = metrics.normalise(plan.nodes[-1].state)
        if plan.nodes[-1].terminated:
            tree.ended.append(plan)
        elif state not in tree.seen or plan.gained > tree.seen[state] + 1e-9:
            tree.seen[state] = plan.gained
            found[state] = plan
        else:
            tree.idle.append(parent)
    tree.closed = not found
    tree.edge = sorted(found.values(), key=lambda plan: (-round(plan.score, 9), -plan.likelihood))[:width] or tree.idle


@dataclass
class _Draws:
    """What the cross-entropy method knows of a task.

    Attributes:
        task: What is planned.
        rng: Draws its sequences.
        chances: Of actions at each step; none where they are those of the policy.
        best: The best plan so far.
    """

    task: Task
    rng: np.random.Generator
    chances: list[dict[str, float]]
    best: Plan


def cem(expand: Expand, tasks: Sequence[Task], search: Search) -> list[Plan]:
    """The best plan for each task that the cross-entropy method draws; see the module.

    The first sequences are drawn from the policy, or evenly. From then on each step has the chances that actions have
    there among the elites, smoothed with those of the iteration before. Tasks are planned side by side: a step of all
    their sequences is one call of `expand`.
    """
    tree: dict[tuple[int, str], Node] = {}
    known = [
        _Draws(task, np.random.default_rng(search.seed), [{}] * search.horizon, Plan((), (task.start,), -np.inf))
        for task in tasks
    ]
    for _ in range(search.iterations):
        for own, drawn in zip(known, _drawn(expand, known, search, tree), strict=True):
            plans = sorted(drawn, key=_rank)
            own.best = min(own.best, plans[0], key=_rank)
            own.chances = [_refitted(old, plans, step, search.width) for step, old in enumerate(own.chances)]
    return [own.best for own in known]


def _drawn(
    expand: Expand, known: Sequence[_Draws], search: Search, tree: dict[tuple[int, str], Node]
) -> list[list[Plan]]:
    """Sequences for each task, drawn step by step; what the tree has, (id of a node, action), is not asked again."""
    plans = [[Plan((), (own.task.start,))] * search.samples for own in known]
    for step in range(search.horizon):
        taken = [_taken(own, mine, step, search) for own, mine in zip(known, plans, strict=True)]
        asked = {
            (id(mine[i].nodes[-1]), action): mine[i].nodes[-1]
            for mine, chosen in zip(plans, taken, strict=True)
            for i, (action, _) in chosen.items()
        }
        new = [key for key in asked if key not in tree]
        tree.update(zip(new, expand([asked[key] for key in new], [key[1] for key in new]), strict=True))
        for own, mine, chosen in zip(known, plans, taken, strict=True):
            for i, (action, log_probability) in chosen.items():
                node = tree[id(mine[i].nodes[-1]), action]
                mine[i] = _grown(own.task, search, mine[i], action, log_probability, node)
    return [_scored(own.task, search, mine) for own, mine in zip(known, plans, strict=True)]


def _taken(own: _Draws, plans: Sequence[Plan], step: int, search: Search) -> dict[int, tuple[str, float]]:
    """An action drawn for each plan that is not over, with its log-probability, by the plan's place."""
    going = [i for i, plan in enumerate(plans) if not _is_over(own.task, plan.nodes[-1])]
    proposed = _propose(own.task, [plans[i] for i in going], search)
    return {
        i: _choice(actions, own.chances[step], own.rng) for i, actions in zip(going, proposed, strict=True) if actions
    }


def _choice(
    proposals: Sequence[tuple[str, float]], chances: dict[str, float], rng: np.random.Generator
) -> tuple[str, float]:
    """A proposal, drawn by the chances of its action; where they have none of them, by its log-probability."""
    weights = np.array([chances.get(action, 0.0) for action, _ in proposals])
    if not weights.any():
        logs = np.array([log for _, log in proposals])
        weights = np.exp(logs - logs.max())
    return proposals[rng.choice(len(proposals), p=weights / weights.sum())]


def _refitted(chances: dict[str, float], plans: Sequence[Plan], step: int, elites: int) -> dict[str, float]:
    """Chances of actions at a step, from plans of which the first are elites."""
    counts = [
        Counter(plan.actions[step] for plan in part if len(plan.actions) > step) for part in (plans[:elites], plans)
    ]
    among, every = [{action: count / own.total() for action, count in own.items()} for own in counts]
    if not among:
        return chances
    before = chances or every
    return {a: (1 - SMOOTHING) * among.get(a, 0.0) + SMOOTHING * before.get(a, 0.0) for a in {**before, **among}}


def _propose(task: Task, plans: Sequence[Plan], search: Search) -> list[list[tuple[str, float]]]:
    """What to try after each plan, with log-probabilities; 0 without a policy, which is asked of a state once.

    Raises:
        InputError: The actions cannot be listed and there is no policy.
    """
    nodes = [plan.nodes[-1] for plan in plans]
    listed = [task.actions(node) for node in nodes]
    if search.policy is None:
        if None in listed:
            raise InputError("the actions in a state cannot be listed; give a policy that proposes some")
        return [[(action, 0.0) for action in own or ()] for own in listed]
    states = list(dict.fromkeys(node.state for node in nodes))
    proposed = dict(zip(states, search.policy(states), strict=True)) if states else {}
    return [
        [(action, log) for action, log in proposed[node.state] if can is None or action in can]
        for node, can in zip(nodes, listed, strict=True)
    ]


def _grown(task: Task, search: Search, plan: Plan, action: str, log_probability: float, node: Node) -> Plan:
    """A plan with one step more, whose score is what it has gained."""
    reward = 0.0 if task.goal is not None else node.reward
    gained = plan.gained + search.discount ** len(plan.actions) * (reward - search.penalty * node.uncertainty)
    return Plan((*plan.actions, action), (*plan.nodes, node), gained, gained, plan.likelihood + log_probability)


def _scored(task: Task, search: Search, plans: Sequence[Plan]) -> list[Plan]:
    """The plans, with the value of where they end."""
    open_ends = [i for i, plan in enumerate(plans) if not plan.nodes[-1].terminated or _is_goal(task, plan.nodes[-1])]
    value = task.value if task.goal is None else likeness(task.goal)
    if value is None or not open_ends:
        return list(plans)
    worth = dict(zip(open_ends, value([plans[i].nodes[-1] for i in open_ends]), strict=True))
    return [
        replace(plan, score=plan.gained + search.discount ** len(plan.actions) * worth.get(i, 0.0))
        for i, plan in enumerate(plans)
    ]


def likeness(goal: str) -> Value:
    """1 for the goal, and half the token F1 of any other state: none is worth as much."""
    return lambda nodes: [
        1.0 if metrics.exact_match(node.state, goal) else metrics.token_f1(node.state, goal) / 2 for node in nodes
    ]


def _is_goal(task: Task, node: Node) -> bool:
    return task.goal is not None and metrics.exact_match(node.state, task.goal)


def _is_over(task: Task, node: Node) -> bool:
    return node.terminated or _is_goal(task, node)


def _rank(plan: Plan) -> tuple[float, bool, bool, float, int, tuple[str, ...]]:
    """Smallest for the best plan; one to do nothing is the last among equals.

    Scores are rounded, for sums of equal rewards differ in their last digits.
    """
    ends, idle = plan.nodes[-1].terminated, not plan.actions
    return -round(plan.score, 9), ends, idle, -round(plan.likelihood, 9), len(plan.actions), plan.actions


METHODS: dict[str, Callable[[Expand, Sequence[Task], Search], list[Plan]]] = {"beam": beam, "cem": cem}
"""Name of a way of searching -> it."""
