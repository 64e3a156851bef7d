"""Imitation: demonstrations as conversations, and whose actions they have."""

import pyarrow as pa
import pytest
from choice import Choice

from swirl import data, models, tiny
from swirl.agents import cloning, session, settings
from swirl.agents.episodes import Terms
from swirl.config import Model
from swirl.errors import InputError

ROW = {"trajectory": "a", "terminated": False, "truncated": False, "reward": None}
STEPS = [
    {**ROW, "state": "at 0", "action": "go", "next_state": "at 1", "step": 0},
    {**ROW, "state": "at 1", "action": "bump", "next_state": "at 1", "step": 1},
    {**ROW, "state": "at 1", "action": "run", "next_state": "at 2", "step": 2, "reward": 1.0},
    {**ROW, "state": "at 2", "action": "go", "next_state": "at 3", "step": 3, "terminated": True},
    {**ROW, "state": "at 7", "action": "go", "next_state": "at 8", "step": 0, "trajectory": "b"},
]


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "demonstrations.parquet"
    data.export(data.conform(pa.Table.from_pylist(STEPS), "steps"), path)
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    tiny.build(["at 1 at 2 go run"], folder, Model(hidden=48, layers=1, heads=4), seed=0)
    return models.load_tokenizer(folder)


def test_steps_that_change_nothing_are_passed_over(recording):
    found, left_out = cloning.demonstrations(recording, None)
    assert [[step["action"] for step in steps] for steps in found] == [["go", "run", "go"], ["go"]]
    assert left_out == {"tested": 0, "unchanged": 1, "untold": 0}


def test_where_actions_are_inferred_those_recorded_are_not_looked_at(recording):
    seen = []

    def infer(rows):
        seen.extend((row["state"], row["next_state"]) for row in rows)
        return [f"to {row['next_state'][-1]}" for row in rows]

    found, _ = cloning.demonstrations(recording, infer)
    assert seen == [("at 0", "at 1"), ("at 1", "at 2"), ("at 2", "at 3"), ("at 7", "at 8")]
    assert [[step["action"] for step in steps] for steps in found] == [["to 1", "to 2", "to 3"], ["to 8"]]


def test_a_demonstration_is_a_conversation_in_turns(tokenizer, recording):
    terms = Terms(per_turn=2, form="states", reply=64, max_length=2000)
    [[((asked, completion), weights)], _] = cloning.rows(tokenizer, cloning.demonstrations(recording, None)[0], terms)
    assert tokenizer.decode(asked).endswith("at 0\n10 left, states<|reply|><think>")
    learned = tokenizer.decode([token for token, weight in zip(completion, weights, strict=True) if weight])
    told = tokenizer.decode([token for token, weight in zip(completion, weights, strict=True) if not weight])
    first = "<observation>at 0</observation>go run<prediction>at 2</prediction></think><answer>go || run</answer>"
    second = "<observation>at 2</observation>go<prediction>at 3</prediction></think><answer>go</answer>"
    assert learned == f"{first}<|end|>{second}<|end|>"
    assert told == "Reward: 1\nat 2\n8 left, states<|reply|><think>"


def test_where_turns_are_read_alone_each_is_a_row_of_its_own(tokenizer, recording):
    terms = Terms(per_turn=2, form="states", reply=64, max_length=2000, context="turn")
    [rows, _] = cloning.rows(tokenizer, cloning.demonstrations(recording, None)[0], terms)
    assert [tokenizer.decode(asked).removeprefix("<|bos|>") for (asked, _), _ in rows] == [
        "at 0\n10 left, states<|reply|><think>",
        "at 2\n8 left, states<|reply|><think>",
    ]
    assert not any("Reward" in tokenizer.decode(asked) for (asked, _), _ in rows)
    assert [tokenizer.decode(completion) for (_, completion), _ in rows] == [
        "<observation>at 0</observation>go run<prediction>at 2</prediction></think><answer>go || run</answer><|end|>",
        "<observation>at 2</observation>go<prediction>at 3</prediction></think><answer>go</answer><|end|>",
    ]
    assert all(weights == [1.0] * len(completion) for (_, completion), weights in rows)


def test_no_more_actions_than_an_episode_may_have(tokenizer, recording):
    terms = Terms(per_turn=5, actions=2, reply=64, max_length=2000)
    [[((_, completion), _)], _] = cloning.rows(tokenizer, cloning.demonstrations(recording, None)[0], terms)
    assert "Reward" not in tokenizer.decode(completion)


