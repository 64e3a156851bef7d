"""The figures, tables and report of a comparison, from kept files with known numbers."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_reading import point

from swirl.compare import comparison, figures, report, summary
from swirl.compare.cells import Place
from swirl.config import Data, Recipe, Warmup
from swirl.errors import InputError
from swirl.recipe import load_recipe

COUNTS = {"exact_match_changed": [2, 3], "action_exact_match_changed": [2, 3]}


def cell(*later, warm=(0, 1)):
    """A run of two test layouts; the inverse model is right in half of the rows."""
    inverse = point("warmup-inverse-sft", "inverse", 30, [0, 0])
    inverse["sums"] = {"action_exact_match_changed": [1, 1.5]}
    points = [point("copy-input", "forward", None, [0, 0]), point("warmup-forward-sft", "forward", 20, list(warm))]
    return {
        "points": [*points, inverse, *later],
        "counts": {role: COUNTS for role in ("forward", "inverse")},
        "rewards": {"swirl1-forward-grpo": {"first": -0.5, "last": -0.25}},
        "rows": [
            {"role": "inverse", "phase": "warmup", "metric": "action_unique_share", "value": 0.25},
        ],
        "alarms": ["swirl1-forward-grpo: reward rose"],
        "samples": [
            {"role": "forward", "kind": "worst", "row": 3, "state": "lamp <b>off</b>", "action": "press"}
            | {"next_state": "lamp on", "prediction": "lamp off", "score": 0.0}
        ],
        "commit": "abc1234",
        "machine": {"cores": 2},
        "versions": {"torch": "2.13.0"},
    }


@pytest.fixture
def cells():
    return {
        "verified": {s: cell(point("verified1-forward-sft", "forward", 50, [2, 2])) for s in (0, 1)},
        "swirl": {s: cell(point("swirl1-forward-grpo", "forward", 90, [0, 2])) for s in (0, 1)},
        "oracle": {s: cell(point("oracle1-forward-sft", "forward", 99, [2, 3])) for s in (0, 1)},
    }


@pytest.fixture
def results(cells):
    rows = [{**row, "at": ""} for row in summary.summarise(cells, "verified")]
    return {
        "reference": "verified",
        "methods": ["swirl", "oracle", "verified"],
        "seeds": [0, 1],
        "learning_rates": {"swirl": 1e-5},
        "tuning_seed": 1000,
        "tried": [
            {"method": "swirl", "learning_rate": rate, "score": score} for rate, score in ((1e-5, 0.5), (1e-4, 0.25))
        ],
        "vary": None,
        "rows": rows,
        "rewards": summary.rewarded(cells),
    }


def values(results, unit="cpu_seconds"):
    forward = [r for r in results["rows"] if r["unit"] == unit and r["role"] in ("forward", "both")]
    return {(r["method"], r["statistic"]): r["value"] for r in forward}


def test_values_differences_gaps_and_costs(results):
    found = values(results)
    # Of 5 rows: 1 right after the warm-up, 4 by verified, 5 by the oracle; swirl has 1 + 1 * (50 - 30) / (90 - 30).
    swirl = (1 + 1 / 3) / 5
    expected = {
        ("warmup", "value"): 1 / 5,
        ("verified", "value"): 4 / 5,
        ("swirl", "value"): swirl,
        ("oracle", "value"): 1,
        ("copy-input", "value"): 0,
        ("warmup", "cost"): 30,
        ("warmup", "difference"): -3 / 5,
        ("swirl", "difference"): swirl - 4 / 5,
        ("oracle", "difference"): 1 / 5,
        ("verified", "gap_closed"): 3 / 4,
        ("swirl", "gap_closed"): (swirl - 1 / 5) / (4 / 5),
        ("verified", "cost"): 50,
        ("swirl", "cost"): 50,
        ("oracle", "cost"): 99,
    }
    assert found == pytest.approx(expected)
    assert values(results, "tokens")["swirl", "cost"] == 500


def test_a_reward_stands_beside_what_it_brought(cells, results):
    cells["swirl"][1]["rewards"]["swirl1-forward-grpo"] = {"first": -0.7, "last": -0.65}
    (row,) = summary.rewarded(cells)
    found = {
        name: pytest.approx(value)
        for name, value in {"first": -0.6, "last": -0.45, "before": 0.2, "after": 0.4}.items()
    }
    assert row == {"method": "swirl", "phase": "swirl1-forward-grpo", "role": "forward", "seeds": 2, **found}
    lines = summary.tables(results)["Reward beside held-out quality, by phase"]
    assert lines[1] == ["`swirl`", "swirl1-forward-grpo", "2", "-0.500", "-0.250", "0.200", "0.400"]
    found = summary.tables({**results, "rewards": [], "tried": []})
    assert list(found) == [
        f"At equal {unit}{what}"
        for unit in ("CPU seconds", "tokens of training")
        for what in ("", ", less `verified`", ", gap closed")
    ]


def test_what_learning_rates_scored_is_told(results):
    lines = summary.tables(results)["Learning rates on the tuning seed, both scores added up"]
    assert lines == [["method", "1e-05", "0.0001", ""], ["`swirl`", "0.500", "0.250", "best at the edge"]]
    inside = [{"method": "swirl", "learning_rate": rate, "score": rate == 2} for rate in (1, 2, 3)]
    lines = summary.tables({**results, "tried": inside})["Learning rates on the tuning seed, both scores added up"]
    assert lines[1][-1] == ""


def test_an_interval_holds_no_value_that_the_metric_cannot_have(cells):
    cells["verified"] = {s: cell(point("verified1-forward-sft", "forward", 50, [s, 3])) for s in (0, 1, 2)}
    rows = summary.summarise(cells, "verified")
    value, copied = (
        next(r for r in rows if (r["method"], r["metric"], r["statistic"]) == (method, "exact_match_changed", "value"))
        for method in ("verified", "copy-input")
    )
    assert (value["low"], value["high"]) == (0, 1)  # of 4/5 on average, with two degrees of freedom
    assert (copied["low"], copied["high"]) == (0, 0)


def test_a_share_of_a_gain_that_is_not_certain_has_no_interval():
    counts = {"exact_match_changed": [1] * 20}

    def run(*right):
        points = [point("warmup-forward-sft", "forward", 20, [1, 0] * 10), point("m-sft", "forward", 50, list(right))]
        return {**cell(), "points": points, "counts": {"forward": counts}}

    for oracle, certain in (([1] * 20, True), ([1, 0] * 9 + [1, 1], False)):
        cells = {"verified": {0: run(*[1, 0] * 9, 1, 1)}, "oracle": {0: run(*oracle)}}
        rows = summary.summarise(cells, "verified")
        gap = next(r for r in rows if (r["metric"], r["statistic"]) == ("exact_match_changed", "gap_closed"))
        assert gap["value"] == pytest.approx(0.1 if certain else 1)
        assert (gap["low"] is not None) == certain
        results = {"rows": rows, "methods": ["oracle", "verified"], "seeds": [0]}
        [_, line] = summary.compared(results, "cpu_seconds", "gap_closed")
        assert ("(the oracle's gain is uncertain)" in line[1]) != certain


def test_an_oracle_that_gains_nothing_bounds_nothing(cells, results):
    for by_seed in cells.values():
        for one in by_seed.values():
            one["points"] = [p for p in one["points"] if not p["phase"].startswith("oracle")]
    rows = summary.summarise(cells, "verified")
    assert not [row for row in rows if row["statistic"] == "gap_closed"]
    assert all(np.isfinite(row["value"]) for row in rows)


def test_the_table_names_what_was_compared_in_order(results):
    lines = summary.table(results, "cpu_seconds")
    assert [line[0] for line in lines[1:]] == ["`copy-input`", "`warmup`", "`swirl`", "`verified`", "`oracle`"]
    head, swirl = lines[0], lines[3]
    told = dict(zip(head, swirl, strict=True))
    assert told["seeds"] == "2" and told["learning rate"] == "1e-05" and told["CPU s"] == "50"
    assert told["next state, net"].split()[0] == told["exact on changed"].split()[0]  # nothing stands still there
    assert told["next state, net"].startswith("0.267 [")
    assert told["action, exact"].startswith("0.500 [")
    head, *lines = summary.compared(results, "cpu_seconds", "difference")
    assert [line[0] for line in lines] == ["`warmup`", "`swirl`", "`oracle`"]
    assert dict(zip(head, lines[1], strict=True))["exact on changed"].startswith("-0.533 [-")
    assert "| `swirl` | 2 | 1e-05 | 50 |" in summary.text(results)


def test_what_is_of_fewer_seeds_says_so(cells, results):
    del cells["oracle"][1]
    results["rows"] = [{**row, "at": ""} for row in summary.summarise(cells, "verified")]
    head, *lines = summary.table(results, "cpu_seconds")
    told = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
    gaps = summary.compared(results, "cpu_seconds", "gap_closed")
    assert [line[0] for line in gaps[1:]] == ["`swirl`", "`verified`"]
    differences = {line[0]: line[1] for line in summary.compared(results, "cpu_seconds", "difference")[1:]}
    assert differences["`oracle`"].endswith(", 1 of 2 seeds") and differences["`swirl`"].endswith("]")
    assert told["`swirl`"]["next state, net"].endswith("]")
    assert told["`oracle`"]["seeds"] == "1"


def test_what_varies_becomes_columns(cells, results):
    at = [{**row, "at": value} for value in ("100", "200") for row in summary.summarise(cells, "verified")]
    results |= {"vary": "data.labels", "rows": at}
    [forward, inverse] = summary.tables(results).values()
    assert forward[0] == ["next state, net, by `data.labels`", "100", "200"]
    assert [line[0] for line in forward[1:]][-1] == "`oracle`"
    assert forward[2][1].startswith("0.200 [") and inverse[0][0].startswith("action, exact")


def test_the_report_is_one_file_that_says_what_ran_and_shows_what_was_wrong(cells, results):
    page = report.page(results, {"": cells})
    assert page.count("<svg") == 1 and "by round" not in page  # one round each, and no signs after a phase
    assert "<script" not in page and "src=" not in page
    assert "Every method is read where it has spent what verified spends" in page
    assert "lamp &lt;b&gt;off&lt;/b&gt;" in page  # recordings are data, not markup
    assert "lamp <del>on</del><ins>off</ins>" in page
    assert "swirl, seed 1: swirl1-forward-grpo: reward rose" in page
    for fact in ("abc1234", "cores 2", "torch 2.13.0", "0.250"):
        assert fact in page


def test_the_report_shows_every_value_of_what_varies(cells, results):
    other = {
        "verified": {
            0: {**cell(point("verified1-forward-sft", "forward", 50, [2, 2])), "alarms": ["actions collapsed"]}
        }
    }
    page = report.page({**results, "vary": "data.labels"}, {"100": other, "200": cells})
    assert page.count("<svg") == 3  # by value, and over cost at each
    for title in (
        "Alarms, data.labels = 100",
        "Inferred actions, data.labels = 200",
        "actions collapsed",
        "reward rose",
    ):
        assert title in page


def lines(ax, style="-"):
    """The data of the lines of a style, in the order in which they were drawn."""
    mine = [line for line in ax.lines if line.get_linestyle() == style]
    return [(list(map(float, line.get_xdata())), pytest.approx(list(map(float, line.get_ydata())))) for line in mine]


def inverse_point(phase, cost, sums):
    return {**point(phase, "inverse", cost, sums), "sums": {"action_exact_match_changed": sums}}


def test_scores_by_round_are_of_methods_with_two_rounds_or_more(cells):
    assert figures.by_round(cells) is None
    rounds = [
        point("verified1-forward-sft", "forward", 50, [1, 2]),
        point("verified2-forward-sft", "forward", 70, [2, 2]),
    ]
    ended = point("verified", "forward", None, [2, 3])  # what the method ended with is no round
    cells["verified"][0] = cell(*rounds, ended)
    (forward,) = figures.by_round(cells).axes  # the inverse model has no round at all
    # Of 5 rows: 1, 3, 4 right in one seed; 1, 4 in the other, which stopped early and stays there.
    assert lines(forward) == [([0, 1, 2], [1 / 5, (3 + 4) / 10, (4 + 4) / 10])]
    assert [text.get_text() for text in forward.get_legend().get_texts()] == ["verified"]
    assert (forward.get_title(), forward.get_xlabel()) == ("forward model", "round (0: warm-up)")


def test_each_role_counts_its_own_rounds(cells):
    for i in (1, 2):
        for seed in (0, 1):
            cells["swirl"][seed]["points"] += [
                inverse_point(f"swirl{i}-inverse-grpo", 100 * i, [i, 2]),
                point(f"swirl{i + 1}-forward-grpo", "forward", 120 * i, [i, 1]),
            ]
    forward, inverse = figures.by_round(cells).axes
    assert lines(forward) == [([0, 1, 2, 3], [1 / 5, 2 / 5, 2 / 5, 3 / 5])]
    assert lines(inverse) == [([0, 1, 2], [2.5 / 5, 3 / 5, 4 / 5])]
    over_cost = {line.get_label(): line.get_color() for line in figures.over_cost(cells).axes[0].lines}
    for ax in (forward, inverse):
        assert {line.get_label(): line.get_color() for line in ax.lines} == {"swirl": over_cost["swirl"]}


def signs(phase, role="inverse", **values):
    return [
        {"role": role, "phase": phase, "metric": f"action_{name}", "value": value} for name, value in values.items()
    ]


def test_health_is_drawn_from_phase_to_phase_with_the_limits_of_alarms(cells):
    assert figures.health(cells) is None  # its only rows are of what a method ended with
    for seed, more in ((0, 0.0), (1, 0.2)):
        later = [
            point("verified1-forward-sft", "forward", 50, [2, 2]),
            inverse_point("verified1-inverse-sft", 60, [1, 1]),
        ]
        cells["verified"][seed] = cell(*later, point("verified", "inverse", None, [0, 0])) | {
            "rows": [
                *signs("majority-action", unique_share=0.9),
                *signs("warmup-inverse-sft", nmi=0.3 + more, unique_share=0.5 + more, entropy=1.0),
                *signs("verified1-inverse-sft", nmi=0.6 + more),
                *signs("verified1-inverse-sft", role="forward", nmi=0.9),
                *signs("verified", nmi=0.9, unique_share=0.9),
            ]
        }
    cells["verified"][0]["rows"] += signs("verified1-inverse-sft", perplexity_ratio=0.7)
    cells["swirl"][0]["rows"] = signs("warmup-inverse-sft", nmi=0.2)
    figure = figures.health(cells)
    unique, nmi, perplexity = figure.axes  # nothing was measured of length
    assert [ax.get_title() for ax in figure.axes] == ["action_unique_share", "action_nmi", "action_perplexity_ratio"]
    # The inverse model's phases are the second and the fourth that trained.
    assert lines(unique) == [([2], [0.6])]
    assert lines(nmi) == [([2, 4], [0.4, 0.7]), ([2], [0.2])]
    assert lines(perplexity) == [([4], [0.7])]  # of the seed that has it
    limits = [[y for _, y in lines(ax, "--")] for ax in figure.axes]
    assert limits == [[], [[0.1, 0.1]], [[0.1, 0.1], [2, 2]]]
    legend = figure.legends[0]
    named = {text.get_text(): line.get_color() for text, line in zip(legend.texts, legend.get_lines(), strict=True)}
    assert set(named) == {"verified", "swirl", "limit of an alarm"}
    assert [line.get_color() for line in nmi.lines] == [named[x] for x in ("verified", "swirl", "limit of an alarm")]


def test_the_report_has_the_figures_that_have_something_to_show(cells, results):
    cells["verified"][0]["points"].append(point("verified2-forward-sft", "forward", 70, [2, 2]))
    page = report.page(results, {"": cells})
    assert page.count("<svg") == 2 and "Test metrics by round" in page
    cells["swirl"][0]["rows"] = signs("warmup-inverse-sft", nmi=0.2)
    page = report.page(results, {"": cells})
    drawing = page[page.index("<h2>Inferred actions") : page.index("<h2>Alarms")]
    assert page.count("<svg") == 3 and "<svg" in drawing and "<table>" in drawing


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
    for (method, rate), asked in comparison._tuning(plan).items():
        if method == "swirl":
            i = rates.index(rate)
            validation = {"exact_match_changed": right[i], "false_change_rate": changed[i]}
            validation |= {"action_exact_match_changed": inverse[i], "changed_facts_f1": facts[i]}
            kept = {**_finished(asked), "validation": validation}
            # A recording of its own has a test part that no table is of; there 1e-3 is the best.
            sums = [[1, 1], [2, 2], [0, 1]][i]
            kept |= {"drawn": drawn, "points": [*kept["points"], point("b1-forward-sft", "forward", 40, sums)]}
            (tmp_path / f"{asked.name}.json").write_text(json.dumps(kept))
    assert {method for method, _ in comparison._tuning(plan)} == {"swirl", "oracle", "verified"}
    assert comparison._rates(plan, comparison._tried(plan, Place(tmp_path, tmp_path, tmp_path))) == dict.fromkeys(
        ("swirl", "swirl-select"), 1e-3 if drawn else chosen
    )


def test_a_value_that_changes_nothing_for_a_method_asks_for_no_other_run():
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "minigrid.toml")
    plan = comparison.Plan(recipe, ["warmup"], [0], vary=("verified.pairs", [4000, 500]))
    names = [(cell.name, at) for cell, at in comparison._cells(plan, {})]
    assert names == [
        ("warmup-seed0", "4000"),
        ("verified-seed0", "4000"),
        ("warmup-seed0", "500"),
        ("verified-verified.pairs=500-seed0", "500"),
    ]


def test_a_file_is_split_alike_for_tuning_and_a_world_draws_anew():
    """Split anew, what decides on a learning rate could be the table's test rows."""
    for data, seed in ((Data(path="recording.parquet"), 0), (Data(world="minigrid"), 1000)):
        recipe = Recipe(methods=("warmup", "verified"), data=data)
        [cell, *_] = comparison._tuning(comparison.Plan(recipe, ["bootstrap"], [0], [1e-3])).values()
        assert (cell.recipe.seed, cell.recipe.data.seed) == (1000, seed)


