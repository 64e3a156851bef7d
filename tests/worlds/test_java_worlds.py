"""ScienceWorld and TextWorldExpress in their real simulators, and what becomes of the Java process.

Without Java or a package the tests that need it are skipped, and say which command installs it.
"""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from recorded import records_and_trains

from swirl import worlds
from swirl.data import check, read
from swirl.errors import InputError, MissingPartError
from swirl.worlds import jvm, textgame
from swirl.worlds.base import check_world

NAMES = ("textworldexpress", "scienceworld")
# Small states, and paths that are found in no time.
SMALL = {
    "scienceworld": {"tasks": ["lifespan-longest-lived"]},
    "textworldexpress": {"games": ["coin", "mapreader", "simonsays"]},
}


def needs(name):
    command = worlds.availability(name)
    return [pytest.mark.java, pytest.mark.skipif(command is not None, reason=f"{name} is not here: {command}")]


BOTH = pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in NAMES], scope="module")
SCIENCE = pytest.mark.parametrize("name", [pytest.param("scienceworld", marks=needs("scienceworld"))], scope="module")
# What becomes of the process is the same for both: one that is here will do.
HERE = next((name for name in NAMES if worlds.availability(name) is None), NAMES[0])
ANY = pytest.mark.parametrize("name", [pytest.param(HERE, marks=needs(HERE))])


@pytest.fixture(scope="module")
def world(name):
    """One for all tests that leave it as it was: Java takes seconds to start."""
    world = worlds.make(name, **SMALL[name])
    yield world
    world.close()


