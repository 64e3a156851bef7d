import subprocess
import sys

import pytest

from swirl import plots
from swirl.metrics import HEADLINE

PNG = b"\x89PNG\r\n\x1a\n"
METRICS = [
    {"phase": "00-r0-forward-sft", "step": 1, "loss": 2.0},
    {"phase": "00-r0-forward-sft", "step": 2, "loss": 1.0},
    {"phase": "01-r1-forward-grpo", "step": 0, "loss": 0.1, "reward": -0.9},
    {"phase": "01-r1-forward-grpo", "step": 1, "loss": 0.2, "reward": -0.5},
]


def point(phase, role, step, value, **more):
    row = {"phase": phase, "step": step, "role": role, "metric": HEADLINE[role], "value": value}
    return row | {"low": value - 0.1, "high": value + 0.2, "n": 50} | more


CURVE = [
    point("00-r0-forward-sft", "forward", 0, 0.1),
    point("00-r0-forward-sft", "forward", 2, 0.4),
    point("00-r0-forward-sft", "forward", 2, 7.0, metric="nll_changed"),
    point("01-r0-inverse-sft", "inverse", 0, 0.2),
    point("01-r0-inverse-sft", "inverse", 3, 0.5),
    point("02-r1-forward-grpo", "forward", 0, 0.4),
    point("02-r1-forward-grpo", "forward", 4, 0.6),
]


def baseline(phase, role, value, split="validation"):
    return {"phase": phase, "split": split, "role": role, "metric": HEADLINE[role], "value": value}


RESULTS = [
    baseline("copy-input", "forward", 0.0),
    baseline("majority-action", "inverse", 0.3),
    baseline("majority-action", "inverse", 0.9, "test"),
    baseline("00-r0-forward-sft", "forward", 0.4),
]


def curves(ax):
    """The data of the solid lines with more than a boundary's two equal abscissae."""
    drawn = [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in ax.lines]
    return [(x, y) for x, y in drawn if len(x) != 2 or x[0] != x[1]]


def test_writes_both_pictures(tmp_path):
    written = plots.plot_run(METRICS, CURVE, RESULTS, tmp_path / "plots")
    assert written == [tmp_path / "plots" / "training.png", tmp_path / "plots" / "held_out.png"]
    for path in written:
        data = path.read_bytes()
        assert data.startswith(PNG) and data.endswith(b"IEND\xaeB`\x82")


def test_nothing_to_draw_writes_nothing(tmp_path):
    assert plots.plot_run([], [], [], tmp_path) == []
    # Baselines alone are no result of a run.
    assert plots.plot_run([{"phase": "a", "step": 1, "lr": 0.1}], [], RESULTS, tmp_path) == []
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


def drawn(ax):
    """Abscissae and values of each phase's checkpoints."""
    lines = [bars.lines[0] for bars in ax.containers]
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in lines]


def test_held_out_shows_every_checkpoint_by_step_phases_laid_end_to_end():
    forward, inverse = plots.held_out_figure(CURVE, RESULTS).axes
    # The phases begin at 0, 3 and 7, and end at 12.
    assert drawn(forward) == [([0.0, 2.0], [0.1, 0.4]), ([7.0, 11.0], [0.4, 0.6])]
    assert drawn(inverse) == [([3.0, 6.0], [0.2, 0.5])]
    for ax in (forward, inverse):
        assert [line.get_xdata()[0] for line in ax.lines if list(line.get_ydata()) == [0, 1]] == [3, 7, 12]
        assert ax.get_xlim() == (0, 12)
    assert [text.get_text() for text in forward.texts] == list(dict.fromkeys(row["phase"] for row in CURVE))
    assert forward.get_ylabel() == "forward model\nexact match changed (n = 50)"
    assert inverse.get_xlabel() == "step, phases laid end to end"


def test_held_out_draws_intervals():
    forward, _ = plots.held_out_figure(CURVE, RESULTS).axes
    segments = forward.containers[1].lines[2][0].get_segments()
    assert [list(segment[:, 1]) for segment in segments] == [pytest.approx([0.3, 0.6]), pytest.approx([0.5, 0.8])]


def test_baselines_on_validation_are_dashed_lines():
    forward, inverse = plots.held_out_figure(CURVE, RESULTS).axes
    for ax, name, value in ((forward, "copy-input", 0.0), (inverse, "majority-action", 0.3)):
        (dashed,) = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert (dashed.get_label(), list(dashed.get_ydata())) == (name, [value, value])
        assert [text.get_text() for text in ax.get_legend().get_texts()] == [name]


def test_held_out_points_may_lack_intervals(tmp_path):
    curve = [{"phase": "a", "step": 1, "role": "inverse", "metric": HEADLINE["inverse"], "value": 0.5}]
    (ax,) = plots.held_out_figure(curve, []).axes
    assert drawn(ax) == [([1.0], [0.5])]
    assert ax.get_ylabel() == "inverse model\naction exact match changed"
    assert plots.plot_run([], curve, [], tmp_path) == [tmp_path / "held_out.png"]


def test_importing_does_not_import_matplotlib():
    code = "import sys, swirl.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
