import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from swirl import cli
from swirl.data import check, read
from swirl.errors import InputError
from swirl.images import open_image, png
from swirl.importers import Options, import_recording


def picture(path, colour, size=(6, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def imported(source, form, tmp_path, **options):
    counts = import_recording("pairs", [str(source)], tmp_path / "o.parquet", Options(format=form, **options))
    return read(tmp_path / "o.parquet").to_pylist(), counts


def colour(state):
    image = open_image(state.removeprefix("\ufffc"))
    return {(255, 0, 0): "red", (0, 0, 255): "blue", (0, 128, 0): "green", (255, 255, 0): "yellow"}[
        image.getpixel((0, 0))
    ]


def brief(row):
    return row["trajectory"], row["step"], colour(row["state"]), row["action"], colour(row["next_state"]), row["layout"]


def aurora(folder, pairs, name="test.json", **more):
    """A file of AURORA's: pairs of colours, each with its instruction; an image is named by its colour."""
    records = []
    for source, target, instruction in pairs:
        for shade in (source, target):
            picture(folder / "data" / f"{shade}.png", shade)
        records.append(
            {"input": f"data/{source}.png", "output": f"data/{target}.png", "instruction": instruction} | more
        )
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(records, indent=1))
    return folder


def test_pairs_of_aurora_keep_their_subset_and_those_that_share_an_image_their_layout(tmp_path):
    pairs = [("red", "blue", "Make it blue."), ("green", "yellow", " Brighten \n"), ("yellow", "red", "Warm up")]
    rows, counts = imported(aurora(tmp_path / "in", pairs, task="magic/brush"), "aurora", tmp_path)
    # the third shows an image of the second and one of the first: all three are one layout
    assert [brief(row)[:5] for row in rows] == [
        ("magic-brush/0", 0, "red", "Make it blue.", "blue"),
        ("magic-brush/1", 0, "green", "Brighten", "yellow"),
        ("magic-brush/2", 0, "yellow", "Warm up", "red"),
    ]
    assert {row["layout"] for row in rows} == {"magic-brush/1"} and all(row["truncated"] for row in rows)
    assert counts == {"transitions": 3, "trajectories": 3, "labels": 3, "malformed": 0}
    assert len(list((tmp_path / "o.images").iterdir())) == 4
    assert check(tmp_path / "o.parquet").images.sizes == {"6x4": 4}


def test_pairs_that_share_nothing_are_layouts_of_their_own_and_a_label_budget_holds(tmp_path):
    pairs = [("red", "blue", "a"), ("green", "yellow", "b")]
    rows, counts = imported(aurora(tmp_path / "in", pairs, name="data/ag/train.json"), "aurora", tmp_path, labels=1)
    assert [row["layout"] for row in rows] == ["ag/0", "ag/1"]  # without a task the folder is the subset
    assert counts["labels"] == 1 and [row["action"] for row in rows].count(None) == 1
    pairs += [("blue", "green", "c")]
    rows, counts = imported(aurora(tmp_path / "more", pairs), "aurora", tmp_path, labels=2)
    assert len({row["layout"] for row in rows}) == 1 and counts["labels"] == 2


def test_equal_images_of_other_names_are_one(tmp_path):
    aurora(tmp_path / "in", [("red", "blue", "a"), ("green", "yellow", "b")])
    picture(tmp_path / "in" / "data" / "green.png", "blue")
    rows, _ = imported(tmp_path / "in", "aurora", tmp_path, size=(5, 5))
    assert rows[0]["next_state"] == rows[1]["state"] and rows[0]["layout"] == rows[1]["layout"] == "in/0"
    assert open_image(rows[0]["state"][1:]).size == (5, 5)


def pico(folder, *records):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sft.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


SINGLE = {
    "open_image_input_url": "https://farm1.example/1_o.jpg",
    "text": "Make it blue, carefully.",
    "output_image": "images/positive-edit/1.png",
    "rejected_images": ["images/negative-edit/1.png"],
    "edit_type": "Change color/tone",
    "summarized_text": "Blue.",
    "local_input_image": "source/1.png",
}
SESSION = {
    "files": [
        {"id": "final_image", "url": "images/multi-turn/7_3.png"},
        {"id": "edit_turn2", "url": "images/multi-turn/7_2.png"},
        {"id": "edit_turn1", "url": "images/multi-turn/7_1.png"},
        {"id": "original_input_image", "url": "https://farm1.example/7_o.jpg"},
    ],
    "metadata_edit_turn_prompts": ["first", "second", "third"],
    "local_input_image": "source/7.png",
}


def banana(tmp_path):
    home = tmp_path / "pico"
    for name, shade in (("source/1", "red"), ("images/positive-edit/1", "blue"), ("source/7", "red")):
        picture(home / f"{name}.png", shade)
    for turn, shade in enumerate(("green", "yellow", "blue"), start=1):
        picture(home / f"images/multi-turn/7_{turn}.png", shade)
    return home


def test_single_turns_and_sessions_of_pico_banana(tmp_path):
    home = banana(tmp_path)
    rows, counts = imported(pico(home / "lists", SINGLE, SESSION), "pico-banana", tmp_path)
    layout = "Change color-tone/0"
    assert [brief(row) for row in rows] == [
        ("Change color-tone/0", 0, "red", "Make it blue, carefully.", "blue", layout),
        ("multi-turn/1", 0, "red", "first", "green", layout),
        ("multi-turn/1", 1, "green", "second", "yellow", layout),
        ("multi-turn/1", 2, "yellow", "third", "blue", layout),
    ]
    assert [row["truncated"] for row in rows] == [True, False, False, True] and counts["trajectories"] == 2


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (SINGLE | {"local_input_image": None}, "local_input_image is null, expected text"),
        (SINGLE | {"text": " "}, 'text is " ", expected text'),
        (SINGLE | {"output_image": "gone.png"}, "no image file gone.png (output_image), neither beside sft.jsonl nor"),
        (SINGLE | {"output_image": "images"}, "no image file images (output_image)"),
        (SINGLE | {"output_image": "\0" + "a" * 9999}, "no image file"),
        (SESSION | {"metadata_edit_turn_prompts": ["one"]}, "3 images after the original, but not so many"),
        (SESSION | {"metadata_edit_turn_prompts": [1, 2, 3]}, "a prompt is 1, expected text"),
        (SESSION | {"files": [*SESSION["files"][:3], "x"]}, "its files are no list of objects"),
        (SESSION | {"files": SESSION["files"][:1] + SESSION["files"][2:]}, "2 images after the original"),
        ([1], "got a JSON list, expected an object"),
    ],
)
def test_a_record_that_is_no_pair_is_counted_and_named(record, message, tmp_path, caplog):
    home = banana(tmp_path)
    rows, counts = imported(pico(home / "lists", record, SINGLE), "pico-banana", tmp_path)
    assert len(rows) == 1 and counts["malformed"] == 1
    assert f"sft.jsonl:1: {message}" in caplog.text
    with pytest.raises(InputError, match=r"sft\.jsonl: no transition found \(1 malformed; the first is sft\.jsonl:1: "):
        import_recording(
            "pairs",
            [str(pico(home / "lists", record) / "sft.jsonl")],
            tmp_path / "x.parquet",
            Options(format="pico-banana"),
        )
    assert not list(tmp_path.glob("*x.*"))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {k: v for k, v in SINGLE.items() if k != "local_input_image"},
            "sft.jsonl: names source images by their addres",
        ),
        (
            SINGLE | {"output_image": "https://x.org/1.png"},
            "sft.jsonl: output_image is https://x.org/1.png; download it",
        ),
    ],
)
def test_images_on_the_network_have_to_be_downloaded_first(record, message, tmp_path):
    with pytest.raises(InputError) as error:
        imported(pico(banana(tmp_path) / "lists", SINGLE, record), "pico-banana", tmp_path)
    assert str(error.value).startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["pico"]


