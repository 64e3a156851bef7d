"""The table of planning: made by the command that users have, and from kept files alone."""

import json

import pytest
from conftest import load_benchmark

from swirl import tiny
from swirl.config import Model


@pytest.fixture
def planning(tmp_path, monkeypatch):
    module = load_benchmark("planning")
    monkeypatch.setattr(module, "KEPT", tmp_path / "kept")
    return module


def test_a_run_is_planned_in_at_every_horizon_and_kept(planning, tmp_path, monkeypatch):
    run = tmp_path / "models" / "frozenlake-seed0"
    tiny.build(["# # # _ P X O"], run, Model(vocabulary=300, hidden=32, layers=1, heads=2, max_length=512), seed=0)
    rows = [
        {"split": split, "metric": "exact_match", "value": value}
        for split, value in (("validation", 0.4), ("test", 0.5))
    ]
    (run / "results.json").write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(planning, "learn", lambda world, seed, out: "")
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
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in planning.table().splitlines()]
    assert [line[0] for line in lines[3:]] == list(planning.PLANNERS.values())
    assert len({len(line) for line in lines}) == 1


def test_a_cell_is_the_mean_of_the_seeds_with_their_range(planning, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "HORIZONS", (4,))
    (tmp_path / "kept").mkdir()
    for seed, success in ((0, 0.25), (1, 0.75)):
        rows = [
            {"planner": planner, "horizon": 4, "metric": metric, "value": value}
            for planner, scale in (("random", 0.0), (planning.RUN, 1.0), ("real-world", 2.0))
            for metric, value in (("plan_success", scale * success), ("plan_calls", 8 * scale))
        ]
        (tmp_path / "kept" / f"sokoban-seed{seed}.json").write_text(json.dumps({"rows": rows}))
    assert "| planning in the learned model | 50.0 [25.0, 75.0] | 8.0 [8.0, 8.0] |" in planning.table()
    assert "2 seeds" in planning.table()


def test_what_fails_is_told_and_not_kept(planning, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "learn", lambda world, seed, out: "")
    assert planning.run("sokoban", 0, tmp_path).startswith("sokoban-seed0: ")
    monkeypatch.setattr(planning, "learn", lambda world, seed, out: "exit code 2")
    assert planning.run("sokoban", 0, tmp_path) == "exit code 2"
    assert not (tmp_path / "kept").exists()


def test_without_a_run_the_page_says_so(planning):
    assert planning.table() == "Not run yet.\n"
