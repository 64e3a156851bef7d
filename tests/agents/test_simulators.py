import copy
from types import SimpleNamespace

import pytest
from counting import ROWS, TOP, Counter, state_of, trained
from hypothesis import given
from hypothesis import strategies as st

from swirl import api, models, worlds
from swirl.agents import simulators
from swirl.agents.simulators import Imagined, Node, Real, by_rules, commonest, no_outcome
from swirl.config import Data, Recipe
from swirl.errors import InputError


@pytest.fixture(scope="module")
def forward(tmp_path_factory, one_thread):
    return api.load_forward(trained(tmp_path_factory.mktemp("counting")), "cpu")


@pytest.fixture
def asked(monkeypatch):
    """What each call of `generate` is asked: prompts, and its settings."""
    calls, generate = [], models.generate

    def spy(model, tokenizer, prompts, **settings):
        calls.append(SimpleNamespace(prompts=prompts, **settings))
        return generate(model, tokenizer, prompts, **settings)

    monkeypatch.setattr(models, "generate", spy)
    return calls


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a"], ("a", 0.0)),
        (["a", "b", "b", "c"], ("b", 0.5)),
        (["b", "a"], ("b", 0.5)),  # the first of equals
        (["a ", "b", "a"], ("a ", pytest.approx(1 / 3))),  # the same state
        (["", "", "a"], ("a", pytest.approx(2 / 3))),  # what cannot be read counts in the share alone
        (["", " \n"], ("", 1.0)),
    ],
)
def test_the_commonest_and_its_share(texts, expected):
    assert commonest(texts) == expected


def test_all_steps_are_predicted_in_one_call_and_have_what_the_world_reads_off_them(forward, asked):
    simulator = Imagined([forward], by_rules(Counter()))
    nodes = simulator.expand([simulator.start([row["state"]]) for row in ROWS], [row["action"] for row in ROWS])
    assert len(asked) == 1
    assert simulator.calls == len(ROWS)
    assert [node.state for node in nodes] == [row["next_state"] for row in ROWS]
    assert [node.reward for node in nodes] == [float(node.state == state_of(TOP)) for node in nodes]
    assert [node.terminated for node in nodes] == [node.state in (state_of(0), state_of(TOP)) for node in nodes]
    assert {node.uncertainty for node in nodes} == {0.0}
    assert sum(node.reward for node in nodes) == 1


def test_a_step_is_predicted_once_and_the_same_again(forward, asked, monkeypatch):
    simulator = Imagined([forward])
    here = simulator.start(["count 1"])
    first = simulator.expand([here, here, here], ["up", "down", "up"])
    assert [len(call.prompts) for call in asked] == [2]
    assert simulator.calls == 2
    assert simulator.expand([here], ["up"]) == first[:1]
    assert (simulator.calls, len(asked)) == (2, 1)
    monkeypatch.setattr(simulators, "KEPT", 2)
    assert simulator.expand([here], ["up"]) == first[:1]  # forgotten, and asked again
    assert (simulator.calls, len(asked)) == (3, 2)


def test_a_rollout_goes_on_from_what_was_predicted(forward):
    simulator = Imagined([forward])
    node = simulator.start(["count 1"])
    for expected in ("count 2", "count 3", "count 4"):
        [node] = simulator.expand([node], ["up"])
        assert node.state == expected
        assert (node.reward, node.terminated) == (0.0, False)  # of no_outcome


def test_what_cannot_be_read_changes_nothing_and_is_counted(forward, monkeypatch):
    simulator = Imagined(
        [forward],
        lambda states, actions, after: [(-1.0 * (a == s), a == "count 4") for s, a in zip(states, after, strict=True)],
    )
    long, short = simulator.start(["count 3 " * 40]), simulator.start(["count 3"])
    lost, found = simulator.expand([long, short], ["up", "up"])
    assert lost == Node("count 3 " * 40, -1.0, False, 1.0)
    assert found == Node("count 4", 0.0, True, 0.0)
    assert simulator.unreadable == 1
    asked, _ = forward.encode({"state": "count 2", "action": "up"})
    monkeypatch.setattr(forward, "max_length", len(asked) + 1)  # the reply is cut off after a token
    assert simulator.expand([simulator.start(["count 2"])], ["up"]) == [Node("count 2", -1.0, False, 1.0)]
    assert simulator.unreadable == 2