def halves(path, left, right, record=None, width=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (2 * width, 4), left)
    image.paste(Image.new("RGB", (width, 4), right), (width, 0))
    image.save(path)
    path.with_suffix(".json").write_text(json.dumps(record) if record is not None else "{")


def test_halves_of_bytemorph(tmp_path, caplog):
    home = tmp_path / "in"
    halves(home / "camera_zoom" / "1.png", "red", "blue", {"edit": "Zoom in.", "input": "a", "output": "b"})
    halves(home / "object_motion" / "1.png", "green", "yellow", {"edit": "Jump"})
    halves(home / "object_motion" / "2.png", "green", "yellow")
    halves(home / "object_motion" / "3.png", "green", "yellow", {"caption": "x"})
    halves(home / "object_motion" / "4.png", "green", "yellow", ["x"])
    picture(home / "object_motion" / "5.png", "red", (7, 4))
    (home / "object_motion" / "5.json").write_text('{"edit": "x"}')
    picture(home / "object_motion" / "6.png", "red")
    rows, counts = imported(home, "bytemorph", tmp_path)
    assert [brief(row) for row in rows] == [
        ("camera_zoom/0", 0, "red", "Zoom in.", "blue", "camera_zoom/0"),
        ("object_motion/1", 0, "green", "Jump", "yellow", "object_motion/1"),
    ]
    assert counts["malformed"] == 5 and open_image(rows[0]["next_state"][1:]).size == (6, 4)
    for said in (
        "object_motion/2.png: 2.json cannot be read as JSON",
        "object_motion/3.png: edit is null, expected text",
        "object_motion/4.png: edit is null",
        "object_motion/5.png: is 7 pixels wide, expected two images",
        "object_motion/6.png: no 6.json beside it",
    ):
        assert said in caplog.text


