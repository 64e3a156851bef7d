import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swirl.data import conform, splitting
from swirl.data.splitting import PARTS, _assign, _rank, split, without_layouts
from swirl.errors import InputError
from swirl.types import COLUMNS

SETTINGS = {"labels": 12, "validation_labels": 4, "validation": 0.2, "test": 0.2, "seed": 0, "data_seed": 0}


def recording(trajectories=20, steps=5, layout=True, **columns):
    """Trajectories of unique states with unique actions; `layout` names one layout for every two trajectories."""
    rows = []
    for t in range(trajectories):
        for s in range(steps):
            row = {"state": f"t{t} s{s}", "action": f"action-{t}-{s}", "next_state": f"t{t} s{s + 1}"}
            row |= {"trajectory": f"t{t}", "step": s, "behaviour": "gold"}
            rows.append(row | ({"layout": f"layout {t // 2}"} if layout else {}))
    table = pa.Table.from_pylist(rows)
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table


def made(table, folder, **settings):
    counts = split(table, folder, **(SETTINGS | settings))
    return counts, {name: pq.read_table(folder / f"{name}.parquet").to_pylist() for name in PARTS}


def keys(rows):
    return [(row["trajectory"], row["step"]) for row in rows]


def test_layouts_that_are_left_out_are_in_no_file(tmp_path):
    names = tmp_path / "layouts.txt"
    names.write_text("layout 3\nlayout 7\nlayout of another recording\n")
    table = without_layouts(recording(), names)
    _, parts = made(table, tmp_path / "data")
    found = {row["layout"] for rows in parts.values() for row in rows}
    assert found == {f"layout {i}" for i in range(10) if i not in (3, 7)}


def test_layouts_to_leave_out_have_to_leave_some(tmp_path):
    names = tmp_path / "layouts.txt"
    names.write_text("".join(f"layout {i}\n" for i in range(10)))
    with pytest.raises(InputError, match="names every layout of the recording; leave some"):
        without_layouts(recording(), names)
    with pytest.raises(InputError, match=r"data\.leave_out = '.*none\.txt' cannot be read as names of layouts"):
        without_layouts(recording(), tmp_path / "none.txt")


