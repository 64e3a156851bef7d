import csv
import json
import math
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swirl import api, data
from swirl.errors import InputError
from swirl.labelling import Candidate
from swirl.methods import annotate, pick

X, Y = "door shut\nkey", "door open\nkey"
ROWS = [
    {"state": X, "action": "go left", "next_state": Y, "trajectory": "a", "step": 0},
    {"state": Y, "action": None, "next_state": X, "trajectory": "a", "step": 1},
    {"state": X, "action": None, "next_state": Y, "trajectory": "b", "step": 0},
    {"state": X, "action": None, "next_state": Y, "trajectory": "c", "step": 0},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def recording(tmp_path):
    return write(tmp_path / "in.jsonl", ROWS)


def test_what_lacks_an_action_gets_the_likeliest_one(recording, run_folder, tmp_path):
    actions = ["go left", "go right", "key"]
    for name in ("out.parquet", "out.jsonl"):
        counts = annotate.label(recording, tmp_path / name, run_folder, actions=actions, device="cpu")
        assert counts == {"rows": 4, "kept": 1, "inferred": 3, "unreadable": 0}
    written = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert written == [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    added = set(annotate.ADDED.names)
    kept = {name: value for name, value in written[0].items() if name in added}
    assert kept == dict.fromkeys(added) | {"inferred": False}
    assert written[0]["action"] == "go left"
    inverse = api.load_inverse(run_folder, "cpu")
    likelihoods = {a: inverse.log_likelihood(Y, X, a, history=[X]) for a in actions}
    best = max(likelihoods, key=likelihoods.get)
    row = written[1]
    assert (row["action"], row["inferred"], row["forward_log_likelihood"]) == (best, True, None)
    assert row["log_likelihood"] == pytest.approx(likelihoods[best], abs=1e-5)
    total = sum(math.exp(value) for value in likelihoods.values())
    assert row["confidence"] == pytest.approx(math.exp(likelihoods[best]) / total, rel=1e-5)
    alternatives = json.loads(row["alternatives"])
    assert [action for action, _, _ in alternatives] == sorted(actions, key=likelihoods.get, reverse=True)
    assert {action: value for action, value, _ in alternatives} == pytest.approx(likelihoods, abs=1e-4)
    assert {value for _, _, value in alternatives} == {None}


def test_the_written_file_is_a_recording_of_the_same_transitions(recording, run_folder, tmp_path):
    annotate.label(recording, tmp_path / "out.parquet", run_folder, actions=["go left"], device="cpu")
    before, after = data.read(recording), data.read(tmp_path / "out.parquet")
    assert after.equals(before)  # what a model inferred is no label
    assert pq.read_table(tmp_path / "out.parquet")["action"].null_count == 0


def test_with_a_forward_model_both_choose(recording, run_folder, tmp_path):
    actions = ["go left", "go right", "key"]
    annotate.label(recording, tmp_path / "out.jsonl", run_folder, run_folder, actions, device="cpu")
    row = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])
    forward = api.load_forward(run_folder, "cpu")
    likelihoods = {a: forward.log_likelihood(Y, a, X, history=[X]) for a in actions}
    alternatives = json.loads(row["alternatives"])
    joint = {action: inverse + likelihoods[action] for action, inverse, _ in alternatives}
    assert list(joint) == sorted(joint, key=joint.get, reverse=True)
    for action, _, value in alternatives:
        assert value == pytest.approx(likelihoods[action], abs=1e-4)
    assert row["action"] == alternatives[0][0]
    assert row["forward_log_likelihood"] == pytest.approx(likelihoods[row["action"]], abs=1e-5)


def test_confidence_is_calibrated_on_the_runs_validation_labels(monkeypatch, recording, run_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    told = [{**ROWS[0], "action": action} for action in ["go left", "go left", "go left", "go right"]]
    (run / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(told), run / "data" / "validation.parquet")
    # A model that is sure and right three times in four; exp(5) to 1 is what it claims.
    conceited = [Candidate("go left", 0.0), Candidate("go right", -5.0)]
    monkeypatch.setattr(api, "candidates", lambda model, rows, *args: [conceited for _ in rows])

    def confidence(folder, actions):
        (tmp_path / "out.jsonl").unlink(missing_ok=True)
        annotate.label(recording, tmp_path / "out.jsonl", folder, actions=actions, device="cpu")
        return json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])["confidence"]

    assert confidence(run, ["go left", "go right"]) == pytest.approx(0.75, abs=0.03)  # the weights are a grid
    claimed = 1 / (1 + math.exp(-5))
    assert confidence(run / "phases" / "03-warmup-inverse-sft", ["go left", "go right"]) == pytest.approx(claimed)
    pq.write_table(pa.Table.from_pylist([{**ROWS[0], "action": "fly"}]), run / "data" / "validation.parquet")
    assert confidence(run, ["go left", "go right"]) == pytest.approx(claimed)  # no label among the candidates


