"""Seconds of all attempts at a phase, counted by a clock that only the phase's work moves."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swirl import clock
from swirl.ledger import Run, read_ledger

# An attempt that spends 100 seconds, 30 of them after its last checkpoint, and is killed once they are noted.
KILLED = """
import os, signal, sys, time
from pathlib import Path
from swirl import clock
from swirl.ledger import Run

now, folder = 0.0, Path(sys.argv[1])
before = clock.noted(folder / "clock.jsonl", "train")
clock.time.process_time = lambda: now
clock.INTERVAL = 0.01

def work(staging):
    global now
    now += 70
    (staging / "checkpoint").write_text("whole")
    now += 30  # validation, say
    while clock.noted(folder / "clock.jsonl", "train") < before + 100:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

with Run.open(folder, "seed = 1") as run:
    run.phase("train", work)
"""


@pytest.fixture
def spend(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(clock.time, "process_time", lambda: now[0])

    def more(seconds):
        now[0] += seconds

    return more


def test_a_phase_costs_what_all_its_attempts_took_whenever_they_were_killed(tmp_path, spend):
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, tmp_path],
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert clock.noted(tmp_path / "clock.jsonl", "train") == 200
    with Run.open(tmp_path, "seed = 1") as run:
        run.phase("train", lambda staging: spend(20))
        run.phase("next", lambda staging: spend(3))
    assert [phase.seconds_cpu for phase in read_ledger(tmp_path)[1]] == [220, 3]


def test_an_attempt_that_failed_counts_and_what_was_fetched_counts_once(tmp_path, spend):
    def fails(staging):
        spend(7)
        raise RuntimeError

    with pytest.raises(RuntimeError), Run.open(tmp_path, "seed = 1") as run:
        run.phase("a", fails, seconds_before=1000)
    with Run.open(tmp_path, "seed = 1") as run:
        run.phase("a", lambda staging: spend(2), seconds_before=1000)
        assert run.phases[0].seconds_cpu == 1009


def test_a_phase_that_is_made_anew_does_not_cost_what_it_cost_before(tmp_path, spend):
    for seconds in (5, 6):
        with Run.open(tmp_path, "seed = 1") as run:
            folder = run.phase("a", lambda staging, seconds=seconds: spend(seconds))
            assert run.phases[0].seconds_cpu == seconds
        folder.rmdir()


def test_a_note_that_was_cut_short_is_not_read(tmp_path):
    file = tmp_path / "clock.jsonl"
    assert clock.noted(file, "a") == 0
    notes = [json.dumps({"phase": "a", "seconds": seconds}) for seconds in (10.5, 123.25)]
    for cut in range(1, len(notes[1])):
        file.write_text(f"{notes[0]}\n{notes[1][:cut]}")
        assert clock.noted(file, "a") == 10.5
    file.write_text("\n".join(notes))
    assert (clock.noted(file, "a"), clock.noted(file, "b")) == (123.25, 0)


def test_a_full_disk_stops_no_work_by_itself(tmp_path, spend, monkeypatch):
    """The thread goes on trying; the last note tells."""
    monkeypatch.setattr(clock, "INTERVAL", 0.01)
    tried = []

    def full(descriptor):
        tried.append(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(clock.os, "fsync", full)
    with pytest.raises(OSError, match="No space"), clock.counting(tmp_path / "clock.jsonl", "a", False):
        while len(tried) < 3:
            time.sleep(0.01)