def gone(pid, seconds=60.0):
    """Whether a process ends; one that its parent has not waited for counts as ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


@BOTH
def test_the_contract_holds(world):
    check_world(world, seeds=range(2), steps=12)


@BOTH
def test_actions_are_listed_for_the_current_state_alone(world):
    state, _ = world.reset(0)
    legal = world.actions(state)
    assert legal and list(legal) == sorted(set(legal))
    assert world.actions("another state") is None
    after = world.step(legal[0])[0]
    assert after == state or world.actions(state) is None


@BOTH
def test_gold_ends_in_the_goal(world):
    for seed in (0, 1):
        world.reset(seed)
        total, terminated, steps = 0.0, False, 0
        while not terminated and steps < 150:
            _, reward, terminated, *_ = world.step(world.act("gold", np.random.default_rng(seed)))
            total, steps = total + reward, steps + 1
        assert terminated and total == pytest.approx(100 if world.name == "scienceworld" else 1)


@BOTH
def test_mixed_leaves_the_path_now_and_then_and_never_the_room(world, monkeypatch):
    monkeypatch.setattr(textgame, "DETOUR", 1.0)
    world.reset(0)
    for number in range(8):
        action = world.act("mixed", np.random.default_rng(number))
        assert action in world.legal() and not action.startswith(textgame.AWAY)
    monkeypatch.setattr(textgame, "DETOUR", 0.0)
    world.reset(0)
    assert world.act("mixed", np.random.default_rng(0)) == world.path()[0]


@BOTH
def test_layouts_name_the_game_and_have_one_part_each(world):
    parts, drawn = {}, Counter()
    for seed in range(30):
        _, info = world.reset(seed)
        drawn[info["split"]] += 1
        assert parts.setdefault(info["layout"], info["split"]) == info["split"]
        assert info["layout"].split()[0] in next(iter(SMALL[world.name].values()))
    assert set(drawn) == {"train", "validation", "test"}
    assert drawn["train"] > 15  # most episodes are to learn from, though most games are not


@SCIENCE
def test_the_parts_are_the_benchmarks_own(world, monkeypatch):
    monkeypatch.setattr(world, "tasks", ("use-thermometer",))
    world.reset(0)
    game = world._game
    game.load("use-thermometer", 0, "", False)
    variations = [list(get()) for get in (game.getVariationsTrain, game.getVariationsDev, game.getVariationsTest)]
    for expected, numbers in zip(("train", "validation", "test"), variations, strict=True):
        layouts = {f"use-thermometer {number}" for number in numbers}
        for seed in range(6):
            _, info = world.reset(seed)
            assert (info["layout"] in layouts) == (info["split"] == expected)


@SCIENCE
def test_chance_is_the_seeds_whatever_else_is_asked(world, monkeypatch):
    """Bees fly by chance; the chances of a step must not depend on who listed actions or planned before it."""
    monkeypatch.setattr(world, "tasks", ("find-non-living-thing",))
    runs = []
    for asks in (False, True):
        world.reset(2)
        states = []
        for number in range(8):
            if asks:
                world.legal()
            if asks and number == 3:
                world.path()
            states.append(world.step("wait1")[0])
        runs.append(states)
    assert runs[0] == runs[1]


@SCIENCE
def test_the_answer_to_the_last_action_can_be_left_out(world, monkeypatch):
    world.reset(0)
    with_answer = world.step("wait1")[0]
    monkeypatch.setattr(world, "observation", False)
    world.reset(0)
    without = world.step("wait1")[0]
    assert with_answer.startswith(without)
    assert "wait" in with_answer.removeprefix(without)


@ANY
def test_close_ends_java_and_so_does_forgetting_the_world(name):
    world = worlds.make(name, **SMALL[name])
    assert world._java is None  # nothing is started for a world that is not played
    state = world.reset(0)[0]
    pid = world._java.pid
    world.close()
    world.close()
    assert gone(pid, 0.2)
    assert world.actions(state) is None
    with pytest.raises(InputError, match=r"call reset\(seed\)"):
        world.step("look around")
    world.reset(0)
    pid = world._java.pid
    del world
    gc.collect()
    assert gone(pid, 0.2)


@ANY
def test_an_interrupted_call_says_so_and_spoils_no_later_one(name, monkeypatch, caplog):
    world = worlds.make(name, **SMALL[name])
    state = world.reset(0)[0]
    client = world._java._gateway._gateway_client
    connection = client._get_connection()
    stream, connection.stream = connection.stream, Interrupted()
    client._give_back_connection(connection)
    with pytest.raises(KeyboardInterrupt):
        world.reset(0)
    stream.close()
    assert world.reset(0)[0] == state
    world.close()
    assert not caplog.records


class Interrupted:
    """A connection on which Ctrl-C comes while the answer is waited for."""

    def readline(self):
        raise KeyboardInterrupt

    def close(self):
        pass


PLAY = """
import sys, numpy as np
from swirl import worlds
world = worlds.make(sys.argv[1])
world.reset(0)
print(world._java.pid, flush=True)
if sys.argv[2] == "crash":
    raise RuntimeError("crash")
try:
    while sys.argv[2] == "play":
        if world.step(world.act("random", np.random.default_rng(0)))[2]:
            world.reset(0)
except KeyboardInterrupt:
    sys.exit(130)
