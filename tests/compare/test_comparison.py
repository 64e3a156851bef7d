"""What a comparison runs: its plan, the learning rates, what it refuses."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kept_runs import cell, point

from swirl.compare import cells, comparison
from swirl.compare.cells import Place
from swirl.config import Data, Recipe, Warmup
from swirl.errors import InputError
from swirl.recipe import load_recipe


@pytest.mark.parametrize(
    ("right", "changed", "inverse", "facts", "chosen"),
    [
        ([0.4, 0.8, 0.6], [0, 0, 0], [0, 0, 0], [0, 0, 0], 1e-3),
        ([0.4, 0.8, 0.6], [0, 0.3, 0], [0, 0, 0], [0, 0, 0], 1e-2),  # false changes count against it
        ([0.4, 0.8, 0.6], [0, 0, 0], [0.5, 0, 0], [0, 0, 0], 1e-4),  # both roles count
        ([0.4, 0.8, 0.8], [0, 0, 0], [0, 0, 0], [0, 0, 0.1], 1e-2),
    ],
)
@pytest.mark.parametrize("drawn", [False, True])
def test_the_learning_rate_is_that_which_ends_best(tmp_path, right, changed, inverse, facts, chosen, drawn):
    rates = (1e-4, 1e-3, 1e-2)
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "minigrid.toml")
    plan = comparison.Plan(recipe, ["swirl", "oracle", "swirl-select", "warmup"], [0], rates)
    for (method, rate), asked in comparison.tuning_cells(plan).items():
        if method == "swirl":
            i = rates.index(rate)
            validation = {"exact_match_changed": right[i], "false_change_rate": changed[i]}
            validation |= {"action_exact_match_changed": inverse[i], "changed_facts_f1": facts[i]}
            kept = {**_finished(asked), "validation": validation}
            # A recording of its own has a test part that no table is of; there 1e-3 is the best.
            sums = [[1, 1], [2, 2], [0, 1]][i]
            kept |= {"drawn": drawn, "points": [*kept["points"], point("b1-forward-sft", "forward", 40, sums)]}
            (tmp_path / f"{asked.name}.json").write_text(json.dumps(kept))
    assert {method for method, _ in comparison.tuning_cells(plan)} == {"swirl", "oracle", "verified"}
    assert comparison.chosen_rates(
        plan, comparison.tried_rates(plan, Place(tmp_path, tmp_path, tmp_path))
    ) == dict.fromkeys(("swirl", "swirl-select"), 1e-3 if drawn else chosen)


def test_a_value_that_changes_nothing_for_a_method_asks_for_no_other_run():
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "minigrid.toml")
    plan = comparison.Plan(recipe, ["warmup"], [0], vary={"verified.pairs": [4000, 500]})
    names = [(cell.name, at) for cell, at in comparison.table_cells(plan, {})]
    assert names == [
        ("warmup-seed0", "4000"),
        ("verified-seed0", "4000"),
        ("warmup-seed0", "500"),
        ("verified-verified.pairs=500-seed0", "500"),
    ]


def test_keys_vary_together():
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "minigrid.toml")
    vary = {"data.validation_labels": [50, 100, 100], "data.labels": [100, 400, 800], "verified.pairs": [9, 9, 8]}
    cells = comparison.table_cells(comparison.Plan(recipe, ["swirl"], [0], vary=vary), {})
    assert [(cell.name, at) for cell, at in cells] == [
        ("swirl-data.labels=100-data.validation_labels=50-seed0", "50, 100, 9"),
        ("verified-data.labels=100-data.validation_labels=50-verified.pairs=9-seed0", "50, 100, 9"),
        ("swirl-seed0", "100, 400, 9"),
        ("verified-verified.pairs=9-seed0", "100, 400, 9"),
        ("swirl-data.labels=800-seed0", "100, 800, 8"),
        ("verified-data.labels=800-verified.pairs=8-seed0", "100, 800, 8"),
    ]
    data = cells[1][0].recipe.data
    assert (data.labels, data.validation_labels, cells[1][0].recipe.verified.pairs) == (100, 50, 9)


def test_a_file_is_split_alike_for_tuning_and_a_world_draws_anew():
    """Split anew, what decides on a learning rate could be the table's test rows."""
    for data, seed in ((Data(path="recording.parquet"), 0), (Data(world="minigrid"), 1000)):
        recipe = Recipe(methods=("warmup", "verified"), data=data)
        [cell, *_] = comparison.tuning_cells(comparison.Plan(recipe, ["bootstrap"], [0], [1e-3])).values()
        assert (cell.recipe.seed, cell.recipe.data.seed) == (1000, seed)


