"""Agents that train in a learned world. The model is always right, so what happens in it happens in the world."""

import json

import pyarrow.parquet as pq
import pytest
from counting import run_of, state_of, trained

from swirl import worlds
from swirl.agents import plan, session, settings, simulators
from swirl.agents.imagined import ImaginedWorld
from swirl.agents.learned import check_world
from swirl.agents.planning import Search
from swirl.data import Origin
from swirl.errors import InputError

OVERRIDES = {
    "play.world": "counter",
    "play.turns": "3",
    "play.per_turn": "2",
    "play.actions": "4",
    "model.max_length": "400",
    "rl.iterations": "3",
    "rl.save_every": "3",
    "evaluation.seeds": "1",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, one_thread):
    return trained(tmp_path_factory.mktemp("counting"))


def train(recipe_file, small, folder, **more):
    recipe = settings.load(recipe_file, small | OVERRIDES | more)
    return session.run_recipe(recipe, folder / "run")


def test_what_is_done_in_a_model_that_is_right_is_what_is_done_in_the_world(
    checkpoint, recipe_file, small, tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(worlds.WORLDS, "counter", "counting:Counter")
    results = train(recipe_file, small, tmp_path, **{"rl.model": str(checkpoint)})
    assert "whether it was trained on those that agents are tested on cannot be told" in caplog.text
    found = {
        arena: {
            (row["policy"], row["metric"]): (row["value"], row["n"]) for row in results["rows"] if row["arena"] == arena
        }
        for arena in ("real", "imagined")
    }
    assert found["imagined"].pop(("rl", "uncertainty"))[0] == found["imagined"].pop(("base", "uncertainty"))[0] == 0
    assert found["real"] == found["imagined"]
    assert ("rl", "pass_at_1") in found["real"]
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["steps"] for row in log) > 0
    assert results["steps"] == {"self-play": 0, "rl": 0}, "none of them in the world"


def test_rewards_that_no_rule_tells_are_learned_from_the_runs_labels(
    checkpoint, recipe_file, small, tmp_path, monkeypatch
):
    monkeypatch.setitem(worlds.WORLDS, "counter", "counting:Silent")
    with pytest.raises(InputError, match="has no labelled transitions to learn it from"):
        train(recipe_file, small, tmp_path / "alone", **{"rl.model": str(checkpoint)})
    monkeypatch.setattr("swirl.agents.stages.trained_layouts", lambda runs: set())
    model = run_of(checkpoint, tmp_path / "counter")
    results = train(recipe_file, small, tmp_path, **{"rl.model": str(model), "rl.iterations": "1"})
    scores = {
        row["arena"]: row["value"] for row in results["rows"] if (row["policy"], row["metric"]) == ("rl", "score")
    }
    assert scores["imagined"] == pytest.approx(scores["real"], abs=1e-3)


def test_a_model_that_was_trained_on_what_is_tested_is_refused(checkpoint, recipe_file, small, tmp_path, monkeypatch):
    monkeypatch.setitem(worlds.WORLDS, "counter", "counting:Counter")
    model = run_of(checkpoint, tmp_path / "counter")
    with pytest.raises(InputError, match=r"was trained on 1 of the 1 layouts that agents are tested on"):
        train(recipe_file, small, tmp_path, **{"rl.model": str(model)})


def test_a_model_or_a_recording_of_another_world_is_refused(checkpoint, recipe_file, small, tmp_path, monkeypatch):
    monkeypatch.setitem(worlds.WORLDS, "counter", "counting:Counter")
    model = run_of(checkpoint, tmp_path / "counter")
    written = pq.read_table(model / "data" / "labelled.parquet")
    for world in ("counter", "frozenlake"):
        noted = written.replace_schema_metadata(Origin(world, {}, 0).metadata())
        pq.write_table(noted, model / "data" / "test.parquet")
        pq.write_table(noted, tmp_path / f"{world}.parquet")
    message = "is of the world 'frozenlake', not of 'counter'"
    with pytest.raises(InputError, match=message):
        train(recipe_file, small, tmp_path, **{"rl.model": str(model)})
    with pytest.raises(InputError, match=message):
        train(recipe_file, small, tmp_path, method="clone", **{"clone.data": str(tmp_path / "frozenlake.parquet")})
    with pytest.raises(InputError, match=message):
        plan.measure(worlds.make("counter"), [model], Search())
    with pytest.raises(InputError, match=message):
        ImaginedWorld(model, [state_of(1)], "counter")
    check_world(tmp_path / "counter.parquet", "counter")
    check_world(checkpoint, "sudoku")  # of which nothing is known


def test_a_model_that_cannot_tell_what_follows_is_warned_of_and_pays_nothing(
    checkpoint, recipe_file, small, tmp_path, monkeypatch, caplog
):
    """Two models that never agree, of which one can be read: each step is half certain."""
    monkeypatch.setitem(worlds.WORLDS, "counter", "counting:Counter")
    told = iter(range(10**6))
    monkeypatch.setattr(simulators, "predict", lambda forward, rows, n, seed: [[f"count 2{next(told)}"] for _ in rows])
    both = f'["{checkpoint}", "{checkpoint}"]'
    results = train(recipe_file, small, tmp_path, **{"rl.model": both, "rl.penalty": "2"})
    found = {row["metric"]: row["value"] for row in results["rows"] if row["arena"] == "imagined"}
    assert found["uncertainty"] == 0.5
    assert found["score"] <= 0
    assert "was unsure of 50 % of the last steps in it" in caplog.text