def test_a_prediction_that_no_step_can_lead_to_changes_nothing(forward):
    """A state that is no state of the world must be no way around what steps cost."""

    class Costly:
        def outcome(self, state, next_state):
            return None if next_state == "count 4" else (-0.1, False)

    simulator = Imagined([forward], by_rules(Costly()))
    before, last = simulator.start(["count 2"]), simulator.start(["count 3"])
    possible, impossible = simulator.expand([before, last], ["up", "up"])
    assert possible == Node("count 3", -0.1, False, 0.0)
    assert impossible == Node("count 3", -0.1, False, 1.0)
    assert simulator.unreadable == 1
    lawless = Imagined([forward], lambda states, actions, after: [None] * len(states))
    assert lawless.expand([lawless.start(["count 2"])], ["up"]) == [Node("count 2", 0.0, False, 1.0)]


def test_replies_are_read_as_the_model_was_trained_to_write_them(forward, monkeypatch):
    reply = models.Reply("-count 1\n+count 2", True)
    monkeypatch.setattr(models, "generate", lambda *_, **__: [[reply]])
    monkeypatch.setattr(forward, "spec", SimpleNamespace(**vars(forward.spec) | {"prompt": "terse-change"}))
    row = {"state": "count 1\nroom", "action": "up", "history": ()}
    assert simulators.predict(forward, [row]) == [["count 2\nroom"]]
    assert simulators.predict(forward, [{**row, "state": "count 7"}]) == [[""]]  # a change that does not fit


def test_a_long_prompt_does_not_cut_off_the_replies_to_others(forward, asked):
    """With 64 tokens to read: the long one leaves 10 for its reply, the others are not held to that."""
    filler = "count 1 count 2 "
    while forward.encode({"state": filler, "action": "up"})[1] > 10:
        filler += "count 1 "
    rows = [{"state": state, "action": "up", "history": ()} for state in (filler, "count 1", "count 2")]
    found = simulators.predict(forward, rows)
    assert [len(call.prompts) for call in asked] == [2, 1]
    assert asked[0].max_new_tokens > 40 > 10 >= asked[1].max_new_tokens
    assert found[1:] == [["count 2"], ["count 3"]]


@given(st.lists(st.integers(1, 500), max_size=20))
def test_rows_are_grouped_by_room(rooms):
    groups = list(simulators._alike([(room, i) for i, room in enumerate(rooms)]))
    assert sorted(i for group in groups for i in group) == list(range(len(rooms)))
    for group in groups:
        least, most = (choose(rooms[i] for i in group) for choose in (min, max))
        assert 2 * least >= most
    if rooms and 2 * min(rooms) >= max(rooms):
        assert len(groups) == 1


def fake(history=0):
    """A forward model of which only the recipe is looked at."""
    return SimpleNamespace(recipe=Recipe(data=Data(history=history)), write=lambda state: state)


def test_histories_are_those_of_the_episode_then_those_imagined(monkeypatch):
    seen = []

    def predict(forward, rows, n, seed):
        seen.extend((row["state"], row["action"], row["history"]) for row in rows)
        return [[row["state"] + "+"] for row in rows]

    monkeypatch.setattr(simulators, "predict", predict)
    simulator = Imagined([fake(history=2)])
    node = simulator.start(["a", "b", "c", "d"])
    for action in ("1", "2", "3"):
        [node] = simulator.expand([node], [action])
    assert seen == [("d", "1", ("b", "c")), ("d+", "2", ("c", "d")), ("d++", "3", ("d", "d+"))]
    seen.clear()
    simulator = Imagined([fake()])
    [node] = simulator.expand([simulator.start(["a", "b"])], ["1"])
    simulator.expand([node], ["2"])
    assert seen == [("b", "1", ()), ("b+", "2", ())]