def test_a_method_waits_until_all_its_learning_rates_were_tried(tmp_path, monkeypatch):
    recipe = Recipe(methods=("warmup", "verified"))
    plan = comparison.Plan(recipe, ["bootstrap", "warmup"], [0], (1e-4, 1e-3))
    asked = []

    def ran(cells, place, processes):
        asked.append([cell.name for cell in cells])
        for cell in cells if len(asked) == 1 else ():
            if cell.name != "tune-bootstrap-0.001":  # which failed
                kept = {**_finished(cell), "drawn": False, "validation": {}}
                (tmp_path / f"{cell.name}.json").write_text(json.dumps(kept))
        return []

    monkeypatch.setattr(comparison.running, "run", ran)
    told = comparison.run(plan, Place(tmp_path, tmp_path, tmp_path), 1)
    assert told == ["bootstrap is left out, for not all of its learning rates were tried"]
    assert asked[1] == ["warmup-seed0", "verified-seed0"]


def _finished(asked):
    return {**cell(), "recipe": tomllib.loads(asked.recipe.toml())}


def test_what_was_tested_on_other_rows_stands_in_no_table(tmp_path):
    plan = comparison.Plan(Recipe(methods=("warmup", "verified")), ["bootstrap"], [0])
    for asked, _ in comparison._cells(plan, {}):
        kept = {**_finished(asked), "tested_on": asked.method}
        (tmp_path / f"{asked.name}.json").write_text(json.dumps(kept))
    with pytest.raises(InputError, match="verified-seed0 and bootstrap-seed0 were tested on different rows; remove"):
        comparison.write(plan, Place(tmp_path, tmp_path, tmp_path), tmp_path)


