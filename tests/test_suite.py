import json
import math
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swirl import cli, data, intervals, worlds
from swirl.errors import InputError
from swirl.eval import figures, standalone, suite

WORDS = ("shut", "open", "left", "right")
ROWS = [
    {
        "state": f"door {WORDS[i % 4]}\nkey",
        "action": f"go {WORDS[(i + t) % 4]}",
        "next_state": f"door {WORDS[(i + 1) % 4]}\nkey",
        "trajectory": f"t{t}",
        "step": i,
        "layout": "one",
    }
    for t in range(3)
    for i in range(4 + t)
]


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_the_parts_that_are_named():
    assert suite.parse(None, ["forward"]) == ()
    assert suite.parse("trust, rollouts", ["forward"]) == ("trust", "rollouts")
    assert "rollouts" not in suite.parse("all", ["inverse"])
    assert set(suite.parse("all", ["forward", "inverse"])) == set(suite.PREFIXES)
    with pytest.raises(InputError, match="unknown part of the suite 'rollout': did you mean 'rollouts'"):
        suite.parse("rollout", ["forward"])
    with pytest.raises(InputError, match="--suite knowledge measures the forward model; give --forward"):
        suite.parse("trust,knowledge", ["inverse"])


def shape(rows):
    assert all(list(row) == ["model", "role", "metric", "value", "low", "high", "n"] for row in rows)
    assert all(math.isfinite(row["value"]) and row["n"] >= 1 for row in rows if suite.part_of(row))
    return {part: {row["metric"] for row in rows if suite.part_of(row) == part} for part in suite.PREFIXES}


@pytest.mark.parametrize("model", ["run_folder", "qwen3"])
def test_a_run_and_any_instruct_model_are_measured_alike(model, recording, request):
    folder = request.getfixturevalue(model)
    rows = standalone.evaluate(recording, folder, folder, device="cpu", max_rows=6, parts="rollouts,knowledge,trust")
    found = shape(rows)
    assert {f"rollout_{m}_t{t}" for m in ("exact_match", "token_f1") for t in range(1, 7)} <= found["rollouts"]
    assert found["knowledge"] == {"ranking_mrr_changed", "ranking_hit1_changed", "following_changed"}
    assert {"trust_ece", "trust_aurc_changed", "trust_accuracy_b1"} <= found["trust"]
    assert {row["role"] for row in rows if suite.part_of(row) == "trust"} == {"forward", "inverse"}


def test_the_suite_adds_to_the_one_step_metrics_and_changes_none(recording, run_folder):
    plain = standalone.evaluate(recording, run_folder, run_folder, device="cpu")
    more = standalone.evaluate(recording, run_folder, run_folder, device="cpu", parts="trust")
    assert more[: len(plain)] == plain
    assert {suite.part_of(row) for row in more[len(plain) :]} == {"trust"}
    # What the model is trusted with is what it is scored on.
    accuracy = [row for row in more if row["metric"] == "exact_match" and row["model"] != "copy-input"]
    bins = [r for r in more if r["metric"].startswith("trust_accuracy_b") and r["role"] == "forward"]
    assert sum(r["value"] * r["n"] for r in bins) / sum(r["n"] for r in bins) == pytest.approx(accuracy[0]["value"])


def test_all_parts_of_a_recording_that_can_be_played_again(run_folder, tmp_path):
    path, world = tmp_path / "lake.parquet", ("frozenlake", {"size": 3, "coordinates": False})
    data.collect(partial(worlds.make, world[0], **world[1]), path, 30, None, 12, seed=5, origin=world)
    found = shape(standalone.evaluate(path, run_folder, run_folder, device="cpu", max_rows=8, parts="all"))
    assert {"action_equivalent_changed", "real_replayed", "wm2real_plans", "wm2real_reached"} <= found["real"]
    assert "trust_listed_ece" in found["trust"]  # the world lists its actions
    only = shape(standalone.evaluate(path, forward=run_folder, device="cpu", max_rows=8, parts="real"))
    assert "action_equivalent_changed" not in only["real"]