def test_a_model_that_was_taught_changes_alone_is_calibrated_on_those_and_sure_of_no_others(
    monkeypatch, run_folder, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    (run / "data").mkdir()
    told = [{**ROWS[0], "action": action} for action in ["go left", "go left", "go left", "go right"]]
    told += [{**ROWS[0], "next_state": X + " ", "action": "go right"}] * 12  # of which the model knows nothing
    pq.write_table(pa.Table.from_pylist(told), run / "data" / "validation.parquet")
    recording = write(tmp_path / "in.jsonl", [*ROWS[:2], {**ROWS[2], "next_state": X}])
    conceited = [Candidate("go left", 0.0), Candidate("go right", -5.0)]
    monkeypatch.setattr(api, "candidates", lambda model, rows, *args: [conceited for _ in rows])

    def confidences(taught):
        path = run / "phases" / "03-warmup-inverse-sft" / "swirl.json"
        card = json.loads(path.read_text())
        path.write_text(json.dumps({**card, "data": {**card["data"], "inverse_unchanged": taught}}))
        (tmp_path / "out.jsonl").unlink(missing_ok=True)
        annotate.label(recording, tmp_path / "out.jsonl", run, actions=["go left", "go right"], device="cpu")
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [row["inferred"] for row in rows] == [False, True, True]
        return [row["confidence"] for row in rows[1:]]

    assert confidences(False) == [pytest.approx(0.75, abs=0.03), None]
    assert confidences(True) == [pytest.approx(0.5, abs=0.03)] * 2  # no weight makes the likelier one the truth


def test_what_the_run_learnt_of_its_models_orders_the_alternatives_and_says_who_is_ruled_out(
    monkeypatch, recording, run_folder, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    (run / "data").mkdir()
    pq.write_table(pa.Table.from_pylist([{**ROWS[0], "action": "go right"}] * 4), run / "data" / "validation.parquet")
    # The inverse model errs, and the forward model knows: the weights become a = 0 and b > 0.
    group = [Candidate("go left", -0.1, -5.0), Candidate("key", -0.2, -3.0), Candidate("go right", -9.0, -1.0)]
    asked = []
    monkeypatch.setattr(api, "candidates", lambda m, rows, *rest: asked.append(rest[-1]) or [group for _ in rows])
    annotate.label(recording, tmp_path / "out.jsonl", run, run, actions=["go left", "key", "go right"], device="cpu")
    row = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])
    assert row["action"] == "go right"
    assert json.loads(row["alternatives"]) == [["go right", -9.0, -1.0], ["key", -0.2, -3.0], ["go left", -0.1, -5.0]]
    # All are scored where the weights are fitted; a model of weight 0 rules nothing out (0.01 ^ (1 / a) without one).
    assert asked == [0.0, 0.0]
    asked.clear()
    phase = run / "phases" / "03-warmup-inverse-sft"
    annotate.label(recording, tmp_path / "of-a-phase.jsonl", phase, run, actions=["go left"], device="cpu")
    assert asked == [0.01]


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("actions", [["go left", "key"], None])
def test_a_row_that_is_longer_than_the_context_is_named_and_nothing_is_written(
    monkeypatch, run_folder, tmp_path, forward, actions
):
    monkeypatch.setattr(annotate, "CHUNK", 2)
    recording = write(tmp_path / "in.jsonl", [*ROWS, {**ROWS[1], "state": "key " * 5000, "trajectory": "d"}])
    computed = []
    verify = api.labelling.verify
    monkeypatch.setattr(api.labelling, "verify", lambda *a, **k: computed.append(len(a[2])) or verify(*a, **k))
    with pytest.raises(InputError, match=r"in\.jsonl: row 5: the inverse prompt has \d+ tokens.* the model reads 128"):
        annotate.label(
            recording, tmp_path / "out.jsonl", run_folder, run_folder if forward else None, actions, n=1, device="cpu"
        )
    assert not (tmp_path / "out.jsonl").exists()
    assert computed == [1, 1]  # the pieces before; nothing of its own


