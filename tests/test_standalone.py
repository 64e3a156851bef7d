import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from swirl import api, data, labelling
from swirl.errors import InputError
from swirl.eval import standalone

X, Y = "door shut\nkey", "door open\nkey"
ROWS = [
    {"state": X, "action": "go left", "next_state": Y, "trajectory": "a", "step": 0},
    {"state": Y, "action": "go left", "next_state": X, "trajectory": "a", "step": 1},
    {"state": X, "action": "go right", "next_state": X, "trajectory": "b", "step": 0},
    {"state": X, "action": None, "next_state": Y, "trajectory": "c", "step": 0},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def recording(tmp_path):
    return write(tmp_path / "in.jsonl", ROWS)


def test_metrics_of_both_models_beside_their_baselines(recording, run_folder):
    rows = standalone.evaluate(recording, run_folder, run_folder, device="cpu")
    found = {(row["model"], row["role"], row["metric"]): row for row in rows}
    forward, inverse = (
        str(run_folder / "phases" / f"0{i}-warmup-{r}-sft") for i, r in ((2, "forward"), (3, "inverse"))
    )
    assert {(row["model"], row["role"]) for row in rows} == {
        ("recording", "both"),
        ("copy-input", "forward"),
        (forward, "forward"),
        ("majority-action", "inverse"),
        (inverse, "inverse"),
        ("cycle", "both"),
    }
    assert found["copy-input", "forward", "exact_match"]["value"] == pytest.approx(1 / 3)
    assert found["copy-input", "forward", "exact_match_changed"]["value"] == 0
    assert found["majority-action", "inverse", "action_exact_match"]["value"] == pytest.approx(2 / 3)
    model, past = api.load_forward(run_folder, "cpu"), [[], [X], []]
    nll = [
        -model.log_likelihood(r["state"], r["action"], r["next_state"], h) for r, h in zip(ROWS[:3], past, strict=True)
    ]
    assert found[forward, "forward", "nll"]["value"] == pytest.approx(sum(nll) / 3, abs=1e-5)
    assert found["cycle", "both", "cycle_exact_match_changed"]["n"] == 2


def test_rows_without_an_action_are_counted_and_left_out(recording, run_folder):
    rows = standalone.evaluate(recording, inverse=run_folder, device="cpu")
    counts = {row["metric"]: (row["value"], row["n"]) for row in rows if row["role"] == "both"}
    assert counts == {"rows_without_action": (1, 4), "rows_scored": (3, 3)}
    assert {row["role"] for row in rows} == {"inverse", "both"}


def test_without_any_action_the_two_models_give_the_cycle(run_folder, tmp_path):
    recording = write(tmp_path / "in.jsonl", [{**row, "action": None} for row in ROWS])
    rows = standalone.evaluate(recording, run_folder, run_folder, device="cpu")
    assert [row["metric"] for row in rows] == ["rows_without_action", "rows_scored", "cycle_exact_match_changed"]
    assert [row["n"] for row in rows] == [4, 4, 3]
    with pytest.raises(InputError, match="none of its 4 rows has an action"):
        standalone.evaluate(recording, forward=run_folder, device="cpu")


def test_a_sample_of_the_rows_is_the_same_each_time(run_folder, tmp_path):
    rows = [{**ROWS[0], "trajectory": f"t{i}", "state": f"key {i}"} for i in range(9)]
    recording = write(tmp_path / "in.jsonl", rows)
    some = [standalone.evaluate(recording, inverse=run_folder, max_rows=n, device="cpu") for n in (4, 4, 0)]
    assert some[0] == some[1]
    scored = [next(row["value"] for row in rows if row["metric"] == "rows_scored") for rows in some]
    assert scored == [4, 4, 9]


def test_by_default_the_rows_are_those_that_the_models_run_would_draw(monkeypatch, run_folder, tmp_path):
    rows = [{**ROWS[0], "trajectory": f"t{i}", "state": f"key {i}"} for i in range(9)]
    recording = write(tmp_path / "in.jsonl", rows)
    scored = []
    monkeypatch.setattr(standalone, "_measure", lambda model, picked, *_: (scored.append(picked), ([], []))[1])
    standalone.evaluate(recording, inverse=run_folder, device="cpu")
    wanted = sorted(np.random.default_rng(3).permutation(9)[:5])  # as its card says: seed 3, 5 rows
    assert [row["state"] for row in scored[0]] == [f"key {i}" for i in wanted]


def test_histories_that_a_file_holds_are_used(tmp_path):
    table = data.with_history(data.read(write(tmp_path / "in.jsonl", ROWS)), 1)
    pq.write_table(table.slice(1, 1), tmp_path / "part.parquet")  # as a split does: its history lies elsewhere
    assert standalone.read_rows(tmp_path / "part.parquet", 1)[0]["history"] == [X]
    assert standalone.read_rows(tmp_path / "in.jsonl", 1)[1]["history"] == [X]
    assert "history" not in standalone.read_rows(tmp_path / "part.parquet", 0)[0]


def test_layouts_without_a_name_are_those_of_a_split(tmp_path):
    """By the first state of their trajectory: in one layout episodes are no independent evidence."""
    layouts = [row["layout"] for row in standalone.read_rows(write(tmp_path / "in.jsonl", ROWS), 0)]
    assert layouts[0] == layouts[1] == layouts[2] == layouts[3] and layouts[0].startswith("state:")
    rows = [{**row, "layout": row["trajectory"]} for row in ROWS]
    named = standalone.read_rows(write(tmp_path / "named.jsonl", rows), 0)
    assert [row["layout"] for row in named] == ["a", "a", "b", "c"]


def test_a_row_that_the_model_cannot_read_is_named(run_folder, tmp_path):
    recording = write(tmp_path / "in.jsonl", [ROWS[0], {**ROWS[1], "state": "key " * 200}])
    with pytest.raises(InputError, match=r"trajectory 'a' step 1: \d+ tokens as a forward prompt"):
        standalone.evaluate(recording, forward=run_folder, device="cpu")


def test_no_model_is_an_error(recording, run_folder):
    with pytest.raises(InputError, match="give --forward, --inverse or both"):
        standalone.evaluate(recording)
    with pytest.raises(InputError, match="--max-rows -1, expected 0"):
        standalone.evaluate(recording, forward=run_folder, max_rows=-1)
    for option in ("turns", "max_new_tokens"):
        with pytest.raises(InputError, match=f"--{option.replace('_', '-')} 0, expected at least 1"):
            standalone.evaluate(recording, forward=run_folder, **{option: 0})


def test_replies_that_the_limit_ends_are_counted_and_said(recording, run_folder, caplog):
    def rates(**options):
        rows = standalone.evaluate(recording, run_folder, run_folder, device="cpu", **options)
        return {r["metric"]: (r["value"], r["n"]) for r in rows if r["metric"].endswith("cut_off_rate")}

    forward, inverse = api.load_forward(run_folder, "cpu"), api.load_inverse(run_folder, "cpu")
    assert rates(max_new_tokens=1) == {"cut_off_rate": (1, 3), "action_cut_off_rate": (1, 3)}
    told = [r.getMessage() for r in caplog.records if "cut off" in r.getMessage()]
    assert [line.split(":")[0] for line in told] == ["forward model", "inverse model"]
    assert "100 % of 3 replies were cut off at 1 tokens" in told[0] and "--max-new-tokens N" in told[0]
    assert "--template KEY=VALUE" in told[0]

    for model, name in ((forward, "cut_off_rate"), (inverse, "action_cut_off_rate")):
        rows = standalone.read_rows(recording, 1)[:3]
        limit = standalone._limit(model, rows, None)
        given = {"style": "terse", "template": {}, "max_new_tokens": limit, "title": ""}
        replies = labelling.ask(model.role, model.scorer, rows, **given)
        assert rates()[name][0] == pytest.approx(sum(not r.finished for (r,) in replies) / 3)


def test_few_replies_that_are_cut_off_are_not_worth_a_warning(run_folder, caplog):
    model = api.load_inverse(run_folder, "cpu")
    for share, warnings in ((0.2, 0), (0.21, 1)):
        caplog.clear()
        standalone._warn_of_cut_off(model, [{"metric": "action_cut_off_rate", "value": share, "n": 100}], 9)
        assert len(caplog.records) == warnings


def test_a_limit_that_the_model_cannot_read_is_refused(recording, run_folder):
    model = api.load_inverse(run_folder, "cpu")
    rows = standalone.read_rows(recording, 1)[:3]
    room = min(model.encode(row)[1] for row in rows)
    assert standalone._limit(model, rows, room) == room
    with pytest.raises(
        InputError, match=rf"--max-new-tokens {room + 1}: the inverse model reads 128 tokens, .*{room} "
    ):
        standalone.evaluate(recording, inverse=run_folder, device="cpu", max_new_tokens=room + 1)


def test_a_limit_is_of_the_cycle_without_actions_too(run_folder, tmp_path, monkeypatch):
    limits, ask = [], labelling.ask
    monkeypatch.setattr(labelling, "ask", lambda *a, **k: (limits.append(k["max_new_tokens"]), ask(*a, **k))[1])
    monkeypatch.setattr(labelling, "action_in", lambda reply: reply.text or "up")  # what is not read is not asked for
    recording = write(tmp_path / "in.jsonl", [{**row, "action": None} for row in ROWS])
    standalone.evaluate(recording, run_folder, run_folder, device="cpu", max_new_tokens=3)
    assert limits == [3, 3]


def test_a_template_is_for_models_that_no_run_made(recording, run_folder, qwen3, monkeypatch):
    asked = []
    monkeypatch.setattr(standalone, "_measure", lambda model, *_: (asked.append(model.spec), ([], []))[1])
    standalone.evaluate(recording, inverse=qwen3, device="cpu", template={"think": [1]})
    assert asked[0].chat_template_kwargs == {"enable_thinking": False, "think": [1]}
    with pytest.raises(InputError, match="--template is for checkpoints that no run made"):
        standalone.evaluate(recording, inverse=run_folder, device="cpu", template={"think": [1]})


def test_a_table_for_people_and_json_for_scripts(recording, run_folder, capsys):
    rows = standalone.evaluate(recording, run_folder, run_folder, device="cpu")
    standalone.show(rows, as_json=True)
    assert json.loads(capsys.readouterr().out) == rows
    standalone.show(rows)
    out = capsys.readouterr().out
    for text in ("Forward model: ", "copy-input", "Inverse model: ", "majority-action", "rows_without_action", "cycle"):
        assert text in out


def test_what_takes_both_models_is_not_told_of_the_recording(capsys):
    def row(model, metric, n, low=None, high=None):
        return {"model": model, "role": "both", "metric": metric, "value": 0.5, "low": low, "high": high, "n": n}

    found = [row("recording", "rows_scored", 9), row("cycle", "cycle_exact_match_changed", 7, 0.25, 0.75)]
    standalone.show(found)
    both, recording = capsys.readouterr().out.split("Recording")
    assert both.startswith("Both models\n") and "cycle_exact_match_changed" in both and "0.250 to 0.750" in both
    assert "rows_scored" in recording and "cycle" not in recording
    standalone.show(found[:1])
    assert "Both models" not in capsys.readouterr().out