def test_steps_are_in_order_however_the_recording_has_them(tmp_path):
    path = tmp_path / "mixed.parquet"
    rows = [{**STEPS[i], "layout": "one"} for i in (3, 4, 0, 2)]
    data.export(data.conform(pa.Table.from_pylist(rows), "steps"), path)
    found = {
        steps[0]["trajectory"]: [step["action"] for step in steps] for steps in cloning.demonstrations(path, None)[0]
    }
    assert found == {"a": ["go", "run", "go"], "b": ["go"]}


def test_layouts_that_are_tested_are_not_learned_from(tmp_path, recording, caplog):
    path = tmp_path / "rooms.parquet"
    rows = [{**step, "layout": f"room {step['trajectory']}"} for step in STEPS]
    data.export(data.conform(pa.Table.from_pylist(rows), "steps"), path)
    [steps], left_out = cloning.demonstrations(path, None, {"room a"})
    assert steps[0]["trajectory"] == "b"
    assert left_out == {"tested": 3, "unchanged": 1, "untold": 0}
    with pytest.raises(InputError, match="in a layout that is not tested"):
        cloning.demonstrations(path, None, {"room a", "room b"})
    assert not caplog.text
    assert len(cloning.demonstrations(recording, None, {"room a"})[0]) == 2
    assert "names no layouts" in caplog.text


def test_who_infers_is_shown_the_states_before(recording):
    seen = []

    def infer(rows):
        seen.extend(row["history"] for row in rows)
        return ["go"] * len(rows)

    cloning.demonstrations(recording, infer, history=2)
    assert seen == [[], ["at 0", "at 1"], ["at 1", "at 1"], []]


def test_every_step_is_given_one_of_the_actions_of_its_state(run_folder):
    lists = {"door key": ("go left", "go right"), "door left": ("key",), "door open": None}
    infer = cloning.Inferred(run_folder, lists.__getitem__, "cpu")
    found = infer([{"state": state, "next_state": "door right", "history": []} for state in lists])
    assert found[0] in lists["door key"]
    assert found[1] == "key"


def test_a_demonstration_is_followed_up_to_a_step_that_nobody_can_tell(recording):
    found, left_out = cloning.demonstrations(recording, lambda rows: ["go", "", "go", ""])
    assert [[step["action"] for step in steps] for steps in found] == [["go"]]
    assert left_out["untold"] == 3


@pytest.mark.parametrize(
    ("infer", "mend"),
    [(None, r"give clone\.inverse"), (lambda rows: [""] * len(rows), "the inverse model wrote none that can be read")],
)
def test_demonstrations_of_which_no_action_is_known_are_refused(tmp_path, infer, mend):
    path = tmp_path / "silent.parquet"
    data.export(data.conform(pa.Table.from_pylist([{**STEPS[0], "action": None}]), "steps"), path)
    with pytest.raises(InputError, match=rf"silent\.parquet: no trajectory begins with a step .* known: {mend}"):
        cloning.demonstrations(path, infer)


def test_who_clones_what_is_right_does_it(recipe_file, small, tmp_path):
    path = tmp_path / "right.parquet"
    rows = []
    for seed in range(120):
        state, _ = Choice().reset(seed)
        row = {**ROW, "state": state, "action": state[7], "next_state": "over", "step": 0, "trajectory": str(seed)}
        rows.append({**row, "terminated": True, "reward": 1.0})
    data.export(data.conform(pa.Table.from_pylist(rows), "right"), path)
    over = {"method": "clone", "clone.data": str(path), "clone.epochs": "10", "clone.learning_rate": "3e-3"}
    results = session.run_recipe(settings.load(recipe_file, small | over), tmp_path / "run")
    found = {(row["policy"], row["metric"]): row["value"] for row in results["rows"]}
    assert found["base", "pass_at_1"] < 0.6
    assert found["clone", "pass_at_1"] > 0.8


def test_cloning_needs_demonstrations(recipe_file, small, tmp_path):
    with pytest.raises(InputError, match=r"give clone\.data"):
        settings.load(recipe_file, small | {"method": "clone"})
    with pytest.raises(InputError, match=r"clone\.data = 'none\.parquet' is not there"):
        recipe = settings.load(recipe_file, small | {"method": "clone", "clone.data": "none.parquet"})
        session.run_recipe(recipe, tmp_path / "run")