def test_equal_pairs_are_asked_once_and_the_unreadable_are_counted(monkeypatch, recording, run_folder, tmp_path):
    asked = []

    def found(model, rows, *rest):
        asked.extend(rows)
        return [[Candidate("go right", -1.0), Candidate("key", -3.0)] if row["state"] == X else [] for row in rows]

    monkeypatch.setattr(annotate.api, "candidates", found)
    counts = annotate.label(recording, tmp_path / "out.parquet", run_folder, device="cpu")
    assert [(row["state"], row["history"]) for row in asked] == [(Y, [X]), (X, [])]
    assert counts == {"rows": 4, "kept": 1, "inferred": 2, "unreadable": 1}
    written = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["action"] for row in written] == ["go left", None, "go right", "go right"]
    assert [row["inferred"] for row in written] == [False, False, True, True]
    # Sampled candidates are not all there is: the model gives "go right" a probability of e^-1, and so says the file.
    assert written[2]["confidence"] == pytest.approx(math.exp(-1))
    assert json.loads(written[2]["alternatives"]) == [["go right", -1.0, None], ["key", -3.0, None]]


def test_nothing_to_label_writes_the_recording(run_folder, tmp_path):
    recording = write(tmp_path / "in.jsonl", ROWS[:1])
    counts = annotate.label(recording, tmp_path / "out.jsonl", run_folder, device="cpu")
    assert counts == {"rows": 1, "kept": 1, "inferred": 0, "unreadable": 0}


def test_errors_come_before_any_work(recording, run_folder, tmp_path):
    with pytest.raises(InputError, match="no inverse model; give --inverse"):
        annotate.label(recording, tmp_path / "out.parquet", None)
    with pytest.raises(InputError, match="--samples -1, expected 0"):
        annotate.label(recording, tmp_path / "out.parquet", run_folder, n=-1)
    with pytest.raises(InputError, match="unknown kind of file, expected"):
        annotate.label(recording, tmp_path / "out.csv", run_folder)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("name", ["todo.csv", "todo.jsonl", "todo.parquet"])
def test_what_a_person_filled_in_is_merged_back(recording, tmp_path, name):
    pick.pick(recording, tmp_path / name, 9)
    rows = pick.read(tmp_path / name)
    assert len(rows) == 1  # the pair (X, Y) has an action in row 0 already
    rows[0]["action"] = " go right "
    pick.write(rows, tmp_path / f"filled-{name}")
    counts = annotate.merge(recording, tmp_path / f"filled-{name}", tmp_path / "out.parquet")
    assert counts == {"rows": 4, "labels": 1, "empty": 0}
    before, after = data.read(recording).to_pylist(), data.read(tmp_path / "out.parquet").to_pylist()
    assert [row["action"] for row in after] == ["go left", "go right", None, None]
    assert [row | {"action": None} for row in after] == [row | {"action": None} for row in before]


def test_rows_left_empty_are_counted(recording, tmp_path):
    rows = [{**ROWS[1], "action": None}, {**ROWS[2], "action": "key"}, {**ROWS[3], "action": "  "}]
    counts = annotate.merge(recording, write(tmp_path / "f.jsonl", rows), tmp_path / "out.jsonl")
    assert counts == {"rows": 4, "labels": 1, "empty": 2}