def test_rollouts_are_as_long_as_they_are_asked_to_be(tmp_path, run_folder, capsys):
    rows = [
        {"state": f"door {i}", "action": "go", "next_state": f"door {i + 1}", "trajectory": "t", "step": i}
        for i in range(9)
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["eval", str(path), "--forward", str(run_folder), "--suite", "rollouts", "--max-rows", "0", "--json"]
    words += ["--device", "cpu"]

    def survivors(*more):
        assert cli.main([*words, *more]) == 0
        found = [r for r in json.loads(capsys.readouterr().out) if r["model"] == "copy-input"]
        return [r["value"] for r in found if r["metric"].startswith("rollout_survivors_t")]

    assert survivors("--turns", "8") == [2, 1, 1, 1, 1, 1, 1, 1]
    assert survivors("--turns", "2") == [5, 4]
    assert survivors() == [2, 2, 2, 1, 1, 1]


def test_the_most_rows_bound_the_goals_as_well(run_folder, tmp_path, monkeypatch):
    path, world = tmp_path / "lake.parquet", ("frozenlake", {"size": 3, "coordinates": False})
    data.collect(partial(worlds.make, world[0], **world[1]), path, 30, None, 12, seed=5, origin=world)

    def goals(most):
        rows = standalone.evaluate(path, run_folder, device="cpu", max_rows=most, parts="real")
        return {r["n"] for r in rows if r["metric"] == "wm2real_plans"}

    assert goals(2) == {2}
    monkeypatch.setattr(suite.planning, "GOALS", 3)
    assert goals(0) == {3}  # all rows, and as many goals as ever
    assert goals(9) == {3}


def test_a_recording_of_unknown_origin_is_refused_for_real_and_left_out_of_all(recording, run_folder, caplog):
    with pytest.raises(InputError, match="does not say which world"):
        standalone.evaluate(recording, run_folder, device="cpu", parts="real")
    rows = standalone.evaluate(recording, run_folder, device="cpu", max_rows=4, parts="all")
    assert not shape(rows)["real"]
    assert "nothing is executed in the real world" in caplog.text


def test_every_interval_is_over_the_layouts_of_the_recording(run_folder, tmp_path, monkeypatch):
    path, world = tmp_path / "lake.parquet", ("frozenlake", {"size": 3, "coordinates": False})
    data.collect(partial(worlds.make, world[0], **world[1]), path, 60, None, 6, seed=5, origin=world)
    table = pq.read_table(path)
    names = table["trajectory"].to_pylist()
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    assert len(numbers) > 10
    layouts = pa.array([f"layout {numbers[name] % 5}" for name in names])
    pq.write_table(table.set_column(table.schema.get_field_index("layout"), "layout", layouts), path)
    drawn = []
    for name in ("bootstrap_interval", "bootstrap_statistic"):
        monkeypatch.setattr(intervals, name, lambda _, clusters, bounds=None: (drawn.append(clusters), (0.0, 1.0))[1])
    found = shape(standalone.evaluate(path, run_folder, run_folder, device="cpu", max_rows=0, parts="all"))
    assert all(found.values())
    assert max(len(set(clusters)) for clusters in drawn) == 5


def test_a_suite_without_any_action_is_refused(run_folder, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({**row, "action": None}) + "\n" for row in ROWS))
    with pytest.raises(InputError, match="none of its 15 rows has an action, which --suite needs"):
        standalone.evaluate(path, run_folder, run_folder, device="cpu", parts="rollouts")


def test_the_command_prints_tables_and_json(recording, run_folder, capsys):
    words = ["eval", str(recording), "--forward", str(run_folder), "--suite", "rollouts,trust", "--device", "cpu"]
    assert cli.main([*words, "--json"]) == 0
    shape(json.loads(capsys.readouterr().out))
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    for text in ("Rollouts, by turn", "rollout_survivors", "Trust", "trust_ece", "Trust, by bin"):
        assert text in out
    assert cli.main([*words[:-4], "--suite", "rolouts"]) == 2


def test_the_command_draws_what_it_measured_beside_what_it_prints(recording, run_folder, tmp_path, capsys, monkeypatch):
    drawn, draw = [], figures.plot
    monkeypatch.setattr(figures, "plot", lambda *given: (drawn.append(given), draw(*given)))
    words = ["eval", str(recording), "--inverse", str(run_folder), "--suite", "trust", "--device", "cpu", "--json"]
    assert cli.main([*words, "--max-rows", "4", "--plot", str(tmp_path / "new" / "a.svg")]) == 0
    ((rows, file),) = drawn
    assert rows == json.loads(capsys.readouterr().out)
    assert "<svg" in file.read_text()
    (tmp_path / "b.png").mkdir()
    assert cli.main([*words, "--plot", str(tmp_path / "b.png")]) == 2  # before anything is measured
    assert "is a folder, expected the name of a file" in capsys.readouterr().err
