"""The images of a recording: a file each beside it, named in its states, whoever played and however often it broke."""

import itertools
import subprocess
import sys
from functools import partial
from glob import glob
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_data_collect import MIX, Line
from test_data_recording import children, wait_until

from swirl import images, worlds
from swirl.config import Images
from swirl.data import collect, frames, pieces
from swirl.data.branching import branch
from swirl.data.replay import replay, seed_of
from swirl.errors import InputError
from swirl.imagetokens import tile
from swirl.types import IMAGE, state_parts
from swirl.worlds.written import WrittenWorld


def drawn(place):
    """A picture of the line: white at the place."""
    pixels = np.zeros((1, 8, 3), np.uint8)
    pixels[0, place] = 255
    return Image.fromarray(pixels)


class Drawn(Line):
    """Each state says where it is in words, and draws it."""

    def reset(self, seed):
        _, info = super().reset(seed)
        return self.parts(), info

    def step(self, action):
        _, *rest = super().step(action)
        return self.parts(), *rest

    def parts(self):
        image = {"type": "image", "image": images.data_uri(drawn(self.place))}
        return [{"type": "text", "text": f"at {self.place}"}, image]


class Breaks(Drawn):
    def __init__(self, episodes):
        self.left = episodes

    def reset(self, seed):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("the simulator fell over")
        return super().reset(seed)


def record(path, make=Drawn, transitions=200, key="a", **options):
    return collect(make, path, transitions, MIX, 5, 0, key=key, **options)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def named(path):
    """Images that the states of a recording name, by path."""
    table = pq.read_table(path)
    texts = {text for column in ("state", "next_state") for text in table[column].to_pylist()}
    return {part["image"]: text for text in texts for part in state_parts(text) if part["type"] == "image"}


def test_states_name_files_beside_the_recording_that_show_what_was_seen(tmp_path):
    record(tmp_path / "rec.parquet")
    found = named(tmp_path / "rec.parquet")
    assert names(tmp_path) == ["rec.images", "rec.parquet"]
    assert sorted(Path(path).name for path in found) == names(tmp_path / "rec.images")
    assert len(found) == 8  # a place, a file
    for path, text in found.items():
        place = int(text[3])
        assert text == f"at {place}\n{IMAGE}rec.images/{Path(path).name}"
        np.testing.assert_array_equal(images.open_image(path, tmp_path), drawn(place))


def test_steps_follow_one_another(tmp_path):
    record(tmp_path / "rec.parquet")
    rows = pq.read_table(tmp_path / "rec.parquet").to_pylist()
    assert all(a["next_state"] == b["state"] for a, b in itertools.pairwise(rows) if b["step"])
    moved = [int(row["next_state"][3]) - int(row["state"][3]) for row in rows]
    assert {row["action"]: move for row, move in zip(rows, moved, strict=True) if move} == {"left": -1, "right": 1}


def test_interrupted_or_by_several_it_is_the_same(tmp_path, monkeypatch):
    record(tmp_path / "whole" / "rec.parquet")
    record(tmp_path / "three" / "rec.parquet", workers=3)
    monkeypatch.setattr(pieces, "SECONDS", 0)
    with pytest.raises(RuntimeError, match="fell over"):
        record(tmp_path / "broken" / "rec.parquet", partial(Breaks, 20))
    assert names(tmp_path / "broken") == [".rec.parquet.pieces"]
    record(tmp_path / "broken" / "rec.parquet")
    files = [
        {file.relative_to(tmp_path / name): file.read_bytes() for file in (tmp_path / name).rglob("*.p*")}
        for name in ("whole", "three", "broken")
    ]
    assert files[0] == files[1] == files[2] and len(files[0]) == 9


def test_what_was_played_beyond_the_end_or_given_up_leaves_no_image(tmp_path):
    record(tmp_path / "rec.parquet", transitions=1, workers=2)
    assert len(named(tmp_path / "rec.parquet")) == len(names(tmp_path / "rec.images")) == 2
    before = (tmp_path / "rec.parquet").read_bytes()
    with pytest.raises(RuntimeError, match="fell over"):
        record(tmp_path / "rec.parquet", partial(Breaks, 9), key=None)
    assert names(tmp_path) == ["rec.images", "rec.parquet"]
    assert len(names(tmp_path / "rec.images")) == 2
    assert (tmp_path / "rec.parquet").read_bytes() == before


def test_killed_while_images_are_moved_it_goes_on(tmp_path, monkeypatch):
    record(tmp_path / "whole" / "rec.parquet")

    def move(texts, waiting, folder):
        frames_move(texts[:2], waiting, folder)
        raise RuntimeError("killed")

    frames_move = frames.move
    monkeypatch.setattr(frames, "move", move)
    with pytest.raises(RuntimeError, match="killed"):
        record(tmp_path / "rec.parquet")
    assert len(names(tmp_path / "rec.images")) == 2 and not (tmp_path / "rec.parquet").exists()
    monkeypatch.undo()
    record(tmp_path / "rec.parquet")
    assert names(tmp_path / "rec.images") == names(tmp_path / "whole" / "rec.images")
    assert (tmp_path / "rec.parquet").read_bytes() == (tmp_path / "whole" / "rec.parquet").read_bytes()