def test_the_four_files_hold_what_the_contract_says(tmp_path):
    counts, parts = made(recording(), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(f"{name}.parquet" for name in PARTS)
    for name in ("labelled", "validation", "test"):
        assert tuple(parts[name][0]) == (*COLUMNS, "layout", "partial")
        assert all(row["action"] for row in parts[name])
    assert tuple(parts["state_only"][0]) == tuple(n for n in (*COLUMNS, "layout", "partial") if n != "action")
    # 100 rows in 10 layouts of 10: two layouts each for test and validation, 60 rows train
    assert counts == {
        "transitions": 100,
        "trajectories": 20,
        "layouts": 10,
        "labelled": 8,
        "state_only": 52,
        "validation": 4,
        "test": 20,
        "validation_left_out": 16,
        "test_left_out": 0,
        "validation_shared": 0,
        "test_shared": 0,
    }
    assert {name: len(rows) for name, rows in parts.items()} == {name: counts[name] for name in PARTS}
    assert {row["split"] for row in parts["labelled"] + parts["state_only"]} == {"train"}
    assert {row["split"] for row in parts["validation"]} == {"validation"}
    assert {row["split"] for row in parts["test"]} == {"test"}


def test_parts_share_no_layout_and_no_row(tmp_path):
    _, parts = made(recording(), tmp_path)
    train = {row["layout"] for row in parts["labelled"] + parts["state_only"]}
    validation, test = ({row["layout"] for row in parts[name]} for name in ("validation", "test"))
    assert not train & validation and not train & test and not validation & test
    every = [key for name in PARTS for key in keys(parts[name])]
    assert len(every) == len(set(every))


def test_rows_keep_the_order_of_the_recording(tmp_path):
    table = recording()
    _, parts = made(table, tmp_path)
    place = {key: row for row, key in enumerate(keys(table.to_pylist()))}
    for name in PARTS:
        assert [place[key] for key in keys(parts[name])] == sorted(place[key] for key in keys(parts[name]))


def test_without_a_layout_column_the_first_state_of_a_trajectory_is_its_layout(tmp_path):
    table = recording(layout=False)
    states = table["state"].to_pylist()
    states[10], states[15] = "same start", "same start"  # step 0 of t2 and of t3
    table = table.set_column(0, "state", pa.array(states))
    shuffled = list(range(table.num_rows))
    random.Random(0).shuffle(shuffled)  # the lowest step is what counts, not the first row
    counts, parts = made(table.take(pa.array(shuffled)), tmp_path, labels=None)
    assert counts["layouts"] == 19
    layout = {row["trajectory"]: row["layout"] for name in PARTS for row in parts[name]}
    assert layout["t2"] == layout["t3"]
    assert layout["t0"] != layout["t1"]
    assert layout["t0"].startswith("state:")


def test_every_label_is_used_where_no_budget_is_given(tmp_path):
    table = recording()
    actions = table["action"].to_pylist()
    actions[::10] = [None] * 10  # one of the ten rows of each layout
    table = table.set_column(1, "action", pa.array(actions))
    counts, parts = made(table, tmp_path, labels=None)
    assert [counts[name] for name in PARTS] == [54, 6, 18, 18]
    assert counts["validation_left_out"] == counts["test_left_out"] == 2
    whole = dict(zip(keys(table.to_pylist()), actions, strict=True))
    assert all(whole[key] is None for key in keys(parts["state_only"]))


def test_a_recording_with_every_label_leaves_an_empty_state_only_file(tmp_path):
    counts, parts = made(recording(), tmp_path, labels=None)
    assert counts["state_only"] == 0 and parts["state_only"] == []


def test_the_seed_chooses_labels_and_the_data_seed_chooses_layouts(tmp_path):
    base, reseeded, moved, again = [
        made(recording(), tmp_path / str(index), **settings)[1]
        for index, settings in enumerate([{}, {"seed": 1}, {"data_seed": 1}, {}])
    ]
    assert base == again
    assert reseeded["test"] == base["test"]
    assert {row["layout"] for row in reseeded["validation"]} <= {row["layout"] for row in base["validation"]}
    assert reseeded["labelled"] != base["labelled"] and reseeded["validation"] != base["validation"]
    assert {row["layout"] for row in moved["test"]} != {row["layout"] for row in base["test"]}


def test_a_larger_budget_contains_the_smaller(tmp_path):
    small, large = (set(keys(made(recording(), tmp_path / str(n), labels=n)[1]["labelled"])) for n in (12, 34))
    assert len(small) == 8 and len(large) == 30
    assert small < large


def test_labels_are_chosen_uniformly():
    table, rows, runs = recording(), np.array([0, 1, 2, 50]), 400
    first = Counter(row for seed in range(runs) for row in rows[_rank(table, rows, seed)[:2]].tolist())
    # two of the four rows: each with probability 1/2, 200 +- 10 times (one standard deviation)
    assert all(abs(first[row] - runs / 2) < 40 for row in rows.tolist())


def test_layouts_fill_the_parts_to_the_nearest_share():
    sizes = {f"layout {index}": 10 for index in range(20)}
    part_of = _assign(sizes, validation=0.2, test=0.1, data_seed=0)
    assert Counter(part_of.values()) == {"train": 14, "validation": 4, "test": 2}
    assert Counter(_assign(sizes, validation=0.01, test=0.97, data_seed=0).values())["train"] >= 1


@pytest.mark.parametrize("data_seed", range(10))
def test_three_layouts_give_three_parts_and_a_giant_one_trains(data_seed):
    part_of = _assign({"giant": 1000, "b": 10, "c": 10, "no actions": 0}, 0.1, 0.1, data_seed)
    assert part_of["giant"] == part_of["no actions"] == "train"
    assert {part_of["b"], part_of["c"]} == {"validation", "test"}
    small = _assign({"a": 10, "b": 10, "c": 10}, 0.1, 0.1, data_seed)  # no layout is as small as the share
    assert set(small.values()) == {"train", "validation", "test"}
    assert set(_assign({"a": 5, "b": 5, "c": 5}, 0.6, 0.3, data_seed).values()) == {"train", "validation", "test"}


def test_layouts_without_actions_always_train(tmp_path):
    table = recording()
    actions = [a if row >= 60 else None for row, a in enumerate(table["action"].to_pylist())]
    counts, parts = made(table.set_column(1, "action", pa.array(actions)), tmp_path, labels=6, validation_labels=3)
    # 40 rows in 4 layouts have actions; one layout is nearest to the quotas of 8, and 20 labelled rows train
    assert [counts[name] for name in PARTS] == [3, 77, 3, 10]
    assert {row["trajectory"] for row in parts["state_only"]} >= {f"t{t}" for t in range(12)}
    assert counts["test_left_out"] == 0


def test_a_split_column_is_kept(tmp_path):
    own = ["train"] * 60 + ["validation"] * 20 + ["test"] * 20
    _, parts = made(recording(split=own), tmp_path)
    rows = keys(recording().to_pylist())
    assert keys(parts["test"]) == rows[80:]
    assert set(keys(parts["validation"])) < set(rows[60:80])
    assert set(keys(parts["labelled"] + parts["state_only"])) == set(rows[:60])


HALL = ("hall", "look", "hall shows two doors")


def houses(partial, hall=10):
    """Ten layouts of `hall` identical steps in a hall, then two of their own, the split as a column."""
    rows = []
    for house in range(10):
        steps = [HALL] * hall + [("hall", "go", f"room {house}"), (f"room {house}", "go", "hall")]
        for step, (state, action, after) in enumerate(steps):
            row = {"state": state, "action": action, "next_state": after, "trajectory": f"t{house}", "step": step}
            split = "train" if house < 6 else "validation" if house < 8 else "test"
            rows.append(row | {"layout": f"house {house}", "split": split, "partial": partial})
    return pa.Table.from_pylist(rows)


def test_shared_transitions_of_a_partially_observed_world_are_left_out_and_counted(tmp_path):
    table = houses(partial=True)
    actions = table["action"].to_pylist()
    actions[-1] = None  # the last row of the test
    actions[-12] = "stare"  # a shared transition of the test, by another action: what was done does not matter
    counts, parts = made(table.set_column(1, "action", pa.array(actions)), tmp_path, labels=None)
    assert (counts["validation_shared"], counts["test_shared"]) == (20, 20)
    assert (counts["validation_left_out"], counts["test_left_out"]) == (0, 1)
    # a shared state is kept: both parts begin in the hall, as training does
    assert [(row["state"], row["next_state"]) for row in parts["test"]] == [
        ("hall", "room 8"),
        ("room 8", "hall"),
        ("hall", "room 9"),
    ]
    assert len(parts["validation"]) == 4 and counts["labelled"] == 72


def test_a_complete_world_loses_no_row(tmp_path):
    counts, _ = made(houses(partial=False), tmp_path, labels=None)
    assert [counts[name] for name in PARTS] == [72, 0, 24, 24]
    assert counts["validation_shared"] == counts["test_shared"] == 0


def test_one_row_that_says_so_makes_a_recording_partial(tmp_path):
    table = houses(partial=False)
    flags = [True] + [None] * (table.num_rows - 1)
    table = table.set_column(table.column_names.index("partial"), "partial", pa.array(flags))
    assert made(table, tmp_path, labels=None)[0]["test_shared"] == 20


def test_a_part_of_which_nothing_is_left_is_refused(tmp_path):
    table = houses(partial=True)
    keep = [i for i, row in enumerate(table.to_pylist()) if row["split"] != "test" or row["action"] == "look"]
    refused(table.take(pa.array(keep)), tmp_path / "data", "all 20 test transitions occur in training", labels=None)


def one_start(trajectories, partial=True):
    """Trajectories that begin with the same state and then each go their own way; their first steps are two."""
    rows = []
    for t in range(trajectories):
        for step, (state, after) in enumerate([("home", f"page {t % 2}"), (f"page {t % 2}", f"end {t}")]):
            rows.append({"state": state, "action": "go", "next_state": after, "trajectory": f"t{t}", "step": step})
    return pa.Table.from_pylist([row | {"partial": partial} for row in rows])


def test_where_layouts_are_too_few_a_partially_observed_world_is_split_by_trajectory(tmp_path, caplog):
    table = one_start(10)
    counts, parts = made(table, tmp_path, labels=None)
    assert "1 layouts with actions are too few for three parts: split by trajectory" in caplog.text
    assert (counts["layouts"], counts["labelled"], counts["validation"], counts["test"]) == (1, 12, 2, 2)
    assert (counts["validation_shared"], counts["test_shared"]) == (2, 2)  # their first steps, which training has
    seen = {(row["state"], row["next_state"]) for row in parts["labelled"]}
    for name in ("validation", "test"):
        assert not seen & {(row["state"], row["next_state"]) for row in parts[name]}
        assert not {row["trajectory"] for row in parts[name]} & {row["trajectory"] for row in parts["labelled"]}
    caplog.clear()
    starts = [f"home {i // 2}" if state == "home" else state for i, state in enumerate(table["state"].to_pylist())]
    made(table.set_column(0, "state", pa.array(starts)), tmp_path, labels=None)
    assert "split by trajectory" not in caplog.text  # where layouts suffice they are what is parted
    refused(one_start(2), tmp_path / "two", "2 trajectories with actions in 1 layouts, expected at least 3")
    refused(one_start(10, partial=False), tmp_path / "complete", "trajectories that begin with the same state are one")


def test_history_crosses_the_files(tmp_path):
    _, parts = made(recording(), tmp_path, history=2)
    for name in PARTS:
        for row in parts[name]:
            before = range(max(0, row["step"] - 2), row["step"])
            assert row["history"] == [f"{row['trajectory']} s{step}" for step in before]
    assert "history" not in made(recording(), tmp_path)[1]["labelled"][0]


def unpaid(table, folder):
    """The rows whose actions no file of the split holds."""
    _, parts = made(table, folder)
    known = {key for name in ("labelled", "validation", "test") for key in keys(parts[name])}
    return set(keys(table.to_pylist())) - known


def scrambled(table, hidden, seed):
    """The table with other actions, some of them new, on the rows in `hidden`."""
    draw = random.Random(seed)
    actions = [
        draw.choice(["up", "left", "secret", "secret " * 9]) if key in hidden else action
        for key, action in zip(keys(table.to_pylist()), table["action"].to_pylist(), strict=True)
    ]
    return table.set_column(table.schema.get_field_index("action"), "action", pa.array(actions))


def assert_hidden_actions_change_nothing(folder):
    """The contract: other values of the actions that nobody paid for, and every written byte is the same."""
    few = [("left", "right", "up")[row * row % 7 % 3] for row in range(100)]
    table = recording().set_column(1, "action", pa.array(few))
    hidden = unpaid(table, folder / "base")
    assert len(hidden) == 68
    for seed in range(3):
        other = folder / f"scrambled-{seed}"
        made(scrambled(table, hidden, seed), other)
        for name in PARTS:
            left, right = (part / f"{name}.parquet" for part in (folder / "base", other))
            assert left.read_bytes() == right.read_bytes(), name


def test_hidden_actions_change_no_byte(tmp_path):
    assert_hidden_actions_change_nothing(tmp_path)


def test_a_choice_stratified_by_action_is_caught(tmp_path, monkeypatch):
    def leak(table, rows, seed):
        actions = table["action"].take(pa.array(rows)).to_pylist()
        turn = [actions[:index].count(action) for index, action in enumerate(actions)]
        return np.argsort(turn, kind="stable")  # the first of each action, then the second of each

    monkeypatch.setattr(splitting, "_rank", leak)
    with pytest.raises(AssertionError):
        assert_hidden_actions_change_nothing(tmp_path)


def test_an_action_column_in_the_state_only_file_is_caught(tmp_path, monkeypatch):
    monkeypatch.setitem(splitting.COLUMNS_OF, "state_only", splitting.COLUMNS_OF["labelled"])
    with pytest.raises(AssertionError, match="state_only"):
        assert_hidden_actions_change_nothing(tmp_path)


def assert_no_trace(folder):
    """Neither a value nor a byte of the files has the actions that nobody paid for: dictionary, statistics, pandas."""
    table = recording()
    secret = scrambled(table, unpaid(table, folder), seed=0)
    assert secret["action"].to_pylist().count("secret") > 9
    secret = secret.set_column(1, "action", secret["action"].dictionary_encode())
    secret = secret.replace_schema_metadata({"pandas": "secret-index", "names": "secret-names"})
    made(secret, folder)
    for name in PARTS:
        assert b"secret" not in (folder / f"{name}.parquet").read_bytes(), name
        assert "secret" not in str(pq.read_table(folder / f"{name}.parquet").to_pydict())
    assert b"action-" in (folder / "labelled.parquet").read_bytes()  # the search would have found it


def plain(table, path, note=None):
    pq.write_table(table, path, compression="none")


def test_no_file_has_a_trace_of_the_hidden_actions(tmp_path, monkeypatch):
    monkeypatch.setattr(splitting, "write_parquet", plain)  # as our own, but readable: bytes are searched
    assert_no_trace(tmp_path)


def test_a_dictionary_or_metadata_that_names_hidden_actions_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(splitting, "write_parquet", plain)
    monkeypatch.setattr(splitting, "conform", lambda table, source: with_metadata(conform(table, source), table))
    with pytest.raises(AssertionError):
        assert_no_trace(tmp_path)


def with_metadata(table, source):
    return table.replace_schema_metadata(source.schema.metadata)


def refused(table, folder, message, **settings):
    with pytest.raises(InputError, match=message):
        split(table, folder, **(SETTINGS | settings))
    assert not folder.exists() or list(folder.iterdir()) == []


def test_settings_that_cannot_be_met(tmp_path):
    table, folder = recording(), tmp_path / "data"
    refused(table, folder, "labels = 4 with validation_labels = 4 leaves none", labels=4)
    refused(table, folder, "validation_labels = 0, expected at least 1", validation_labels=0)
    refused(table, folder, "asks for 61 train labels, but 60 train transitions have", labels=65)
    refused(table, folder, "asks for 21 validation labels, but 20 ", labels=30, validation_labels=21)
    refused(table, folder, "expected two shares above 0 with a sum below 1", test=0.0)
    refused(table, folder, "expected two shares above 0 with a sum below 1", test=0.5, validation=0.5)
    refused(table, folder, "history = -1, expected 0 or more", history=-1)


def test_recordings_that_cannot_be_split(tmp_path):
    folder = tmp_path / "data"
    refused(recording(1), folder, "1 layouts with actions, expected at least 3.*add a split column, or mark the rows")
    refused(recording(6).drop_columns("action"), folder, "asks for 8 train labels, but 0 train transitions have an")
    own = ["train"] * 10 + ["test"] * 5
    refused(recording(3, split=own), folder, "no validation transition with an action")
    refused(recording(3, split=[*own[:-1], None]), folder, "split is given on 14 of 15 rows")
    layouts = ["a"] * 4 + ["b"] * 6
    refused(recording(2, layout=False).append_column("layout", pa.array(layouts)), folder, "'t0' has layouts 'a' and")


def test_a_failure_while_writing_leaves_the_earlier_files(tmp_path, monkeypatch):
    made(recording(), tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    written = []

    def full(table, path, note=None):
        written.append(path)
        plain(table, path)
        if len(written) == 3:
            raise OSError("disk full")

    monkeypatch.setattr(splitting, "write_parquet", full)
    with pytest.raises(OSError, match="disk full"):
        made(recording(), tmp_path, seed=5)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
