from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swirl import cli
from swirl.data import check, read
from swirl.errors import InputError, MissingPartError
from swirl.images import open_image
from swirl.importers import Options, import_recording
from swirl.importers import video as importer

av = pytest.importorskip("av", reason=f"PyAV is not installed: {importer.INSTALL}")


def frame(x, back=0):
    """A white bar in column x; 16 pixels a column, so that one step of it changes 2 of 4 columns."""
    pixels = np.full((64, 64, 3), back, np.uint8)
    pixels[:, 16 * x : 16 * x + 16] = 255
    return pixels


def clip(path, frames, codec="libx264rgb", pixels="rgb24", container=None, **options):
    """A video of these frames, ten a second; lossless where the codec is the default one."""
    options = options or {"crf": "0", "preset": "ultrafast"}
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=10, options=options if "264" in codec else {})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        for pixels_of in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels_of, format="rgb24")))
        out.mux(stream.encode())
    return path


def imported(source, out, **options):
    """The rows as (trajectory, step, columns of the bar before and after, truncated), and the counts."""
    counts = import_recording("video", [str(source)], out, Options(**options))
    rows = read(out).to_pylist()
    assert {row["action"] for row in rows} == {None} and all(row["partial"] for row in rows)
    shown = [
        (row["trajectory"], row["step"], bar(row["state"]), bar(row["next_state"]), row["truncated"]) for row in rows
    ]
    return shown, counts


def bar(state):
    pixels = np.asarray(open_image(state.removeprefix("\ufffc")))
    return int(pixels[0, :, 0].argmax()) * 4 // pixels.shape[1]


def test_neighbouring_frames_are_transitions(tmp_path):
    source = clip(tmp_path / "a.mkv", [frame(x) for x in (0, 1, 2, 3)])
    rows, counts = imported(source, tmp_path / "o.parquet", scene_cut=200)
    assert rows == [("a.mkv/0", 0, 0, 1, False), ("a.mkv/0", 1, 1, 2, False), ("a.mkv/0", 2, 2, 3, True)]
    assert counts == {"transitions": 3, "trajectories": 1, "labels": 0, "malformed": 0, "frames": 4}
    [row, *_] = read(tmp_path / "o.parquet").to_pylist()
    assert np.array_equal(np.asarray(open_image(row["state"][1:])), frame(0)) and row["layout"] == "a.mkv"
    assert len(list((tmp_path / "o.images").iterdir())) == 4


def test_a_stride_and_a_part_of_the_clip(tmp_path):
    source = clip(tmp_path / "a.mkv", [frame(x) for x in (0, 1, 2, 3, 2, 1, 0, 1)])
    rows, counts = imported(source, tmp_path / "o.parquet", scene_cut=200, stride=3)
    assert [row[2:4] for row in rows] == [(0, 3), (3, 0)] and counts["frames"] == 8
    rows, counts = imported(source, tmp_path / "o.parquet", scene_cut=200, start=0.3, end=0.5)
    assert [row[2:4] for row in rows] == [(3, 2), (2, 1)] and counts["frames"] == 3
    with pytest.raises(InputError, match=r"a\.mkv: has no frames between --start and --end"):
        imported(source, tmp_path / "o.parquet", start=9.0)


# A step of the bar changes 2 of 4 columns by 255 or 215 (on a background of 40): 127.5 or 107.5 in the mean. Another
# background changes 3 of 4 columns by 40: 30.
LONG = [frame(0), frame(0), frame(0, 40), frame(0, 40), frame(1, 40), frame(1), frame(2, 0), frame(2, 40)]


@pytest.mark.parametrize(
    ("options", "pairs", "left_out", "cuts"),
    [
        ({"scene_cut": 30.1}, [("0", 0, 0), ("1", 1, 1), ("2", 2, 2)], 2, 2),
        ({"scene_cut": 107.6}, [("0", 0, 0), ("0", 0, 1), ("0", 1, 1), ("1", 2, 2)], 2, 1),
        (
            {"scene_cut": 255, "min_change": 29.9},
            [("0", 0, 0), ("0", 0, 1), ("0", 1, 1), ("0", 1, 2), ("0", 2, 2)],
            2,
            0,
        ),
        ({"scene_cut": 255, "min_change": 30}, [("0", 0, 1), ("0", 1, 2)], 5, 0),
    ],
)
def test_a_scene_cut_ends_a_trajectory_and_what_does_not_change_is_left_out(options, pairs, left_out, cuts, tmp_path):
    rows, counts = imported(clip(tmp_path / "a.mkv", LONG), tmp_path / "o.parquet", **options)
    assert [(name.removeprefix("a.mkv/"), before, after) for name, _, before, after, _ in rows] == pairs
    assert (counts.get("pairs without change", 0), counts.get("scene cuts", 0)) == (left_out, cuts)
    last = {row[0]: number for number, row in enumerate(rows)}
    assert [number for number, row in enumerate(rows) if row[4]] == list(last.values())
    table = read(tmp_path / "o.parquet").to_pylist()
    for row, following in pairwise(table):
        assert row["truncated"] or (row["next_state"], row["step"] + 1) == (following["state"], following["step"])


