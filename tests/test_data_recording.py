"""A recording that is interrupted goes on; several processes give what one gives, and none outlives the first."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from glob import glob

import pyarrow.parquet as pq
import pytest
from test_data_collect import MIX, Line

from swirl.data import collect, files, pieces
from swirl.errors import InputError, SkippedError


class Skips(Line):
    """Later places take less time, so that episodes end in another order than they begin in; two of the places skip."""

    def reset(self, seed):
        if seed % 7 == 3:
            raise SkippedError("it does not begin")
        return super().reset(seed)

    def step(self, action):
        time.sleep(0.0005 * (7 - self.place))
        if self.place == 5:
            raise SkippedError("it hangs")
        return super().step(action)


class Breaks(Skips):
    """The world breaks in the episode behind a number of them; `begun` has the seeds of all."""

    def __init__(self, episodes=10**9, how="raise"):
        self.left, self.how, self.begun = episodes, how, []

    def reset(self, seed):
        self.left -= 1
        self.begun.append(seed)
        if self.left < 0 and self.how == "raise":
            raise RuntimeError("the simulator fell over")
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().reset(seed)


def record(path, make=Skips, transitions=200, key="a", **options):
    return collect(make, path, transitions, MIX, 5, 0, key=key, **options)


def break_off(path, episodes, **options):
    with pytest.raises(RuntimeError, match="fell over"):
        record(path, lambda: Breaks(episodes), **options)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def whole(tmp_path):
    """A recording without interruption, and its counts."""
    path = tmp_path / "whole.parquet"
    return path, record(path)


def test_several_processes_give_the_same_bytes_and_counts(tmp_path, whole):
    path, counts = whole
    assert record(tmp_path / "three.parquet", workers=3) == counts
    assert (tmp_path / "three.parquet").read_bytes() == path.read_bytes()
    assert counts["skipped"] > 5


@pytest.fixture
def saving(monkeypatch):
    """A piece for each episode that gave something."""
    monkeypatch.setattr(pieces, "SECONDS", 0)


def test_a_recording_goes_on_behind_what_was_saved(tmp_path, whole, saving, caplog):
    path, counts = whole
    every = Breaks()
    record(tmp_path / "b.parquet", lambda: every)
    break_off(tmp_path / "a.parquet", 40)
    assert names(tmp_path) == [".a.parquet.pieces", "b.parquet", "whole.parquet"]
    rest = Breaks()
    caplog.set_level("INFO", "swirl")
    assert record(tmp_path / "a.parquet", lambda: rest) == counts
    assert rest.begun == every.begun[40:]
    assert "a.parquet: goes on behind" in caplog.text
    assert (tmp_path / "a.parquet").read_bytes() == path.read_bytes()
    assert names(tmp_path) == ["a.parquet", "b.parquet", "whole.parquet"]


def test_a_shorter_recording_is_the_beginning_of_a_longer_one(tmp_path, whole, saving):
    for transitions in (30, 150):
        break_off(tmp_path / "a.parquet", 40)  # between the two
        record(tmp_path / "a.parquet", transitions=transitions)
        record(tmp_path / "b.parquet", transitions=transitions)
        rows, first = pq.read_table(tmp_path / "a.parquet"), pq.read_table(whole[0]).slice(0, transitions)
        assert rows.drop_columns("truncated").equals(first.drop_columns("truncated"))
        assert rows["truncated"].to_pylist()[:-1] == first["truncated"].to_pylist()[:-1]
        assert rows["truncated"][-1].as_py() != rows["terminated"][-1].as_py()
        assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize("other", ({"key": "b"}, {"make": Line}, {"key": None}))
def test_what_was_begun_of_something_else_is_not_gone_on_with(tmp_path, saving, caplog, other):
    break_off(tmp_path / "a.parquet", 40)
    other = {"key": "of a line", **other}
    record(tmp_path / "a.parquet", **other)
    assert "what was recorded here before is of something else; it begins again" in caplog.text
    record(tmp_path / "b.parquet", **other)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert names(tmp_path) == ["a.parquet", "b.parquet"]


def test_without_a_key_or_a_row_nothing_is_kept(tmp_path, saving):
    break_off(tmp_path / "a.parquet", 40, key=None)
    break_off(tmp_path / "a.parquet", 0)
    assert names(tmp_path) == []


def test_a_worker_that_dies_is_told_and_costs_nothing_that_was_saved(tmp_path, saving, whole):
    with pytest.raises(InputError, match="a worker died, perhaps for lack of memory"):
        record(tmp_path / "a.parquet", partial(Breaks, 40, "die"), workers=2)
    assert record(tmp_path / "a.parquet") == whole[1]
    assert (tmp_path / "a.parquet").read_bytes() == whole[0].read_bytes()


def test_what_a_worker_raises_comes_to_the_user(tmp_path):
    with pytest.raises(RuntimeError, match="the simulator fell over"):
        record(tmp_path / "a.parquet", partial(Breaks, 5), workers=2)


def test_two_processes_do_not_record_one_file(tmp_path):
    class Meets(Line):
        def reset(self, seed):
            with pytest.raises(InputError, match=r"a.parquet.pieces is in use by process"):
                record(tmp_path / "a.parquet")
            return super().reset(seed)

    record(tmp_path / "a.parquet", Meets, transitions=3)
    with files.replacing(tmp_path / "b.parquet"), pytest.raises(InputError, match="another process is writing it"):
        record(tmp_path / "b.parquet")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_python_swallows_is_heard_at_the_next_episode(tmp_path):
    played = []

    class Falls:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)

    class Interrupted(Line):
        def reset(self, seed):
            played.append(seed)
            if len(played) == 3:
                Falls()
            return super().reset(seed)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "a.parquet", Interrupted)
    assert len(played) == 3
    assert signal.getsignal(signal.SIGINT) is before


# Real processes, real kills

COMMAND = ["collect", "frozenlake", "--option", "size=8", "--max-steps", 30, "--transitions"]


def children(pid):
    """Processes below a process, as far as they are there."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            below = [int(number) for number in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return below + [other for number in below for other in children(number)]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def interrupt(process, seconds=60.0):
    """Ctrl-C, which reaches the whole group, until the process ends."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue


def wait_until(condition, seconds=120.0):
    """Where it looks for files: by `glob.glob`, for a folder may be made anew meanwhile, at which `Path.glob` fails."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "end"), [(1, "SIGINT"), (1, "SIGKILL"), (2, "SIGINT"), (2, "SIGKILL")])
