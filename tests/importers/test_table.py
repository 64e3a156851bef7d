import csv
import gzip
import json
import random
import zlib
from datetime import datetime

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from swirl.data import export, read
from swirl.errors import InputError
from swirl.importers import Options, import_recording

ROWS = [
    {
        "state": f"ticket {number}\nstatus open",
        "action": None if number % 3 == 0 else f"close, \"{number}\"",
        "next_state": f"ticket {number}\nstatus closed",
        "trajectory": f"u{number // 2}",
        "step": number % 2 + 3,
        "terminated": number % 2 == 1,
        "truncated": False,
        "reward": None if number % 2 else number / 3,
        "split": ["train", "validation", "test"][number % 3],
        "layout": None if number < 4 else f"l{number // 2}",
    }
    for number in range(8)
]  # fmt: skip


def imported(tmp_path, *paths, **options):
    out = tmp_path / "imported.parquet"
    counts = import_recording("table", [str(path) for path in paths], out, Options(**options))
    return read(out), counts


def recording(tmp_path, rows=ROWS):
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    return read(tmp_path / "r.parquet")


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".json", ".jsonl.gz"])
def test_what_is_exported_and_imported_is_the_same(ending, tmp_path):
    table = recording(tmp_path)
    export(table, tmp_path / f"exported{ending}")
    again, counts = imported(tmp_path, tmp_path / f"exported{ending}")
    assert again.equals(table)
    assert counts == {"transitions": 8, "trajectories": 4, "labels": 5, "malformed": 0}


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_recording_comes_back(data, tmp_path):
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)
    row = st.fixed_dictionaries(
        {"state": text, "next_state": text, "action": st.none() | text},
        optional={"reward": st.floats(allow_nan=False, allow_infinity=False), "layout": text},
    )
    table = recording(tmp_path, data.draw(st.lists(row, min_size=1, max_size=5)))
    for ending in (".parquet", ".jsonl"):
        export(table, tmp_path / f"exported{ending}")
        assert imported(tmp_path, tmp_path / f"exported{ending}")[0].equals(table)


def test_csv_and_datasets_folders_give_the_same_rows(tmp_path):
    table = recording(tmp_path)
    with (tmp_path / "r.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)
    assert imported(tmp_path, tmp_path / "r.csv")[0].equals(table)
    whole = datasets.Dataset.from_list(ROWS)
    whole.select([*range(7, -1, -1)]).select([*range(7, -1, -1)]).save_to_disk(tmp_path / "one")
    assert imported(tmp_path, tmp_path / "one")[0].equals(table)


def test_the_splits_of_a_datasets_folder_are_kept_by_their_names(tmp_path):
    whole = datasets.Dataset.from_list(ROWS).remove_columns("split")

    def found(name, *splits):
        parts = {split: whole.select([row]) for row, split in enumerate(splits)}
        datasets.DatasetDict(parts).save_to_disk(tmp_path / name)
        return imported(tmp_path, tmp_path / name)[0]["split"].to_pylist()

    assert found("known", "test", "train", "validation") == ["test", "train", "validation"]
    assert found("other", "valid", "val", "dev", "eval", "train") == ["validation"] * 4 + ["train"]
    assert found("strange", "spare", "more") == [None, None]
    with pytest.raises(InputError, match="mixed: split 'spare', expected one of train, test, validation, valid, val, "):
        found("mixed", "train", "spare", "test")


def test_columns_are_found_by_the_names_that_are_given(tmp_path, caplog):
    rows = [{"before": "a", "after": "b", "do": "go", "state": "no", "user": 3}]
    columns = {"state": "before", "next_state": "after", "action": "do"}
    (tmp_path / "x.jsonl").write_text(json.dumps(rows[0]))
    (tmp_path / "x.csv").write_text("before,after,do,state,user\na,b,go,no,3\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    for name in ("x.jsonl", "x.csv", "x.parquet"):
        caplog.clear()
        (row,) = imported(tmp_path, tmp_path / name, columns=columns)[0].to_pylist()
        assert (row["state"], row["action"], row["next_state"], row["trajectory"]) == ("a", "go", "b", "t000000")
        assert "left out 2 columns that are not used: state, user" in caplog.text
    for wrong, message in (({"stat": "before"}, "did you mean 'state'"), ({"state": "befor"}, "did you mean 'before'")):
        with pytest.raises(InputError, match=message):
            imported(tmp_path, tmp_path / "x.csv", columns=wrong)


def test_several_actions_are_one_and_none_is_null(tmp_path):
    actions = [["click a", "type b"], ["wait"], [], [" "], "", None, "go"]
    rows = [{"state": str(i), "next_state": "x", "action": action} for i, action in enumerate(actions)]
    rows += [{"state": "c", "next_state": "x", "action": "guess", "inferred": True}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table, counts = imported(tmp_path, tmp_path / "x.jsonl")
    found = table["action"].to_pylist()
    assert found == ["click a || type b", "wait", None, None, None, None, "go", None]
    assert counts["labels"] == 3 and counts["inferred actions left out"] == 1


GOOD = {"state": "a", "next_state": "b"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"state": "a"}, "unknown column 'next_state'"),
        ([1], "got a JSON list"),
        (GOOD | {"state": "  "}, "state is empty"),
        (GOOD | {"next_state": None}, "next_state is empty"),
        (GOOD | {"state": 3}, "state is 3, expected text"),
        (GOOD | {"action": ["a", 3]}, 'action is ["a", 3], expected text'),
        (GOOD | {"reward": float("inf")}, "reward is not finite"),
        (GOOD | {"split": "dev"}, "split is 'dev'"),
        (GOOD | {"step": 1}, "a step without a trajectory"),
        (GOOD | {"trajectory": "x", "step": 2**70}, "step is too large"),
        (GOOD | {"trajectory": "t000000"}, "trajectory 't000000' step None is there already"),
        (GOOD | {"trajectory": "u", "step": 7}, "trajectory 'u' step 7 is there already"),
    ],
)
def test_a_malformed_row_is_named_and_the_others_are_kept(row, reason, tmp_path, caplog):
    rows = [GOOD, GOOD | {"trajectory": "u", "step": 7}, row, GOOD]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table, counts = imported(tmp_path, tmp_path / "x.jsonl")
    assert table.num_rows == 3 and counts["malformed"] == 1
    assert "x.jsonl:3: " in caplog.text and reason in caplog.text
    with pytest.raises(InputError, match=r"x\.jsonl:3: .*; mend it, or leave --strict out"):
        imported(tmp_path, tmp_path / "x.jsonl", strict=True)