def test_frames_are_stretched_and_a_turned_clip_stands_upright(tmp_path):
    source = clip(tmp_path / "a.mp4", [frame(0), frame(1)])
    raw = bytearray(source.read_bytes())
    at = raw.index(b"tkhd") + 4 + 40
    turned = [0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30]  # the matrix of a phone held upright: a quarter clockwise
    raw[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turned)
    source.write_bytes(raw)
    import_recording("video", [str(source)], tmp_path / "o.parquet", Options(scene_cut=200))
    [row] = read(tmp_path / "o.parquet").to_pylist()
    assert np.array_equal(np.asarray(open_image(row["state"][1:])), np.rot90(frame(0), -1))
    raw[at : at + 4] = raw[at + 16 : at + 20] = (1 << 16).to_bytes(4, "big")
    (tmp_path / "b.mp4").write_bytes(raw)
    with pytest.raises(InputError, match=r"b\.mp4: is turned by -\d+ degrees, expected a multiple of 90"):
        import_recording("video", [str(tmp_path / "b.mp4")], tmp_path / "o.parquet")
    import_recording("video", [str(source)], tmp_path / "o.parquet", Options(scene_cut=200, size=(8, 6)))
    [row] = read(tmp_path / "o.parquet").to_pylist()
    assert open_image(row["state"][1:]).size == (8, 6)


def test_every_clip_is_a_layout(tmp_path):
    for name in ("a", "b"):
        clip(tmp_path / "in" / f"{name}.mkv", [frame(0), frame(1)])
    (tmp_path / "in" / "c.mp4").write_bytes(b"\0\0\0\x18ftypmp42 and no more")
    rows, counts = imported(tmp_path / "in", tmp_path / "o.parquet", scene_cut=200)
    assert [row[:2] for row in rows] == [("a.mkv/0", 0), ("b.mkv/0", 0)] and counts["malformed"] == 1
    with pytest.raises(InputError, match=r"^c\.mp4: cannot be read as a video \("):
        imported(tmp_path / "in", tmp_path / "strict.parquet", scene_cut=200, strict=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "o.images", "o.parquet"]


def sound(path):
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.rate = 8000
        out.mux(stream.encode(samples))
        out.mux(stream.encode())


def of_an_unknown_codec(path):
    clip(path, [frame(0), frame(1)])
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "cannot be read as a video"),
        (lambda path: path.write_bytes(b"GIF89a" * 99), "cannot be read as a video"),
        (sound, "has no video stream"),
        (of_an_unknown_codec, "cannot be read as a video"),
        (lambda path: clip(path, [frame(0)] * 3), "no transition found (3 frames, 2 pairs without change)"),
        (lambda path: clip(path, [frame(0)]), "no transition found (1 frames)"),
        (lambda path: clip(path, [frame(0)] * 2, "qtrle", "argb"), "has transparency (pixels are argb)"),
        (lambda path: clip(path, [frame(0)] * 2, "libx264", "yuv420p10le"), "has more than 8 bits a channel"),
    ],
)
def test_a_clip_that_cannot_be_used_is_named_and_nothing_is_left(make, message, tmp_path):
    source = tmp_path / "in" / "a.mov"
    source.parent.mkdir()
    make(source)
    with pytest.raises(InputError) as error:
        import_recording("video", [str(source)], tmp_path / "o.parquet")
    assert message in str(error.value) and "a.mov" in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_clip_that_breaks_off_is_used_up_to_there_and_counted(tmp_path, caplog):
    source = clip(tmp_path / "a.mp4", [frame(x % 4) for x in range(40)], container={"movflags": "faststart"})
    source.write_bytes(source.read_bytes()[:-400])
    rows, counts = imported(source, tmp_path / "o.parquet", scene_cut=200)
    assert 0 < len(rows) < 39 and counts["malformed"] == 1 and counts["frames"] == len(rows) + 1
    assert rows[-1][4] and "a.mp4: " in caplog.text


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return clip(tmp_path_factory.mktemp("good") / "a.mp4", [frame(x % 4) for x in range(8)]).read_bytes()


@given(at=st.integers(0, 5000), raw=st.binary(min_size=1, max_size=60), cut=st.integers(0, 5000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_damaged_clip_is_no_fault_of_ours(good, at, raw, cut, tmp_path):
    damaged = bytearray(good)
    at %= len(damaged)
    damaged[at : at + len(raw)] = raw
    (tmp_path / "a.mp4").write_bytes(damaged[: max(len(damaged) - cut % len(damaged), 1)])
    try:
        counts = import_recording("video", [str(tmp_path / "a.mp4")], tmp_path / "o.parquet")
    except InputError:
        return
    assert counts["transitions"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "--stride 0: expected a number of frames"),
        ({"scene_cut": 256.0}, "--scene-cut 256: expected a mean difference"),
        ({"min_change": -1.0}, "--min-change -1: expected a mean difference"),
        ({"min_change": float("nan")}, "--min-change nan: expected"),
        ({"min_change": 9.0, "scene_cut": 9.0}, "--min-change 9 is not below --scene-cut 9"),
        ({"start": 3.0, "end": 3.0}, "--start 3 --end 3.0: expected seconds"),
        ({"start": -1.0}, "--start -1 --end None: expected"),
        ({"start": float("nan")}, "--start nan"),
    ],
)
def test_options_that_cannot_be_used(options, message, tmp_path):
    with pytest.raises(InputError) as error:
        import_recording("video", [str(tmp_path)], tmp_path / "o.parquet", Options(**options))
    assert str(error.value).startswith(message)


def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setattr(importer, "find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match=r"pip install '\.\[video\]'"):
        import_recording("video", ["x"], tmp_path / "o.parquet")
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path, capsys):
    source = clip(tmp_path / "a.mkv", LONG)
    words = ["import", "video", source, "--out", tmp_path / "o.parquet", "--stride", 2, "--scene-cut", 200]
    words += ["--min-change", 1, "--start", 0.2, "--end", 9, "--size", "16x16"]
    assert cli.main([str(word) for word in words]) == 0
    assert capsys.readouterr().out.endswith(": 2 transitions, 1 trajectory, 0 labels, 0 malformed, 6 frames\n")
    report = check(tmp_path / "o.parquet")
    assert report.images is not None and report.images.sizes == {"16x16": 3} and report.problems == ()
