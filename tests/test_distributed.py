"""Two processes on CPU: one run, the work divided, the same weights in both, one writer."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from whole_runs import PHASES, RECIPE, contents, differing, phases_of

HERE = Path(__file__).parent
RECIPE = RECIPE.replace('"pretrain", ', "")
PHASES = [name for name in PHASES if not name.startswith("pretrain")]
TRAINED = [name for name in PHASES if name.endswith(("sft", "grpo"))]


def two(folder, *words, death="-", out="two"):
    """`torchrun` of two; its exit code, stdout, stderr, and what each process noted."""
    notes = folder / f"notes-{out}"
    notes.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
        + [str(word) for word in (HERE / "one_of_many.py", notes, death, *words, "--out", folder / out)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)},
        timeout=1200,
    )
    noted = [json.loads(path.read_text()) for path in sorted(notes.glob("*.json"))]
    return done.returncode, done.stdout, done.stderr, noted


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def words(folder):
    return ["train", folder / "recipe.toml", "--cache", folder / "cache"]


@pytest.fixture(scope="module")
def undisturbed(folder, words):
    return two(folder, *words)


def log(run, phase):
    (path,) = run.glob(f"phases/*-{phase}/log.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_share_one_run(undisturbed, folder):
    code, stdout, stderr, (main, other) = undisturbed
    assert code == 0, stderr
    assert main["main"] and not other["main"]
    for noted in (main, other):
        assert (noted["backend"], noted["processes"]) == ("gloo", 2)
        assert len(noted["trained"]) == len(TRAINED)
        assert {(phase["rows"], phase["processes"]) for phase in noted["trained"]} == {(4, 2)}  # of 8 rows per step
        assert {phase["threads"] for phase in noted["trained"]} == {1}
    hashes = [phase["weights"] for phase in main["trained"]]
    assert hashes == [phase["weights"] for phase in other["trained"]]
    assert len(set(hashes)) == len(hashes)
    assert phases_of(folder / "two") == PHASES
    assert stdout.count("Validation (") == 1  # one of them tells
    assert stderr.count("phase test: finished") == 1


@pytest.mark.slow
def test_the_main_process_alone_writes(undisturbed):
    _, _, _, (main, other) = undisturbed
    assert len(main["written"]) > 100
    # But for the trainer's checkpoints, whose folder every process makes, to put its own random state there.
    rest = [
        write for write in other["written"] if not re.fullmatch(r"os\.mkdir phases/.*/trainer/checkpoint-\d+", write)
    ]
    assert rest == []


@pytest.mark.slow
def test_two_processes_train_on_the_batch_that_one_would(undisturbed, swirl, folder, words):
    code, _, stderr = swirl(*words, "--out", folder / "one")
    assert code == 0, stderr
    for phase in ("warmup-forward-sft", "warmup-inverse-sft"):
        one, both = (log(folder / name, phase) for name in ("one", "two"))
        assert [row["num_tokens"] for row in both] == [row["num_tokens"] for row in one]
        assert [row["loss"] for row in both] == pytest.approx([row["loss"] for row in one], rel=1e-4)
        assert [row["grad_norm"] for row in both] == pytest.approx([row["grad_norm"] for row in one], rel=1e-3)
    one, both = (contents(folder / name) for name in ("one", "two"))
    assert set(one) == set(both)
    assert {name for name in one if one[name] == both[name]} >= {
        "data/labelled.parquet",
        "phases/01-start/model.safetensors",
    }


@pytest.mark.slow
def test_two_processes_resume_bit_identically(undisturbed, folder, words):
    for death in ("1:warmup-forward-sft:6", "0:swirl1-forward-grpo:3", "1:swirl1-inverse-grpo:3"):
        code, _, stderr, _ = two(folder, *words, death=death, out="killed")
        assert code != 0
        assert "SIGKILL" in stderr, stderr
    code, _, stderr, _ = two(folder, *words, out="killed")
    assert code == 0, stderr
    assert "swirl1-inverse-grpo: continues at step 2 of 4" in stderr
    assert differing(folder / "killed", folder / "two") == []


@pytest.mark.slow
def test_an_error_of_the_user_ends_both_processes(folder, words):
    code, _, stderr, _ = two(folder, *words, "--data.labels", "100000", out="refused")
    assert code == 1  # the launcher's
    assert "swirl: labels = 100000" in stderr
    assert "exitcode  : 2" in stderr
    assert phases_of(folder / "refused") == []


@pytest.mark.slow
def test_a_batch_that_two_cannot_share_is_refused(folder, words):
    code, _, stderr, _ = two(folder, *words, "--warmup.batch", "7", out="odd")
    assert code == 1
    assert "7 rows per step do not divide into 2 processes x 3 rows" in stderr
    assert phases_of(folder / "odd") == ["data", "start"]
