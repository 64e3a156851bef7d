"""The files of a run written anew with image tokens: no frame is lost, and nothing is learned of what may not be."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from swirl import data, images, imagetokens
from swirl.config import Data, Images, Recipe
from swirl.data import imaging
from swirl.data.splitting import PARTS
from swirl.errors import InputError
from swirl.methods import session
from swirl.types import IMAGE

SPEC = Images(tokenizer="tile", tile=2, codes=64)
SHOWN = {"validation": 8, "test": 9}
"""Trajectories of a part; the others train."""
ROOMS = 10


def tile(room, place):
    """A colour for each room and place, and one that the rooms share."""
    return (0, 0, 0) if place == 0 else (10 * room + 5, 200, place)


def picture(room, place):
    """Two tiles by one: the left one is black in all rooms."""
    pixels = np.array([[tile(room, 0), tile(room, place)]], np.uint8).repeat(2, 0).repeat(2, 1)
    return Image.fromarray(pixels)


def part_of(room):
    return next((part for part, shown in SHOWN.items() if shown == room), "train")


def record(folder, text=""):
    """Ten rooms of four steps, a picture a state; each step has a secret in its action's name."""
    rows = []
    for room in range(ROOMS):
        names = [f"in.images/{images.keep(picture(room, place), folder / 'in.images')}" for place in range(1, 6)]
        for step in range(4):
            rows.append(
                {
                    "state": f"{text}{IMAGE}{names[step]}",
                    "action": f"secret{room}{step}",
                    "next_state": f"{text}{IMAGE}{names[step + 1]}",
                    "trajectory": f"room {room}",
                    "step": step,
                    "split": part_of(room),
                }
            )
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def split(path, out, **options):
    options = {
        "labels": 12,
        "validation_labels": 4,
        "validation": 0.1,
        "test": 0.1,
        "seed": 0,
        "data_seed": 0,
    } | options
    data.split(data.read(path), out, **options)
    return out


@pytest.fixture
def frames(tmp_path):
    return split(record(tmp_path), tmp_path / "frames", history=2)


@pytest.fixture
def written(frames, tmp_path):
    (tmp_path / "data").mkdir()
    imaging.write_images(frames, tmp_path / "data", SPEC, 0, "cpu")
    return tmp_path / "data"


def rows(folder, part):
    return pq.read_table(folder / f"{part}.parquet").to_pylist()


def show(tokenizer, text):
    """The one image of a written state."""
    (part,) = imagetokens.drawn(tokenizer, text)
    return np.asarray(images.open_image(part["image"]))


def test_what_training_shows_comes_back_pixel_by_pixel_and_frames_are_kept(frames, written):
    tokenizer = imagetokens.load(written / "images")
    for part in PARTS:
        before, after = rows(frames, part), rows(written, part)
        assert len(before) == len(after) > 0
        for old, new in zip(before, after, strict=True):
            assert (new.pop("frame"), new.pop("next_frame")) == (old["state"], old["next_state"])
            room, step = int(old["trajectory"].split()[1]), old["step"]
            if part in ("labelled", "state_only"):
                np.testing.assert_array_equal(show(tokenizer, new["state"]), picture(room, step + 1))
                np.testing.assert_array_equal(show(tokenizer, new["next_state"]), picture(room, step + 2))
                earlier = [show(tokenizer, text) for text in new["history"]]
                assert len(earlier) == min(step, 2)
                for past, frame in zip(range(step - len(earlier), step), earlier, strict=True):
                    np.testing.assert_array_equal(frame, picture(room, past + 1))
            states = ("state", "next_state", "history")
            assert {k: v for k, v in new.items() if k not in states} == {
                k: v for k, v in old.items() if k not in states
            }


def test_a_state_is_written_the_same_wherever_it_stands(written):
    for part in PARTS:
        found = {(row["trajectory"], row["step"]): row for row in rows(written, part)}
        for (name, step), row in found.items():
            if after := found.get((name, step + 1)):
                assert row["next_state"] == after["state"]
                assert after["history"][-1] == row["state"]