def test_a_parquet_file_with_bad_text_or_pages_loses_what_is_bad(tmp_path, caplog):
    bad = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"state": bad, "next_state": ["x"] * 3}), tmp_path / "text.parquet")
    table, counts = imported(tmp_path, tmp_path / "text.parquet")
    assert table["state"].to_pylist() == ["a", "c"] and counts["malformed"] == 1
    assert "text.parquet:2: not valid UTF-8" in caplog.text
    states = [f"state {number}" * 9 for number in range(30)]
    path = tmp_path / "pages.parquet"
    pq.write_table(pa.table({"state": states, "next_state": states}), path, row_group_size=10, compression="zstd")
    raw = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    raw[start : start + 40] = b"\xff" * 40
    path.write_bytes(raw)
    table, counts = imported(tmp_path, path)
    assert table["state"].to_pylist() == states[:10] + states[20:] and counts["malformed"] == 10
    assert "pages.parquet:11: 10 rows cannot be read" in caplog.text
    path.write_bytes(raw[:-9])
    counts = import_recording("table", [str(path), str(tmp_path / "text.parquet")], tmp_path / "o.parquet")
    assert counts["transitions"] == 2 and "pages.parquet: not a whole Parquet file" in caplog.text


def lines(ending, state):
    if ending == "csv":
        return f'"{state}","n",go'.encode()
    return json.dumps({"state": state, "next_state": "n", "action": "go"}).encode()


