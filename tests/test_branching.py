"""A run that begins where another ended takes over its phases, and is what it would have been alone."""

import json
import os

import pytest
from test_run import RECIPE, refused, rows, write
from whole_runs import contents, phases_of

MORE = """
[inferred]
pairs = 20
steps = 2
batch = 4
rounds = 1
"""
LONG = ["--methods", '["warmup", "bootstrap"]']


@pytest.fixture
def words(tmp_path):
    # Steps enough for the inverse model to write something.
    recipe = RECIPE.replace("steps = 2", "steps = 60\nlearning_rate = 5e-3")
    (tmp_path / "recipe.toml").write_text(recipe + MORE)
    write(tmp_path / "in.jsonl", rows())
    return ["train", tmp_path / "recipe.toml", "--data", tmp_path / "in.jsonl", "--out"]


@pytest.fixture
def base(swirl, words, tmp_path):
    code, _, stderr = swirl(*words, tmp_path / "base")
    assert code == 0, stderr
    return tmp_path / "base"


def ledger(run):
    return {phase["name"]: phase for phase in json.loads((run / "ledger.json").read_text())["phases"]}


def test_it_is_the_run_that_it_would_have_been_alone(swirl, words, base, tmp_path):
    for more in (["--begin-from", base], []):
        code, _, stderr = swirl(*words, tmp_path / ("branch" if more else "alone"), *LONG, *more)
        assert code == 0, stderr
    branch, alone = tmp_path / "branch", tmp_path / "alone"
    names = ["data", "start", "warmup-forward-sft", "warmup-inverse-sft", "bootstrap1-label", "bootstrap1-forward-sft"]
    assert phases_of(branch) == phases_of(alone) == [*names, "test"]
    assert contents(branch) == contents(alone)
    for name in names[:4]:
        assert ledger(branch)[name]["seconds_cpu"] == pytest.approx(ledger(base)[name]["seconds_cpu"], abs=0.5)
    weights = "phases/02-warmup-forward-sft/model.safetensors"
    assert os.path.samefile(branch / weights, base / weights)  # not kept twice


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--methods", '["bootstrap"]'], "ran ['warmup'], which is not what methods = ['bootstrap'] begins with"),
        ([*LONG, "--warmup.steps", 3], "was made with another recipe: warmup was "),
        ([*LONG, "--seed", 1], "was made with another recipe: seed was 0, now 1"),
    ],
)
def test_another_recipe_is_refused(swirl, words, base, tmp_path, more, message):
    refused(swirl(*words, tmp_path / "branch", "--begin-from", base, *more), message)


def test_what_is_damaged_there_is_not_taken(swirl, words, base, tmp_path):
    (base / "phases/02-warmup-forward-sft/model.safetensors").write_bytes(b"")
    refused(swirl(*words, tmp_path / "branch", "--begin-from", base, *LONG), "mend that run first")
    refused(swirl(*words, tmp_path / "other", "--begin-from", tmp_path, *LONG), "is not a run folder")
