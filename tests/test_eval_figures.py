import subprocess
import sys

import pytest

from swirl.eval import figures

PNG = b"\x89PNG\r\n\x1a\n"


def curves(ax):
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in ax.lines]


def bin_rows(role, model, *bins, prefix="trust"):
    """What `trust.results` has of bins: number, mean confidence, accuracy, rows."""
    return [
        {"role": role, "model": model, "metric": f"{prefix}_{name}_b{number}", "value": value, "n": n}
        for number, *values, n in bins
        for name, value in zip(("confidence", "accuracy"), values, strict=True)
    ]


RELIABILITY = [
    {"role": "forward", "model": "copy-input", "metric": "exact_match", "value": 0.1, "n": 60},
    *bin_rows("forward", "runs/a/phases/03-f", (1, 0.2, 0.1, 20), (10, 0.9, 0.8, 10), (2, 0.4, 0.5, 30)),
    *bin_rows("inverse", "runs/a/phases/04-i", (1, 0.6, 0.7, 60)),
    *bin_rows("inverse", "runs/a/phases/04-i", (1, 0.3, 0.2, 60), prefix="trust_listed"),
    {"role": "inverse", "model": "runs/a/phases/04-i", "metric": "trust_ece", "value": 0.1, "n": 60},
]


def test_reliability_is_accuracy_over_confidence_by_bin_and_model():
    forward, inverse = figures.figure(RELIABILITY).axes
    # In the order of the bins' numbers, of which the tenth is the last.
    assert curves(forward)[1:] == [([0.2, 0.4, 0.9], [0.1, 0.5, 0.8])]
    assert curves(inverse)[1:] == [([0.6], [0.7])]
    for ax in (forward, inverse):
        assert curves(ax)[0] == ([0, 1], [0, 1]) and ax.lines[0].get_linestyle() == "--"
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("mean confidence", "accuracy")
    titles = ["forward model (n = 60)\n03-f", "inverse model (n = 60)\n04-i"]
    assert [ax.get_title() for ax in (forward, inverse)] == titles


def test_reliability_of_one_role_has_one_panel_and_of_no_bin_none():
    (ax,) = figures.figure(RELIABILITY[1:7]).axes
    assert ax.get_title().startswith("forward")
    with pytest.raises(ValueError, match="got 1 results, expected some of the suite's rollouts or trust"):
        figures.figure(RELIABILITY[:1])


def test_the_files_ending_says_the_format(tmp_path):
    for name, start in (("a.png", PNG), ("b.svg", b"<?xml")):
        figures.plot(RELIABILITY, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)


def turns(model, metric, *values):
    return [
        {"role": "forward", "model": model, "metric": f"rollout_{metric}_t{turn}", "value": value, "n": 40 - turn}
        | {"low": value - 0.1, "high": value + 0.2}
        for turn, value in enumerate(values, start=1)
    ]


ROLLOUTS = [
    *turns("copy-input", "survivors", 39, 38, 37),
    *turns("copy-input", "exact_match_changed", 0.0, 0.1, 0.05),
    *turns("copy-input", "exact_match", 0.4, 0.3, 0.2),  # is not drawn
    *turns("runs/a/phases/03-f", "survivors", 39, 38, 37),
    *turns("runs/a/phases/03-f", "exact_match_changed", 0.9, 0.8, 0.7)[::-1],
    *turns("runs/a/phases/03-f", "changed_facts_f1", 0.95, 0.85, 0.75),
    *turns("runs/a/phases/03-f", "consistency", 1.0, 0.9, 0.8),  # nor this
]


def test_decay_is_the_scores_by_turn_beside_those_of_a_copy():
    (ax,) = figures.figure(ROLLOUTS).axes
    drawn = [bars.lines[0] for bars in ax.containers]
    assert [(line.get_linestyle(), list(line.get_xdata()), list(line.get_ydata())) for line in drawn] == [
        ("-", [1, 2, 3], [0.9, 0.8, 0.7]),
        ("--", [1, 2, 3], [0.0, 0.1, 0.05]),
        ("-", [1, 2, 3], [0.95, 0.85, 0.75]),
    ]
    ((low, high), *_) = [list(s[:, 1]) for s in ax.containers[0].lines[2][0].get_segments()]
    assert (low, high) == (pytest.approx(0.8), pytest.approx(1.1))
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1\n(39)", "2\n(38)", "3\n(37)"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["exact match changed", "changed facts f1"]
    assert ax.get_title() == "rollouts; dashed: copy-input\n03-f"


def test_every_part_has_its_panels():
    titles = [ax.get_title().partition("\n")[0] for ax in figures.figure([*RELIABILITY, *ROLLOUTS]).axes]
    assert titles == ["rollouts; dashed: copy-input", "forward model (n = 60)", "inverse model (n = 60)"]


def test_importing_does_not_import_matplotlib():
    code = "import sys, swirl.eval.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
