import errno
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from swirl.errors import InputError
from swirl.ledger import Run, read_ledger

RECIPE = 'world = "maze"\nseed = 1\n\n[train]\nlearning_rate = 1e-5\nbf16 = true\n'

# A run of three phases, each made from the one before. With `every`, it is made once for each of the system calls that
# put things on disk, by a fork that kills itself before that call and then by one that is left alone.
CHILD = """
import itertools, os, signal, sys, time
from pathlib import Path
from swirl.durable import atomic_write
from swirl.ledger import Run

folder, mode, pause = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
calls = kill_at = 0

def counted(real):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call

def work_on(before):
    def work(staging):
        text = "".join(path.read_text() for path in sorted(before.rglob("*.txt"))) if before else "start "
        (staging / "checkpoints").mkdir(exist_ok=True)
        for step in range(3):
            time.sleep(pause)
            text += f"{step} "
            path = staging / "checkpoints" / f"{step}.txt"
            if not path.exists():
                atomic_write(path, text)
        (staging / "model.bin").write_bytes(text.encode() * 1000)
    return work

def make(folder):
    with Run.open(folder, RECIPE) as run:
        run.verify()
        data = run.phase("data", work_on(None), into="data")
        forward = run.phase("forward", work_on(data))
        run.phase("inverse", work_on(forward))
        run.verify()

def fork(folder, moment):
    global kill_at
    kill_at, child = moment, os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    make(folder)
    os._exit(0)

print("ready", flush=True)
if mode == "once":
    make(folder)
else:
    for name in ("fsync", "replace", "rename", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    for moment in itertools.count(1):
        code = fork(folder / str(moment), moment)
        if code == 0:
            break
        assert code == -signal.SIGKILL and fork(folder / str(moment), 0) == 0, moment
""".replace("RECIPE", repr(RECIPE))


def start(folder, mode="once", pause=0.0):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), mode, str(pause)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )


def finish(child):
    _, stderr = child.communicate(timeout=60)
    assert child.returncode in (0, -signal.SIGKILL), stderr
    return child.returncode == 0