@given(
    bad=st.lists(st.binary(max_size=30), max_size=4),
    states=st.lists(st.text("ab,'\u00e9 ", min_size=1, max_size=5).filter(str.strip), min_size=1, max_size=5),
    ending=st.sampled_from(["jsonl", "csv"]),
    at=st.integers(0, 5),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_no_good_row_is_lost_whatever_is_around_it(bad, states, ending, at, tmp_path):
    written = [lines(ending, state) for state in states]
    for line in bad:  # a quotation mark would make what follows it one cell of a CSV file
        damage = b"\xfe" + bytes(byte for byte in line if byte not in b'\r\n"')
        written.insert(at % (len(written) + 1), damage)
    path = tmp_path / f"x.{ending}"
    path.write_bytes(b"\n".join([b"state,next_state,action"] * (ending == "csv") + written) + b"\n")
    table, counts = imported(tmp_path, path)
    assert table["state"].to_pylist() == states
    assert counts["malformed"] == len(bad)


def test_values_that_no_json_has_are_named_as_what_they_are(tmp_path, caplog):
    rows = [{"state": "a", "next_state": "b", "step": 1, "trajectory": when} for when in (datetime(2026, 1, 2), None)]
    pq.write_table(pa.Table.from_pylist([*rows, {"state": "c", "next_state": "d"}]), tmp_path / "a.parquet")
    table, counts = imported(tmp_path, tmp_path / "a.parquet")
    assert (table["state"].to_pylist(), counts["malformed"]) == (["c"], 2)
    assert 'a.parquet:1: trajectory is "datetime.datetime(2026, 1, 2' in caplog.text


@example(raw=b"\x80", at=2746, ending=".parquet")  # a column's name that is not UTF-8
@given(
    raw=st.binary(min_size=1, max_size=40),
    at=st.integers(0, 3000),
    ending=st.sampled_from([".csv", ".csv.gz", ".parquet"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_damage_anywhere_is_no_fault_of_ours(raw, at, ending, tmp_path):
    whole = tmp_path / f"w{ending}"
    if not whole.exists():
        text = "state,next_state,step,trajectory\n" + "".join(f"a{i},b,{i},t\n" for i in range(50))
        if ending != ".parquet":
            whole.write_bytes(gzip.compress(text.encode()) if ending == ".csv.gz" else text.encode())
        else:
            pq.write_table(pa.Table.from_pylist(ROWS), whole, row_group_size=3)
    damaged = bytearray(whole.read_bytes())
    at %= len(damaged)
    damaged[at : at + len(raw)] = raw
    (tmp_path / f"d{ending}").write_bytes(damaged)
    (tmp_path / "good.jsonl").write_text(json.dumps(GOOD | {"state": "whole"}))
    table, counts = imported(tmp_path, tmp_path / f"d{ending}", tmp_path / "good.jsonl")
    assert table["state"].to_pylist().count("whole") == 1
    if ending == ".csv.gz" and bytes(damaged) != whole.read_bytes() and table.num_rows < 51:
        assert counts["malformed"]


def test_a_damaged_gzip_costs_no_other_file(tmp_path, caplog):
    packer = zlib.compressobj(wbits=31)
    rows = "".join(f"a{random.Random(i).random()},b\n" for i in range(30_000))
    packed = packer.compress(f"state,next_state\n{rows}".encode()) + packer.flush(zlib.Z_FULL_FLUSH)
    (tmp_path / "a.csv.gz").write_bytes(packed + b"\xff" * 50)  # a block of a kind that there is not
    (tmp_path / "b.csv").write_text("state,next_state\nc,d\n")
    table, counts = imported(tmp_path, tmp_path)
    assert table["state"].to_pylist()[-1] == "c" and table.num_rows > 100 and counts["malformed"] == 1
    assert "a.csv.gz: cannot be read to its end (Error -3" in caplog.text


def folder(tmp_path, **files):
    (tmp_path / "in").mkdir()
    for name, text in files.items():
        (tmp_path / "in" / f"{name}.csv").write_text(text)
    return tmp_path / "in"


def test_a_file_that_cannot_be_used_costs_no_other(tmp_path, caplog):
    files = {"a": "state,next_state\na,b\n", "b": "", "c": "x,y\n1,2\n", "d": "state,next_state,state\na,b,c\n"}
    home = folder(tmp_path, **files)
    (home / "broken").mkdir()
    (home / "broken" / "state.json").write_text("{")
    pq.write_table(pa.table({"state": ["a"]}), home / "e.parquet")
    table, counts = imported(tmp_path, home, home / "broken")
    assert table["state"].to_pylist() == ["a"]
    reasons = (
        "b.csv: the file is empty",
        "c.csv: unknown column 'state': expected one of 'x', 'y'; name it by --column state=NAME",
        "d.csv: 2 columns 'state'",
        "e.parquet: unknown column 'next_state': did you mean 'state'?",
        "broken: cannot be read as a folder that `datasets` saved",
        "broken/state.json:1: not valid JSON",
    )
    assert counts["malformed"] == len(reasons) and all(reason in caplog.text for reason in reasons)
    with pytest.raises(InputError, match=r"b\.csv: the file is empty.*; mend it, or leave --strict out"):
        imported(tmp_path, home, strict=True)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("b.csv", "", r"no transition found \(1 malformed; the first is b\.csv: the file is empty"),
        (
            "c.csv",
            "before,after\na,b\n",
            r"c\.csv: unknown column 'state': .* --column state=NAME\); is the format right",
        ),
        ("c.jsonl", '{"before": "a"}', r"c\.jsonl:1: unknown column 'state': .* --column state=NAME"),
    ],
)
def test_where_nothing_was_found_it_is_said_what_was_wrong(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        imported(tmp_path, tmp_path / name)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_column_that_no_file_has_is_an_error(ending, tmp_path):
    row = {"state": "a", "next_state": "b", "did": "go"}
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    else:
        lines = [",".join(row), ",".join(row.values())] if ending == "csv" else [json.dumps(row)]
        (tmp_path / f"x.{ending}").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"unknown column 'dit': did you mean 'did'.*--column action=NAME"):
        imported(tmp_path, tmp_path / f"x.{ending}", columns={"action": "dit"})


ROW_LINES = "".join(f"s {i},n {i},go {i}\n" for i in range(1000))


@pytest.mark.parametrize(
    ("text", "states", "malformed", "reason"),
    [
        (f'"unclosed,b,go\n{ROW_LINES}end",n,act\nlast,l,go\n', ["a", "last"], 1002, "a cell over 1002 lines"),
        (f'"unclosed,b,go\n{ROW_LINES}', ["a"], 1001, "unexpected end of data"),
        (f'"unclosed,b,go\nodd\n{ROW_LINES}e",n,act\nl,l,go\n', ["a", "l"], 1003, "a cell over 1003 lines"),
        ('"x\ny "oops"\nz",b,go\nl,l,go\n', ["a", "l"], 3, "the end of a cell that is not valid CSV"),
        ("c,d\ne\nl,l,go\n", ["a", "l"], 2, "2 cells, but 3 columns"),
        (",b,go\nl,l,go\n", ["a", "l"], 1, "state is empty"),
        ("c,d,e,f\n\nl,l,\n", ["a", "l"], 1, "4 cells, but 3 columns"),
    ],
)
def test_lines_that_are_lost_are_counted(text, states, malformed, reason, tmp_path, caplog):
    (tmp_path / "x.csv").write_text(f"state,next_state,action\na,b,go\n{text}")
    table, counts = imported(tmp_path, tmp_path / "x.csv")
    assert table["state"].to_pylist() == states
    assert counts["malformed"] == malformed and "x.csv:3: " in caplog.text and reason in caplog.text


@given(data=st.data(), count=st.integers(2, 40), columns=st.integers(2, 4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_no_row_vanishes_between_two_stray_marks(data, count, columns, tmp_path):
    """Every row is read or counted, wherever a mark opens a cell and another one closes it."""
    rows = [[f"{name}{number}" for name in "snat"[:columns]] for number in range(count)]
    first = data.draw(st.integers(0, count - 1))
    last = data.draw(st.integers(first, count - 1))
    rows[first][0] = f'"{rows[first][0]}'
    rows[last][data.draw(st.integers(0, columns - 1))] += '"'
    header = ["state", "next_state", "action", "layout"][:columns]
    (tmp_path / "x.csv").write_text("\n".join(",".join(row) for row in [header, *rows]))
    (tmp_path / "y.csv").write_text("state,next_state\ngood,b\n")
    table, counts = imported(tmp_path, tmp_path / "x.csv", tmp_path / "y.csv")
    if last - first != 1:  # two damaged rows that follow each other are one that looks good
        assert table.num_rows - 1 + counts["malformed"] == count
    whole = {row[0] for row in rows[:first] + rows[last + 1 :]}
    assert whole <= set(table["state"].to_pylist())


FORM = st.lists(st.integers(0, 3), min_size=1, max_size=8)  # delimiters in each line


@given(forms=st.lists(FORM, min_size=1, max_size=4), data=st.data(), columns=st.permutations(["action", "layout"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_cells_of_several_lines_come_back(forms, data, columns, tmp_path):
    """State and next state may differ in their middle, and be of any content with commas."""
    used = data.draw(st.permutations(["state", "next_state", *columns[: data.draw(st.integers(0, 2))]]))
    rows = []
    for form in forms:
        other = [form[0], *data.draw(FORM), form[-1]] if len(form) > 1 else form
        cells = dict.fromkeys(used, "go")
        for name, lines in (("state", form), ("next_state", other)):
            cells[name] = "\n".join(",".join("abcde"[: number + 1]) for number in lines)
        rows.append(cells)
    with (tmp_path / "x.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, used)
        writer.writeheader()
        writer.writerows(rows)
    table, counts = imported(tmp_path, tmp_path / "x.csv")
    assert counts["malformed"] == 0
    assert [{name: row[name] for name in used} for row in table.to_pylist()] == rows


def test_a_file_that_two_paths_lead_to_is_read_once(tmp_path):
    home = folder(tmp_path, a="state,next_state\na,b\n")
    (tmp_path / "link.csv").symlink_to(home / "a.csv")
    datasets.Dataset.from_list([GOOD]).save_to_disk(tmp_path / "saved")
    paths = [home / "a.csv", home / ".." / "in" / "a.csv", tmp_path / "link.csv", home]
    paths += [tmp_path / "saved", home / ".." / "saved"]
    assert imported(tmp_path, *paths)[0].num_rows == 2
    (tmp_path / "blob").write_text("state,next_state\na,b\n")
    (tmp_path / "to.csv").symlink_to(tmp_path / "blob")
    assert imported(tmp_path, tmp_path / "to.csv")[0].num_rows == 1


def test_whole_numbers_may_be_written_as_pandas_does(tmp_path):
    text = "state,next_state,trajectory,step\na,b,u,1.0\nc,d,u, 2 \ne,f,u,2.5\ng,h,u,nan\n"
    (tmp_path / "x.csv").write_text(text)
    table, counts = imported(tmp_path, tmp_path / "x.csv")
    assert table["step"].to_pylist() == [1, 2] and counts["malformed"] == 2


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_what_spreadsheets_write_is_read(delimiter, encoding, tmp_path):
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    cells = [["state", "action", "next_state"], ["é, a", "go", "ü"], ["b", "", "c"]]
    lines = [delimiter.join(f'"{cell}"' if "," in cell else cell for cell in row) for row in cells]
    (tmp_path / "a.csv").write_bytes(mark + "\r\n".join(lines).encode(encoding))
    table, counts = imported(tmp_path, tmp_path / "a.csv")
    assert table.select(["state", "action", "next_state"]).to_pylist() == [
        {"state": "é, a", "action": "go", "next_state": "ü"},
        {"state": "b", "action": None, "next_state": "c"},
    ]
    assert counts["malformed"] == 0


def test_other_encodings_are_named_and_never_echoed(tmp_path, caplog):
    (tmp_path / "a.csv").write_bytes("state,next_state\nà,b\nc,d\n".encode("latin-1"))
    assert imported(tmp_path, tmp_path / "a.csv")[1]["malformed"] == 1
    assert "a.csv:2: not valid UTF-8; if it is Latin-1 or Windows-1252, convert it: iconv" in caplog.text
    for text in ("état,next_state\na,b\n".encode("latin-1"), "state,next_state\na,b\n".encode("utf-16-le") + b"\xff"):
        (tmp_path / "a.csv").write_bytes(text)
        with pytest.raises(InputError) as error:
            imported(tmp_path, tmp_path / "a.csv")
        str(error.value).encode()


def test_objects_are_lines_as_states_and_json_as_actions(tmp_path):
    state = {
        "room": "hall",
        "door": {"open": True, "key": {"no": 3}, "of": {}},
        "bag": ["a b", 1],
        "note": "x\ny",
        "who": None,
    }
    rows = [{"state": state, "action": {"op": "go", "by": [1, 2]}, "next_state": {**state, "room": "é"}}]
    (tmp_path / "a.jsonl").write_text(json.dumps(rows[0]))
    (row,) = imported(tmp_path, tmp_path / "a.jsonl")[0].to_pylist()
    lines = ['bag ["a b",1]', "door.key.no 3", "door.of {}", "door.open true", 'note "x\\ny"', "room hall", "who null"]
    assert row["state"].splitlines() == lines
    assert row["next_state"] == row["state"].replace("hall", "é")
    assert row["action"] == '{"by":[1,2],"op":"go"}'


def test_a_list_as_a_state_is_refused_with_a_way_out(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_text(json.dumps(GOOD | {"state": [1, 2]}) + "\n" + json.dumps(GOOD))
    assert imported(tmp_path, tmp_path / "a.jsonl")[1]["malformed"] == 1
    assert "a.jsonl:1: state is a list, expected text or an object; join it to text, or give its" in caplog.text
