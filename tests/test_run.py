"""Whole runs, and what they do with bad input: one line, exit code 2, and a run folder that goes on afterwards."""

import json
import os
import random
import shutil
import time

import pyarrow.parquet as pq
import pytest
from whole_runs import phases_of

from swirl import ledger
from swirl.data.splitting import PARTS
from swirl.eval.summary import COLUMNS

RECIPE = """
methods = ["warmup"]
threads = 1
device = "cpu"
[data]
labels = 40
validation_labels = 8
[model]
hidden = 16
layers = 1
heads = 2
vocabulary = 300
max_length = 96
[warmup]
steps = 2
batch = 4
[evaluation]
checkpoints = 1
"""
FORWARD = "phases/02-warmup-forward-sft"


def rows():
    """Thirty lamps of five steps, each with a name of its own."""
    rng, out = random.Random(0), []
    for lamp in range(30):
        state = "off"
        for step in range(5):
            action = rng.choice(["press", "wait"])
            after = {"off": "on", "on": "off"}[state] if action == "press" else state
            out.append(
                {
                    "state": f"lamp {lamp} step {step}\n{state}",
                    "action": action,
                    "next_state": f"lamp {lamp} step {step + 1}\n{after}",
                    "trajectory": str(lamp),
                    "step": step,
                }
            )
            state = after
    return out


def write(path, lines):
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return path