def test_killed_and_run_again_it_is_the_same_file_and_no_process_stays(tmp_path, swirl, workers, end):
    command = [*COMMAND, 40_000, "--workers", workers]
    code, said, _ = swirl(*command, "--out", "whole.parquet", cwd=tmp_path)
    assert code == 0
    words = [sys.executable, "-m", "swirl.cli", *map(str, command), "--out", "a.parquet"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True, process_group=0) as process:
        wait_until(lambda: glob(f"{tmp_path}/.a.parquet.pieces/*.parquet"))
        below = children(process.pid)
        assert len(below) >= (workers > 1) * workers
        if end == "SIGINT":  # Ctrl-C reaches the whole group
            # Python swallows one that comes while it destroys an object; a user presses again.
            interrupt(process)
        else:
            process.send_signal(getattr(signal, end))
        _, told = process.communicate(timeout=120)
        assert process.returncode == (130 if end == "SIGINT" else -getattr(signal, end))
        assert "Traceback" not in told
        assert end != "SIGINT" or told.endswith("swirl: interrupted; the same command goes on where it last saved\n")
    wait_until(lambda: not any(map(alive, below)))
    assert not (tmp_path / "a.parquet").exists()
    code, again, told = swirl(*command, "--out", "a.parquet", cwd=tmp_path)
    assert (code, again.replace("a.parquet", "whole.parquet")) == (0, said)
    assert "goes on behind" in told
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert names(tmp_path) == ["a.parquet", "whole.parquet"]
