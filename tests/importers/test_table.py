import csv
import json
from datetime import datetime

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
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
    parts = {"test": whole.select([0, 1]).remove_columns("split"), "spare": whole.select([2]).remove_columns("split")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "parts")
    found = imported(tmp_path, tmp_path / "parts")[0]
    assert found["split"].to_pylist() == ["test", "test", None]


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
        ({"state": "a"}, "no 'next_state'"),
        ([1], "got a JSON list"),
        (GOOD | {"state": "  "}, "state is empty"),
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
    assert table["state"].to_pylist() == states[:10] + states[20:] and counts["malformed"] == 1
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


@given(raw=st.binary(min_size=1, max_size=40), at=st.integers(0, 3000), ending=st.sampled_from([".csv", ".parquet"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_damage_anywhere_is_no_fault_of_ours(raw, at, ending, tmp_path):
    whole = tmp_path / f"w{ending}"
    if not whole.exists():
        if ending == ".csv":
            whole.write_text("state,next_state,step,trajectory\n" + "".join(f"a{i},b,{i},t\n" for i in range(50)))
        else:
            pq.write_table(pa.Table.from_pylist(ROWS), whole, row_group_size=3)
    damaged = bytearray(whole.read_bytes())
    at %= len(damaged)
    damaged[at : at + len(raw)] = raw
    (tmp_path / f"d{ending}").write_bytes(damaged)
    try:
        table, _ = imported(tmp_path, tmp_path / f"d{ending}")
    except InputError:
        return
    assert table.num_rows
