import subprocess
import sys

import pytest

from swirl import plots

PNG = b"\x89PNG\r\n\x1a\n"
METRICS = [
    {"phase": "00-r0-forward-sft", "step": 1, "loss": 2.0},
    {"phase": "00-r0-forward-sft", "step": 2, "loss": 1.0},
    {"phase": "01-r1-forward-grpo", "step": 0, "loss": 0.1, "reward": -0.9},
    {"phase": "01-r1-forward-grpo", "step": 1, "loss": 0.2, "reward": -0.5},
]


def result(phase, role, value, **more):
    row = {"phase": phase, "role": role, "metric": plots.HEADLINE[role], "value": value}
    return row | {"low": value - 0.1, "high": value + 0.2, "n": 50, "seed": 0, "split": "validation"} | more


RESULTS = [
    result("copy-input", "forward", 0.0),
    result("majority-action", "inverse", 0.3),
    result("00-r0-forward-sft", "forward", 0.4),
    result("01-r1-forward-grpo", "forward", 0.6),
    result("00-r0-inverse-sft", "inverse", 0.5),
    result("00-r0-forward-sft", "forward", 0.99, split="test"),
    result("00-r0-forward-sft", "forward", 0.98, metric="token_f1"),
]


def curves(ax):
    """The data of the solid lines with more than a boundary's two equal abscissae."""
    drawn = [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in ax.lines]
    return [(x, y) for x, y in drawn if len(x) != 2 or x[0] != x[1]]


def test_writes_both_pictures(tmp_path):
    written = plots.plot_run(METRICS, RESULTS, tmp_path / "plots")
    assert written == [tmp_path / "plots" / "training.png", tmp_path / "plots" / "held_out.png"]
    for path in written:
        data = path.read_bytes()
        assert data.startswith(PNG) and data.endswith(b"IEND\xaeB`\x82")


def test_nothing_to_draw_writes_nothing(tmp_path):
    assert plots.plot_run([], [], tmp_path) == []
    assert plots.plot_run([{"phase": "a", "step": 1, "lr": 0.1}], [{"phase": "a"}], tmp_path) == []
    # baselines alone are no result of a run
    assert plots.held_out_figure([result("copy-input", "forward", 0.0)]) is None
    assert list(tmp_path.iterdir()) == []


def test_phases_are_laid_end_to_end():
    reward, loss = plots.training_figure(METRICS).axes
    # The first phase spans steps 0 to 2, so the second starts at 3.
    assert curves(loss) == [([1.0, 2.0], [2.0, 1.0]), ([3.0, 4.0], [0.1, 0.2])]
    assert curves(reward) == [([], []), ([3.0, 4.0], [-0.9, -0.5])]
    boundaries = [line.get_xdata()[0] for line in loss.lines if list(line.get_ydata()) == [0, 1]]
    assert boundaries == [3, 5]
    assert [text.get_text() for text in reward.texts] == ["00-r0-forward-sft", "01-r1-forward-grpo"]
    assert [text.xy[0] for text in reward.texts] == [1.5, 4.0]
    assert (reward.get_ylabel(), loss.get_ylabel()) == ("reward", "loss")


def test_axes_only_for_what_was_logged():
    figure = plots.training_figure(METRICS[:2])
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss"]


def test_rows_may_lack_keys_and_values():
    rows = [{"loss": 3.0}, {"loss": 2.0}, {"loss": float("nan")}, {"loss": None}, {"loss": 1.0}]
    (ax,) = plots.training_figure(rows).axes
    assert curves(ax) == [([0.0, 1.0, 4.0], [3.0, 2.0, 1.0])]


def test_a_step_logged_twice_counts_once():
    rows = [
        {"phase": "a", "step": 1, "loss": 9.0},
        {"phase": "a", "step": 2, "loss": 8.0},
        {"phase": "a", "step": 2, "reward": 0.5},
        {"phase": "a", "step": 1, "loss": 1.0},
    ]
    reward, loss = plots.training_figure(rows).axes
    assert curves(loss) == [([1.0, 2.0], [1.0, 8.0])]
    assert curves(reward) == [([2.0], [0.5])]


def test_long_curves_are_smoothed_over_the_tenth_of_the_points():
    rows = [{"phase": "a", "step": i, "loss": float(i % 2)} for i in range(40)]
    (ax,) = plots.training_figure(rows).axes
    (_, raw), (_, smooth) = curves(ax)
    assert raw == [float(i % 2) for i in range(40)]
    # Two values on each side of a point, fewer at the ends.
    assert (smooth[0], smooth[39]) == (0.0, 1.0)
    assert (smooth[1], smooth[38]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert smooth[10] == pytest.approx(2 / 5)
    assert smooth[11] == pytest.approx(3 / 5)


def test_held_out_shows_validation_headlines_with_intervals():
    forward, inverse = plots.held_out_figure(RESULTS).axes
    (bars,) = forward.containers
    assert list(bars.lines[0].get_ydata()) == [0.4, 0.6]  # neither test rows nor other metrics
    segments = bars.lines[2][0].get_segments()
    assert [list(segment[:, 1]) for segment in segments] == [pytest.approx([0.3, 0.6]), pytest.approx([0.5, 0.8])]
    assert [tick.get_text() for tick in forward.get_xticklabels()] == ["00-r0-forward-sft", "01-r1-forward-grpo"]
    assert [tick.get_text() for tick in inverse.get_xticklabels()] == ["00-r0-inverse-sft"]
    assert "n = 50" in forward.get_title() and "exact match changed" in forward.get_title()


def test_baselines_are_dashed_lines():
    forward, inverse = plots.held_out_figure(RESULTS).axes
    for ax, name, value in ((forward, "copy-input", 0.0), (inverse, "majority-action", 0.3)):
        (dashed,) = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert (dashed.get_label(), list(dashed.get_ydata())) == (name, [value, value])
        assert name in [text.get_text() for text in ax.get_legend().get_texts()]


def test_seeds_are_lines_of_their_own():
    rows = [result(p, "forward", 0.1 * (i + s), seed=s) for s in (1, 2) for i, p in enumerate("ab")]
    rows += [result("copy-input", "forward", 0.0, seed=s) for s in (1, 2)]
    (ax,) = plots.held_out_figure(rows).axes
    assert [list(bars.lines[0].get_ydata()) for bars in ax.containers] == [[0.1, 0.2], [0.2, pytest.approx(0.3)]]
    x = [list(bars.lines[0].get_xdata()) for bars in ax.containers]
    assert x == [pytest.approx([-0.06, 0.94]), pytest.approx([0.06, 1.06])]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["copy-input", "forward model, 2 seeds"]


def test_held_out_rows_may_lack_intervals(tmp_path):
    rows = [{"phase": "a", "role": "inverse", "metric": plots.HEADLINE["inverse"], "value": 0.5}, {"role": "forward"}]
    (ax,) = plots.held_out_figure(rows).axes
    assert ax.get_title() == "inverse model: action exact match changed"
    assert plots.plot_run([], rows, tmp_path) == [tmp_path / "held_out.png"]


def test_importing_does_not_import_matplotlib():
    code = "import sys, swirl.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