def test_a_spreadsheets_line_ends_and_numbers_do_no_harm(recording, tmp_path):
    with (tmp_path / "f.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["action", "step", "trajectory", "next_state", "state"])
        writer.writerow(["go right", "1.0", "a", X.replace("\n", "\r\n"), Y.replace("\n", "\r\n") + "\r\n"])
    annotate.merge(recording, tmp_path / "f.csv", tmp_path / "out.jsonl")
    assert data.read(tmp_path / "out.jsonl")["action"].to_pylist() == ["go left", "go right", None, None]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROWS[1], "action": "go", "step": 7}, r"row 1 is not a transition of"),
        ({**ROWS[1], "action": "go", "state": "other"}, r"row 1 is not a transition of"),
        ({**ROWS[0], "action": "go right"}, "action 'go right', but the recording has 'go left' there already"),
        ({**ROWS[1], "action": "go", "step": "x"}, "step is 'x', expected the number"),
        ({"action": "go"}, "step is None, expected the number"),
    ],
)
def test_labels_of_something_else_are_refused(recording, tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        annotate.merge(recording, write(tmp_path / "f.jsonl", [row]), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_labels_that_cannot_be_read_are_refused(recording, tmp_path):
    with pytest.raises(InputError, match="no such file; expected the file that --pick wrote"):
        annotate.merge(recording, tmp_path / "gone.csv", tmp_path / "out.jsonl")
    for name, text in (("bad.jsonl", "{"), ("list.jsonl", "[1]"), ("bad.parquet", "x"), ("bad.csv", b"\xff\xfe")):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(InputError, match="cannot be read"):
            annotate.merge(recording, tmp_path / name, tmp_path / "out.jsonl")


OWN = [{"id": 7, "tags": ["a"]}, {"id": 8, "note": "x"}, {"id": 9}, {"id": None, "tags": []}]


@pytest.mark.parametrize("source", ["in.jsonl", "in.parquet"])
@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_the_users_own_columns_stay_and_pieces_are_written_as_they_are_done(
    monkeypatch, caplog, run_folder, tmp_path, source, name
):
    monkeypatch.setattr(annotate, "CHUNK", 2)
    recording = tmp_path / source
    rows = [row | own for row, own in zip(ROWS, OWN, strict=True)]
    if source == "in.jsonl":
        write(recording, rows)
    else:
        columns = dict.fromkeys(key for row in rows for key in row)
        pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in columns}), recording)
    out, todo = tmp_path / name, write(tmp_path / "todo.jsonl", [{**ROWS[1], "action": "key"}])
    calls = (
        lambda: annotate.label(recording, out, run_folder, actions=["go left"], device="cpu"),
        lambda: annotate.merge(recording, todo, out),
    )
    for call in calls:
        out.unlink(missing_ok=True)
        call()
        assert "left out" not in caplog.text
        if name == "out.parquet":
            written = pq.read_table(out).to_pylist()
            assert pq.ParquetFile(out).num_row_groups == 2
        else:
            written = [json.loads(line) for line in out.read_text().splitlines()]
        keys = ("id", "tags", "note")
        assert [{k: row.get(k) for k in keys} for row in written] == [{k: own.get(k) for k in keys} for own in OWN]
        assert [row["step"] for row in written] == [0, 1, 0, 0]


def test_a_pair_of_another_piece_is_not_asked_again(monkeypatch, recording, run_folder, tmp_path):
    monkeypatch.setattr(annotate, "CHUNK", 1)
    asked = []
    candidates = annotate.api.candidates
    monkeypatch.setattr(
        annotate.api, "candidates", lambda m, rows, *rest: asked.extend(rows) or candidates(m, rows, *rest)
    )
    annotate.label(recording, tmp_path / "out.parquet", run_folder, actions=["key"], device="cpu")
    assert len(asked) == 2


def test_what_stops_in_the_middle_leaves_the_earlier_file(monkeypatch, recording, run_folder, tmp_path):
    monkeypatch.setattr(annotate, "CHUNK", 1)
    out = tmp_path / "out.parquet"
    annotate.label(recording, out, run_folder, actions=["key"], device="cpu")
    earlier = out.read_bytes()

    def stop(model, rows, *rest):
        if rows[0]["state"] == X:
            raise KeyboardInterrupt
        return [[Candidate("key", -1.0)]]

    monkeypatch.setattr(annotate.api, "candidates", stop)
    with pytest.raises(KeyboardInterrupt):
        annotate.label(recording, out, run_folder, device="cpu")
    assert out.read_bytes() == earlier
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.parquet"]


def test_columns_that_cannot_be_kept_are_named_before_any_work(run_folder, tmp_path):
    recording = write(tmp_path / "in.jsonl", [ROWS[0] | {"id": 1}, ROWS[1] | {"id": "one"}])
    with pytest.raises(InputError, match=r"column 'id' holds values of several kinds .*write to a \.jsonl"):
        annotate.label(recording, tmp_path / "out.parquet", run_folder, device="cpu")
    write(recording, [ROWS[0] | {"confidence": 1}])
    with pytest.raises(InputError, match="column 'confidence' has the name of one that label writes; rename it"):
        annotate.label(recording, tmp_path / "out.jsonl", run_folder, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_what_a_model_inferred_is_inferred_anew(recording, run_folder, tmp_path):
    once, twice = tmp_path / "once.parquet", tmp_path / "twice.parquet"
    annotate.label(recording, once, run_folder, actions=["key"], device="cpu")
    counts = annotate.label(once, twice, run_folder, actions=["go right"], device="cpu")
    assert counts == {"rows": 4, "kept": 1, "inferred": 3, "unreadable": 0}
    assert pq.read_table(twice)["action"].to_pylist() == ["go left"] + ["go right"] * 3
