import json
from contextlib import contextmanager

import numpy as np
import pyarrow.parquet as pq
import pytest

from swirl.data import read
from swirl.errors import InputError
from swirl.importers import Options, core, import_recording, parse_labels
from swirl.progress import Bar


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(path)]


def row(number, action=None, **more):
    return {"state": f"s{number}", "next_state": f"n{number}", "action": action, **more}


MIXED = [row(number, f"{'look' if number % 4 else 'take'} {number}") for number in range(40)] + [row(99)]


@pytest.mark.parametrize("budget", [12, 0.3])
def test_the_label_budget_is_shared_by_type(budget, tmp_path, monkeypatch):
    monkeypatch.setattr(core, "CHUNK", 7)  # several row groups
    source = jsonl(tmp_path / "a.jsonl", MIXED)
    counts = import_recording("table", source, tmp_path / "o.parquet", Options(labels=budget, seed=1))
    table = read(tmp_path / "o.parquet")
    kept = [action for action in table["action"].to_pylist() if action]
    assert counts["labels"] == len(kept) == 12
    assert sum(action.startswith("take") for action in kept) == 3  # 10 of 40 are
    assert table["state"].to_pylist() == [row["state"] for row in MIXED]
    wanted = {row["state"]: row["action"] for row in MIXED}
    assert all(wanted[r["state"]] == r["action"] for r in table.to_pylist() if r["action"])
    assert pq.ParquetFile(tmp_path / "o.parquet").num_row_groups == 6
    import_recording("table", source, tmp_path / "p.parquet", Options(labels=budget, seed=2))
    assert not read(tmp_path / "p.parquet").equals(table)


def test_what_is_left_over_goes_to_the_largest_remainder(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", [row(i, "abbccc"[i]) for i in range(6)])
    import_recording("table", source, tmp_path / "o.parquet", Options(labels=4))  # 2/3, 4/3 and 2: a gets the one over
    kept = [action for action in read(tmp_path / "o.parquet")["action"].to_pylist() if action]
    assert sorted(kept) == ["a", "b", "c", "c"]


def test_actions_can_be_dropped(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", MIXED)
    counts = import_recording("table", source, tmp_path / "o.parquet", Options(drop_actions=True))
    assert counts["labels"] == 0 and read(tmp_path / "o.parquet")["action"].null_count == 41


@pytest.mark.parametrize(("text", "value"), [("500", 500), ("20%", 0.2), ("100%", 1.0), ("0.5%", 0.005)])
def test_budgets_that_can_be_read(text, value):
    assert parse_labels(text) == value


@pytest.mark.parametrize("text", ["0", "-3", "0.2", "101%", "%", "many", "nan%", "inf"])
def test_budgets_that_cannot(text):
    with pytest.raises(InputError, match="expected a number of labels above 0"):
        parse_labels(text)


@pytest.mark.parametrize(
    ("policy", "states"),
    [
        ("skip", [("ab", "cd"), ("xyz", "xy")]),
        ("truncate-head", [("ab", "cd"), ("xyz", "xy"), ("def", "b")]),
        ("truncate-tail", [("ab", "cd"), ("xyz", "xy"), ("abc", "b")]),
    ],
)
def test_a_state_that_is_too_long_is_cut_by_the_rule(policy, states, tmp_path):
    pairs = [("ab", "cd"), ("xyz", "xy"), ("abcdef", "b")]
    source = jsonl(tmp_path / "a.jsonl", [{"state": a, "next_state": b} for a, b in pairs])
    options = Options(max_state=3, too_long=policy)
    counts = import_recording("table", source, tmp_path / "o.parquet", options)
    assert [(r["state"], r["next_state"]) for r in read(tmp_path / "o.parquet").to_pylist()] == states
    assert counts["left out (too long)" if policy == "skip" else "cut"] == 1


@pytest.mark.parametrize(("policy", "lost"), [("truncate-tail", 1), ("truncate-head", 0)])
def test_a_change_that_is_cut_away_is_counted(policy, lost, tmp_path):
    source = jsonl(tmp_path / "a.jsonl", [{"state": "abcd", "next_state": "abce"}, {"state": "a", "next_state": "a"}])
    counts = import_recording("table", source, tmp_path / "o.parquet", Options(max_state=3, too_long=policy))
    assert counts.get("cut with the change", 0) == lost


def test_without_a_policy_it_is_an_error(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", [row(1), {"state": "a", "next_state": "bcde"}])
    with pytest.raises(InputError, match=r"a.jsonl:2: next_state has 4 characters, --max-state is 3; raise it, or"):
        import_recording("table", source, tmp_path / "o.parquet", Options(max_state=3))
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("form", "out", "options", "message"),
    [
        ("chats", "o.parquet", {}, "unknown format 'chats'.*did you mean 'chat'"),
        ("table", "o.jsonl", {}, "end the name with .parquet"),
        ("table", "o.parquet", {"too_long": "cut"}, "unknown policy"),
        ("chat", "o.parquet", {"next_state": "all"}, "unknown --next-state"),
        ("table", "o.parquet", {"max_state": 0}, "above 0"),
        ("table", "o.parquet", {"drop_actions": True, "labels": 3}, "give one of them"),
        ("chat", "o.parquet", {"columns": {"state": "x"}}, "--column is for table; format 'chat' does not"),
        ("table", "o.parquet", {"scene_cut": 3.0}, "--scene-cut is for video; format 'table' does not read it"),
        ("chat", "o.parquet", {"size": (8, 8)}, "--size is for table, pairs, video; format 'chat'"),
        ("table", "o.parquet", {"labels": 41}, "--labels 41, but 40 transitions have an action"),
    ],
)
def test_options_that_cannot_be_used(form, out, options, message, tmp_path):
    source = jsonl(tmp_path / "a.jsonl", MIXED)
    with pytest.raises(InputError, match=message):
        import_recording(form, source, tmp_path / out, Options(**options))
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_only_the_first_faults_are_named_and_all_are_counted(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_text("oops\n" * 25 + json.dumps(row(1)))
    counts = import_recording("table", [str(tmp_path / "a.jsonl")], tmp_path / "o.parquet")
    assert counts == {"transitions": 1, "trajectories": 1, "labels": 0, "malformed": 25}
    assert len(caplog.records) == 11
    assert "25 malformed records in all; the first 10 are named above" in caplog.records[-1].message


def test_steps_may_come_in_any_order_and_row_groups_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(core, "GROUP", 10)
    steps = np.random.default_rng(0).permutation(50).tolist()
    source = jsonl(tmp_path / "a.jsonl", [row(step, trajectory="u", step=step) for step in [*steps, steps[7]]])
    counts = import_recording("table", source, tmp_path / "o.parquet")
    assert counts == {"transitions": 50, "trajectories": 1, "labels": 0, "malformed": 1}
    assert read(tmp_path / "o.parquet")["step"].to_pylist() == steps
    assert pq.ParquetFile(tmp_path / "o.parquet").num_row_groups > 10


def test_the_bar_ends_at_all_of_it(tmp_path, monkeypatch):
    bars = []

    @contextmanager
    def bar(*_):
        bars.append(Bar())
        yield bars[-1]

    monkeypatch.setattr("swirl.progress.bar", bar)
    (tmp_path / "a.jsonl").write_text('{"state": "a", "next_state": "b"}\n')
    import_recording("table", [str(tmp_path / "a.jsonl")], tmp_path / "a.parquet")
    assert (bars[0].completed, bars[0].fields["transitions"]) == (100, 1)
