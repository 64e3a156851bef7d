"""Searches over hand-made worlds whose best plans are known, then over real ones."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl import worlds
from swirl.agents import planning
from swirl.agents.planning import METHODS, Plan, Search, Task, beam, cem, likeness
from swirl.agents.simulators import Node, Real
from swirl.errors import InputError


class Table:
    """A simulator of a table, (state, action) -> (next state, reward[, terminated[, uncertainty]])."""

    def __init__(self, table):
        self.table, self.asked = table, []

    def expand(self, nodes, actions):
        self.asked.append([(node.state, action) for node, action in zip(nodes, actions, strict=True)])
        return [Node(*self.table[step]) for step in self.asked[-1]]

    def task(self, state, **more):
        listed = {}
        for at, action in self.table:
            listed.setdefault(at, []).append(action)
        return Task(Node(state), lambda node: listed.get(node.state, []), **more)


def chain():
    """1 at once to the left, 2 after three steps to the right."""
    return Table(
        {
            ("a", "left"): ("L", 1.0, True),
            ("a", "right"): ("b", 0.0),
            ("b", "left"): ("a", 0.0),
            ("b", "right"): ("c", 0.0),
            ("c", "left"): ("b", 0.0),
            ("c", "right"): ("R", 2.0, True),
        }
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("horizon", "discount", "actions", "score"),
    [
        (1, 0.9, ("left",), 1.0),
        (2, 0.9, ("left",), 1.0),
        (3, 0.9, ("right",) * 3, 2 * 0.9**2),
        (3, 0.5, ("left",), 1.0),
        (5, 1.0, ("right",) * 3, 2.0),
    ],
)
def test_the_best_of_a_chain(method, horizon, discount, actions, score):
    table = chain()
    [plan] = METHODS[method](table.expand, [table.task("a")], Search(horizon, discount=discount))
    assert plan.actions == actions
    assert plan.score == plan.gained == pytest.approx(score)
    assert [node.state for node in plan.nodes] == (["a", "L"] if len(actions) == 1 else ["a", "b", "c", "R"])


def test_of_each_depth_the_best_are_gone_on_from():
    table = Table(
        {
            ("s", "1"): ("p", 0.2),
            ("s", "2"): ("q", 0.1),
            ("p", "1"): ("end", 0.0, True),
            ("q", "1"): ("end", 1.0, True),
        }
    )
    [greedy] = beam(table.expand, [table.task("s")], Search(2, width=1, discount=1.0))
    assert greedy.actions == ("1", "1")
    assert table.asked == [[("s", "1"), ("s", "2")], [("p", "1")]]
    [wide] = beam(table.expand, [table.task("s")], Search(2, width=2, discount=1.0))
    assert (wide.actions, wide.score) == (("2", "1"), pytest.approx(1.1))


@pytest.mark.parametrize("method", METHODS)
def test_uncertainty_costs_its_penalty_and_can_turn_the_choice(method):
    table = Table({("s", "safe"): ("x", 0.5, True, 0.0), ("s", "wild"): ("y", 1.0, True, 0.6)})
    chosen = {
        penalty: METHODS[method](table.expand, [table.task("s")], Search(1, penalty=penalty))[0]
        for penalty in (0.0, 0.8, 1.0)
    }
    assert {penalty: plan.actions for penalty, plan in chosen.items()} == {
        0.0: ("wild",),
        0.8: ("wild",),
        1.0: ("safe",),
    }
    assert chosen[0.8].score == pytest.approx(1 - 0.8 * 0.6)


@pytest.mark.parametrize("method", METHODS)
def test_penalties_are_discounted_as_rewards_are(method):
    table = Table({("s", "on"): ("x", 0.0, False, 0.5), ("x", "on"): ("y", 3.0, True, 0.25)})
    [plan] = METHODS[method](table.expand, [table.task("s")], Search(2, discount=0.5, penalty=2.0))
    assert plan.score == pytest.approx(-2 * 0.5 + 0.5 * (3.0 - 2 * 0.25))


@pytest.mark.parametrize("method", METHODS)
def test_ties(method):
    def best(table):
        return METHODS[method](table.expand, [table.task("s")], Search(2, discount=1.0))[0].actions

    # One that leaves the episode going, though it is longer ...
    assert best(Table({("s", "a"): ("x", 0.0, True), ("s", "b"): ("y", 0.0), ("y", "b"): ("z", 0.0)})) == ("b", "b")
    # ... of those that end it the shorter ...
    assert best(Table({("s", "a"): ("x", 0.0), ("x", "a"): ("y", 1.0, True), ("s", "b"): ("z", 1.0, True)})) == ("b",)
    # ... then by name, whatever the order they are listed in.
    assert best(Table({("s", "b"): ("x", 1.0, True), ("s", "a"): ("y", 1.0, True)})) == ("a",)
    # Sums that differ in their last digits only are equal.
    assert 0.1 + 0.2 > 0.3
    table = {
        ("s", "a"): ("x", 0.3),
        ("x", "a"): ("end", 0.0, True),
        ("s", "b"): ("y", 0.1),
        ("y", "b"): ("end", 0.2, True),
    }
    assert best(Table(table)) == ("a", "a")


@pytest.mark.parametrize("method", METHODS)
def test_the_value_of_the_last_state_is_discounted_and_asked_of_open_ends_only(method):
    asked = []

    def value(nodes):
        asked.extend(node.state for node in nodes)
        return [{"s": 0.0, "x": 0.0, "y": 10.0, "z": 4.0}[node.state] for node in nodes]

    table = Table(
        {("s", "1"): ("x", 1.0), ("x", "1"): ("y", 0.0), ("s", "2"): ("z", 0.0), ("z", "2"): ("end", 2.0, True)}
    )
    [plan] = METHODS[method](table.expand, [table.task("s", value=value)], Search(2, discount=0.5))
    assert plan.actions == ("1", "1")
    assert (plan.gained, plan.score) == (1.0, 1 + 0.5**2 * 10)
    assert "end" not in asked
    [plan] = METHODS[method](table.expand, [table.task("s", value=value)], Search(1, discount=0.5))
    assert (plan.actions, plan.score) == (("2",), 0.5 * 4)


def test_what_was_reached_before_is_gone_on_from_only_for_more():
    stay = Table({("s", "stay"): ("s", 0.0), ("s", "go"): ("t", 0.0), ("t", "stay"): ("t", 0.0)})
    [plan] = beam(stay.expand, [stay.task("s")], Search(4))
    assert plan.actions == ("go",)  # and from there nothing is new
    assert [len(step) for step in stay.asked] == [2, 1]
    far = replace(stay.task("s"), value=lambda nodes: [float(node.state == "t") for node in nodes])
    assert beam(stay.expand, [far], Search(4))[0].score == 0.99
    paid = Table({("s", "stay"): ("s", 0.1), ("s", "go"): ("t", 0.0), ("t", "stay"): ("t", 0.0)})
    [plan] = beam(paid.expand, [paid.task("s")], Search(4, discount=1.0))
    assert (plan.actions, plan.score) == (("stay",) * 4, pytest.approx(0.4))


def test_where_nothing_new_is_left_it_is_better_to_go_back_than_to_end():
    table = {("s", "on"): ("x", 0.0), ("x", "back"): ("s", 0.0), ("x", "jump"): ("pit", -1.0, True)}
    assert beam(Table(table).expand, [Table(table).task("s")], Search(5))[0].actions == ("on",)
    forced = {step: after for step, after in table.items() if step[1] != "back"}
    [plan] = beam(Table(forced).expand, [Table(forced).task("s")], Search(5, discount=1.0))
    assert (plan.actions, plan.score) == (("on", "jump"), -1.0)  # what must follow is not left out


def test_of_two_ways_to_a_state_the_better_is_kept():
    table = Table(
        {("s", "a"): ("x", 0.0), ("s", "b"): ("x ", 0.3), ("x", "c"): ("y", 0.0), ("x ", "c"): ("y", 0.0)}
    )  # "x " is the same state
    [plan] = beam(table.expand, [table.task("s")], Search(2, discount=1.0))
    assert (plan.actions, plan.score) == (("b", "c"), pytest.approx(0.3))
    assert table.asked[1] == [("x ", "c")]


@pytest.mark.parametrize(("method", "calls"), [("beam", 3), ("cem", 3 * 3)])
def test_tasks_are_planned_side_by_side_as_they_would_be_alone(method, calls):
    table, search = chain(), Search(3, discount=0.9)
    tasks = [table.task(state) for state in "abcL"]
    together = METHODS[method](table.expand, tasks, search)
    assert len(table.asked) == calls  # each asks about the steps of all tasks
    assert [plan.actions for plan in together] == [("right",) * 3, ("right",) * 2, ("right",), ()]
    alone = [METHODS[method](chain().expand, [task], search)[0] for task in tasks]
    assert together == alone


@pytest.mark.parametrize("method", METHODS)
def test_towards_a_goal_rewards_are_not_looked_at(method):
    table = Table(
        {
            ("at home", "pay"): ("at bank", 5.0),
            ("at home", "walk"): ("at the sea", 0.0),
            ("at the sea", "swim"): ("in the sea", -9.0),
            ("at bank", "walk"): ("at home", 9.0),
        }
    )
    [plan] = METHODS[method](table.expand, [table.task("at home", goal="in the sea")], Search(2, discount=0.5))
    assert plan.actions == ("walk", "swim")
    assert plan.score == pytest.approx(0.5**2)
    [plan] = METHODS[method](table.expand, [table.task("at home", goal="at the lake")], Search(1, discount=0.5))
    assert plan.actions == ("walk",)  # nearest: 4 of 6 tokens
    assert plan.score == pytest.approx(0.5 * (4 / 6) / 2)


def test_a_goal_that_is_reached_ends_its_search_alone():
    table = chain()
    near, far = table.task("a", goal="b"), table.task("a", goal="R")
    plans = beam(table.expand, [near, far], Search(4))
    assert [plan.actions for plan in plans] == [("right",), ("right",) * 3]
    assert table.asked[1] == [("b", "left"), ("b", "right")]  # of the second task alone


def test_a_goal_where_the_episode_ends_counts_and_an_end_elsewhere_does_not():
    assert likeness("a b")([Node("a b "), Node("a c"), Node("b a"), Node("")]) == [1.0, 0.25, 0.5, 0.0]
    table = Table({("a a", "1"): ("a b", 0.0, True), ("a a", "2"): ("c c", 0.0)})
    [plan] = beam(table.expand, [table.task("a a", goal="a b")], Search(1, discount=1.0))
    assert (plan.actions, plan.score) == (("1",), 1.0)
    [plan] = beam(table.expand, [table.task("a a", goal="b b")], Search(1, discount=1.0))
    assert (plan.actions, plan.score) == (("2",), 0.0)


def test_a_policy_proposes_what_is_tried():
    table = chain()
    policy = lambda states: [[("right", math.log(0.9)), ("jump", math.log(0.1))] for _ in states]  # noqa: E731
    [plan] = beam(table.expand, [table.task("a")], Search(3, policy=policy))
    assert plan.actions == ("right",) * 3
    assert plan.likelihood == pytest.approx(3 * math.log(0.9))
    assert all(action == "right" for step in table.asked for _, action in step)  # "jump" cannot be taken
    [plan] = cem(table.expand, [table.task("a")], Search(3, policy=policy))
    assert plan.actions == ("right",) * 3


@pytest.mark.parametrize("method", METHODS)
def test_a_policy_is_asked_once_of_each_state_at_a_time(method):
    table, asked = chain(), []

    def policy(states):
        asked.append(states)
        return [[("right", 0.0)] for _ in states]

    METHODS[method](table.expand, [table.task("a")], Search(5, samples=20, iterations=1, policy=policy))
    assert asked == [["a"], ["b"], ["c"]]


def test_what_cannot_be_listed_takes_a_policy():
    task = replace(chain().task("a"), actions=lambda node: None)
    with pytest.raises(InputError, match="give a policy"):
        beam(chain().expand, [task], Search())
    policy = lambda states: [[("left", 0.0)] for _ in states]  # noqa: E731
    assert beam(chain().expand, [task], Search(policy=policy))[0].actions == ("left",)


def test_equal_states_are_kept_by_the_policys_likelihood():
    table = Table({("s", "a"): ("x", 0.0), ("s", "b"): ("y", 0.0), ("x", "a"): ("u", 0.0), ("y", "a"): ("v", 0.0)})
    policy = lambda states: [[("a", -2.0), ("b", -0.1)] for _ in states]  # noqa: E731
    beam(table.expand, [table.task("s")], Search(2, width=1, policy=policy))
    assert table.asked[1] == [("y", "a")]
    beam(table.expand, [table.task("s")], Search(2, width=1))
    assert table.asked[-1] == [("x", "a")]  # without one, what was tried first


@pytest.mark.parametrize("method", METHODS)
def test_of_plans_that_are_worth_the_same_the_policys_own_is_begun(method):
    table = Table({("s", "a"): ("x", 0.0), ("s", "b"): ("y", 0.0)})
    for chances, first in (((0.9, 0.1), "a"), ((0.1, 0.9), "b")):
        proposed = list(zip("ab", map(math.log, chances), strict=True))
        search = Search(1, policy=lambda states, proposed=proposed: [proposed for _ in states])
        [plan] = METHODS[method](table.expand, [table.task("s")], search)
        assert plan.actions == (first,)


def test_cem_draws_from_the_policy_first():
    table = Table({("s", f"{i:02}"): (f"t{i}", float(i == 30), True) for i in range(40)})
    policy = lambda states: [[(f"{i:02}", 0.0 if i == 30 else -20.0) for i in range(40)] for _ in states]  # noqa: E731
    settings = {"horizon": 1, "samples": 3, "iterations": 1}
    assert cem(table.expand, [table.task("s")], Search(**settings, policy=policy))[0].actions == ("30",)
    found = {cem(table.expand, [table.task("s")], Search(**settings, seed=seed))[0].score for seed in range(4)}
    assert found == {0.0}  # drawn evenly, three of forty are hardly ever the one


def test_cem_refits_its_chances_to_the_elites():
    plans = [Plan(tuple(actions), ()) for actions in ("ab", "aa", "b", "bb")]
    first = planning._refitted({}, plans, step=0, elites=2)
    assert first == {"a": pytest.approx(0.9 + 0.1 * 0.5), "b": pytest.approx(0.1 * 0.5)}
    assert planning._refitted({"a": 0.2, "b": 0.8}, plans, 0, 2) == {"a": pytest.approx(0.92), "b": pytest.approx(0.08)}
    assert planning._refitted({}, plans, step=1, elites=1)["b"] == pytest.approx(0.9 + 0.1 * 2 / 3)  # of those so long
    assert planning._refitted({"c": 1.0}, plans, step=2, elites=2) == {"c": 1.0}  # none is


def test_cem_finds_by_refitting_what_it_would_not_draw_at_once():
    """One sequence of 4^8, each right action of which pays by itself."""
    table = Table({(f"s{i}", a): (f"s{i + 1}", float(a == "c")) for i in range(8) for a in "abcd"})
    task, settings = table.task("s0"), {"horizon": 8, "samples": 40, "width": 6, "discount": 1.0}
    scores = [cem(table.expand, [task], Search(**settings, iterations=n))[0].score for n in (1, 2, 6)]
    assert scores[0] < scores[1] <= scores[2] == 8.0


def test_cem_asks_no_step_of_a_sequence_twice_and_follows_its_seed():
    table = chain()
    search = Search(4, samples=30, seed=3)
    [plan] = cem(table.expand, [table.task("a")], search)
    assert sum(map(len, table.asked)) <= 2 + 2 + 4 + 4  # of 3 x 30 x 4: sequences that begin alike share it
    again = chain()
    assert cem(again.expand, [again.task("a")], search) == [plan]
    assert again.asked == table.asked


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.sampled_from([0.0, 0.5])), min_size=14, max_size=14))
def test_where_everything_is_tried_the_best_of_all_plans_is_found(steps):
    """Trees of two actions and three steps, by enumeration: a beam of all nodes, and a CEM that draws every leaf."""
    names = [path for size in (1, 2, 3) for path in itertools.product("01", repeat=size)]
    table = {
        ("".join(path[:-1]), path[-1]): ("".join(path), float(reward), end, doubt)
        for path, (reward, end, doubt) in zip(names, steps, strict=True)
    }
    search = Search(3, width=8, discount=0.5, penalty=2.0, samples=200, iterations=1)

    def played(path):
        total, state = 0.0, ""
        for step, action in enumerate(path):
            state, reward, end, doubt = table[state, action]
            total += 0.5**step * (reward - 2.0 * doubt)
            if end:
                break
        return total

    best = max(map(played, itertools.product("01", repeat=3)))
    for method in METHODS.values():
        simulator = Table(table)
        [plan] = method(simulator.expand, [simulator.task("")], search)
        assert plan.score == pytest.approx(best)
        assert played((*plan.actions, "0", "0")[:3]) == pytest.approx(best)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_do_is_an_empty_plan(method):
    table = chain()
    for task in (Task(Node("a", terminated=True), lambda node: ("left",)), Task(Node("a"), lambda node: ())):
        [plan] = METHODS[method](table.expand, [task], Search(2))
        assert (plan.actions, plan.nodes) == ((), (task.start,))
    copier = lambda nodes, actions: nodes  # noqa: E731
    [plan] = beam(copier, [Task(Node("a"), lambda node: ("left", "right"))], Search(2))
    assert plan.actions == ()
    assert beam(copier, [], Search()) == []


@pytest.mark.parametrize("wrong", [{"horizon": 0}, {"width": 0}, {"samples": 0}, {"iterations": 0}])
def test_settings_below_one(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is 0, expected at least 1"):
        Search(**wrong)


@pytest.mark.parametrize("wrong", [{"discount": 0.0}, {"discount": 1.1}, {"penalty": -0.1}])
def test_settings_out_of_range(wrong):
    with pytest.raises(InputError, match=r"discount is .* and penalty"):
        Search(**wrong)


@pytest.mark.parametrize(
    ("name", "options", "seeds"),
    [("frozenlake", {"size": 4, "coordinates": False}, range(12)), ("sokoban", {"size": 5}, range(8))],
)
def test_a_beam_in_the_real_world_finds_a_shortest_solution_within_its_horizon(name, options, seeds):
    world, horizon, found = worlds.make(name, **options), 7, 0
    for seed in seeds:
        state, _ = world.reset(seed)
        solution, simulator = world.solve(), Real()
        task = Task(simulator.start([state], world), lambda node: world.legal())
        [plan] = beam(simulator.expand, [task], Search(horizon, width=64))
        if len(solution) > horizon:
            assert not plan.nodes[-1].terminated or plan.nodes[-1].reward <= 0
            continue
        found += 1
        assert len(plan.actions) == len(solution)
        for action in plan.actions:
            _, reward, terminated, *_ = world.step(action)
        assert terminated
        assert reward > 0
    assert found >= 5


def test_draws_of_cem_are_by_chance_of_the_proposals_that_there_are():
    rng = np.random.default_rng(0)
    proposals = [("a", math.log(0.5)), ("b", math.log(0.5))]
    drawn = [planning._choice(proposals, {"a": 0.2, "c": 0.8}, rng)[0] for _ in range(50)]
    assert set(drawn) == {"a"}  # of what can be taken, only it has a chance
    drawn = [planning._choice(proposals, {"c": 1.0}, rng)[0] for _ in range(50)]
    assert set(drawn) == {"a", "b"}  # none has
    drawn = [planning._choice([("a", 0.0), ("b", -3.0)], {}, rng)[0] for _ in range(400)]
    assert 2 <= drawn.count("b") <= 50  # e^-3 of e^-3 + 1: 19 expected
