"""The published tables, from files that hold known numbers."""

import importlib.util
import json
from pathlib import Path

import pytest

from swirl.compare.variants import variant
from swirl.recipe import load_recipe

PATH = Path(__file__).parent.parent / "benchmarks" / "results.py"


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The module, whose finished runs are in a folder of its own."""
    spec = importlib.util.spec_from_file_location("results", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "KEPT", tmp_path)
    return module


def keep(folder, name, seed, stages):
    rows = [
        {"split": "test", "phase": stage, "role": role, "metric": metric, "value": value}
        for stage, values in stages.items()
        for (role, metric), value in zip(
            [("forward", "exact_match_changed"), ("inverse", "action_exact_match_changed")], values, strict=True
        )
    ]
    facts = {"seed": seed, "cpu_seconds": {"warmup-forward-sft": 10.0, "verified1-label": 5.0, "test": 7.0}}
    (folder / f"{name}-seed{seed}.json").write_text(json.dumps({**facts, "rows": rows}))


def test_tables_say_how_often_how_much_and_how_far(results, tmp_path):
    keep(tmp_path, "minigrid", 0, {"copy-input": (0.0, 0.1), "warmup": (0.2, 0.6), "verified": (0.6, 0.6)})
    keep(tmp_path, "minigrid", 1, {"copy-input": (0.0, 0.1), "warmup": (0.4, 0.7), "verified": (0.3, 0.9)})
    keep(tmp_path, "minigrid-oracle", 0, {"warmup": (1.0, 1.0)})
    stages, gains = results.tables().split("\n\n")
    verified = next(line for line in stages.splitlines() if "| verified |" in line)
    assert verified.startswith("| minigrid | verified | 2 | 15 | 0.450 (0.300–0.600) |")
    assert "| minigrid | copy-input | 2 |  | 0.000 (0.000–0.000) |" in stages
    row = [cell.strip() for cell in gains.splitlines()[2].strip("|").split("|")]
    assert row[:2] == ["minigrid", "2"]
    assert row[2:5] == [
        "1 of 2",
        "0.150 (-0.100–0.400)",
        "0.500 (0.500–0.500), 1 of 2 seeds",
    ]  # (0.6 - 0.2) / (1.0 - 0.2), seed 0
    assert row[5:] == ["1 of 2", "0.100 (0.000–0.200)", "0.000 (0.000–0.000), 1 of 2 seeds"]
    assert len(gains.splitlines()) == 3  # an oracle is no gain over itself


def test_one_run_can_be_shown_alone(results, tmp_path):
    keep(tmp_path, "minigrid", 0, {"warmup": (0.2, 0.6), "verified": (0.6, 0.6)})
    keep(tmp_path, "minigrid-published", 0, {"warmup": (0.2, 0.6), "swirl": (0.6, 0.6)})
    assert "minigrid-published" in results.tables()
    assert "minigrid-published" not in results.tables(["minigrid"])


def test_no_runs_leave_the_tables_as_they_are(results):
    with pytest.raises(SystemExit, match="holds no finished run"):
        results.tables()


def test_columns_in_which_nothing_is_known_are_left_out(results, tmp_path):
    keep(tmp_path, "minigrid", 0, {"copy-input": (0.0, 0.1), "warmup": (0.2, 0.6), "verified": (0.6, 0.7)})
    stages, gains = results.tables(["minigrid"]).split("\n\n")
    titles = [table.splitlines()[0].strip("| ").split(" | ") for table in (stages, gains)]
    assert titles[0] == ["run", "stage", "seeds", "CPU s", "next state, exact", "action, exact"]
    assert titles[1][2:] == ["forward: better", "forward: gain", "inverse: better", "inverse: gain"]
    assert "| minigrid | warmup | 1 | 10 | 0.200 (0.200–0.200) | 0.600 (0.600–0.600) |" in stages


def test_every_page_has_the_marks_of_its_tables(results):
    for page, mark, runs in results.PAGES:
        text = (PATH.parent.parent / page).read_text(encoding="utf-8")
        assert text.count(f"<!-- {mark}:begin -->") == text.count(f"<!-- {mark}:end -->") == 1
        assert set(runs) <= set(results.CELLS)
    text = (PATH.parent.parent / "docs" / "results.md").read_text(encoding="utf-8")
    for mark in results.COMPARED:
        assert text.count(f"<!-- {mark}:begin -->") == text.count(f"<!-- {mark}:end -->") == 1
        recipe, methods, _ = results.COMPARED[mark]
        for method in methods:
            variant(load_recipe(PATH.parent.parent / "recipes" / f"{recipe}.toml"), method)
