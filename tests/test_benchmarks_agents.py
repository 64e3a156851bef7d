"""The tables of agents, made from kept files alone."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from swirl.agents import stages

ROOT = Path(__file__).parent.parent


@pytest.fixture
def agents(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("agents_tables", ROOT / "benchmarks" / "agents.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "agents_tables", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "KEPT", tmp_path)
    return module


def keep(folder, row, seed, passed, self_play, curve):
    rows = [
        {"policy": policy, "form": form, "arena": arena, "metric": metric, "value": value}
        for policy, form, arena, metric, value in (
            ("base", "states", "real", "pass_at_1", 0.1),
            ("solver", "states", "real", "pass_at_1", 0.9),
            ("rl", "states", "real", "pass_at_1", passed),
            ("rl", "plain", "real", "pass_at_1", 0.99),
            ("rl", "states", "imagined", "pass_at_1", 0.98),
            ("rl", "states", "real", "prediction_exact", 0.5),
        )
    ]
    steps = {"self-play": self_play, "rl": sum(line["steps"] for line in curve)}
    facts = {"recipe": '[rl]\nform = "states"\n', "results": {"rows": rows, "steps": steps}, "curve": curve}
    facts["seconds_cpu"] = 90.0
    (folder / "sokoban").mkdir(exist_ok=True)
    (folder / "sokoban" / f"{row}-seed{seed}.json").write_text(json.dumps(facts))


def test_a_table_reads_every_row_at_its_end_and_at_as_many_actions(agents, tmp_path):
    curve = [{"steps": 100, "validation_pass_at_1": 0.2}, {"steps": 100}, {"steps": 100, "validation_pass_at_1": 0.6}]
    keep(tmp_path, "spa", 0, 0.6, 150, curve)
    keep(tmp_path, "spa", 1, 0.8, 150, curve)
    keep(tmp_path, "state-estimation", 0, 0.3, 0, curve)
    lines = agents.table("sokoban").splitlines()
    assert lines[0].count("Pass@1 at 300 actions") == 1
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in lines[2:]}
    assert cells["SPA"][1:3] == ["59.8/69.5", "70.0 [60.0, 80.0]"]
    # Self-play took 150 of the 300 actions: the first iteration is all that fits.
    assert cells["SPA"][8] == "20.0 [20.0, 20.0]"
    assert cells["RL + state estimation"][8] == "60.0 [60.0, 60.0]"
    assert cells["SPA"][9:] == ["2", "2"]
    assert cells["base"][2] == "10.0 [10.0, 10.0]"
    assert cells["the world's solver"][2] == "90.0 [90.0, 90.0]"


def test_until_the_first_checkpoint_a_run_is_where_it_began(agents, tmp_path):
    keep(tmp_path, "spa", 0, 0.6, 50, [{"steps": 100}, {"steps": 100, "validation_pass_at_1": 0.6}])
    keep(tmp_path, "vanilla", 0, 0.4, 0, [{"steps": 200, "validation_pass_at_1": 0.4}])
    lines = agents.table("sokoban").splitlines()
    [cells] = [line.strip("| ").split(" | ") for line in lines if line.startswith("| SPA |")]
    assert cells[8] == "10.0 [10.0, 10.0]"


def test_a_kept_file_of_another_recipe_is_not_taken_for_this_one(agents, tmp_path):
    keep(tmp_path, "spa", 0, 0.6, 50, [{"steps": 100}])
    assert "is of another recipe; remove it" in agents.run("sokoban", "spa", 0, tmp_path / "runs")


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