def test_a_method_waits_until_all_its_learning_rates_were_tried(tmp_path, monkeypatch):
    recipe = Recipe(methods=("warmup", "verified"))
    plan = comparison.Plan(recipe, ["bootstrap", "warmup"], [0], (1e-4, 1e-3))
    asked = []

    def ran(cells, place, processes):
        asked.append([cell.name for cell in cells])
        for one in cells if len(asked) == 1 else ():
            if one.name != "tune-bootstrap-0.001":  # which failed
                kept = {**_finished(one), "drawn": False, "validation": {}}
                (tmp_path / f"{one.name}.json").write_text(json.dumps(kept))
        return []

    monkeypatch.setattr(comparison.running, "run", ran)
    told = comparison.run(plan, Place(tmp_path, tmp_path, tmp_path), 1)
    assert told == ["bootstrap is left out, for not all of its learning rates were tried"]
    assert asked[1] == ["warmup-seed0", "verified-seed0"]


def _finished(asked):
    return {**cell(), "recipe": tomllib.loads(asked.recipe.toml())}


def test_a_test_part_in_which_nothing_changes_is_told_of_before_methods_are_trained(tmp_path, caplog):
    for name, after in (("one", "lamp on"), ("other", "lamp off\n")):
        (tmp_path / name / "data").mkdir(parents=True)
        columns = {"state": ["lamp off"] * 2, "next_state": ["lamp off", after], "action": ["press"] * 2}
        pq.write_table(pa.table(columns), tmp_path / name / "data" / "test.parquet")
    for name in ("one", "other"):
        cells._tell_of_no_change(tmp_path / name)
    [told] = caplog.messages
    assert told.startswith(f"{tmp_path / 'other'}: no transition of the test part changes the state")


def carried_out(monkeypatch, tmp_path, broken=(), processes=1):
    """Names in the order in which they were begun, and what failed; training takes no time."""
    begun = []

    def train(self, cell, base, place):
        begun.append(cell.name.rpartition("-")[0] if cell.name.count("-") == 2 else cell.name)
        if begun[-1] in broken:
            raise cells.Failed(f"{begun[-1]} failed")
        return place.runs / cell.name

    monkeypatch.setattr(cells.Processes, "train", train)
    monkeypatch.setattr(cells, "_tell_of_no_change", lambda folder: None)
    monkeypatch.setattr(cells.kept, "keep", lambda *_: None)
    monkeypatch.setattr(cells.kept, "find", lambda *_: None)
    plan = comparison.Plan(Recipe(methods=("warmup", "verified")), ["bootstrap"], [0, 1])
    asked = [cell for cell, _ in comparison.table_cells(plan, {})]
    return begun, cells.run(asked, Place(tmp_path, tmp_path, tmp_path), processes)


def test_the_runs_of_a_seed_are_done_before_those_of_the_next(monkeypatch, tmp_path):
    begun, failed = carried_out(monkeypatch, tmp_path)
    assert begun == [
        *("warmup-seed0", "bootstrap-seed0", "verified-seed0"),
        *("warmup-seed1", "bootstrap-seed1", "verified-seed1"),
    ]
    assert failed == []


def test_of_several_at_once_none_begins_before_what_it_begins_from(monkeypatch, tmp_path):
    begun, failed = carried_out(monkeypatch, tmp_path, processes=3)
    assert sorted(begun) == sorted(f"{name}-seed{i}" for name in ("warmup", "bootstrap", "verified") for i in (0, 1))
    for i in (0, 1):
        assert begun.index(f"warmup-seed{i}") < min(
            begun.index(f"{name}-seed{i}") for name in ("bootstrap", "verified")
        )
    # Both collect the same recording: the second waits for the first.
    assert begun.index("warmup-seed0") < begun.index("warmup-seed1")
    assert failed == []


def test_without_its_warm_up_a_seed_is_left_out_and_the_next_goes_on(monkeypatch, tmp_path):
    begun, failed = carried_out(monkeypatch, tmp_path, broken=("warmup-seed0", "bootstrap-seed1"))
    assert begun == ["warmup-seed0", "warmup-seed1", "bootstrap-seed1", "verified-seed1"]
    assert failed == ["warmup-seed0 failed", "bootstrap-seed1 failed"]


def test_what_was_tested_on_other_rows_stands_in_no_table(tmp_path):
    plan = comparison.Plan(Recipe(methods=("warmup", "verified")), ["bootstrap"], [0])
    for asked, _ in comparison.table_cells(plan, {}):
        kept = {**_finished(asked), "tested_on": asked.method}
        (tmp_path / f"{asked.name}.json").write_text(json.dumps(kept))
    with pytest.raises(InputError, match="verified-seed0 and bootstrap-seed0 were tested on different rows; remove"):
        comparison.write(plan, Place(tmp_path, tmp_path, tmp_path), tmp_path)


