"""`swirl plan`: who is measured, on which episodes, and what is printed."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counting import Counter, Silent, run_of, state_of, trained

from swirl import cli, worlds
from swirl.agents import plan
from swirl.agents.control import Blind, at_random, control
from swirl.agents.planning import Search
from swirl.errors import InputError
from swirl.worlds.base import Rules


@pytest.fixture(scope="module")
def run(tmp_path_factory, one_thread):
    """A run whose forward model knows the counter, and which trained on the layout "0"."""
    return run_of(trained(tmp_path_factory.mktemp("counting")), tmp_path_factory.mktemp("runs") / "counter")


def values(rows, model):
    return {row["metric"].removeprefix("plan_"): row["value"] for row in rows if row["model"] == model}


def test_all_planners_play_the_same_episodes_that_were_not_trained_on(run):
    rows = plan.measure(Counter(), [run], Search(horizon=3), episodes=4, seed=0, real=True)
    names = list(dict.fromkeys(row["model"] for row in rows))
    assert names[0] == "random"
    assert names[2] == "real-world"
    assert names[1] == str(run / json.loads((run / "results.json").read_text())["forward"])
    # Of the seeds 0, 1, 2, ... those with the layouts "1" and "2", that begin at 2 and 3.
    assert values(rows, names[1]) == values(rows, "real-world") | {"calls": values(rows, names[1])["calls"]}
    assert values(rows, names[1])["steps"] == (2 + 1 + 2 + 1) / 4
    assert values(rows, names[1])["success"] == values(rows, names[1])["return"] == 1
    assert 0 < values(rows, names[1])["calls"] < values(rows, "real-world")["calls"]  # what is known is not asked again
    seeds = [1, 2, 4, 5]
    expected = [episode.success for episode in control(Counter(), Blind(), at_random, seeds)]
    assert values(rows, "random")["success"] == sum(expected) / 4
    assert values(rows, "random")["calls"] == 0


def test_where_every_layout_was_trained_on_that_is_said(run, monkeypatch):
    monkeypatch.setattr(plan, "trained_layouts", lambda runs: {"0", "1", "2"})
    with pytest.raises(InputError, match=r"counter drew 0 layouts that .* did not train on, expected 2; give fewer"):
        plan.measure(Counter(), [run], Search(), episodes=2)


def test_layouts_of_a_run_and_of_no_run(run, tmp_path, monkeypatch):
    assert plan.trained_layouts([run]) == {"0"}
    pq.write_table(pa.table({"layout": ["1", None]}), tmp_path / "state_only.parquet")
    (tmp_path / "data").mkdir()
    shutil.move(tmp_path / "state_only.parquet", tmp_path / "data")
    assert plan.trained_layouts([tmp_path, run]) == {"0", "1"}
    monkeypatch.chdir(tmp_path)
    assert plan.trained_layouts([]) == set()


def test_several_runs_are_an_ensemble_that_learned_what_any_of_them_did(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    labelled = other / "data" / "labelled.parquet"
    table = pq.read_table(labelled)
    pq.write_table(table.set_column(table.schema.get_field_index("layout"), "layout", [["1"] * len(table)]), labelled)
    rows = plan.measure(Counter(), [run, other], Search(horizon=3), episodes=3, seed=0)
    name = rows[-1]["model"]
    assert [one.rpartition("/")[2] for one in name.split(" + ")] == ["01-start", "01-start"]
    assert values(rows, name)["steps"] == 1, "of the layout 2 alone, which begins at 3"


def test_a_world_without_rules_has_its_rewards_learned_from_the_run(run, tmp_path):
    found = plan.measure(Silent(), [run], Search(horizon=3), episodes=4)
    model = found[-1]["model"]
    assert values(found, model)["success"] == 1
    checkpoint = run / json.loads((run / "results.json").read_text())["forward"]
    with pytest.raises(InputError, match=r"the states of counter do not tell its reward, and .* has no labelled trans"):
        plan.measure(Silent(), [checkpoint], Search())
    towards = plan.measure(Silent(), [checkpoint], Search(horizon=3), episodes=3, goal=state_of(2))  # which needs none
    assert values(towards, model)["success"] == 1
    assert values(towards, model)["steps"] == (1 + 0 + 1) / 3


def test_what_is_learned_is_what_was_recorded(run, tmp_path):
    """Where the recording pays for going down, so do the plans."""
    shutil.copytree(run, tmp_path / "run")
    labelled = tmp_path / "run" / "data" / "labelled.parquet"
    rows = pq.read_table(labelled).to_pylist()
    paid = [row | {"reward": float(row["action"] == "down"), "terminated": False} for row in rows]
    pq.write_table(pa.Table.from_pylist(paid), labelled)
    found = plan.measure(Silent(), [tmp_path / "run"], Search(horizon=2), episodes=3)
    assert values(found, found[-1]["model"])["success"] == 0
    assert values(found, found[-1]["model"])["steps"] == (2 + 3 + 2) / 3


def test_a_plan_is_followed_for_as_long_as_it_is_asked_and_every_step_predicted_as_often(run, monkeypatch):
    seen = []
    real = plan.control
    monkeypatch.setattr(
        plan,
        "control",
        lambda world, simulator, *rest, **more: (
            seen.append((simulator, *rest[2:])) or real(world, simulator, *rest, **more)
        ),
    )
    plan.measure(Counter(), [run], Search(horizon=3), episodes=2, real=True, replan=2, samples=3)
    (_, model, copies) = seen
    assert (model[0].samples, model[1:], copies[1:]) == (3, (2, None), (2, None))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "bean"}, "unknown method 'bean': did you mean 'beam'"),
        ({"episodes": 0}, "--episodes 0, expected at least 1"),
        ({"seed": -5}, "--seed -5, expected at least 0"),
        ({"runs": []}, "no model to plan in; give a run, or --no-model"),
        ({"runs": ["/gone"]}, "no such folder"),
    ],
)
def test_what_cannot_be_measured(run, changed, message):
    with pytest.raises(InputError, match=message):
        plan.measure(**{"world": Counter(), "runs": [run], "search": Search()} | changed)


def swirl(capsys, *words):
    assert cli.main(["plan", *words]) == 0
    return capsys.readouterr().out


LAKE = ("--world", "frozenlake", "--option", "size=3", "--option", "coordinates=false")


def test_the_command_prints_rows_or_a_table(capsys):
    words = (*LAKE, "--no-model", "--episodes", "3", "--horizon", "4", "--width", "6")
    rows = json.loads(swirl(capsys, *words, "--json"))
    assert {row["model"] for row in rows} == {"random", "real-world"}
    assert values(rows, "real-world")["success"] == 1
    assert values(rows, "real-world")["steps"] == 4
    table = swirl(capsys, *words).splitlines()
    assert table[2].split() == [
        "planner",
        "episodes",
        "success",
        "95",
        "%",
        "return",
        "95",
        "%",
        "steps",
        "calls/action",
    ]
    [line] = [line.split() for line in table if "real-world" in line]
    assert line[:6] == ["real-world", "3", "1", "0.292", "to", "1.000"]  # three of three


def test_the_command_passes_on_what_it_is_told(capsys, monkeypatch, tmp_path):
    seen = {}

    def measure(world, *given, **named):
        seen.update(world=world, given=given, named=named)
        return []

    monkeypatch.setattr(plan, "measure", measure)
    (tmp_path / "goal.txt").write_text("P _\n_ G\n")
    words = ("runs/x", "runs/y", *LAKE, "--goal", f"@{tmp_path}/goal.txt", "--episodes", "5", "--horizon", "2")
    words += ("--width", "3", "--policy", "runs/z")
    words += ("--discount", "0.5", "--penalty", "2", "--replan", "3", "--samples", "4")
    assert swirl(capsys, *words, "--method", "cem", "--seed", "9", "--real", "--device", "cpu", "--json") == "[]\n"
    search = Search(horizon=2, width=3, discount=0.5, penalty=2.0, seed=9)
    assert seen["given"] == (["runs/x", "runs/y"], search, "cem", 5, 9, "P _\n_ G")
    more = {"device": "cpu", "replan": 3, "samples": 4, "policy": "runs/z"}
    assert seen["named"] == {"model": True, "real": True, **more}
    assert (seen["world"].size, seen["world"].coordinates) == (3, False)
    swirl(capsys, "runs/x", *LAKE, "--no-model", "--json")
    assert seen["given"] == (["runs/x"], Search(), "beam", 20, 0, None)
    more = {"device": "auto", "replan": 1, "samples": 1, "policy": None}
    assert seen["named"] == {"model": False, "real": True, **more}
    swirl(capsys, "runs/x", *LAKE, "--json")
    assert (seen["named"]["model"], seen["named"]["real"]) == (True, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--no-model",), "required: --world"),
        (("--world", "frozenlak", "--no-model"), "unknown world 'frozenlak'"),
        ((*LAKE, "--no-model", "--horizon", "0"), "horizon is 0, expected at least 1"),
        (LAKE, "no model to plan in"),
        ((*LAKE, "--goal", "@gone", "--no-model"), "cannot read gone as text"),
        ((*LAKE, "--goal", "", "--no-model"), "--goal is empty"),
        ((*LAKE, "--method", "mcts", "--no-model"), "unknown method 'mcts': expected one of 'beam', 'cem'"),
    ],
)
def test_the_commands_errors_are_one_line(capsys, words, message):
    assert cli.main(["plan", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


@pytest.mark.parametrize("name", ["sokoban", "frozenlake", "sudoku"])
def test_the_worlds_with_rules_are_known_to_have_them(name):
    assert isinstance(worlds.make(name), Rules)
    assert not isinstance(Silent(), Rules)
