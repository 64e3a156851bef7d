"""The figures and the report of a comparison, from kept files with known numbers."""

import html
import json
import re

import numpy as np
import pytest
from kept_runs import cell, point, results_of, three_methods

from swirl import images
from swirl.compare import figures, kept, report
from swirl.imagetokens.tile import TileTokenizer


@pytest.fixture
def cells():
    return three_methods()


@pytest.fixture
def results(cells):
    return results_of(cells)


def test_the_report_is_one_file_that_says_what_ran_and_shows_what_was_wrong(cells, results):
    page = report.page(results, {"": cells})
    assert page.count("<svg") == 1 and "by round" not in page  # one round each, and no signs after a phase
    assert "<script" not in page and "src=" not in page
    assert "Every method is read where it has spent what <code>verified</code> spends" in page
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
    over_cost = {line.get_label(): line.get_color() for line in figures.over_cost(cells, "verified").axes[0].lines}
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


def sample(kind, after, wrote, score, role="forward"):
    before = {"role": role, "kind": kind, "row": 0, "state": "lamp off", "action": "press"}
    return {**before, "next_state": after, "prediction": wrote, "score": score}


def test_predictions_say_what_they_are_held_against_and_whether_they_are_right(cells, results):
    cells["verified"][0]["samples"] = [
        sample("drawn", "lamp on", "lamp on\n", 1.0),
        sample("worst", "lamp on", "", 0.25),
        sample("false change", "lamp off", "lamp <on>", 0.0),
        sample("worst", "lamp on", "wait", 0.0, "inverse"),
        sample("drawn", "lamp on", "press", 1.0, "inverse"),
    ]
    page = report.page(results, {"": cells})
    mine = page[page.index("<summary>verified, seed 0</summary>") : page.index("<summary>swirl, seed 0</summary>")]
    told = re.findall(r"<p>(.*?)</p>", re.sub(r"</?(b|code)\b[^>]*>", "", mine))
    assert told == [
        "Next state after press: as recorded (drawn at random)",
        "Next state after press: not as recorded, changed facts F1 0.25 (among the worst)",
        "Next state after press: not as recorded (a false change: nothing changed here)",
        "Action between two states: not as recorded (among the worst)",
        "Action between two states: as recorded (drawn at random)",
    ]
    heads = ["state", "recorded next state, against the state", "predicted, against the recorded one"]
    assert re.findall(r"<b>(.*?)</b>", mine)[:3] == heads
    assert "<pre>(nothing)</pre>" in mine and "lamp <del>off</del><ins>&lt;on&gt;</ins>" in mine
    assert "<pre>recorded: press\ninferred: wait</pre>" in mine


def test_headings_and_tables_hold_no_backticks_and_no_empty_column(cells, results):
    page = report.page({**results, "learning_rates": {}}, {"": cells})
    assert "`" not in page and "less <code>verified</code></h2>" in page
    assert "<th>learning rate</th>" not in page and "<th>CPU s</th>" in page


def test_curves_over_cost_have_the_baseline_and_the_budget(cells):
    for seed, cost in ((0, 50), (1, 60)):
        copied = point("copy-input", "forward", None, [seed, 0])
        cells["verified"][seed] = cell(point("verified1-forward-sft", "forward", cost, [2, 2]))
        cells["verified"][seed]["points"][0] = copied
    forward, inverse = figures.over_cost(cells, "verified").axes
    assert lines(forward, "--") == [([0, 1], [1 / 10, 1 / 10])]  # 0 and 1 of 5 rows
    assert lines(inverse, "--") == []  # nothing is kept of the majority's action
    for ax in (forward, inverse):
        assert lines(ax, ":") == [([55, 55], [0, 1])]
        named = {line.get_linestyle(): line.get_label() for line in ax.lines}
        assert named[":"] == "cost of verified"


def test_a_role_whose_score_is_over_no_rows_has_no_curve(cells, results):
    for by_seed in cells.values():
        for one in by_seed.values():
            one["counts"] = {"forward": one["counts"]["forward"], "inverse": {}}
    assert [len(ax.lines) for ax in figures.over_cost(cells, "verified").axes] == [5, 1]
    assert "<svg" in report.page(results, {"": cells})


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


def test_samples_of_frames_are_shown_as_pictures():
    """One tile becomes another: rightly predicted the difference has no red in it, wrongly it has; or there is none."""
    tiles = TileTokenizer(np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)]))
    black, white = (tiles.write(np.array([[code]])) for code in (0, 1))
    sample = {"role": "forward", "kind": "drawn", "row": 0, "state": black, "action": "go", "next_state": white}

    def pictures(**more):
        pictured = kept._pictured(sample | {"score": 0.0} | more, tiles)
        page = report._sample(json.loads(json.dumps(pictured)))
        assert black not in page and html.escape(white) not in page
        (uri,) = re.findall('src="([^"]*)"', page)
        red = (np.asarray(images.open_image(uri)).astype(int) @ [1, -1, 0] > 100).sum()
        return page, red

    assert pictures(prediction=white)[1] == 0
    assert pictures(prediction=black)[1] > 1000
    assert "not as recorded" in pictures(prediction="nonsense")[0]
    page, red = pictures(role="inverse", prediction="stay")
    assert red == 0 and "inferred: stay" in page
    words = sample | {"state": "lamp on", "next_state": "lamp off", "prediction": "lamp on"}
    assert kept._pictured(words, tiles) == kept._pictured(words, None) == words
