"""The table of planning: made by the command that users have, and from kept files alone."""

import json
import re

import pytest
from conftest import load_benchmark

from swirl import tiny
from swirl.agents import session, settings
from swirl.config import Model


@pytest.fixture
def planning(tmp_path, monkeypatch):
    module = load_benchmark("planning")
    monkeypatch.setattr(module, "KEPT", tmp_path / "kept")
    return module


@pytest.fixture(scope="module")
def policy(tmp_path_factory, one_thread):
    """The run of an agent on the lake that has learned next to nothing."""
    small = {"play.reply": "96", "model.hidden": "32", "model.layers": "1", "model.heads": "2", "base.steps": "2"}
    small |= {"method": "rl", "rl.iterations": "0", "base.episodes": "8", "evaluation.seeds": "1"}
    recipe = settings.load(load_benchmark("acting").recipe_of("frozenlake"), small)
    folder = tmp_path_factory.mktemp("policy") / "run"
    session.run_recipe(recipe, folder)
    return folder


def test_a_run_is_planned_in_at_every_horizon_and_kept(planning, policy, tmp_path, monkeypatch):
    run = tmp_path / "models" / "frozenlake-seed0"
    tiny.build(["# # # _ P X O"], run, Model(vocabulary=300, hidden=32, layers=1, heads=2, max_length=512), seed=0)
    rows = [
        {"split": split, "metric": "exact_match", "value": value}
        for split, value in (("validation", 0.4), ("test", 0.5))
    ]
    (run / "results.json").write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(planning.acting, "start", lambda world, seed, runs: (policy, ""))
    monkeypatch.setattr(planning.acting, "learn", lambda world, seed, start, runs: (run, ""))
    monkeypatch.setattr(planning, "HORIZONS", (1, 2))
    monkeypatch.setattr(planning, "EPISODES", 2)
    assert planning.run("frozenlake", 0, tmp_path) == ""
    kept = json.loads((tmp_path / "kept" / "frozenlake-seed0.json").read_text())
    assert {(row["planner"], row["horizon"]) for row in kept["rows"]} == {
        (planner, horizon) for planner in planning.PLANNERS for horizon in (1, 2)
    }
    assert kept["model"] == rows[1:]
    assert str(tmp_path) not in json.dumps(kept)
    assert 'world = "frozenlake"' in kept["recipe"]
    names = re.findall(r"(?m)^\| FrozenLake, 4 x 4, not slippery: (.*?) \|", planning.table())
    lines = [*planning.PLANNERS.values()]
    assert names == [*lines, *(title for title in lines[3:] for _ in planning.BASELINES)]  # and the gains of two
    assert len(kept["layouts"]) == planning.EPISODES
    won = {row["planner"]: (row["successes"], row["value"]) for row in kept["rows"] if row["metric"] == "plan_success"}
    assert all(sum(successes) / 2 == value for successes, value in won.values())
    assert planning.table().startswith("Not run yet: Sokoban, 6 x 6, one box; FrozenLake, 4 x 4, not slippery (seeds 1")


PLAYED = {"policy": [0, 0, 1, 0], "policy-sampled": [0, 0, 0, 0]}


def keep(planning, seed, successes):
    """A kept file of four episodes in two layouts; the world itself always succeeds."""
    rows = [
        row
        for planner, own in {"random": [0, 0, 0, 0], **successes, "real-world": [1, 1, 1, 1]}.items()
        for row in (
            {"planner": planner, "horizon": 4, "metric": "plan_success", "value": sum(own) / 4, "successes": own},
            {"planner": planner, "horizon": 4, "metric": "plan_calls", "value": 8.0 + seed},
        )
    ]
    facts = {"recipe": planning.acting.recipes("sokoban", seed), "layouts": ["a", "a", "b", "b"], "rows": rows}
    planning.KEPT.mkdir(exist_ok=True)
    planning._kept("sokoban", seed).write_text(json.dumps(facts))


def test_a_cell_is_the_mean_of_the_seeds_and_gains_are_paired(planning, monkeypatch):
    monkeypatch.setattr(planning, "HORIZONS", (4,))
    for seed in (0, 1):
        keep(planning, seed, PLAYED | {planning.RUN: [1, 0, 1, 1]})
    told, lines, gains = (planning.table().partition("|  | success")[0], *planning.table().split("Differences,"))
    assert told == "Not run yet: Sokoban, 6 x 6, one box (seed 2); FrozenLake, 4 x 4, not slippery.\n\n"
    # In each layout one of two episodes more.
    likeliest, drawn = planning.BASELINES.values()
    assert f"one box: planning in the learned model | {likeliest} | +50.0 [+50.0, +50.0] |" in gains
    assert f"one box: planning in the learned model | {drawn} | +75.0 [" in gains
    assert "one box: planning in the learned model | 75.0 [" in lines
    assert "75.0 [75.0, 75.0]" not in lines
    assert "| 8.5 | 2 |" in lines
    keep(planning, 2, PLAYED | {planning.RUN: [1, 0, 1, 1]})
    assert planning.table().startswith("Not run yet: FrozenLake, 4 x 4, not slippery.\n\n|")


def test_a_kept_file_of_another_recipe_is_left_out(planning, monkeypatch):
    monkeypatch.setattr(planning, "HORIZONS", (4,))
    for seed in (0, 1):
        keep(planning, seed, PLAYED | {planning.RUN: [1, 0, 1, 1]})
    other = json.loads(planning._kept("sokoban", 0).read_text())
    planning._kept("sokoban", 0).write_text(json.dumps(other | {"recipe": other["recipe"] + "# of another day"}))
    assert "one box (seeds 0, 2); " in planning.table()
    assert "| 9.0 | 1 |" in planning.table()
    planning._kept("sokoban", 1).unlink()
    assert planning.table() == "Not run yet.\n"


def test_what_fails_is_told_and_not_kept(planning, tmp_path, monkeypatch):
    monkeypatch.setattr(planning.acting, "start", lambda world, seed, runs: (tmp_path / "start", ""))
    monkeypatch.setattr(planning.acting, "learn", lambda world, seed, start, runs: (tmp_path / "gone", ""))
    assert planning.run("sokoban", 0, tmp_path).startswith("gone: ")
    monkeypatch.setattr(planning.acting, "learn", lambda world, seed, start, runs: (start, "exit code 2"))
    assert planning.run("sokoban", 0, tmp_path) == "exit code 2"
    monkeypatch.setattr(planning.acting, "start", lambda world, seed, runs: (tmp_path, "exit code 3"))
    assert planning.run("sokoban", 0, tmp_path) == "exit code 3"
    assert not (tmp_path / "kept").exists()


def test_the_page_shows_what_the_kept_files_hold():
    planning = load_benchmark("planning")
    page = planning.PAGE.read_text(encoding="utf-8")
    assert page.split("<!-- planning:begin -->")[1].split("<!-- planning:end -->")[0] == f"\n\n{planning.table()}\n"