def test_rows_of_bytemorph(tmp_path, caplog):
    red, blue = (png(Image.new("RGB", (6, 4), shade)) for shade in ("red", "blue"))
    row = {"image_id": "1", "src_img": {"bytes": red, "path": None}, "tgt_img": {"bytes": blue, "path": None}}
    rows = [
        row | {"edit_type": "camera_zoom", "edit_prompt": "p", "edit_prompt_rewrite_instruction": "Zoom"},
        row | {"edit_type": None, "edit_prompt": "p", "edit_prompt_rewrite_instruction": ""},
        row | {"src_img": {"bytes": b"no image", "path": "a.jpg"}, "edit_prompt": "p"},
        row | {"src_img": None, "edit_prompt": "p"},
        row | {"src_img": {"bytes": None, "path": "https://x.org/a.png"}, "edit_prompt": "p"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test-0.parquet")
    found, counts = imported(tmp_path / "test-0.parquet", "bytemorph", tmp_path)
    assert [brief(row)[:5] for row in found] == [
        ("camera_zoom/0", 0, "red", "Zoom", "blue"),
        ("test-0/1", 0, "red", "p", "blue"),
    ]
    assert counts["malformed"] == 3
    assert "test-0.parquet:3: data:image/jpeg" in caplog.text and "no image that can be read" in caplog.text
    assert "test-0.parquet:4: test-0.parquet: src_img holds an image that is 'None'" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "no image file data/blue.png (output)"),
        (lambda path: path.write_bytes(b"\x89PNG no more"), "no image that can be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "a broken image"),
        (lambda path: Image.new("CMYK", (6, 4)).save(path, "JPEG"), "an image of mode CMYK, expected 8-bit RGB"),
        (lambda path: Image.new("I;16", (6, 4)).save(path), "an image of mode I;16, expected 8-bit RGB"),
        (lambda path: Image.new("RGBA", (6, 4), (9, 9, 9, 9)).save(path), "an image with transparent parts"),
    ],
)
def test_an_image_that_cannot_be_used_costs_its_pair_and_is_named(spoil, message, tmp_path, caplog):
    aurora(tmp_path / "in", [("red", "blue", "a"), ("green", "yellow", "b")])
    spoil(tmp_path / "in" / "data" / "blue.png")
    rows, counts = imported(tmp_path / "in", "aurora", tmp_path)
    assert [row["action"] for row in rows] == ["b"] and counts["malformed"] == 1
    assert "test.json:2: " in caplog.text and message in caplog.text
    assert len(list((tmp_path / "o.images").iterdir())) == 2  # none of the pair that was left out


def test_images_of_several_sizes_are_kept_as_they_are_and_noted(tmp_path):
    aurora(tmp_path / "in", [("red", "blue", "a"), ("green", "yellow", "b")])
    picture(tmp_path / "in" / "data" / "blue.png", "blue", (9, 9))
    imported(tmp_path / "in", "aurora", tmp_path)
    report = check(tmp_path / "o.parquet")
    assert report.images.sizes == {"6x4": 3, "9x9": 1} and report.problems == ()
    assert "images of 2 sizes; to make them one, import with --size WxH" in report.notes
    assert "images            4 in states, 4 distinct (6x4: 3, 9x9: 1)" in report.lines()


@given(
    raw=st.binary(min_size=1, max_size=40), at=st.integers(0, 10_000), ending=st.sampled_from(["png", "jpeg", "webp"])
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
def test_a_damaged_image_costs_its_pair_at_most(raw, at, ending, tmp_path):
    aurora(tmp_path / "in", [("red", "blue", "a"), ("green", "yellow", "b")])
    spoiled = tmp_path / "in" / "data" / "blue.png"
    Image.linear_gradient("L").save(spoiled, ending)
    data = bytearray(spoiled.read_bytes())
    at %= len(data)
    data[at : at + len(raw)] = raw
    spoiled.write_bytes(data)
    rows, counts = imported(tmp_path / "in", "aurora", tmp_path)
    assert len(rows) + counts["malformed"] == 2 and rows[-1]["action"] == "b"


def test_the_command(tmp_path, capsys):
    source, out = aurora(tmp_path / "in", [("red", "blue", "a")]), tmp_path / "o.parquet"
    words = ["import", "pairs", str(source), "--out", str(out)]
    assert cli.main([*words, "--format", "aurora", "--size", "2x2"]) == 0
    assert capsys.readouterr().out == f"{out}: 1 transition, 1 trajectory, 1 label, 0 malformed\n"
    for extra, message in (
        ([], "pairs: give --format aurora, pico-banana, bytemorph"),
        (["--format", "aurorra"], "unknown --format 'aurorra'"),
        (["--format", "aurora", "--stride", "2"], "--stride is for video; format 'pairs' does not read it"),
        (["--format", "aurora", "--size", "2"], "--size 2: expected WIDTHxHEIGHT"),
    ):
        assert cli.main([*words, *extra]) == 2
        assert message in capsys.readouterr().err
