import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swirl.data import export, load, read, with_history
from swirl.data.files import checked, replacing, write_parquet
from swirl.data.table import SCHEMA
from swirl.errors import InputError

ROW = {"state": "a", "action": "go", "next_state": "b"}


def jsonl(path, *rows):
    """A file of these rows; a string is a line as it is."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def parquet(path, rows, **columns):
    pq.write_table(pa.table(columns) if columns else pa.Table.from_pylist(rows), path)
    return path


def test_states_alone_are_enough_and_the_rest_is_filled(tmp_path):
    rows = [{"state": "a", "next_state": "b"}, {"state": "b", "next_state": "c"}]
    for path in (jsonl(tmp_path / "a.jsonl", *rows), parquet(tmp_path / "a.parquet", rows)):
        table = read(path)
        assert table.schema.equals(SCHEMA)
        assert table.to_pylist() == [
            {
                "state": state,
                "action": None,
                "next_state": after,
                "trajectory": name,
                "step": 0,
                "terminated": False,
                "truncated": False,
                "reward": None,
                "split": None,
                "layout": None,
                "partial": False,
            }
            for state, after, name in (("a", "b", "t000000"), ("b", "c", "t000001"))
        ]


def test_steps_follow_the_rows_of_a_trajectory_where_they_are_not_given(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", *(ROW | {"trajectory": name} for name in "xyxxy"))
    assert read(path)["step"].to_pylist() == [0, 0, 1, 2, 1]


def test_every_column_is_kept(tmp_path):
    row = ROW | {"trajectory": 7, "step": 3, "terminated": True, "truncated": None, "reward": 1}
    row |= {"split": "test", "layout": 12, "partial": True}
    expected = row | {"trajectory": "7", "truncated": False, "reward": 1.0, "layout": "12"}
    assert read(jsonl(tmp_path / "a.jsonl", row)).to_pylist() == [expected]
    assert read(parquet(tmp_path / "a.parquet", [row])).to_pylist() == [expected]


def test_text_parts_become_text(tmp_path):
    parts = [{"type": "text", "text": "a room"}, {"type": "text", "text": "a door"}]
    row = ROW | {"state": parts}
    for path in (jsonl(tmp_path / "a.jsonl", row), parquet(tmp_path / "a.parquet", [row])):
        assert read(path)["state"].to_pylist() == ["a room\na door"]


def test_other_encodings_of_text_and_missing_numbers_in_parquet(tmp_path):
    text = pa.array(["a", "b"])
    path = parquet(
        tmp_path / "a.parquet",
        None,
        state=text.cast(pa.large_string()),
        next_state=text.dictionary_encode(),
        action=pa.nulls(2),
        trajectory=pa.array([5, 5]),
        step=pa.array([0.0, 1.0]),
        reward=pa.array([float("nan"), 0.5]),
    )
    table = read(path)
    assert table.schema.equals(SCHEMA)
    assert table["step"].to_pylist() == [0, 1]
    assert table["reward"].to_pylist() == [None, 0.5]


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n\r\n" + json.dumps(ROW).encode())
    assert read(path).num_rows == 2


def test_columns_that_are_not_used_are_named_and_our_own_are_not(tmp_path, caplog):
    row = ROW | {"url": 1, "behaviour": "gold", "agent": "x"}
    for path in (jsonl(tmp_path / "a.jsonl", row), parquet(tmp_path / "a.parquet", [row])):
        caplog.clear()
        assert read(path).column_names == SCHEMA.names
        assert caplog.messages == [f"{path.name}: left out 2 columns that are not used: agent, url"]
    caplog.clear()
    read(jsonl(tmp_path / "a.jsonl", ROW | {"history": []}))
    for name in ("a.jsonl", "a.parquet"):
        read(tmp_path / name, say_left_out=False)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "a.jsonl: no rows; expected at least one transition"),
        (["", " "], "a.jsonl: no rows"),
        ([ROW, "", {"state": "a"}], "a.jsonl:3: no 'next_state' (keys: state); expected at least state and"),
        ([ROW, ROW | {"state": 5}], "a.jsonl:2: state is 5, expected text"),
        ([ROW, ROW | {"state": ""}], "a.jsonl:2: state is empty, expected text"),
        ([ROW, ROW | {"next_state": " \n"}], "a.jsonl:2: next_state is empty, expected text"),
        ([ROW, "", ROW | {"state": None}, ROW], "a.jsonl:3: state is missing; every row needs one"),
        (
            [*[ROW] * 3, *[ROW | {"state": None}] * 3],
            "a.jsonl:4: state is missing; every row needs one (and 2 more rows)",
        ),
        ([ROW | {"action": 1}], "a.jsonl:1: action is 1, expected text or null"),
        ([ROW | {"action": ["go"]}], 'a.jsonl:1: action is ["go"], expected text or null'),
        ([ROW | {"action": ""}], "a.jsonl:1: action is empty, expected text; leave it out (null) where it was not"),
        ([ROW | {"step": 0}], "a.jsonl: a step column without a trajectory column"),
        ([ROW | {"trajectory": "t", "step": True}], "a.jsonl:1: step is true, expected a number or null"),
        ([ROW | {"trajectory": "t", "step": 2**63}], "a.jsonl:1: step is too large a number"),
        ([ROW | {"trajectory": "t", "step": None}], "a.jsonl:1: step is missing"),
        ([ROW | {"trajectory": "t"}, ROW], "a.jsonl:2: trajectory is missing"),
        ([ROW | {"terminated": 1}], "a.jsonl:1: terminated is 1, expected true or false or null"),
        ([ROW | {"reward": "1"}], 'a.jsonl:1: reward is "1", expected a number or null'),
        ([ROW | {"reward": 10**400}], "a.jsonl:1: reward is too large a number"),
        ([ROW | {"reward": float("inf")}], "a.jsonl:1: reward is not finite"),
        ([ROW | {"split": "dev"}], "a.jsonl:1: split is none of train, validation, test"),
        ([ROW, '{"state": "a",'], "a.jsonl:2: not valid JSON"),
        (["[" * 100_000], "a.jsonl:1: not valid JSON"),
        ([ROW, "[1]"], "a.jsonl:2: got a JSON list, expected one object a line"),
        ([ROW, '{"state": "\\ud800", "next_state": "b"}'], "a.jsonl:2: not valid Unicode text"),
        ([ROW | {"state": [{"type": "image", "url": "x"}]}], "a.jsonl:1: state holds an image that is 'None'"),
        ([ROW | {"state": [{"type": "image", "image": " "}]}], "a.jsonl:1: state holds an image that is ' '"),
        ([ROW | {"state": [{"type": "image", "image": "a\nb"}]}], "a.jsonl:1: state holds an image that is 'a\\nb'"),
        (
            [ROW | {"state": [{"type": "image", "image": "https://x.org/a.png"}]}],
            "a.jsonl:1: state holds an image at https://x.org/a.png; download it",
        ),
        (
            [ROW | {"state": [{"type": "image_url", "image_url": "x"}]}],
            "a.jsonl:1: state holds a part of kind 'image_u",
        ),
        ([ROW | {"state": ["a"]}], "a.jsonl:1: state holds a part of kind 'str', expected"),
        ([ROW | {"state": [{"type": "text"}]}], "a.jsonl:1: state holds a part of kind 'text', expected"),
        ([ROW | {"state": []}], "a.jsonl:1: state is empty, expected text"),
    ],
)
def test_a_bad_line_is_named(tmp_path, rows, message):
    with pytest.raises(InputError) as error:
        read(jsonl(tmp_path / "a.jsonl", *rows))
    assert str(error.value).startswith(message)
    assert not ("state is" in message and "or null" in str(error.value))  # which it may not be
    assert "\n" not in str(error.value)


def test_a_repeated_step_names_both_lines(tmp_path):
    rows = [ROW | {"trajectory": name, "step": step} for name, step in (("b", 1), ("a", 1), ("b", 2), ("a", 1))]
    with pytest.raises(InputError, match=r"^a\.jsonl:5: trajectory 'a' step 1 is at a\.jsonl:3 already"):
        read(jsonl(tmp_path / "a.jsonl", "", *rows))
    with pytest.raises(InputError, match=r"^a\.parquet:4: trajectory 'a' step 1 is at a\.parquet:2 already"):
        read(parquet(tmp_path / "a.parquet", rows))
    with pytest.raises(
        InputError, match=r"^a\.parquet:4: .* at a\.parquet:2 already"
    ):  # not row 5, which repeats row 1
        read(parquet(tmp_path / "a.parquet", [*rows, rows[0]]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"state": ["a"]},
            "a.parquet: no column 'next_state' (columns: state); expected at least state and next_state",
        ),
        ({"state": [1], "next_state": ["b"]}, "a.parquet: column 'state' holds int64, expected string; convert it"),
        ({"state": [b"a"], "next_state": ["b"]}, "a.parquet: column 'state' holds binary, expected string"),
        ({"state": ["a"], "next_state": ["b"], "action": [2]}, "a.parquet: column 'action' holds int64"),
        ({"state": ["a", None], "next_state": ["b", "b"]}, "a.parquet:2: state is missing"),
        ({"state": [], "next_state": []}, "a.parquet: no rows"),
        (
            {"state": ["a"], "next_state": ["b"], "trajectory": ["t"], "step": [0.5]},
            "a.parquet: column 'step' does not convert to int64",
        ),
        ({"state": ["a"], "next_state": ["b"], "terminated": [1]}, "a.parquet: column 'terminated' holds int64"),
    ],
)
def test_a_bad_parquet_column_is_named(tmp_path, columns, message):
    with pytest.raises(InputError) as error:
        read(parquet(tmp_path / "a.parquet", None, **columns))
    assert str(error.value).startswith(message)


def test_parquet_strings_that_are_not_utf8_are_refused(tmp_path):
    broken = pa.array([b"\xff"]).view(pa.string())
    path = parquet(tmp_path / "a.parquet", None, state=broken, next_state=["b"])
    with pytest.raises(InputError, match="column 'state' does not convert to string"):
        read(path)


def test_files_that_cannot_be_read(tmp_path):
    whole = parquet(tmp_path / "whole.parquet", [ROW] * 100).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "page.parquet").write_bytes(whole[:4] + b"\xff" * 60 + whole[64:])
    packed = gzip.compress(json.dumps(ROW).encode() * 50)
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:-12])
    (tmp_path / "plain.jsonl.gz").write_text(json.dumps(ROW))
    (tmp_path / "latin.jsonl").write_bytes(b'{"state": "\xe9", "next_state": "b"}')
    (tmp_path / "a.csv").write_text("state")
    (tmp_path / "a.txt").write_text("state")
    for name, message in {
        "none.parquet": "no such file",
        "a.csv": f".jsonl, .json, .jsonl.gz; `swirl import table {tmp_path}/a.csv --out ...`",
        "a.txt": f"{tmp_path}/a.txt: unknown kind of file, expected .parquet or .jsonl, .json, .jsonl.gz",
        "": "is a folder, expected a file",
        "cut.parquet": "not a whole Parquet file",
        "empty.parquet": "not a whole Parquet file",
        "page.parquet": "not a whole Parquet file",
        "cut.jsonl.gz": "cannot be read after line 0",
        "plain.jsonl.gz": "cannot be read after line 0",
        "latin.jsonl": "latin.jsonl:1: not valid Unicode text",
    }.items():
        with pytest.raises(InputError) as error:
            read(tmp_path / name)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


# any text that UTF-8 can hold and that is not blank: quotes, line ends of every kind, controls, astral planes
wild = st.text(st.characters(codec="utf-8"), max_size=20).map(lambda text: text + "x")
rows = st.fixed_dictionaries(
    {
        "state": wild,
        "action": st.none() | wild,
        "next_state": wild | st.sampled_from(["\x00x", "\u2028\r\n\"'\\", "\\ud800", "🌀"]),
        "trajectory": st.sampled_from(["t", "ü\n", ""]),
        "terminated": st.booleans(),
        "truncated": st.booleans(),
        "reward": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "split": st.none() | st.sampled_from(["train", "validation", "test"]),
        "layout": st.none() | wild,
        "partial": st.booleans(),
    }
)


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "json", "jsonl.gz"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows, min_size=1, max_size=6))
def test_what_is_exported_reads_back_the_same(tmp_path, ending, rows):
    rows = [row | {"step": index} for index, row in enumerate(rows)]
    table = pa.Table.from_pylist(rows, SCHEMA)
    path = tmp_path / f"a.{ending}"
    export(table, path)
    assert read(path).equals(table)
    before = path.read_bytes()
    export(read(path), path)
    assert path.read_bytes() == before


def test_a_gzipped_export_has_no_time_or_name_in_it(tmp_path):
    table = read(jsonl(tmp_path / "a.jsonl", ROW))
    export(table, tmp_path / "b.jsonl.gz")
    assert (tmp_path / "b.jsonl.gz").read_bytes()[3:8] == bytes(5)  # flags, then the time


def test_long_files_are_read_and_written_in_pieces(tmp_path, monkeypatch):
    for module in ("files", "table"):
        monkeypatch.setattr(f"swirl.data.{module}.CHUNK", 7)
    table = read(jsonl(tmp_path / "a.jsonl", *(ROW | {"trajectory": "t", "state": f"s{row}"} for row in range(50))))
    assert table["state"].to_pylist() == [f"s{row}" for row in range(50)]
    assert with_history(table, 3)["history"].to_pylist()[47:] == [
        [f"s{row}" for row in r] for r in (range(44, 47), range(45, 48), range(46, 49))
    ]
    for name in ("b.jsonl", "b.parquet"):
        export(table, tmp_path / name)
        assert read(tmp_path / name).equals(table)


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    table = read(jsonl(tmp_path / "a.jsonl", ROW))
    with pytest.raises(InputError, match="unknown kind of file"):
        export(table, tmp_path / "b.csv")
    monkeypatch.setattr("swirl.data.files.json.dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(table, tmp_path / "b.jsonl")
    with pytest.raises(InputError, match="cannot make the folder"):
        export(table, tmp_path / "a.jsonl" / "b.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


def test_history_is_the_earlier_states_of_the_same_trajectory_in_order_of_steps(tmp_path):
    steps = [("x", 2), ("y", 0), ("x", 0), ("x", 5), ("y", 1), ("x", 1)]
    table = read(
        parquet(tmp_path / "a.parquet", [ROW | {"state": f"{t}{s}", "trajectory": t, "step": s} for t, s in steps])
    )
    assert with_history(table, 2)["history"].to_pylist() == [
        ["x0", "x1"], [], [], ["x1", "x2"], ["y0"], ["x0"]
    ]  # fmt: skip
    assert with_history(table, 0)["history"].to_pylist() == [[]] * 6
    assert with_history(table, 9)["history"].to_pylist()[3] == ["x0", "x1", "x2"]
    assert with_history(table.slice(0, 0), 2).num_rows == 0
    with pytest.raises(InputError, match="history = -1, expected 0 or more"):
        with_history(table, -1)


def test_a_file_loads_as_a_dataset(tmp_path):
    path = tmp_path / "a.parquet"
    write_parquet(with_history(read(jsonl(tmp_path / "a.jsonl", ROW, ROW)), 1), path)
    data = load(path)
    assert data.column_names == [*SCHEMA.names, "history"]
    assert data[1]["state"] == "a" and data[1]["history"] == []
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "b.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="not a whole Parquet file"):
        load(path)


def test_loading_leaves_no_cache_behind(tmp_path):
    home, folder = tmp_path / "home", tmp_path / "data"
    home.mkdir()
    export(read(jsonl(tmp_path / "a.jsonl", ROW)), folder / "a.parquet")
    code = "import sys; from swirl.data import load; load(sys.argv[1]).map(lambda row: {'x': 1})"
    where = dict.fromkeys(("HOME", "HF_HOME", "XDG_CACHE_HOME"), str(home))
    subprocess.run([sys.executable, "-c", code, folder / "a.parquet"], env=os.environ | where, check=True)
    assert os.listdir(folder) == ["a.parquet"] and os.listdir(home) == []


@pytest.mark.parametrize("name", ["in.jsonl", "in.parquet"])
def test_an_action_that_a_model_inferred_is_no_label(tmp_path, caplog, name):
    rows = [{"state": "a", "action": "x", "next_state": "b", "inferred": value} for value in (False, True, None)]
    if name == "in.jsonl":
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    table = read(tmp_path / name)
    assert table["action"].to_pylist() == ["x", None, "x"]
    assert "inferred" not in table.column_names
    assert "1 actions were inferred by a model and are not taken for labels" in caplog.text
    assert "left out" not in caplog.text


def test_a_column_inferred_that_says_neither_true_nor_false_is_refused(tmp_path):
    pq.write_table(
        pa.table({"state": ["a"], "action": ["x"], "next_state": ["b"], "inferred": ["no"]}), tmp_path / "in.parquet"
    )
    with pytest.raises(
        InputError, match="column 'inferred' holds string, expected true where a model wrote the action"
    ):
        read(tmp_path / "in.parquet")


def test_a_place_where_no_file_can_be_made_is_named():
    wrong = pytest.raises(InputError, match=r"/proc/o.parquet: cannot be written: .*; give another place")
    with wrong, replacing(Path("/proc/o.parquet")):
        pass


def test_a_whole_number_may_be_written_as_a_float():
    row = {"state": "a", "next_state": "b", "trajectory": "u"}
    step = checked(row | {"step": 1.0}, "x:1")["step"]
    assert step == 1 and type(step) is int
    for wrong in (1.5, float("nan"), float("inf"), "1"):
        with pytest.raises(InputError, match=r"x:1: step is .*, expected a number"):
            checked(row | {"step": wrong}, "x:1")
    with pytest.raises(InputError, match="step is too large"):
        checked(row | {"step": 1e300}, "x:1")