"""


@ANY
@pytest.mark.parametrize(
    ("end", "code"), [("exit", 0), ("crash", 1), ("SIGINT", 130), ("SIGTERM", -signal.SIGTERM), ("SIGKILL", -9)]
)
def test_java_never_outlives_python(name, end, code):
    mode = "play" if end.startswith("SIG") else end
    command = [sys.executable, "-c", PLAY, name, mode]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, process_group=0) as process:
        pid = int(process.stdout.readline())
        assert mode != "play" or not gone(pid, 1.0)
        try:
            for _ in range(6 if mode == "play" else 0):
                os.killpg(process.pid, getattr(signal, end))  # Ctrl-C reaches the whole group
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                    break
            stderr = process.communicate(timeout=60)[1]
        finally:
            process.kill()
        assert process.returncode == code
        # Python swallows a Ctrl-C that comes while it destroys an object, and says so.
        assert not stderr or end == "crash" or stderr.startswith("Exception ignored in")
        assert gone(pid)


@BOTH
def test_recordings_are_the_same_whoever_plays_and_in_whatever_order(name, swirl, tmp_path):
    """All behaviours, so paths to the goal and chances too; an episode knows nothing of the one before it."""
    words = ["collect", name, "--transitions", 60, "--max-steps", 8]
    for out, more in (("one", []), ("two", ["--workers", 2])):
        code, _, stderr = swirl(*words, *more, "--out", f"{out}.parquet", cwd=tmp_path)
        assert code == 0, stderr
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


@SCIENCE
def test_a_game_begins_with_a_score_of_its_own(world):
    world.reset(0)
    lost = next(action for action in world.legal() if action.startswith("focus on door"))
    assert world.step(lost)[1:3] == (-100.0, True)
    world.reset(1)
    assert world.step("task")[1:3] == (0.0, False)


@BOTH
def test_worlds_run_in_parallel_processes(name):
    code = (
        "import sys, json; from swirl import worlds\n"
        "world = worlds.make(sys.argv[1], **json.loads(sys.argv[2]))\n"
        "print(json.dumps([world.reset(seed)[0] for seed in (0, 1)])); world.close()"
    )
    command = [sys.executable, "-c", code, name, json.dumps(SMALL[name])]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert len(set(outputs)) == 1 and len(json.loads(outputs[0])) == 2


@BOTH
def test_collect_check_train(name, swirl, tmp_path):
    [(key, value)] = SMALL[name].items()
    option = f"{key}={json.dumps(value)}"
    collecting = ["--transitions", 120, "--max-steps", 4, "--option", option]
    report = records_and_trains(swirl, tmp_path, name, *collecting)
    assert "120 transitions" in report
    table = read(tmp_path / "in.parquet")
    assert set(table["split"].to_pylist()) == {"train", "validation", "test"}
    assert check(tmp_path / "in.parquet").partial
    report = check(tmp_path / "run" / "data")
    assert report.problems == () and report.overlaps["test"].shared_transitions == 0


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_named_with_the_command(name, monkeypatch):
    monkeypatch.setattr(jvm, "find_spec", lambda package: None)
    monkeypatch.setattr(jvm.shutil, "which", lambda program: None)
    extra = {"scienceworld": "scienceworld", "textworldexpress": "textworld"}[name]
    command = f"pip install '.[{extra}]' && apt-get install default-jre-headless"
    assert worlds.availability(name) == command
    with pytest.raises(MissingPartError) as error:
        worlds.make(name)
    assert command in str(error.value) and "\n" not in str(error.value)


@ANY
def test_a_java_that_does_not_start_is_a_missing_part(name, tmp_path, monkeypatch):
    (tmp_path / "java").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(MissingPartError, match=r"does not start.*apt-get install"):
        worlds.make(name).reset(0)


MISTAKES = [
    ("scienceworld", {"tasks": ["boill"]}, "unknown task 'boill'.*did you mean 'boil'"),
    ("scienceworld", {"simplifications": "opendoors"}, "did you mean 'openDoors'"),
    ("scienceworld", {"simplifications": "noElectricalAction", "tasks": "power-component"}, "electrical actions"),
    ("textworldexpress", {"games": "coin,twcc"}, "unknown game 'twcc'.*'twc'"),
]


@pytest.mark.parametrize(
    ("name", "options", "message"), [pytest.param(*mistake, marks=needs(mistake[0])) for mistake in MISTAKES]
)
def test_options_that_cannot_be_used(name, options, message):
    with pytest.raises(InputError, match=message):
        worlds.make(name, **options)


def test_states_are_cleaned_and_say_nothing_twice():
    assert textgame.paragraphs("room  \n\n\tdoor\n", "", "carried\n", "room\n\tdoor") == "room\n\tdoor\ncarried"
