import csv
import json
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from swirl import data, worlds
from swirl.errors import InputError
from swirl.methods import pick

A, B, C = ("~a #+",), ("+b",), ("+c d",)


def rows(*pairs):
    return [
        {"state": x, "next_state": y, "action": None, "trajectory": "t", "step": i} for i, (x, y) in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("state", "next_state", "kind"),
    [
        ("room\nagent 1 6 left", "room\nagent 2 6 left", ("~agent #+ #= left",)),
        ("room\nagent 9 6 left", "room\nagent 2 8 left", ("~agent #- #+ left",)),
        ("room\nagent 1 6 left", "room\nagent 1 6 up", ("+agent # # up", "-agent # # left")),
        ("bag\nkey 3", "bag\n", ("-key #",)),
        ("a\nb", "b\na", ("~order",)),
        ("a\nb", "a  \nb\n", ()),
        ("It rains. You have 3 coins.", "It rains. You have -1.5 coins.", ("~You have #- coins.",)),
        ("x 1\nx 5\nz", "x 2\nx 5\nz", ("~x #+",)),
    ],
)
def test_a_kind_is_what_changes_with_numbers_reduced_to_their_direction(state, next_state, kind):
    assert pick.change(state, next_state) == kind


def test_each_pair_once_and_none_that_is_labelled():
    table = rows(("a", "b"), ("a", "b"), ("a", "c"), ("d", "d"), ("a", "c"))
    table[4]["action"] = "go"
    kinds = pick.by_kind(table, seed=0)
    assert {kind: [row["next_state"] for row in group] for kind, group in kinds.items()} == {
        ("+b", "-a"): ["b"],
        (): ["d"],
    }


def test_every_kind_before_a_second_of_any_and_the_unchanged_last():
    kinds = {(): rows(*[("s", "s")] * 3), A: rows(*[("a", "1")] * 9), B: rows(("b", "1")), C: rows(*[("c", "1")] * 2)}
    order = [kind for kind, _ in pick.take(kinds, 99)]
    assert set(order[:3]) == {A, B, C}
    assert set(order[3:5]) == {A, C}
    assert order[5:] == [A] * 7 + [()] * 3
    assert [kind for kind, _ in pick.take(kinds, 2)] == order[:2]


def test_the_next_kind_is_the_one_least_like_those_taken():
    kinds = {(text,): rows(("x", text)) for text in ("+door red open", "+door blue open", "+agent left")}
    order = [kind for kind, _ in pick.take(kinds, 3)]
    assert order[1] == ("+agent left",)


def test_doubt_decides_within_a_kind_and_between_alike_kinds():
    sure, unsure = rows(("a", "1"), ("a", "2"))
    kinds = {A: [sure, unsure], B: rows(("b", "1"))}
    doubt = {id(sure): 0.1, id(unsure): 0.8, id(kinds[B][0]): 0.4}
    assert [row["next_state"] for _, row in pick.take(kinds, 3, doubt)] == ["2", "1", "1"]
    assert pick.take(kinds, 1, {**doubt, id(kinds[B][0]): 0.9})[0][0] == B


def test_an_inverse_model_tells_its_doubt_by_its_best_candidate(monkeypatch):
    table = rows(("a", "b"), ("a", "c"))
    best = pick.api.Candidate("go", float(np.log(0.25)))
    monkeypatch.setattr(pick.api, "candidates", lambda model, asked, **options: [[best], []])
    assert pick._doubt(None, table, 0) == {id(table[0]): pytest.approx(0.75), id(table[1]): 1.0}


@pytest.fixture(scope="module")
def minigrid(tmp_path_factory):
    """2,000 transitions of a real world, actions taken away."""
    path = tmp_path_factory.mktemp("minigrid") / "all.parquet"
    data.collect(partial(worlds.make, "minigrid"), path, 2000, max_steps=40)
    table = data.read(path)
    column = table.schema.get_field_index("action")
    data.export(table.set_column(column, "action", pa.nulls(table.num_rows, pa.string())), path)
    return path


