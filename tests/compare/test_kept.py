"""What a finished run leaves behind, from a run folder with known numbers."""

import json
import tomllib
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swirl.compare import kept
from swirl.compare.kept import Cell
from swirl.config import Data, Recipe
from swirl.errors import InputError


def test_a_test_part_was_drawn_unless_it_is_of_a_file_or_fixed_by_the_world(tmp_path):
    for part in ("free", "fixed"):
        split = pa.array([None, None] if part == "free" else ["train", "test"], pa.string())
        pq.write_table(pa.table({"split": split}), tmp_path / part)
    assert kept.drawn(Recipe(), tmp_path / "free")
    assert not kept.drawn(Recipe(), tmp_path / "fixed")
    assert not kept.drawn(Recipe(data=Data(path="recording.jsonl")), tmp_path / "recording.jsonl")


def test_test_rows_are_known_again():
    row = {"state": "a", "action": "go", "next_state": "b"}
    same = kept.tested_on([row, row])
    assert same == kept.tested_on([{**row, "step": 3}, row])
    assert len({same, kept.tested_on([row]), kept.tested_on([row, {**row, "action": "no"}])}) == 3


def test_validation_is_that_of_the_last_phase_that_was_validated():
    rows = [
        {"split": split, "phase": phase, "metric": metric, "value": value}
        for split, phase, metric, value in [
            ("validation", "one", "bleu", 0.1),
            ("validation", "two", "bleu", 0.2),
            ("validation", "two", "rouge_l", 0.3),
            ("test", "test", "bleu", 0.4),
        ]
    ]
    assert kept._last_validation(rows) == {"bleu": 0.2, "rouge_l": 0.3}
    assert kept._last_validation([]) == {}


def test_cost_adds_up_and_rewards_are_those_of_the_ends(tmp_path):
    logs = {
        "data": None,
        # Killed soon after 20 seconds, which the log knows of and the ledger's clock had not noted yet.
        "warmup-forward-sft": [{"num_tokens": 50.0, "cpu_seconds": 20.0}, {"num_tokens": 100.0, "cpu_seconds": 25.0}],
        "swirl1-forward-grpo": [{"reward": float(i), "num_tokens": 10.0 * i} for i in range(20)] + [{"loss": 0.1}],
        "test": None,
    }
    phases = []
    for name, lines in logs.items():
        (tmp_path / name).mkdir()
        phases.append({"name": name, "folder": name, "seconds_cpu": 5.04})
        if lines is not None:
            (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "ledger.json").write_text(json.dumps({"phases": phases}))
    assert kept._cost(tmp_path) == {
        "data": {"cpu_seconds": 0.0, "tokens": 0.0},
        "warmup-forward-sft": {"cpu_seconds": 25.0, "tokens": 100.0},
        "swirl1-forward-grpo": {"cpu_seconds": 30.0, "tokens": 290.0},
        "test": {"cpu_seconds": 35.1, "tokens": 290.0},
    }
    assert kept._rewards(tmp_path) == {"swirl1-forward-grpo": {"first": 0.5, "last": 18.5}}


def test_a_file_is_read_only_where_its_recipe_and_its_version_are_these(tmp_path):
    cell = Cell("swirl", Recipe(seed=1), "swirl-seed1")
    path = tmp_path / "swirl-seed1.json"

    def written(**facts):
        path.write_text(json.dumps({"recipe": tomllib.loads(cell.recipe.toml()), **facts}))
        return kept.find(tmp_path, cell)

    assert kept.find(tmp_path, cell) is None
    assert written() and written(version=kept.VERSION)  # the first version had no number
    with pytest.raises(InputError, match=r"swirl-seed1.json was measured by version 7 of a comparison, .* remove it"):
        written(version=7)
    other = Recipe(seed=1, data=replace(cell.recipe.data, labels=77))
    path.write_text(json.dumps({"recipe": tomllib.loads(replace(other, threads=5).toml())}))
    labels = cell.recipe.data.labels
    told = rf"another recipe: threads was 5, now {cell.recipe.threads}; data.labels was 77, now {labels}; remove it"
    with pytest.raises(InputError, match=told):
        kept.find(tmp_path, cell)


def test_samples_are_drawn_of_the_worst_and_false_changes():
    """Rows 0 to 9 change, and 5 and 8 of them are predicted wrong; 10 to 19 do not, and 12, 14, ... 18 are changed."""
    rows = [{"state": f"lamp {i}", "action": "press", "next_state": f"lamp {i}" + " on" * (i < 10)} for i in range(20)]
    texts = {i: row["next_state"] for i, row in enumerate(rows)}
    texts |= {i: "lamp" for i in (5, 8)} | {i: "lamp off" for i in (12, 14, 16, 18)}
    wrote = {
        ("copy-input", "forward"): {},
        ("warmup", "forward"): texts,
        ("warmup", "inverse"): {3: "wait", 13: "wait"},
    }
    found = kept._samples("forward", wrote, rows, 0)
    kinds = [sample["kind"] for sample in found]
    assert kinds.count("drawn") == kinds.count("false change") == 3
    by_kind = {kind: {s["row"] for s in found if s["kind"] == kind} for kind in kinds}
    assert by_kind["drawn"] < set(range(10)) and by_kind["false change"] < {12, 14, 16, 18}
    assert by_kind["worst"] == {5, 8} - by_kind["drawn"]
    assert {s["row"] for s in kept._samples("forward", wrote, rows, 1) if s["kind"] == "drawn"} != by_kind["drawn"]
    [action] = kept._samples("inverse", wrote, rows, 0)  # where nothing changed there is no action to infer
    assert (action["row"], action["score"]) == (3, 0)