def test_a_recording_of_the_same_name_keeps_the_images_of_the_one_before(tmp_path):
    record(tmp_path / "rec.parquet", transitions=5)
    few = set(names(tmp_path / "rec.images"))
    record(tmp_path / "rec.parquet", transitions=3, key="b")
    assert set(names(tmp_path / "rec.images")) == few
    record(tmp_path / "rec.parquet", key="c")
    assert set(names(tmp_path / "rec.images")) > few


def test_words_alone_make_no_folder(tmp_path):
    record(tmp_path / "rec.parquet", Line)
    assert names(tmp_path) == ["rec.parquet"]


def test_images_that_cannot_be_kept_are_told_and_cost_nothing_that_was_played(tmp_path):
    class Broken(Drawn):
        def parts(self):
            return [{"type": "image", "image": "data:image/png;base64,AAAA"}]

    with pytest.raises(InputError, match="no image that can be read"):
        record(tmp_path / "rec.parquet", Broken)
    (tmp_path / "rec.images").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot make the folder .*rec\.images"):
        record(tmp_path / "rec.parquet")
    (tmp_path / "rec.images").unlink()
    record(tmp_path / "rec.parquet", partial(Breaks, 0))  # all was played before
    assert len(names(tmp_path / "rec.images")) == 8


DOORS = ["MiniGrid-DoorKey-5x5-v0"]


def test_a_recording_of_frames_is_played_again(tmp_path):
    make = partial(worlds.make, "minigrid", environments=DOORS, view="image")
    collect(make, tmp_path / "rec.parquet", 60, {"random": 1}, max_steps=9, seed=5)
    world, taken = make(), []
    text = partial(frames.kept_text, waiting=tmp_path / "again", name="rec.images")
    for row in pq.read_table(tmp_path / "rec.parquet").to_pylist():
        taken = taken if row["step"] else []
        seed = seed_of(row["trajectory"], 5)
        assert seed is not None
        assert text(replay(world, seed, taken)) == row["state"]
        assert text(world.step(row["action"])[0]) == row["next_state"]
        taken.append(row["action"])


def test_other_actions_are_tried_in_frames_that_are_written_as_tokens():
    drawn = worlds.make("minigrid", environments=DOORS, view="image")
    seen = [drawn.reset(seed)[0] for seed in range(3)]
    seen += [drawn.step(drawn.act("random", rng))[0] for rng in [np.random.default_rng(0)] for _ in range(60)]
    tokens = tile.learn(sorted({part["image"] for state in seen for part in state}), Images())

    def tried(view):
        world = worlds.make("minigrid", environments=DOORS, view=view)
        layouts = {world.reset(seed)[1]["layout"] for seed in range(3)}
        world = WrittenWorld(world, tokens) if view == "image" else world
        turns = itertools.repeat("random")
        return branch(world, range(3), layouts, turns, transitions=24, states=2, alternatives=2, max_steps=9, seed=1)

    words, found = tried("text").rows, tried("image").rows
    assert [row["action"] for row in found] == [row["action"] for row in words]
    pairs = {(old[name], new[name]) for old, new in zip(words, found, strict=True) for name in ("state", "next_state")}
    assert len(pairs) == len({old for old, _ in pairs}) == len({new for _, new in pairs}) > 5
    assert all(tokens.parse(new) is not None for _, new in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("workers", (1, 2))
def test_killed_and_run_again_it_is_the_same_recording(tmp_path, swirl, workers):
    options = ["--option", "view=image", "--option", 'environments=["MiniGrid-DoorKey-6x6-v0"]', "--max-steps", 30]
    command = ["collect", "minigrid", *options, "--transitions", 12_000, "--workers", workers, "--out", "rec.parquet"]
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    code, _, told = swirl(*command, cwd=tmp_path / "whole")
    assert code == 0, told
    words = [sys.executable, "-m", "swirl.cli", *map(str, command)]
    with subprocess.Popen(words, cwd=tmp_path / "killed", stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: glob(f"{tmp_path}/killed/.rec.parquet.pieces/*.parquet"))
        below = children(process.pid)
        process.kill()
        process.wait(60)
    assert workers == 1 or len(below) >= workers
    code, _, told = swirl(*command, cwd=tmp_path / "killed")
    assert code == 0 and "goes on behind" in told
    whole, killed = [
        {file.relative_to(tmp_path / name): file.read_bytes() for file in (tmp_path / name).rglob("*.p*")}
        for name in ("whole", "killed")
    ]
    assert whole == killed
    assert len(whole) == 1 + len(named(tmp_path / "whole" / "rec.parquet"))