def test_only_as_much_history_is_shown_as_the_model_was_trained_with(run_folder, asked):
    """An ensemble may hold more than one of its models reads."""
    forward = api.load_forward(run_folder, "cpu")  # with one earlier state
    assert forward.recipe.data.history == 1
    row = {"state": "door shut", "action": "go left", "history": ("key", "door open")}
    simulators.predict(forward, [row])
    assert asked[0].prompts == [forward.encode({**row, "history": ("door open",)})[0]]


def test_uncertainty_of_samples_and_of_ensembles(monkeypatch):
    monkeypatch.setattr(simulators, "predict", lambda forward, rows, n, seed: [forward.told[:n] for _ in rows])

    def followed(*tells, **settings):
        simulator = Imagined([SimpleNamespace(**vars(fake()), told=told) for told in tells], **settings)
        [node] = simulator.expand([simulator.start(["s"])], ["go"])
        return node.state, node.uncertainty, node.terminated, simulator.calls

    assert followed(["x", "y", "x", ""]) == ("x", 0.0, False, 1)
    assert followed(["x", "y", "x", ""], samples=4) == ("x", 0.5, False, 4)
    assert followed(["x"], ["y"], ["y"]) == ("y", pytest.approx(1 / 3), False, 3)
    assert followed(["x"], ["y"]) == ("x", 0.5, False, 2)
    assert followed([""], ["y"]) == ("y", 0.5, False, 2)
    assert followed([""], [""]) == ("s", 1.0, False, 2)


def test_samples_are_drawn_at_temperature_one_by_the_seed(forward, asked):
    simulator = Imagined([forward], samples=5, seed=7)
    [node] = simulator.expand([simulator.start(["count 1"])], ["up"])
    assert (asked[0].n, asked[0].temperature, asked[0].seed) == (5, 1.0, 7)
    assert node.state == "count 2"
    assert simulator.calls == 5
    simulators.predict(forward, ROWS[:1])
    assert (asked[1].n, asked[1].temperature) == (1, 0.0)


@pytest.mark.parametrize(
    ("count", "samples", "message"), [(0, 1, "no forward model"), (1, 0, "samples = 0"), (2, 3, "samples = 3 with 2")]
)
def test_settings_that_cannot_be(count, samples, message):
    with pytest.raises(InputError, match=message):
        Imagined([fake()] * count, samples=samples)


def test_copies_of_the_world_are_stepped_and_the_world_stays(monkeypatch):
    lake, twin = worlds.make("frozenlake"), worlds.make("frozenlake")
    state, _ = lake.reset(4)
    twin.reset(4)
    simulator = Real()
    here = simulator.start([state], lake)
    for _ in range(2):  # the node stays, too
        nodes = simulator.expand([here] * 4, lake.actions(state))
        for action, node in zip(lake.actions(state), nodes, strict=True):
            expected = copy.deepcopy(twin).step(action)
            assert (node.state, node.reward, node.terminated, node.uncertainty) == (*expected[:3], 0.0)
    assert simulator.calls == 8
    [later] = simulator.expand([nodes[1]], ["Right"])
    assert lake.step("Down")[0] == nodes[1].state  # where it has always been
    assert lake.step("Right")[0] == later.state


def test_what_a_limit_has_ended_goes_no_further():
    lake = worlds.make("frozenlake", max_steps=1)
    state, _ = lake.reset(0)
    simulator = Real()
    [node] = simulator.expand([simulator.start([state], lake)], ["Left"])
    assert (node.reward, node.terminated) == (0.0, True)


def test_a_world_that_cannot_be_copied_is_refused():
    world = Counter()
    world.reset(0)
    world.module = copy
    with pytest.raises(InputError, match=r"the world 'counter' cannot be copied .*; plan in a model"):
        Real().start(["count 1"], world)
    with pytest.raises(InputError, match="nothing to try actions in; give the world"):
        Real().start(["count 1"])


def test_no_outcome_says_nothing():
    assert no_outcome(["a", "b"], ["c", "d"], ["e", "f"]) == [(0.0, False)] * 2