def tree(folder):
    """Every file but those that hold times, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name not in ("ledger.json", "lock", "clock.jsonl")
    }


def listed(folder):
    return [(phase.name, phase.folder, phase.files) for phase in read_ledger(folder)[1]]


def write(text, log=None):
    def work(staging):
        if log is not None:
            log.append(text)
        (staging / "model.txt").write_text(text)

    return work


def make(folder, *names):
    """A finished run whose phases hold their own names."""
    with Run.open(folder, RECIPE) as run:
        run.phase("data", write("data"), into="data")
        for name in names:
            run.phase(name, write(name))
    return folder


def test_commit_then_skip(tmp_path):
    log = []
    with Run.open(tmp_path / "run", RECIPE) as run:
        assert not run.finished("data")
        data = run.phase("data", write("data", log), into="data")
        first = run.phase("warm-up", write("one", log))
        assert run.finished("data") and run.skipped == [] and run.made == ["data", "warm-up"]
    assert data == tmp_path / "run" / "data"
    assert first == tmp_path / "run" / "phases" / "01-warm-up"
    assert (tmp_path / "run" / "recipe.toml").read_text() == RECIPE
    with Run.open(tmp_path / "run", RECIPE) as run:
        assert run.phase("data", write("data", log), into="data") == data
        assert run.phase("warm-up", write("one", log)) == first
        second = run.phase("grpo", write("two", log))
        assert run.skipped == ["data", "warm-up"] and run.made == ["grpo"]
    assert second.name == "02-grpo"  # the number does not depend on what was skipped
    assert log == ["data", "one", "two"]
    # printf one | sha256sum
    digest = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert listed(tmp_path / "run")[1] == ("warm-up", "phases/01-warm-up", {"model.txt": (3, digest)})
    body = json.loads((tmp_path / "run" / "ledger.json").read_text())
    assert body["version"] == 1 and body["phases"][1]["files"] == {"model.txt": [3, digest]}


def test_work_that_failed_continues_in_its_folder(tmp_path):
    def fails(staging):
        (staging / "checkpoint").write_text("half")
        raise RuntimeError("loss is nan")

    def continues(staging):
        assert (staging / "checkpoint").read_text() == "half"
        (staging / "checkpoint").write_text("whole")

    with pytest.raises(RuntimeError, match="loss is nan"), Run.open(tmp_path, RECIPE) as run:
        run.phase("a", fails)
    assert (tmp_path / "phases" / ".01-a.partial" / "checkpoint").exists()
    with Run.open(tmp_path, RECIPE) as run:
        assert not run.finished("a")
        assert (run.phase("a", continues) / "checkpoint").read_text() == "whole"


def test_cpu_seconds_are_those_of_the_work(tmp_path):
    def spin(staging):
        start = time.process_time()
        while time.process_time() - start < 0.1:
            pass
        time.sleep(0.2)

    with Run.open(tmp_path, RECIPE) as run:
        run.phase("a", spin)
        assert 0.1 <= run.phases[0].seconds_cpu < 0.2  # sleep is not in it


@pytest.mark.parametrize("into", [".", "..", "../out", "/tmp/out", "phases", "lock", "data", "data/x"])
def test_a_phase_cannot_be_put_over_something_else(tmp_path, into):
    with Run.open(tmp_path / "run", RECIPE) as run:
        run.phase("data", write("data"), into="data")
        with pytest.raises(ValueError, match="expected a relative one"):
            run.phase("b", write("b"), into=into)
        assert (tmp_path / "run" / "data" / "model.txt").read_text() == "data"


def test_a_name_serves_once_in_a_process(tmp_path):
    # Else a method that forgets the round's number in its names would leave its later rounds out, silently.
    with Run.open(tmp_path, RECIPE) as run:
        run.phase("forward", write("round 1"))
        with pytest.raises(ValueError, match="not used before"):
            run.phase("forward", write("round 2"))
        with pytest.raises(ValueError, match="plain"):
            run.phase("../forward", write("x"))


def test_closed_run_commits_nothing(tmp_path):
    with Run.open(tmp_path, RECIPE) as run:
        pass
    with pytest.raises(ValueError, match="closed"):
        run.phase("a", write("a"))


def test_a_symlink_is_not_vouched_for(tmp_path):
    with Run.open(tmp_path, RECIPE) as run:
        with pytest.raises(ValueError, match="neither a file nor a folder"):
            run.phase("a", lambda staging: (staging / "model.bin").symlink_to("/dev/zero"))
        assert not run.finished("a")


def test_killed_before_every_system_call(tmp_path):
    assert finish(start(tmp_path / "undisturbed"))
    expected, entries = tree(tmp_path / "undisturbed"), listed(tmp_path / "undisturbed")
    assert len(expected) == 1 + 3 * 6 + 1 and len(entries) == 3  # recipe; 3 x (folder, checkpoints/, 4 files); phases/
    assert finish(start(tmp_path / "killed", mode="every"))
    runs = list((tmp_path / "killed").iterdir())
    assert len(runs) > 60  # 9 checkpoints, 3 commits and the beginning, with several calls each
    for run in runs:
        assert tree(run) == expected, run
        assert listed(run) == entries, run


def test_killed_at_random_moments_until_finished(tmp_path):
    assert finish(start(tmp_path / "undisturbed"))
    moments, kills = random.Random(0), 0
    while True:
        child = start(tmp_path / "run", pause=0.01)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        timer = threading.Timer(moments.uniform(0, 0.08), child.kill)
        timer.start()
        finished = finish(child)
        timer.cancel()
        timer.join()
        if finished:
            break
        kills += 1
        # Whatever the moment, what is listed is whole. (The child checks the same at every reopening.)
        if (tmp_path / "run" / "ledger.json").exists():
            with Run.open(tmp_path / "run", RECIPE) as run:
                run.verify()
        assert kills < 200, "no progress from one attempt to the next"
    assert kills > 0
    assert tree(tmp_path / "run") == tree(tmp_path / "undisturbed")
    assert listed(tmp_path / "run") == listed(tmp_path / "undisturbed")


def test_order_on_disk(tmp_path, monkeypatch):
    # A kill cannot show a missing fsync (the kernel writes the page cache later), so the order itself is checked.
    events = []
    real_fsync, real_rename, real_replace = os.fsync, os.rename, os.replace

    def fsync(descriptor):
        events.append(os.fstat(descriptor).st_ino)
        real_fsync(descriptor)

    def rename(source, target):
        events.append("rename")
        real_rename(source, target)

    def replace(source, target):
        events.append("replace")
        real_replace(source, target)

    def work(staging):
        (staging / "deep").mkdir()
        (staging / "deep" / "model.txt").write_text("weights")

    with Run.open(tmp_path, RECIPE) as run:
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "rename", rename)
        monkeypatch.setattr(os, "replace", replace)
        committed = run.phase("a", work)
    monkeypatch.undo()
    inode = {path: path.stat().st_ino for path in (tmp_path, tmp_path / "phases", tmp_path / "ledger.json")}
    renamed, replaced = events.index("rename"), events.index("replace")
    inside = {path.stat().st_ino for path in [committed, *committed.rglob("*")]}
    assert len(inside) == 3 and inside <= set(events[:renamed])
    assert {inode[tmp_path], inode[tmp_path / "phases"]} <= set(events[renamed:replaced])
    assert inode[tmp_path / "ledger.json"] in events[renamed:replaced]  # the temporary one, before it takes the name
    assert inode[tmp_path] in events[replaced:]


def test_second_process_is_refused(tmp_path):
    child = start(tmp_path / "run", pause=5.0)
    try:
        while not (tmp_path / "run" / "phases" / ".data.partial").exists():
            assert child.poll() is None
            time.sleep(0.005)
        with pytest.raises(InputError, match=rf"in use by process {child.pid} \(host .*, since 20.*another --out"):
            Run.open(tmp_path / "run", RECIPE)
    finally:
        child.kill()
        child.communicate()
    with Run.open(tmp_path / "run", RECIPE) as run:  # the kernel has released a killed process's lock
        assert not run.finished("data")


def test_forked_worker_does_not_keep_the_lock(tmp_path):
    with Run.open(tmp_path, RECIPE) as run:
        assert run._lock is not None
        inherited = os.dup(run._lock.fileno())  # what a fork does to it
    Run.open(tmp_path, RECIPE).close()
    os.close(inherited)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1e-5", "2e-5", "train.learning_rate was 1e-05, now 2e-05"),
        ("bf16 = true\n", "", "train.bf16 was True, now not set"),
        ("bf16 = true", "bf16 = 1", "train.bf16 was True, now 1"),
        ("seed = 1", "seed = 1\nrounds = [1, 2]", r"rounds\[0\] was not set, now 1"),
    ],
)
def test_other_recipe_is_refused(tmp_path, old, new, message):
    make(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=message + "; use another --out"):
        Run.open(tmp_path, RECIPE.replace(old, new))
    assert tree(tmp_path) == before
    Run.open(tmp_path, RECIPE).close()  # the refusal left no lock behind


def test_a_run_that_has_only_what_costs_nothing_takes_another_recipe(tmp_path):
    other = RECIPE.replace("seed = 1", "seed = 2")
    with Run.open(tmp_path, RECIPE) as run:
        run.phase("data", lambda out: (out / "rows").write_text("old"), into="data")
    with Run.open(tmp_path, other, disposable=["data"]) as run:
        assert run.phases == []
        folder = run.phase("data", lambda out: (out / "rows").write_text("new"), into="data")
        assert (folder / "rows").read_text() == "new"
    assert (tmp_path / "recipe.toml").read_text() == other
    assert (tmp_path / "phases/.data.stale-1/rows").read_text() == "old"  # nothing is deleted


def test_a_phase_that_was_begun_keeps_its_recipe(tmp_path):
    def killed(out):
        (out / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Run.open(tmp_path, RECIPE) as run:
        run.phase("train", killed)
    with pytest.raises(InputError, match="seed was 1, now 2"):
        Run.open(tmp_path, RECIPE.replace("seed = 1", "seed = 2"), disposable=["data"])
    assert (tmp_path / "phases/.01-train.partial/half").exists()


def test_recipe_in_other_words_is_the_same(tmp_path):
    make(tmp_path)
    with Run.open(tmp_path, "# again\n" + RECIPE.replace("1e-5", "0.00001")) as run:
        assert run.finished("data")
    assert (tmp_path / "recipe.toml").read_text() == RECIPE


def test_edited_recipe_file_is_refused(tmp_path):
    make(tmp_path)
    edited = RECIPE.replace("seed = 1", "seed = 2")
    (tmp_path / "recipe.toml").write_text(edited)
    for recipe in (RECIPE, edited):
        with pytest.raises(InputError, match=r"recipe\.toml was edited"):
            Run.open(tmp_path, recipe)


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not a run folder"):
        Run.open(tmp_path, RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match=r"cannot write to .*thesis\.tex: .*; use another --out"):
        Run.open(tmp_path / "thesis.tex", RECIPE)
    with pytest.raises(InputError, match=r"no ledger\.json"):
        read_ledger(tmp_path)


def test_damaged_ledger_is_refused(tmp_path):
    path = make(tmp_path, "a") / "ledger.json"
    whole = path.read_text()
    without_last = json.loads(whole)
    without_last["phases"].pop()
    for text in ("", whole[: len(whole) // 2], "[]", "\udcff", json.dumps(without_last), whole.replace("01-a", "01-b")):
        path.write_text(text, errors="surrogateescape")
        with pytest.raises(InputError, match=r"ledger\.json is truncated, was edited.*another --out"):
            Run.open(tmp_path, RECIPE)
        assert path.read_text(errors="surrogateescape") == text
    path.write_text(whole)
    Run.open(tmp_path, RECIPE).close()


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda path: path.write_text("A"), "has other contents"),
        (lambda path: path.write_text(""), "has 0 bytes, the ledger says 1"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_damaged_file_is_named_and_nothing_deleted(tmp_path, damage, fault):
    make(tmp_path, "a", "b")
    damage(tmp_path / "phases" / "01-a" / "model.txt")
    before, ledger = tree(tmp_path), listed(tmp_path)
    message = f"01-a/model.txt {fault}.* delete [^ ]*/01-a and [^ ]*/02-b, and run the same command"
    with Run.open(tmp_path, RECIPE) as run:
        with pytest.raises(InputError, match=message):
            run.verify()
        run.phase("data", write("data"), into="data")
        with pytest.raises(InputError, match=message):
            run.phase("a", write("a"))
        assert run.skipped == ["data"]
    assert tree(tmp_path) == before and listed(tmp_path) == ledger


def test_deleted_phase_is_made_again_with_all_later_ones(tmp_path, caplog):
    make(tmp_path, "a", "b", "c")
    (tmp_path / "phases" / ".04-d.partial").mkdir()
    (tmp_path / "phases" / ".04-d.partial" / "model.txt").write_text("made from the old c")
    (tmp_path / "phases" / "02-b" / "model.txt").unlink()
    (tmp_path / "phases" / "02-b").rmdir()
    log = []

    def work(name):
        def fresh(staging):
            assert list(staging.iterdir()) == []  # nothing made from the old phase is continued from
            write("new " + name, log)(staging)

        return fresh

    with caplog.at_level(logging.INFO, logger="swirl"), Run.open(tmp_path, RECIPE) as run:
        assert [phase.name for phase in run.phases] == ["data", "a"]
        run.phase("data", work("data"), into="data")
        folders = [run.phase(name, work(name)) for name in "abcd"]
    assert [folder.name for folder in folders] == ["01-a", "02-b", "03-c", "04-d"]
    assert log == ["new b", "new c", "new d"]
    assert [folder.joinpath("model.txt").read_text() for folder in folders] == ["a", "new b", "new c", "new d"]
    assert (tmp_path / "phases" / ".03-c.stale-1" / "model.txt").read_text() == "c"
    assert (tmp_path / "phases" / ".04-d.partial.stale-1" / "model.txt").read_text() == "made from the old c"
    assert "02-b is gone: phases to be made again: b, c" in caplog.text
    assert "phase a: finished before, skipped" in caplog.text


def test_deleted_twice(tmp_path):
    # The second time there is a set-aside folder of the same name; it stays, and is no phase.
    for _ in range(2):
        make(tmp_path, "a")
        (tmp_path / "data" / "model.txt").unlink()
        (tmp_path / "data").rmdir()
    make(tmp_path, "a")
    assert sorted(path.name for path in (tmp_path / "phases").iterdir()) == [".01-a.stale-1", ".01-a.stale-2", "01-a"]


def test_disk_full_while_working(tmp_path):
    make(tmp_path)

    def fills(staging):
        (staging / "checkpoint").write_text("good")
        if Path("/dev/full").exists():
            (staging / "model.bin").symlink_to("/dev/full")
            with (staging / "model.bin").open("wb") as file:
                file.write(b"x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(staging / "model.bin"))

    def continues(staging):
        assert (staging / "checkpoint").read_text() == "good"
        (staging / "model.bin").unlink(missing_ok=True)

    with Run.open(tmp_path, RECIPE) as run:
        with pytest.raises(InputError, match=r"no space left on .*; free some and run the same command again"):
            run.phase("a", fills)
        run.verify()
        assert [name for name, _, _ in listed(tmp_path)] == ["data"]
        run.phase("a", continues)
        assert run.finished("a")


@pytest.mark.parametrize(
    "words",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",  # safetensors
        "[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598",  # torch.save
    ],
)
def test_disk_full_in_the_words_of_other_libraries(tmp_path, words):
    def work(staging):
        raise RuntimeError(words)

    with Run.open(tmp_path, RECIPE) as run, pytest.raises(InputError, match=r"no space left on .*01-a\.partial"):
        run.phase("a", work)


@pytest.mark.parametrize(("call", "saves"), [("fsync", 7), ("replace", 1)])
@pytest.mark.parametrize("again", ["same process", "reopened"])
def test_disk_full_at_every_save_of_a_commit(tmp_path, monkeypatch, call, saves, again):
    # Seven: the file and its folder; the clock; phases/ and the run folder, after the renaming; the ledger and the run
    # folder.
    real, fails_at = getattr(os, call), 0
    calls = 0

    def full(*args):
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    undisturbed = tree(make(tmp_path / "undisturbed", "a"))
    for fails_at in range(1, saves + 1):
        folder = make(tmp_path / str(fails_at))
        run, calls = Run.open(folder, RECIPE), 0
        monkeypatch.setattr(os, call, full)
        with pytest.raises(InputError, match=r"no space left on .*; free some"):
            run.phase("a", write("a"))
        monkeypatch.undo()
        run.verify()
        # Only the very last call comes after the new ledger is in place.
        assert [name for name, _, _ in listed(folder)] == ["data", "a"][: 2 if fails_at == 7 else 1]
        if again == "reopened":
            run.close()
            run = Run.open(folder, RECIPE)
        with run:
            run.phase("a", write("a"))
            run.verify()
        assert tree(folder) == undisturbed
    calls, folder = 0, make(tmp_path / "last")
    with Run.open(folder, RECIPE) as run:
        fails_at = 0
        monkeypatch.setattr(os, call, full)
        run.phase("a", write("a"))
    assert calls == saves  # there was no save that the loop above left out


def test_orphan_of_a_kill_becomes_staging_again(tmp_path):
    # Killed between rename and entry, the folder lies in place and no ledger vouches for it.
    make(tmp_path)
    orphan = tmp_path / "phases" / "01-a"
    orphan.mkdir(parents=True)
    (orphan / "checkpoint").write_text("whole?")

    def work(staging):
        assert staging.name == ".01-a.partial" and not orphan.exists()
        assert (staging / "checkpoint").read_text() == "whole?"

    with Run.open(tmp_path, RECIPE) as run:
        assert not run.finished("a")
        assert run.phase("a", work) == orphan
    (tmp_path / "phases" / "02-b").mkdir()
    (tmp_path / "phases" / ".02-b.partial").mkdir()
    with Run.open(tmp_path, RECIPE) as run, pytest.raises(InputError, match="both exist"):
        run.phase("b", work)


def test_two_processes_train_together(tmp_path):
    # Threads stand for torchrun's ranks: both call work, one writes, both decide alike, also on the second go.
    both = threading.Barrier(2, timeout=10)

    def rank(main, seen):
        def work(staging):
            assert staging.is_dir()
            seen.append(staging.name)
            time.sleep(0 if main else 0.05)  # the main one has to wait, or it commits too early
            (staging / f"rng-{main}.txt").write_text("state")

        with Run.open(tmp_path, RECIPE, main=main, barrier=lambda: both.wait() and None) as run:
            for name in ("a", "b"):
                seen.append(run.phase(name, work).name)
                assert run.finished(name)
            seen.append(run.skipped)

    for expected in (
        [".01-a.partial", "01-a", ".02-b.partial", "02-b", []],
        ["01-a", "02-b", ["a", "b"]],
    ):
        seen = {True: [], False: []}
        other = threading.Thread(target=rank, args=(False, seen[False]))
        other.start()
        rank(True, seen[True])
        other.join()
        assert seen[True] == seen[False] == expected
    assert set(read_ledger(tmp_path)[1][0].files) == {"rng-True.txt", "rng-False.txt"}


def test_the_others_write_nothing(tmp_path):
    make(tmp_path)
    with Run.open(tmp_path, RECIPE):  # holds the lock, which the second one does not need
        (tmp_path / "phases" / ".01-a.partial").mkdir(parents=True, exist_ok=True)
        before = (tree(tmp_path), (tmp_path / "ledger.json").read_bytes(), (tmp_path / "lock").read_bytes())
        with Run.open(tmp_path, RECIPE, main=False) as run:
            run.phase("a", lambda staging: None)
        assert before == (tree(tmp_path), (tmp_path / "ledger.json").read_bytes(), (tmp_path / "lock").read_bytes())