def test_actions_that_are_hidden_are_nowhere_in_the_files(frames, written):
    known = {row["action"] for part in ("labelled", "validation", "test") for row in rows(written, part)}
    hidden = {f"secret{room}{step}" for room in range(ROOMS) for step in range(4)} - known
    assert len(hidden) >= 20
    schema = pq.read_schema(written / "state_only.parquet")
    assert "action" not in schema.names
    files = [path for path in written.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"tiles.png", "outside.txt", "image_tokenizer.json"}
    for path in files:
        content = path.read_bytes()
        texts = json.dumps(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else b""
        assert not any(action.encode() in content + texts for action in hidden), path


def test_tiles_are_those_of_training_alone(written):
    tokenizer = imagetokens.load(written / "images")
    known = {tuple(pixels[0, 0].tolist()) for pixels in tokenizer.tiles}
    training = [room for room in range(ROOMS) if room not in SHOWN.values()]
    assert known == {(0, 0, 0)} | {tile(room, place) for room in training for place in range(1, 6)}
    # What is new in the test is written as what is nearest: 85 is not known, 75 is.
    for row in rows(written, "test"):
        assert show(tokenizer, row["state"])[0, 2].tolist() == list(tile(7, row["step"] + 1))


def test_what_stands_outside_images_is_noted_of_training_alone(tmp_path):
    path = record(tmp_path, text="key:\n")
    lines = path.read_text().splitlines()
    marked = [line.replace("key:", "Ω") if '"split": "test"' in line else line for line in lines]
    path.write_text("\n".join(marked))
    (tmp_path / "data").mkdir()
    imaging.write_images(split(path, tmp_path / "frames"), tmp_path / "data", SPEC, 0, "cpu")
    assert imagetokens.outside(tmp_path / "data/images") == "\n:eky"
    assert "Ω\n<|i" in rows(tmp_path / "data", "test")[0]["state"]


def test_writing_is_the_same_every_time(frames, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        imaging.write_images(frames, tmp_path / name, SPEC, 0, "cpu")
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_rows_are_written_in_pieces_as_in_one(frames, written, monkeypatch, tmp_path):
    monkeypatch.setattr(imaging, "ROWS", 3)
    (tmp_path / "again").mkdir()
    imaging.write_images(frames, tmp_path / "again", SPEC, 0, "cpu")
    for part in PARTS:
        assert rows(tmp_path / "again", part) == rows(written, part)


def recipe(path, **options):
    spec = Data(path=str(path), labels=12, validation_labels=4, history=1)
    return Recipe(methods=(), threads=1, device="cpu", data=spec, images=SPEC, **options)


class Reached(Exception):
    pass


@pytest.fixture
def prepare(monkeypatch):
    """Runs a recipe up to the model that it would begin with."""

    def stop(self):
        raise Reached

    monkeypatch.setattr(session.Runner, "start", stop)

    def prepare(recipe, folder):
        with pytest.raises(Reached):
            session.run_recipe(recipe, folder / "run", folder / "cache")

    return prepare


@pytest.mark.parametrize("damage", ["missing", "cut", "no multiple"])
@pytest.mark.parametrize("room", [0, SHOWN["test"]], ids=["training", "test"])
def test_an_image_that_cannot_be_used_is_named_and_the_mended_recording_goes_on(tmp_path, prepare, damage, room):
    path = record(tmp_path)
    row = next(r for r in map(json.loads, path.read_text().splitlines()) if r["trajectory"] == f"room {room}")
    bad = tmp_path / row["next_state"][1:]
    good = bad.read_bytes()
    if damage == "missing":
        bad.unlink()
    elif damage == "cut":
        bad.write_bytes(good[: len(good) // 2])
    else:
        bad.write_bytes(images.png(Image.new("RGB", (3, 2))))
    before = path.read_bytes()
    with pytest.raises(InputError) as refused:
        session.run_recipe(recipe(path), tmp_path / "run", tmp_path / "cache")
    assert "\n" not in str(refused.value)
    if damage != "no multiple":  # which no one sees before there is a tokenizer, learned from images, not from steps
        assert f"trajectory 'room {room}' step 0: {bad}: " in str(refused.value)
    elif room in SHOWN.values():
        assert str(refused.value).startswith(f"trajectory 'room {room}' step 0: an image has 3x2 pixels")
    else:
        assert str(refused.value).startswith(f"{bad} has 3x2 pixels")
    assert not (tmp_path / "run/data").exists()
    bad.write_bytes(good)
    prepare(recipe(path), tmp_path)
    assert path.read_bytes() == before
    prepare(recipe(path), tmp_path / "other")
    for file in (tmp_path / "run/data").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "other/run/data" / file.relative_to(tmp_path / "run/data")).read_bytes()


def test_images_without_a_tokenizer_and_a_tokenizer_without_images_are_refused(tmp_path):
    path = record(tmp_path)
    with pytest.raises(InputError, match=r'^\S*in.jsonl: states hold images; give images.tokenizer, "tile" for'):
        session.run_recipe(Recipe(data=Data(path=str(path)), threads=1), tmp_path / "run", tmp_path)
    words = tmp_path / "words.jsonl"
    words.write_text(json.dumps({"state": "a", "action": "b", "next_state": "c"}) + "\n")
    with pytest.raises(InputError, match=r"words.jsonl: states hold no image, but images.tokenizer = 'tile'; leave"):
        session.run_recipe(recipe(words), tmp_path / "other", tmp_path)
    assert not (tmp_path / "run/frames").exists() and not (tmp_path / "other/frames").exists()


def test_a_tokenizer_of_another_run_can_be_given_and_what_is_none_cannot(frames, written, tmp_path):
    (tmp_path / "again").mkdir()
    imaging.write_images(frames, tmp_path / "again", Images(tokenizer=str(written / "images")), 0, "cpu")
    for part in PARTS:
        assert rows(tmp_path / "again", part) == rows(written, part)
    assert imagetokens.fingerprint(tmp_path / "again/images") == imagetokens.fingerprint(written / "images")
    with pytest.raises(InputError, match=r"images.tokenizer = 'tiles', expected tile, vq, fsq, or the folder of one"):
        imaging.learn([], Images(tokenizer="tiles"), 0, "cpu")
    shutil.rmtree(tmp_path / "again/images")
    (tmp_path / "again/images").mkdir()
    with pytest.raises(InputError, match="has no whole image tokenizer"):
        imaging.learn([], Images(tokenizer=str(tmp_path / "again/images")), 0, "cpu")


def test_a_recording_is_given_as_the_model_reads_it(frames, written, tmp_path):
    tokenizer = imagetokens.load(written / "images")
    raw, done = (pq.read_table(folder / "test.parquet") for folder in (frames, written))
    assert imaging.as_read(raw, tokenizer, "x").to_pylist() == done.to_pylist()
    assert imaging.as_read(done, tokenizer, "x") is done
    with pytest.raises(InputError, match=r"^x: its states hold images, and the model reads none"):
        imaging.as_read(raw, None, "x")
    words = done.drop_columns(["frame", "next_frame"])
    with pytest.raises(InputError, match=r"^x: its states hold no images, and the model reads some"):
        imaging.as_read(words, tokenizer, "x")
    assert imaging.as_read(words, None, "x") is words