def test_picks_show_far_more_kinds_of_change_than_random_rows(minigrid, tmp_path):
    """Measured: all of 40 or so kinds with 100 picks, random rows 14 to 19 of them."""
    counts = pick.pick(minigrid, tmp_path / "todo.jsonl", 100)
    found = [json.loads(line) for line in (tmp_path / "todo.jsonl").read_text().splitlines()]
    assert len(found) == counts["picked"] == 100
    shown = {pick.change(row["state"], row["next_state"]) for row in found}
    assert () not in shown
    assert len(shown) == counts["kinds"] == min(100, counts["all_kinds"])
    table = data.read(minigrid).to_pylist()
    for seed in range(3):
        some = np.random.default_rng(seed).permutation(len(table))[:100]
        random = {pick.change(table[i]["state"], table[i]["next_state"]) for i in some} - {()}
        assert 2 * len(random) < len(shown)


def test_with_a_model_each_kind_shows_the_row_that_the_model_doubts_most(monkeypatch, run_folder, tmp_path):
    table = [{"state": f"key {i}", "next_state": f"key {j}"} for i in range(4) for j in (i + 1, i + 2, i - 1)]
    table += [{"state": "door open", "next_state": "door shut"}, {"state": "key", "next_state": "key"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    asked = []

    def doubt(model, rows, seed):
        asked.extend(row["state"] for row in rows)
        return {id(row): 0.2 * (row["state"] == "key 2") for row in rows}

    monkeypatch.setattr(pick, "_doubt", doubt)
    counts = pick.pick(tmp_path / "in.jsonl", tmp_path / "todo.jsonl", 3, inverse=run_folder, device="cpu")
    assert counts == {"picked": 3, "kinds": 3, "all_kinds": 3}
    assert sorted(row["state"] for row in pick.read(tmp_path / "todo.jsonl")) == ["door open", "key 2", "key 2"]
    assert len(asked) == 13  # whatever changed; nothing is asked about what did not


def test_a_row_that_the_model_cannot_read_is_named(run_folder, tmp_path):
    table = [{"state": "key 1", "next_state": "key 2"}, {"state": "key " * 5000, "next_state": "key"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    with pytest.raises(InputError, match=r"in\.jsonl: row 2: the inverse prompt has \d+ tokens"):
        pick.pick(tmp_path / "in.jsonl", tmp_path / "todo.jsonl", 3, inverse=run_folder, device="cpu")


def test_the_three_kinds_of_file_hold_the_same(tmp_path):
    text = 'a, "b"\nc'
    table = [{"state": text, "next_state": text + "é 😀"}, {"state": text, "next_state": "d"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    for name in ("todo.csv", "todo.jsonl", "todo.parquet"):
        assert pick.pick(tmp_path / "in.jsonl", tmp_path / name, 5) == {"picked": 2, "kinds": 2, "all_kinds": 2}
    found = {name: pick.read(tmp_path / name) for name in ("todo.csv", "todo.jsonl", "todo.parquet")}
    assert {row["next_state"] for row in found["todo.csv"]} == {text + "é 😀", "d"}
    for row in found["todo.csv"]:
        row["step"], row["action"] = int(row["step"]), row["action"] or None
    assert found["todo.csv"] == found["todo.jsonl"] == found["todo.parquet"]
    with (tmp_path / "todo.csv").open(newline="", encoding="utf-8-sig") as file:
        assert next(csv.reader(file)) == ["trajectory", "step", "state", "next_state", "action"]


def test_what_cannot_be_picked_from_is_refused(tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"state": "a", "action": "go", "next_state": "b"}) + "\n")
    with pytest.raises(InputError, match="nothing to pick"):
        pick.pick(tmp_path / "in.jsonl", tmp_path / "todo.csv", 5)
    with pytest.raises(InputError, match="--pick 0, expected at least 1"):
        pick.pick(tmp_path / "in.jsonl", tmp_path / "todo.csv", 0)
    with pytest.raises(InputError, match=r"todo.txt: unknown kind of file, expected .csv, .jsonl, .parquet"):
        pick.pick(tmp_path / "in.jsonl", tmp_path / "todo.txt", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]
