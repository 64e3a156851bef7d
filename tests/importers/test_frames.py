import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from swirl import cli
from swirl.data import export, read
from swirl.errors import InputError
from swirl.images import keep, open_image, png
from swirl.importers import Options, import_recording, parse_size
from swirl.importers.frames import beside, fitted
from swirl.types import state_parts


def picture(colour, size=(6, 4)):
    return Image.new("RGB", size, colour)


def paths(text):
    return [part["image"] for part in state_parts(text) if part["type"] == "image"]


def test_a_table_of_parts_keeps_its_images_beside_the_recording(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    picture("red").save(inside / "a.png")
    picture("blue").save(inside / "b.bmp")
    said = {"type": "text", "text": "key sk-abcdefghijklmnop1234"}
    rows = [
        {"state": [said, {"type": "image", "image": "a.png"}], "next_state": [{"type": "image", "image": "b.bmp"}]},
        {"state": [{"type": "image", "image": "none.png"}], "next_state": "b"},
    ]
    (inside / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out" / "new.parquet"
    counts = import_recording("table", [str(inside)], out, Options(redact=True, size=(3, 2)))
    assert counts == {"transitions": 1, "trajectories": 1, "labels": 0, "malformed": 1, "masked": 1}
    raw = pq.read_table(out)["state"][0].as_py()
    assert raw.startswith("key [REDACTED]\n\ufffcnew.images/") and raw.endswith(".png")
    [row] = read(out).to_pylist()
    red, blue = (open_image(path) for text in (row["state"], row["next_state"]) for path in paths(text))
    assert (red.size, red.getpixel((0, 0)), blue.getpixel((2, 1))) == ((3, 2), (255, 0, 0), (0, 0, 255))
    assert sorted(path.name for path in out.parent.iterdir()) == ["new.images", "new.parquet"]


def test_images_inside_parquet_and_those_of_datasets_are_kept(tmp_path):
    import datasets

    red, blue = (png(picture(colour)) for colour in ("red", "blue"))
    part = pa.struct({"type": pa.string(), "image": pa.struct({"bytes": pa.binary(), "path": pa.string()})})
    states = [[{"type": "image", "image": {"bytes": data, "path": None}}] for data in (red, blue)]
    table = pa.table(
        {"state": pa.array(states[:1], pa.list_(part)), "next_state": pa.array(states[1:], pa.list_(part))}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    features = datasets.Features({"state": datasets.Image(), "next_state": datasets.Image()})
    saved = datasets.Dataset.from_dict({"state": [{"bytes": red}], "next_state": [{"bytes": blue}]}, features)
    saved.save_to_disk(str(tmp_path / "saved"))
    texts = []
    for source in ("a.parquet", "saved"):
        out = tmp_path / f"{source[0]}-out.parquet"
        assert import_recording("table", [str(tmp_path / source)], out)["transitions"] == 1
        [row] = read(out).to_pylist()
        [state], [next_state] = paths(row["state"]), paths(row["next_state"])
        assert open_image(state).tobytes() == picture("red").tobytes()
        assert open_image(next_state).tobytes() == picture("blue").tobytes()
        texts.append((state.rpartition("/")[2], next_state.rpartition("/")[2]))
    assert texts[0] == texts[1]


def test_what_was_exported_comes_back_the_same(tmp_path):
    picture("red").save(tmp_path / "a.png")
    (tmp_path / "a.jsonl").write_text('{"state": [{"type": "image", "image": "a.png"}], "next_state": "b"}')
    export(read(tmp_path / "a.jsonl"), tmp_path / "elsewhere" / "b.jsonl")
    assert read(tmp_path / "elsewhere" / "b.jsonl").equals(read(tmp_path / "a.jsonl"))


def test_a_state_with_images_is_not_cut(tmp_path):
    picture("red").save(tmp_path / "a.png")
    (tmp_path / "a.jsonl").write_text('{"state": [{"type": "image", "image": "a.png"}], "next_state": "b"}')
    out = tmp_path / "o.parquet"
    with pytest.raises(InputError, match=r"a\.jsonl:1: a state with images cannot be cut"):
        import_recording("table", [str(tmp_path / "a.jsonl")], out, Options(max_state=9, too_long="truncate-head"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.png"]


def test_images_take_their_place_when_the_recording_is_whole_and_not_before(tmp_path):
    out = tmp_path / "a.parquet"
    keep(picture("green"), tmp_path / "a.images")  # of a recording that was there before
    with pytest.raises(RuntimeError), beside(out) as frames:
        frames.keep(picture("red"))
        raise RuntimeError
    assert len(list(tmp_path.iterdir())) == len(list((tmp_path / "a.images").iterdir())) == 1
    (tmp_path / ".a.images.part").mkdir()
    (tmp_path / ".a.images.part" / "half").write_text("of a killed import")
    with beside(out) as frames:
        name = frames.keep(picture("red"))
        assert frames.keep(picture("red")) == name and not (tmp_path / name).exists()
    assert open_image(name, tmp_path).getpixel((0, 0)) == (255, 0, 0)
    assert len(list((tmp_path / "a.images").iterdir())) == 2 and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "b.images").write_text("mine")
    with pytest.raises(InputError, match=r"b\.images: is a file, expected the folder"), beside(tmp_path / "b.parquet"):
        pass


@pytest.mark.parametrize(("text", "size"), [("64x48", (64, 48)), ("1X2", (1, 2))])
def test_a_size(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["64", "0x4", "4x", "-4x4", "4x4x4", "99999x99999", "²x4", "a"])
def test_no_size(text):
    with pytest.raises(InputError, match=rf"--size {text}: expected WIDTHxHEIGHT"):
        parse_size(text)


def test_an_image_is_stretched_as_a_whole():
    image = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 8, axis=1))  # 16 wide, half black and half white
    half = np.asarray(fitted(image, (8, 3)))
    assert half.shape == (3, 8) and half[:, :2].max() < 10 and half[:, -2:].min() > 245
    assert fitted(image, None) is image and fitted(image, (16, 1)) is image


def test_a_killed_import_leaves_nothing_to_see_and_the_same_command_then_works(tmp_path):
    for number in range(400):
        picture((number % 256, number // 256, 7), (96, 96)).save(tmp_path / f"{number}.png")
    lines = [f'{{"state": [{{"type": "image", "image": "{n}.png"}}], "next_state": "b"}}\n' for n in range(400)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    out, hidden = tmp_path / "out" / "o.parquet", tmp_path / "out" / ".o.images.part"
    words = ["import", "table", str(tmp_path / "a.jsonl"), "--out", str(out)]
    child = subprocess.Popen([sys.executable, "-m", "swirl.cli", *words], stderr=subprocess.DEVNULL)
    while child.poll() is None and not (hidden.is_dir() and any(hidden.iterdir())):
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert all(path.name.startswith(".") for path in out.parent.iterdir()) and os.listdir(out.parent)
    assert cli.main(words) == 0
    assert sorted(path.name for path in out.parent.iterdir()) == ["o.images", "o.parquet"]
    assert len(list((tmp_path / "out" / "o.images").iterdir())) == 400 and read(out).num_rows == 400