def test_every_seed_may_have_a_recording_of_its_own(tmp_path):
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "minigrid.toml")
    plan = comparison.Plan(
        recipe, ["warmup"], [0, 3], (1e-3, 1e-4), vary={"data.labels": [400, 200]}, new_recordings=True
    )
    cells = [cell for cell, _ in comparison.table_cells(replace(plan, rates=()), {})]
    assert [(cell.name, cell.recipe.data.seed, cell.recipe.data.labels) for cell in cells] == [
        ("warmup-seed0", 0, 400),  # the recipe's own recording
        ("verified-seed0", 0, 400),
        ("warmup-data.seed=3-seed3", 3, 400),
        ("verified-data.seed=3-seed3", 3, 400),
        ("warmup-data.labels=200-seed0", 0, 200),
        ("verified-data.labels=200-seed0", 0, 200),
        ("warmup-data.labels=200-data.seed=3-seed3", 3, 200),
        ("verified-data.labels=200-data.seed=3-seed3", 3, 200),
    ]
    assert {cell.recipe.data.seed for cell in comparison.tuning_cells(plan).values()} == {1000}


@pytest.mark.parametrize("new_recordings", [False, True])
def test_different_test_rows_stand_in_one_table_only_where_seeds_have_recordings_of_their_own(new_recordings, tmp_path):
    plan = comparison.Plan(Recipe(methods=("warmup", "verified")), ["warmup"], [1, 2], new_recordings=new_recordings)
    for asked, _ in comparison.table_cells(plan, {}):
        kept = {**_finished(asked), "tested_on": f"of {asked.recipe.seed}"}
        (tmp_path / f"{asked.name}.json").write_text(json.dumps(kept))
    place = Place(tmp_path, tmp_path, tmp_path)
    if new_recordings:
        comparison.write(plan, place, tmp_path)
        told = (tmp_path / "comparison.md").read_text()
        assert "by bootstrap over seeds, each with a recording of its own; differences are paired" in told
    else:
        with pytest.raises(InputError, match="were tested on different rows; remove"):
            comparison.write(plan, place, tmp_path)


def test_a_comparison_of_nothing_is_refused(tmp_path):
    recipe = Recipe(methods=("pretrain", "warmup"))
    for plan, message in (
        (comparison.Plan(recipe, [], [0]), "--methods names none, and the recipe has none after its warm-up"),
        (comparison.Plan(recipe, ["swirl", "oracle"], [0]), "nothing can be compared with oracle; name a method that"),
        (comparison.Plan(replace(recipe, warmup=Warmup(steps=0)), ["swirl"], [0]), "are compared from a warm-up"),
        (comparison.Plan(recipe, ["swirl"], [0], vary={"warmup.steps": [2, 0]}), "are compared from a warm-up"),
        (comparison.Plan(recipe, ["swirl"], [0], [1e-3], vary={"data.lables": [2]}), "did you mean data.labels"),
        (comparison.Plan(recipe, ["swirl"], [0], vary={"swirl.rounds": [1, 2]}), "compare swirl-iterative"),
        (
            comparison.Plan(recipe, ["swirl"], [0], vary={"data.labels": [10, 20], "warmup.steps": [2]}),
            "--vary: data.labels has 2, warmup.steps has 1; give each as many values",
        ),
        (comparison.Plan(recipe, ["swirl"], [0], [1e-3, 0.0]), "--learning-rates 0.001, 0: expected more than 0 each"),
        (
            comparison.Plan(
                replace(recipe, data=Data(path=__file__, labels=9, validation_labels=0)), ["swirl"], [0], [1]
            ),
            "data.validation_labels = 0; raise it",
        ),
        (
            comparison.Plan(recipe, ["swirl"], [0], [1e-3], vary={"swirl.learning_rate": [1e-4]}),
            "--vary swirl.learning_rate with --learning-rates: give one of the two",
        ),
        (comparison.Plan(recipe, ["swirl"], [0], [1e-3, 0.001]), "--learning-rates has 0.001 more than once"),
        (
            comparison.Plan(replace(recipe, data=Data(path=__file__)), ["swirl"], [0], new_recordings=True),
            "--new-recordings has a world draw a recording for each seed, and .*py is one; leave one of them out",
        ),
        (
            comparison.Plan(recipe, ["swirl"], [0], vary={"data.seed": [1, 2]}, new_recordings=True),
            "and --vary data.seed says which",
        ),
        (comparison.Plan(recipe, ["swirl"], []), "--seeds names none; give some"),
        (comparison.Plan(recipe, ["swirl"], [0, -1]), "a seed is -1; expected 0 or more in --seeds"),
        (comparison.Plan(recipe, ["swirl"], [0], tuning_seed=-2), "a seed is -2; expected"),
        (
            comparison.Plan(replace(recipe, data=Data(path="nothere.parquet")), ["swirl"], [0]),
            "no recording at nothere",
        ),
    ):
        with pytest.raises(InputError, match=message):
            comparison.run(plan, Place(tmp_path, tmp_path, tmp_path), 1)