def test_a_comparison_of_nothing_is_refused(tmp_path):
    recipe = Recipe(methods=("pretrain", "warmup"))
    for plan, message in (
        (comparison.Plan(recipe, [], [0]), "--methods names none, and the recipe has none after its warm-up"),
        (comparison.Plan(recipe, ["swirl", "oracle"], [0]), "nothing can be compared with oracle; name a method that"),
        (comparison.Plan(replace(recipe, warmup=Warmup(steps=0)), ["swirl"], [0]), "are compared from a warm-up"),
        (comparison.Plan(recipe, ["swirl"], [0], vary=("warmup.steps", [2, 0])), "are compared from a warm-up"),
        (comparison.Plan(recipe, ["swirl"], [0], [1e-3], vary=("data.lables", [2])), "did you mean data.labels"),
        (comparison.Plan(recipe, ["swirl"], [0], vary=("swirl.rounds", [1, 2])), "compare swirl-iterative"),
        (comparison.Plan(recipe, ["swirl"], [0], [1e-3, 0.0]), "--learning-rates 0.001, 0: expected more than 0 each"),
        (
            comparison.Plan(replace(recipe, data=Data(path="a", labels=9, validation_labels=0)), ["swirl"], [0], [1]),
            "data.validation_labels = 0; raise it",
        ),
        (
            comparison.Plan(recipe, ["swirl"], [0], [1e-3], vary=("swirl.learning_rate", [1e-4])),
            "--vary swirl.learning_rate with --learning-rates: give one of the two",
        ),
    ):
        with pytest.raises(InputError, match=message):
            comparison.run(plan, Place(tmp_path, tmp_path, tmp_path), 1)


@pytest.mark.parametrize(
    ("before", "after", "marked"),
    [
        ("a b", "a b", "a b"),
        ("a b", "a c", "a <del>b</del><ins>c</ins>"),
        ("a", "a\nb", "a<ins>\nb</ins>"),
        ("", "x < y", "<ins>x &lt; y</ins>"),
    ],
)
def test_differences_are_marked_by_words(before, after, marked):
    assert report._marked(before, after) == marked
