"""The tables of agents, made from kept files alone."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import load_benchmark

from swirl.agents import stages

ROOT = Path(__file__).parent.parent


@pytest.fixture
def agents(tmp_path, monkeypatch):
    module = load_benchmark("agents")
    monkeypatch.setattr(module, "KEPT", tmp_path)
    return module


def keep(agents, row, seed, passed, self_play, curve):
    rows = [
        {"policy": policy, "form": form, "arena": arena, "metric": metric, "value": value}
        for policy, form, arena, metric, value in (
            ("base", "plain", "real", "pass_at_1", 0.1),
            ("base", "plain", "real", "prediction_exact", 0.01),
            ("base", "states", "real", "prediction_exact", 0.03),
            ("solver", "plain", "real", "pass_at_1", 0.9),
            ("rl", "plain", "real", "pass_at_1", passed),
            ("rl", "states", "real", "pass_at_1", 0.99),
            ("rl", "plain", "imagined", "pass_at_1", 0.98),
            ("rl", "plain", "imagined", "score", 0.97),
        )
    ]
    steps = {"self-play": self_play, "rl": sum(line["steps"] for line in curve)}
    recipe = agents._spec("sokoban", row, seed).toml()
    facts = {"recipe": recipe, "results": {"rows": rows, "steps": steps}, "curve": curve, "seconds_cpu": 90.0}
    path = agents._kept("sokoban", row, seed)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(facts))


def test_a_table_reads_every_row_at_its_end_and_at_as_many_actions(agents):
    curve = [{"steps": 100, "validation_pass_at_1": 0.2}, {"steps": 100}, {"steps": 100, "validation_pass_at_1": 0.6}]
    keep(agents, "spa", 0, 0.6, 150, curve)
    keep(agents, "spa", 1, 0.8, 150, curve)
    keep(agents, "state-estimation", 0, 0.3, 0, curve)
    lines = agents.table("sokoban").splitlines()
    assert lines[0].count("Pass@1 at 300 actions") == 1
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in lines[2:]}
    assert cells["SPA"][1:3] == ["59.8/69.5", "70.0 [60.0, 80.0]"]
    # Self-play took 150 of the 300 actions: the first iteration is all that fits.
    assert cells["SPA"][9] == "20.0 [20.0, 20.0]"
    assert cells["RL + state estimation"][9] == "60.0"
    assert cells["SPA"][8] == "98.0 [98.0, 98.0]"
    assert cells["SPA"][10:] == ["2", "2"]
    assert (cells["base"][2], cells["base"][6]) == ("10.0 [10.0, 10.0]", "3.0 [3.0, 3.0]")
    assert cells["the world's solver"][2] == "90.0 [90.0, 90.0]"


def test_until_the_first_checkpoint_a_run_is_where_it_began(agents):
    keep(agents, "spa", 0, 0.6, 50, [{"steps": 100}, {"steps": 100, "validation_pass_at_1": 0.6}])
    keep(agents, "vanilla", 0, 0.4, 0, [{"steps": 200, "validation_pass_at_1": 0.4}])
    lines = agents.table("sokoban").splitlines()
    [cells] = [line.strip("| ").split(" | ") for line in lines if line.startswith("| SPA |")]
    assert cells[9] == "10.0"


def test_a_kept_file_of_another_recipe_is_not_taken_for_this_one(agents):
    keep(agents, "spa", 0, 0.6, 50, [{"steps": 100}])
    asked = {seed: (agents._kept("sokoban", "spa", seed), "another") for seed in (0, 1)}
    todo, [error] = agents.running.missing(asked)
    assert todo == [1]
    assert "spa-seed0.json is of another recipe; remove it" in error
    same = {0: (asked[0][0], json.loads(asked[0][0].read_text())["recipe"])}
    assert agents.running.missing(same) == ([], [])
    assert "| SPA |" in agents.table("sokoban")
    recipe = json.loads(asked[0][0].read_text())["recipe"]
    asked[0][0].write_text(asked[0][0].read_text().replace("iterations = ", "iterations = 1"))
    assert recipe != json.loads(asked[0][0].read_text())["recipe"]
    assert agents.table("sokoban") == "Not run yet.\n"


SMALL = {
    "play.options": "{size = 3, slippery = false}",
    "play.turns": "1",
    "play.reply": "48",
    "model.hidden": "48",
    "model.layers": "1",
    "model.heads": "4",
    "base.episodes": "20",
    "base.steps": "40",
    "self_play.groups": "2",
    "self_play.size": "2",
    "tune.epochs": "1",
    "rl.iterations": "1",
    "rl.groups": "2",
    "rl.size": "2",
    "evaluation.seeds": "2",
    "evaluation.samples": "1",
    "evaluation.last_samples": "1",
}
"""A recipe on a frozen lake that takes seconds."""


def test_rows_are_run_from_one_start_and_kept(agents, tmp_path, monkeypatch):
    recipe = tmp_path / "small.toml"
    recipe.write_text(agents.settings.load(ROOT / "recipes" / "spa-frozenlake.toml", SMALL).toml())
    monkeypatch.setattr(agents, "_recipe", lambda world: recipe)
    monkeypatch.setattr(agents, "DEMONSTRATED", 30)
    todo = [("frozenlake", "state-estimation", 0), ("frozenlake", "cloned", 0)]
    assert agents.carry_out(todo, tmp_path / "runs", processes=1) == []
    first, second = (json.loads(agents._kept(*one).read_text()) for one in todo)
    assert "start-seed0" not in first["recipe"]
    assert agents.settings.load(recipe, {"method": "rl"}).toml() == first["recipe"]
    assert [line["iteration"] for line in first["curve"]] == [1]
    # What the start was taught is not taught again.
    made = (tmp_path / "runs" / "agents" / "frozenlake").glob("*/phases/*")
    assert sorted(f"{path.parent.parent.name} {path.name}" for path in made) == [
        "cloned-seed0 01-demonstrations",
        "cloned-seed0 02-clone",
        "start-seed0 01-start",
        "start-seed0 02-base-episodes",
        "start-seed0 03-base",
        "start-seed0 04-rl",
        "state-estimation-seed0 01-rl",
    ]
    assert second["results"]["steps"] == {"self-play": 0, "rl": 0}
    # Of what was kept a table can be made, and no path of this machine is in it.
    assert str(tmp_path) not in second["recipe"]
    assert "cloning the solver, all actions given" in agents.table("frozenlake")


def test_a_start_that_fails_is_told_and_its_rows_are_not_run(agents, tmp_path, monkeypatch):
    recipe = tmp_path / "small.toml"
    recipe.write_text((ROOT / "recipes" / "spa-frozenlake.toml").read_text().replace("threads = 1", "threads = 0"))
    monkeypatch.setattr(agents, "_recipe", lambda world: recipe)
    [error] = agents.carry_out([("frozenlake", "spa", 0), ("frozenlake", "states", 0)], tmp_path / "runs", 1)
    assert "start-seed0: exit code 2" in error
    assert not (tmp_path / "frozenlake").exists()


def test_without_a_run_the_page_says_so(agents):
    assert agents.table("sokoban") == "Not run yet.\n"


@pytest.mark.parametrize("world", ["sokoban", "frozenlake", "sudoku"])
def test_every_row_of_a_world_begins_with_the_same_policy(agents, world):
    lessons = []
    for row in agents.ROWS.values():
        recipe = agents.settings.load(ROOT / "recipes" / f"spa-{world}.toml", row.overrides)
        taught = [(arena.options, terms) for arena, terms in stages.Stages(SimpleNamespace(), recipe)._lessons()]
        lessons.append((taught, recipe.seed, recipe.model, recipe.base))
    assert all(one == lessons[0] for one in lessons)
    assert len({str(arena) for arena, _ in lessons[0][0]}) == 2