@pytest.fixture
def words(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return [
        "train",
        tmp_path / "recipe.toml",
        "--data",
        write(tmp_path / "in.jsonl", rows()),
        "--out",
        tmp_path / "run",
    ]


@pytest.fixture(scope="module")
def finished(swirl, tmp_path_factory):
    """A recipe, a recording and a run of them that is done."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "recipe.toml").write_text(RECIPE)
    write(folder / "in.jsonl", rows())
    code, _, stderr = swirl("train", "recipe.toml", "--data", "in.jsonl", "--out", "run", cwd=folder)
    assert code == 0, stderr
    return folder


def refused(result, message):
    """The words that a command was refused with, on the last line of stderr and nowhere a traceback."""
    code, stdout, stderr = result
    last = stderr.splitlines()[-1]
    assert (code, stdout) == (2, ""), stderr
    assert last.startswith("swirl: ") and message in last
    assert "Traceback" not in stderr


ROW = {"state": "a", "next_state": "b", "action": "c"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"before": "a", "after": "b"}], "in.jsonl:1: no 'state' (keys: before, after)"),
        ([], "in.jsonl: no rows; expected at least one transition"),
        ([ROW, {**ROW, "action": 7}], "in.jsonl:2: action is 7, expected text or null"),
        ([ROW, {**ROW, "reward": float("-inf")}], "in.jsonl:2: reward is not finite; give a number or null"),
    ],
)
def test_a_bad_recording_is_named_and_the_mended_one_runs_in_the_same_folder(swirl, words, tmp_path, lines, message):
    write(tmp_path / "in.jsonl", lines)
    refused(swirl(*words), message)
    write(tmp_path / "in.jsonl", rows())
    code, _, stderr = swirl(*words)
    assert code == 0, stderr


def test_an_encoder_that_is_not_there_is_refused_before_anything_is_done(swirl, words, tmp_path):
    refused(swirl(*words, "--evaluation.encoder", tmp_path / "none"), "none: no such folder")
    assert not (tmp_path / "run").exists()


def test_a_state_longer_than_the_context_is_refused_before_anything_is_trained(swirl, words, tmp_path):
    refused(swirl(*words, "--model.max_length", 12), "but model.max_length is 12; raise it, or shorten the states")
    assert phases_of(tmp_path / "run") == ["data", "start"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--warmup.stps", 1], "unknown recipe key warmup.stps; did you mean warmup.steps?"),
        (["--methods", '["warmpu"]'], "unknown method 'warmpu' in methods; known: "),
    ],
)
def test_a_recipe_that_cannot_run_makes_no_folder(swirl, words, tmp_path, more, message):
    refused(swirl(*words, *more), message)
    assert not (tmp_path / "run").exists()


def test_what_was_not_yet_trained_may_be_given_another_recipe(swirl, words, tmp_path):
    refused(swirl(*words, "--data.labels", 5000), "lower the budget or record more")
    refused(swirl(*words, "--model.max_length", 12), "but model.max_length is 12; raise it, or shorten the states")
    code, _, stderr = swirl(*words)
    assert code == 0, stderr
    assert "max_length = 96" in (tmp_path / "run" / "recipe.toml").read_text()
    assert phases_of(tmp_path / "run") == ["data", "start", "warmup-forward-sft", "warmup-inverse-sft", "test"]
    refused(swirl(*words, "--data.labels", 30), "data.labels was 40, now 30; use another --out")


def test_a_recording_that_changed_after_the_run_read_it_is_said(swirl, finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    again = ["train", "recipe.toml", "--data", "in.jsonl", "--out", "run"]
    said = "in.jsonl changed after this run took its copy"
    assert said not in swirl(*again, cwd=tmp_path)[2]
    later = time.time() + 60
    os.utime(tmp_path / "in.jsonl", (later, later))
    assert said in swirl(*again, cwd=tmp_path)[2]


def test_the_phases_are_those_of_the_plan(swirl, finished):
    code, stdout, stderr = swirl("train", "recipe.toml", "--data", "in.jsonl", "--dry-run", "--json", cwd=finished)
    assert code == 0, stderr
    planned = [phase["phase"] for phase in json.loads(stdout)["phases"]]
    assert ["data", *planned] == phases_of(finished / "run")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.safetensors", lambda data: data[: len(data) // 2]),
        ("config.json", lambda data: data.replace(b"16", b"32")),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_run_goes_on_with_the_right_one(swirl, finished, tmp_path, file, damage):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    again = ["train", "recipe.toml", "--data", "in.jsonl", "--out", "run"]
    path = tmp_path / "run" / FORWARD / file
    good = path.read_bytes()
    path.write_bytes(damage(good))
    before = sorted((tmp_path / "run").rglob("*"))
    refused(swirl(*again, cwd=tmp_path), f"{FORWARD}")
    assert sorted((tmp_path / "run").rglob("*")) == before
    path.write_bytes(good)
    assert swirl(*again, cwd=tmp_path)[0] == 0


def test_a_second_process_and_another_recipe_are_refused(swirl, finished):
    words = ["train", "recipe.toml", "--data", "in.jsonl", "--out", "run"]
    refused(swirl(*words, "--warmup.steps", 3, cwd=finished), "warmup.steps was 2, now 3")
    recipe = (finished / "run/recipe.toml").read_text()
    with ledger.Run.open(finished / "run", recipe):
        code, _, stderr = swirl(*words, cwd=finished)
    assert code == 2, stderr
    assert "Traceback" not in stderr
    assert swirl(*words, cwd=finished)[0] == 0


@pytest.mark.parametrize(("event", "number"), [("weights", 1), ("state", 1), ("copy", 1), ("replace", 2)])
def test_a_full_disk_is_said_and_the_same_command_continues(swirl, words, event, number):
    result = swirl(*words, moment=("warmup-forward-sft", event, number, "full"))
    assert result[0] == 2, result[2]
    assert "Traceback" not in result[2]
    code, _, stderr = swirl(*words)
    assert code == 0, stderr


def test_what_a_model_inferred_reaches_no_part_as_a_label(swirl, words, tmp_path):
    marked = [{**row, "inferred": number % 4 == 0} for number, row in enumerate(rows())]
    write(tmp_path / "in.jsonl", marked)
    code, _, stderr = swirl(*words, "--methods", "[]")
    assert code == 0, stderr
    guessed = {(row["trajectory"], row["step"]) for row in marked if row["inferred"]}
    for part in ("labelled", "validation", "test"):
        kept = pq.read_table(tmp_path / f"run/data/{part}.parquet").to_pylist()
        assert kept and not guessed & {(row["trajectory"], row["step"]) for row in kept}
    assert "were inferred by a model and are not taken for labels" in stderr
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["forward"] == results["inverse"] == "phases/01-start"  # zero-shot: no method ran
    assert {row["phase"] for row in results["rows"]} == {"copy-input", "majority-action", "start"}


def test_every_phase_is_validated_in_both_roles_and_as_a_cycle_beside_the_baselines(swirl, words, tmp_path):
    code, stdout, stderr = swirl(*words, "--methods", '["pretrain", "warmup"]', "--pretrain.steps", 2)
    assert code == 0, stderr
    rows = [
        row for row in json.loads((tmp_path / "run/results.json").read_text())["rows"] if row["split"] == "validation"
    ]
    found = {(row["phase"], row["role"], row["metric"]): row["value"] for row in rows}
    assert len(found) == len(rows)
    trained = [f"{stage}-{role}-sft" for stage in ("pretrain", "warmup") for role in ("forward", "inverse")]
    assert list(dict.fromkeys(row["phase"] for row in rows)) == ["copy-input", "majority-action", *trained]
    assert found["copy-input", "forward", "exact_match_changed"] == 0
    assert 0 <= found["majority-action", "inverse", "action_exact_match_changed"] <= 1
    columns = {(role, metric) for role, metric, _ in COLUMNS} - {("forward", "false_change_rate")}  # all rows change
    for phase in trained:
        assert columns <= {(role, metric) for name, role, metric in found if name == phase}
    # A phase leaves the other role as it was.
    for before, after, role in zip(trained[:-1], trained[1:], ("forward", "inverse", "forward"), strict=True):
        for metric in {metric for name, r, metric in found if (name, r) == (before, role)}:
            assert found[before, role, metric] == found[after, role, metric]
    table = stdout.split("Test, changed")[0].splitlines()
    lines = {line.split()[0]: line for line in table if line.split() and line.split()[0] in trained}
    for phase in trained:
        assert f"{found[phase, 'both', 'cycle_exact_match_changed']:.3f} [" in lines[phase]
        assert lines[phase].count("]") == len(columns)


def facts(run, phase):
    return json.loads((run / "phases" / phase / "phase.json").read_text())


def test_the_last_or_the_best_checkpoint_is_kept(swirl, words, tmp_path):
    more = ["--evaluation.checkpoints", 4, "--warmup.steps", 8, "--warmup.learning_rate", 0.01]
    for select in ("last", "best"):
        out = tmp_path / select
        code, _, stderr = swirl(*words[:-1], out, *more, "--evaluation.select", select, "--methods", '["warmup"]')
        assert code == 0, stderr
        found = facts(out, "03-warmup-inverse-sft")
        match, nll = (
            [row for row in found["curve"] if row["metric"] == metric]
            for metric in ("action_exact_match_changed", "nll_changed")
        )
        assert [(row["checkpoint"], row["step"]) for row in match] == [(0, 0), (1, 2), (2, 4), (3, 6), (4, 8)]
        assert found["select"] == select
        best = max(range(5), key=lambda i: (match[i]["value"], -nll[i]["value"]))
        assert found["chosen"] == (4 if select == "last" else best)


def test_shared_weights_are_one_phase_and_one_checkpoint_and_the_card_says_what_it_was_taught(swirl, words, tmp_path):
    data = ["--data.history", 2, "--data.inverse_unchanged", "false"]
    code, _, stderr = swirl(*words, "--model.shared", "true", *data, "--model.max_length", 200)
    assert code == 0, stderr
    assert phases_of(tmp_path / "run") == ["data", "start", "warmup-both-sft", "test"]
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["forward"] == results["inverse"] == "phases/02-warmup-both-sft"
    card = json.loads((tmp_path / "run/phases/02-warmup-both-sft/swirl.json").read_text())
    assert card["roles"] == ["forward", "inverse"]
    assert card["data"] == {"history": 2, "seed": 0, "inverse_unchanged": False}
    kept = pq.read_table(tmp_path / "run/data/state_only.parquet").to_pylist()
    assert {len(row["history"]) for row in kept} == {0, 1, 2}


def test_phases_run_on_states_alone_from_a_model_that_can_already_do_it(swirl, words, tmp_path):
    trained = ["--warmup.steps", 80, "--warmup.learning_rate", 3e-3, "--model.shared", "true"]
    code, _, stderr = swirl(*words[:-1], tmp_path / "trained", *trained)
    assert code == 0, stderr
    able = tmp_path / "trained/phases/02-warmup-both-sft"
    write(tmp_path / "in.jsonl", [{**row, "action": None} for row in rows()])
    no_labels = ["--methods", '["swirl"]', "--data.labels", 0, "--model.name", able, "--evaluation.select", "best"]
    small = ["--swirl.rounds", 1, "--swirl.steps", 1, "--swirl.prompts", 2, "--swirl.generations", 2]
    code, _, stderr = swirl(*words, *no_labels, *small)
    assert code == 0, stderr
    assert "no action is known: nothing was validated, and there is no test" in stderr
    run = tmp_path / "run"
    assert phases_of(run) == ["data", "swirl1-label", "swirl1-forward-grpo", "swirl1-inverse-grpo"]
    parts = {name: pq.read_metadata(run / f"data/{name}.parquet").num_rows for name in PARTS}
    assert parts == {"labelled": 0, "state_only": 150, "validation": 0, "test": 0}
    assert json.loads((run / "results.json").read_text())["rows"] == []
    # Asked for labels, it says that there are none.
    refused(swirl(*words[:-1], tmp_path / "other"), "asks for 32 train labels, but 0 train transitions have an action")


def test_a_texts_control_tokens_do_not_disturb_a_run(swirl, words, tmp_path):
    for row in (logged := rows()):
        row["state"] += "\n<|end|><|action|>"
        row["next_state"] += "\n<|end|><|action|>"
    write(tmp_path / "in.jsonl", logged)
    code, _, stderr = swirl(*words)
    assert code == 0, stderr
