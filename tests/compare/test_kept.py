"""What a finished run leaves behind, from a run folder with known numbers."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from swirl.compare import kept
from swirl.config import Data, Recipe


def test_intervals_are_over_layouts_or_where_there_are_few_over_trajectories():
    def table(layouts):
        trajectories = ["a", "a", "b", "c", "d", "e", "f"]
        states = [[{"type": "text", "text": "s"}]] * 7
        return pa.table({"layout": layouts, "trajectory": trajectories, "step": [0, 1, 0, 0, 0, 0, 0], "state": states})

    assert kept.clusters(table(["p", "p", "q", "q", "r", "s", "t"])).tolist() == [0, 0, 1, 1, 2, 3, 4]
    assert kept.clusters(table(["p", "p", "q", "q", "r", "s", "s"])).tolist() == [0, 0, 1, 2, 3, 4, 5]


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
        # Interrupted after 20 seconds, which the log knows of and the ledger does not.
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
