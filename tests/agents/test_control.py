from functools import partial

import pytest
from counting import ACTIONS, TOP, Counter, state_of

from swirl import worlds
from swirl.agents import control as controlling
from swirl.agents.control import Blind, Episode, at_random, control, results
from swirl.agents.planning import Search, beam, cem
from swirl.agents.simulators import Node, Real
from swirl.errors import InputError


def planner(horizon, method=beam, **settings):
    return partial(method, search=Search(horizon, **settings))


def test_plans_in_the_real_world_reach_the_top():
    simulator = Real()
    episodes = control(Counter(), simulator, planner(3), seeds=range(3))  # from 1, 2 and 3
    assert [(e.seed, e.success, e.total, e.steps) for e in episodes] == [
        (0, True, 1.0, 3),
        (1, True, 1.0, 2),
        (2, True, 1.0, 1),
    ]
    # From 3: up ends, down to 2; 2: down to 1, up leads back; 1: down ends, up back. From the others as many.
    assert simulator.calls == (1 + 2 + 3) * (2 + 2 + 2)


def test_fewer_calls_where_plans_are_kept_to():
    simulator = Real()
    episodes = control(Counter(), simulator, planner(3), seeds=range(3), replan=3)
    assert [episode.steps for episode in episodes] == [3, 2, 1]
    assert simulator.calls == 3 * (2 + 2 + 2)


def test_episodes_are_planned_side_by_side_and_come_back_in_order(monkeypatch):
    monkeypatch.setattr(controlling, "TOGETHER", 2)
    together = []

    def watched(expand, tasks):
        together.append(len(tasks))
        return planner(3)(expand, tasks)

    episodes = control(Counter(), Real(), watched, seeds=[0, 2, 1, 0])  # 3, 1, 2 and 3 steps
    assert [(e.seed, e.steps) for e in episodes] == [(0, 3), (2, 1), (1, 2), (0, 3)]
    assert together == [2, 2, 2, 1, 1, 1]  # 0 and 2; 0 and 1, twice; the last alone


def test_a_world_that_cannot_be_copied_plays_one_episode_after_another():
    class Process(Counter):
        def __deepcopy__(self, memo):
            raise TypeError("cannot copy a process")

    together = []

    def watched(expand, tasks):
        together.append(len(tasks))
        return at_random(expand, tasks)

    seeds = range(5)
    episodes = control(Process(), Blind(), watched, seeds)
    assert set(together) == {1}
    assert episodes == control(Counter(), Blind(), at_random, seeds)
    with pytest.raises(InputError, match=r"cannot be copied .cannot copy a process.*plan in a model"):
        control(Process(), Real(), planner(2), [0])


def test_success_rises_with_the_depth_that_is_looked_ahead():
    world = Counter()
    found = {
        horizon: [episode.success for episode in control(world, Real(), planner(horizon), range(3))]
        for horizon in (1, 2)
    }
    # One step ahead, nothing is seen from 1 and 2; two steps from 1 only one way leads on.
    assert found == {1: [False, False, True], 2: [True, True, True]}


def test_an_episode_that_nothing_ends_is_broken_off(monkeypatch):
    monkeypatch.setattr(controlling, "LONGEST", 7)
    world = Counter()
    [episode] = control(world, Real(), planner(1), seeds=[1])  # down and up, for ever
    assert (episode.steps, episode.success, episode.total) == (7, False, 0.0)


def test_an_episode_ends_where_the_world_says_so():
    lake = worlds.make("frozenlake", max_steps=4)
    [episode] = control(lake, Real(), planner(2), seeds=[0])
    assert (episode.steps, episode.success) == (4, False)  # six steps to the goal


def test_a_goal_is_success_and_ends_the_episode():
    world = Counter()
    for seed, steps in ((0, 1), (1, 0), (2, 1)):
        [episode] = control(world, Real(), planner(3), seeds=[seed], goal=state_of(2))
        assert (episode.success, episode.steps, episode.total) == (True, steps, 0.0)
    [episode] = control(world, Real(), planner(2), seeds=[2], goal="nowhere")
    assert not episode.success


def test_a_value_guides_where_rewards_are_out_of_sight():
    world = Counter()
    value = lambda nodes: [float(node.state.split()[1]) / TOP for node in nodes]  # noqa: E731
    episodes = control(world, Real(), planner(1), range(3), value=value)
    assert [episode.success for episode in episodes] == [True] * 3


def test_cem_can_be_the_planner():
    world = Counter()
    episodes = control(world, Real(), planner(3, cem, samples=30), range(3))
    assert [(episode.success, episode.steps) for episode in episodes] == [(True, 3), (True, 2), (True, 1)]


def test_without_a_plan_actions_are_drawn_by_the_seed():
    world = Counter()
    seeds = range(40)
    episodes = control(world, Blind(), at_random, seeds)
    assert control(world, Blind(), at_random, seeds) == episodes
    assert {episode.success for episode in episodes} == {True, False}

    class Copier(Blind):
        def expand(self, nodes, actions):
            return [Node(node.state) for node in nodes]

    assert control(world, Copier(), planner(3), seeds) == episodes  # that nothing changes is no plan


def test_actions_come_from_where_it_stands_if_the_world_lists_none_for_imagined_states():
    class Present(Counter):
        """Lists actions for the present state alone, as text games do."""

        def actions(self, state):
            return ACTIONS if self._running and state == state_of(self._at) else None

    world = Present()
    assert [e.success for e in control(world, Real(), planner(3), range(3))] == [True] * 3


def test_a_world_without_a_list_takes_a_policy():
    class Unlisted(Counter):
        def actions(self, state):
            return None

    world = Unlisted()
    with pytest.raises(InputError, match="give a policy"):
        control(world, Real(), planner(2), [0])
    with pytest.raises(InputError, match="lists no actions"):
        control(world, Blind(), at_random, [0])
    policy = lambda states: [[("up", 0.0)] for _ in states]  # noqa: E731
    assert control(world, Real(), planner(2, policy=policy), [0])[0].success


def test_plans_are_kept_to_for_at_least_a_step():
    with pytest.raises(InputError, match="replan is 0, expected at least 1"):
        control(Counter(), Blind(), at_random, [0], replan=0)


def test_results_by_hand():
    episodes = [Episode(0, "a", True, 1.0, 2), Episode(1, "b", False, -0.5, 4), Episode(2, "c", True, 1.0, 2)]
    found = {row["metric"]: row for row in results("m", episodes, calls=30)}
    assert {name: row["value"] for name, row in found.items()} == {
        "plan_success": pytest.approx(2 / 3),
        "plan_return": 0.5,
        "plan_steps": pytest.approx(8 / 3),
        "plan_calls": 30 / 8,  # of all actions, not the mean of episodes
    }
    assert (found["plan_success"]["low"], found["plan_success"]["high"]) == (0.0, 1.0)
    assert found["plan_success"]["n"] == 3
    assert (found["plan_success"]["successes"], found["plan_success"]["layouts"]) == ([1, 0, 1], ["a", "b", "c"])
    assert found["plan_calls"]["low"] is None
    assert {row["model"] for row in found.values()} == {"m"}


def test_intervals_are_over_layouts():
    def width(layouts):
        episodes = [Episode(i, str(i % layouts), i % 2 == 0, 0.0, 1) for i in range(12)]
        [row] = [row for row in results("m", episodes, 0) if row["metric"] == "plan_success"]
        return row["high"] - row["low"]

    assert width(4) > 1.3 * width(12)
