"""A run that is killed, wherever, and started again by the same command ends as the run that nothing happened to."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from whole_runs import PHASES, RECIPE, contents, differing, phases_of

pytestmark = pytest.mark.slow
WARM, ONE, TWO = "warmup-forward-sft", "swirl1-forward-grpo", "swirl1-inverse-grpo"

# Moments in the order in which one run dies at them; phase, event and number as `whole_runs._Moments` counts them since
# the last start; what that start, the one after the death before, has to say.
DEATHS = {
    "the first phase is about to be put in place": ("data", "rename", 1, "phase data: started"),
    "pre-training, a step": ("pretrain-forward-sft", "step", 4, "phase data: continued"),
    "pre-training, weights half saved": ("pretrain-inverse-sft", "weights", 2, "continues at step 3 of 6"),
    "warm-up, before the first save": (WARM, "step", 2, "continues at step 3 of 6"),
    "warm-up, after a save": (WARM, "step", 7, f"{WARM}: continued"),
    "warm-up, weights half saved": (WARM, "weights", 1, "continues at step 4 of 8"),
    "warm-up, optimizer half saved": (WARM, "state", 1, "continues at step 4 of 8"),
    "warm-up, saved but not vouched for": (WARM, "seal", 1, "continues at step 4 of 8"),
    "warm-up, validation": (WARM, "token", 30, "continues at step 4 of 8"),
    "warm-up, half exported": (WARM, "copy", 3, f"{WARM}: continued"),
    "warm-up, trainer's checkpoints half deleted": (WARM, "unlink", 5, f"{WARM}: continued"),
    "warm-up, trainer's checkpoints deleted": (WARM, "rename", 1, "continues at step 4 of 8"),
    "warm-up, in place but not in the ledger": (WARM, "replace", 6, f"{WARM}: continued"),
    "between roles": (WARM, "done", 1, f"{WARM}: continued"),
    "between methods": ("warmup-inverse-sft", "done", 1, f"{WARM}: finished before, skipped"),
    "relabelling, pairs written": ("verified1-label", "seal", 1, "warmup-inverse-sft: finished before, skipped"),
    "relabelling, training": ("verified1-inverse-sft", "step", 5, "verified1-label: continued"),
    "labels for Phase I": ("swirl1-label", "token", 5, "continues at step 3 of 6"),
    "Phase I, the first generation": (ONE, "token", 10, "swirl1-label: continued"),
    "Phase I, after a save": (ONE, "step", 3, f"{ONE}: continued"),
    "Phase I, generation after a save": (ONE, "token", 10, "continues at step 2 of 4"),
    "Phase I, optimizer half saved": (ONE, "state", 1, "continues at step 2 of 4"),
    "between phases": (ONE, "done", 1, "continues at step 2 of 4"),
    "Phase II, the second generation": (TWO, "step", 1, f"{ONE}: finished before, skipped"),
    "Phase II, weights half saved": (TWO, "weights", 2, f"{TWO}: continued"),
    "test": ("test", "token", 10, "continues at step 2 of 4"),
    "results": ("test", "done", 1, "phase test: continued"),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The words of the command but the run folder, and the folder of a run that was left alone."""
    folder = tmp_path_factory.mktemp("resume")
    (folder / "recipe.toml").write_text(RECIPE)
    words = ["train", str(folder / "recipe.toml"), "--cache", str(folder / "cache"), "--out"]
    done = subprocess.run(
        [sys.executable, "-m", "swirl.cli", *words, str(folder / "undisturbed")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    return words, folder / "undisturbed"


def test_the_undisturbed_run_has_every_kind_of_phase_and_each_trains(undisturbed):
    _, run = undisturbed
    assert phases_of(run) == PHASES
    assert {path.name for path in (run / "phases").iterdir() if path.name.startswith(".")} == set()
    weights = [value for name, value in contents(run).items() if name.endswith("model.safetensors")]
    assert len(weights) == len(set(weights)) == 9


def test_a_run_killed_at_every_kind_of_moment_ends_bit_identical(swirl, undisturbed):
    words, expected = undisturbed
    out = expected.with_name("killed")
    for name, (*moment, said) in DEATHS.items():
        code, _, stderr = swirl(*words, out, moment=(*moment, "kill"))
        assert code == -signal.SIGKILL, f"{name}: ended with {code}\n{stderr}"
        assert said in stderr, f"{name}: not said: {said}\n{stderr}"
    code, stdout, stderr = swirl(*words, out)
    assert code == 0, stderr
    assert "phase test: finished before, skipped" in stderr
    assert differing(out, expected) == []
    assert "copy-input" in stdout


def test_a_finished_run_is_left_as_it_is(swirl, undisturbed):
    words, run = undisturbed
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}
    assert swirl(*words, run)[0] == 0
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}
    rewritten = {path.name for path in before if before[path][0] != after[path][0]}
    assert rewritten == {"lock", "metrics.jsonl", "results.json", "held_out.png", "training.png"}
    assert {path.name for path in before if before[path][1] != after[path][1]} == {"lock"}
