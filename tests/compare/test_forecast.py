"""What a comparison would run."""

import json
from pathlib import Path

import pytest

from swirl import cli
from swirl.compare import comparison, forecast
from swirl.compare.cells import Place
from swirl.methods import plan as dry_run
from swirl.recipe import load_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "minigrid.toml"


@pytest.fixture(autouse=True)
def seconds(monkeypatch):
    """A warm-up of 10 seconds, 5 of any other method, 1 of the test; the recipes that were asked about."""
    asked = []

    def plan(recipe, cache):
        asked.append(recipe.methods)
        own = [{"phase": "start", "seconds": 10}, *({"phase": f"{name}1", "seconds": 5} for name in recipe.methods[2:])]
        return {"phases": [*own, {"phase": "test", "seconds": 1}]}

    monkeypatch.setattr(dry_run, "plan", plan)
    return asked


def test_a_shared_warm_up_counts_once_and_what_is_kept_not_at_all(tmp_path, seconds):
    place = Place(tmp_path / "runs", tmp_path / "cells", tmp_path)
    plan = comparison.Plan(load_recipe(RECIPE), ["swirl"], [0, 1])
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "swirl-seed0.json").write_text("{}")
    found = forecast.forecast(plan, place)
    names = [(run["run"].split("-seed")[0], run["kept"], run["seconds"]) for run in found["runs"]]
    assert names == [
        ("swirl", True, 0),
        ("warmup", False, 11),
        ("verified", False, 6),
        ("warmup", False, 11),
        ("swirl", False, 6),
        ("verified", False, 6),
    ]
    assert found["seconds"] == 40
    assert len(seconds) == 4  # each method and what it begins from, whatever the seed
    assert not (tmp_path / "runs").exists()


def test_learning_rates_that_are_yet_to_be_tried_are_runs(tmp_path):
    place = Place(tmp_path / "runs", tmp_path / "cells", tmp_path)
    plan = comparison.Plan(load_recipe(RECIPE), ["swirl"], [0], [1e-4, 1e-3])
    names = [run["run"] for run in forecast.forecast(plan, place)["runs"] if not run["run"].startswith("warmup")]
    assert sorted(names[:4]) == ["tune-swirl-0.0001", "tune-swirl-0.001", "tune-verified-0.0001", "tune-verified-0.001"]
    assert names[4:] == ["swirl-seed0", "verified-seed0"]


def test_the_command_prints_and_starts_nothing(tmp_path, capsys):
    words = ["compare", str(RECIPE), "--methods", "swirl", "--seeds", "0", "--out", str(tmp_path / "out"), "--dry-run"]
    assert cli.main(words) == 0
    assert "verified-seed0" in (shown := capsys.readouterr().out)
    assert "time  23 s, 1 at once" in shown
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == 23
    assert not (tmp_path / "out").exists()
