import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from swirl.data import check, read, split
from swirl.data.parts import with_absolute_images
from swirl.errors import InputError
from swirl.images import data_uri, open_image, png
from swirl.types import IMAGE, state_parts, state_text


def image(place):
    return {"type": "image", "image": place}


def text(words):
    return {"type": "text", "text": words}


def recording(folder, *rows, name="a.jsonl"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def test_paths_are_relative_to_the_recording_wherever_the_command_runs(tmp_path, monkeypatch):
    home = tmp_path / "back\\slash \\1"
    uri = data_uri(Image.new("RGB", (2, 2)))
    rows = [
        {"state": [text("a"), image("frames/1.png"), text(f"in {IMAGE}line")], "next_state": [image("/abs/2.png")]},
        {"state": [image(uri), image("../3.png")], "next_state": "plain"},
    ]
    path = recording(home, *rows)
    monkeypatch.chdir(home)
    for place in (path, path.name):
        assert read(place).select(["state", "next_state"]).to_pylist() == [
            {"state": f"a\n{IMAGE}{home}/frames/1.png\nin {IMAGE}line", "next_state": f"{IMAGE}/abs/2.png"},
            {"state": f"{IMAGE}{uri}\n{IMAGE}{home}/../3.png", "next_state": "plain"},
        ]
    pq.write_table(pa.table({"state": [f"{IMAGE}1.png"], "next_state": ["b"]}), home / "a.parquet")
    os.chdir("/")
    assert read(home / "a.parquet")["state"].to_pylist() == [f"{IMAGE}{home}/1.png"]


LINE = st.text(st.sampled_from([IMAGE, "/", "a", ".", " ", "\\", "$", "1"]), max_size=5)


@given(states=st.lists(st.lists(LINE, min_size=1, max_size=4), min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_made_absolute_are_the_paths_of_images_and_nothing_else(states, tmp_path):
    texts = ["\n".join(lines) for lines in states]
    found = with_absolute_images(pa.chunked_array([texts, []], pa.string()), tmp_path).to_pylist()
    for before, after in zip(texts, found, strict=True):
        parts = state_parts(before)
        for part in parts:
            if part["type"] == "image" and part["image"] and not part["image"].startswith("/"):
                part["image"] = f"{tmp_path}/{part['image']}"
        assert after == state_text(parts)


def test_images_as_datasets_stores_them(tmp_path):
    red = png(Image.new("RGB", (2, 3), "red"))
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    part = pa.struct({"type": pa.string(), "text": pa.string(), "image": struct})
    states = [
        [image({"bytes": red, "path": "x.png"}), text("said")],
        [image({"bytes": None, "path": "y.png"})],
    ]
    columns = {
        "state": pa.array(states, pa.list_(part)),
        "next_state": pa.array([{"bytes": red, "path": None}] * 2, struct),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    first, second = read(tmp_path / "a.parquet").to_pylist()
    embedded, said = state_parts(first["state"])
    assert open_image(embedded["image"]).getpixel((1, 2)) == (255, 0, 0) and said == text("said")
    assert second["state"] == f"{IMAGE}{tmp_path}/y.png"
    assert first["next_state"] == second["next_state"] == f"{IMAGE}{embedded['image']}"


def test_states_of_parts_are_read_in_pieces_and_stay_in_order(tmp_path):
    states = [[text(str(number))] for number in range(205)]
    pq.write_table(pa.table({"state": states, "next_state": states}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")["state"].to_pylist() == [str(number) for number in range(205)]
    states[203] = [{"type": "video", "text": "x"}]
    pq.write_table(pa.table({"state": states, "next_state": states}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"^a\.parquet:204: state holds a part of kind 'video', expected"):
        read(tmp_path / "a.parquet")


def test_a_struct_that_is_no_image_is_no_state(tmp_path):
    pq.write_table(pa.table({"state": [{"bytes": b"", "x": 1}], "next_state": ["b"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"^a\.parquet: column 'state' holds struct<.*expected string"):
        read(tmp_path / "a.parquet")


def test_check_counts_images_and_names_those_that_cannot_be_used(tmp_path):
    Image.new("RGB", (4, 2), "red").save(tmp_path / "good.png")
    Image.new("L", (4, 4)).save(tmp_path / "grey.png")
    Image.new("CMYK", (4, 4)).save(tmp_path / "cmyk.jpg")
    Image.new("I;16", (4, 4)).save(tmp_path / "deep.png")
    Image.new("RGBA", (4, 4)).save(tmp_path / "clear.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:50])
    (tmp_path / "other.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")
    names = ["good.png", "grey.png", "none.png", "broken.png", "cmyk.jpg", "deep.png", "clear.png", "other.eps"]
    rows = [{"state": [text("see"), image(name)], "next_state": [image("good.png")]} for name in [*names, "none.png"]]
    report = check(recording(tmp_path, {"state": "no image", "next_state": "none"}, *rows))
    assert report.images is not None
    assert (report.images.shown, report.images.distinct, report.images.sizes) == (18, 8, {"4x2": 1, "4x4": 1})
    problems = [problem for problem in report.problems if problem.startswith("a.jsonl:")]
    for problem, (row, words) in zip(
        problems,
        [
            (4, "none.png: no such image file"),
            (5, "broken.png: a broken image"),
            (6, "cmyk.jpg: an image of mode CMYK"),
            (7, "deep.png: an image of mode I;16"),
            (8, "clear.png: an image with transparent parts"),
        ],
        strict=True,
    ):
        assert (
            problem.startswith(f"a.jsonl:{row}, trajectory 't00000{row - 1}' step 0: {tmp_path}") and words in problem
        )
    assert "1 more images cannot be used" in report.problems
    assert "images of 2 sizes; to make them one, import with --size WxH" in report.notes
    assert "images            18 in states, 8 distinct (4x2: 1, 4x4: 1)" in report.lines()


def test_check_says_nothing_of_images_where_there_are_none(tmp_path):
    report = check(recording(tmp_path, {"state": f"a {IMAGE} b", "next_state": "b"}))
    assert report.images is None and not any(line.startswith("images") for line in report.lines())


def test_a_run_s_files_name_images_by_absolute_paths(tmp_path):
    Image.new("RGB", (4, 2)).save(tmp_path / "1.png")
    rows = [
        {
            "state": [text(str(number)), image("1.png")],
            "next_state": f"{number}b",
            "action": "go",
            "layout": str(number),
        }
        for number in range(9)
    ]
    spec = {"labels": None, "validation_labels": 0, "validation": 0.3, "test": 0.3, "seed": 0, "data_seed": 0}
    split(read(recording(tmp_path, *rows)), tmp_path / "run" / "data", **spec)
    report = check(tmp_path / "run")
    assert report.images is not None and report.images.sizes == {"4x2": 1} and report.problems == ()


def test_an_image_stands_as_its_camera_held_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: a quarter clockwise makes it upright
    lying = Image.new("RGB", (2, 1), "red")
    lying.putpixel((1, 0), (0, 0, 255))
    lying.save(tmp_path / "a.png", exif=exif)
    upright = open_image("a.png", tmp_path)
    assert upright.size == (1, 2) and upright.getpixel((0, 0)) == (255, 0, 0)


def test_only_formats_in_use_are_opened(tmp_path):
    Image.new("RGB", (4, 2)).save(tmp_path / "a.png", "PCX")
    with pytest.raises(InputError, match=r"a\.png: no image that can be read; expected PNG, JPEG"):
        open_image("a.png", tmp_path)
