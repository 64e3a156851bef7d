"""The two pictures of a run, `training.png` and `held_out.png`.

Nothing is computed here beyond smoothing a curve; every number comes from `metrics.jsonl`, `results.json` or the
`phase.json` of a phase. Figures are built without pyplot, whose figures are global state, and matplotlib is imported
inside the functions.

    plot_run(metrics, curve, results, Path("runs/demo"))
"""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swirl.metrics import HEADLINE
from swirl.types import ROLES, Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

BASELINES = {"copy-input": "#7f7f7f", "majority-action": "#8c564b"}
"""Phases of `results` that are not models: drawn as dashed lines, in these colours."""

COLOURS = {"forward": "#0072b2", "inverse": "#d55e00"}
"""One per role, from the Okabe-Ito palette, which stays apart for colour-blind readers."""

OTHER_COLOUR = "#444444"


def plot_run(metrics: Sequence[Row], curve: Sequence[Row], results: Sequence[Row], out: Path) -> list[Path]:
    """Draw a run's pictures as PNG files.

    Args:
        metrics: Rows of `metrics.jsonl`: `phase`, `step` and any of `reward` and `loss`. Rows may lack keys.
        curve: Checkpoints on validation: `phase`, `step`, `role`, `metric`, `value` and, where known, `low`, `high`,
            `n`.
        results: Rows of `results.json`: `phase`, `split`, `role`, `metric`, `value`; only the baselines on validation
            are drawn, since the test part is read once, by the evaluation.
        out: The folder to write to, which is created where missing.

    Returns:
        The files written: `training.png` and `held_out.png`, less any there is nothing to draw for.
    """
    figures = {"training.png": training_figure(metrics), "held_out.png": held_out_figure(curve, results)}
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        if figure is not None:
            figure.savefig(out / name, dpi=150)
            written.append(out / name)
    return written


def training_figure(metrics: Sequence[Row]) -> "Figure | None":
    """Reward and loss per step, phases laid end to end in the order in which they occur.

    A step logged twice (a resumed phase) counts once, as it was logged last. The bold curve is a running mean
    over a tenth of a phase's points.

    Returns:
        The figure, with one set of axes for each of reward and loss that occurs; `None` where neither does.
    """
    phases = _by_phase(metrics)
    keys = [key for key in ("reward", "loss") if any(_points(steps, key)[0] for steps in phases.values())]
    if not keys:
        return None
    figure, axes = _panels(len(keys), phases)
    for ax, key in zip(axes, keys, strict=True):
        for phase, offset in _offsets(phases).items():
            x, y = _points(phases[phase], key)
            _draw_curve(ax, [offset + step for step in x], y, _colour(phase))
        ax.set_ylabel(key)
    return figure


def held_out_figure(curve: Sequence[Row], results: Sequence[Row]) -> "Figure | None":
    """The headline metric of every checkpoint on validation, phases laid end to end; baselines dashed.

    A phase's curve begins at its step 0, with the checkpoint that it starts from. Bars are 95 % intervals.

    Returns:
        The figure, with one set of axes for each role that has a checkpoint; `None` where none has.
    """
    per_role = {role: [row for row in curve if _is_headline(row, role)] for role in ROLES}
    roles: tuple[Role, ...] = tuple(role for role in ROLES if per_role[role])
    if not roles:
        return None
    phases = _by_phase(curve)
    figure, axes = _panels(len(roles), phases)
    for ax, role in zip(axes, roles, strict=True):
        for phase, offset in _offsets(phases).items():
            own = [row for row in per_role[role] if _phase(row) == phase]
            _draw_checkpoints(ax, [offset + row["step"] for row in own], own, COLOURS[role])
        for row in results:
            if _phase(row) in BASELINES and row.get("split") == "validation" and _is_headline(row, role):
                colour = BASELINES[_phase(row)]
                ax.axhline(row["value"], color=colour, linestyle="--", linewidth=1.2, label=_phase(row))
                ax.legend(fontsize=8, frameon=False, loc="best")
        counts = {row["n"] for row in per_role[role] if row.get("n")}
        n = f" (n = {max(counts)})" if counts else ""
        ax.set_ylabel(f"{role} model\n{HEADLINE[role].replace('_', ' ')}{n}", fontsize=8)
        ax.set_ylim(-0.02, 1.02)
    return figure


def _draw_checkpoints(ax: "Axes", x: Sequence[float], rows: Sequence[Row], colour: str) -> None:
    """A phase's checkpoints with their intervals, where they have one."""
    y = [row["value"] for row in rows]
    below = [max(0.0, value - _or(row.get("low"), value)) for row, value in zip(rows, y, strict=True)]
    above = [max(0.0, _or(row.get("high"), value) - value) for row, value in zip(rows, y, strict=True)]
    if rows:
        ax.errorbar(
            x, y, [below, above], color=colour, marker="o", markersize=4, linewidth=1.3, elinewidth=1.0, capsize=2.5
        )


def _panels(count: int, phases: Mapping[str, Mapping[int, Row]]) -> "tuple[Figure, Sequence[Axes]]":
    """A figure of `count` axes above each other, over the steps of all phases laid end to end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(7.0, min(16.0, 1.3 * len(phases) + 3)), 1.4 + 2.4 * count), layout="constrained")
    axes = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0].tolist()
    offsets = _offsets(phases)
    for ax in axes:
        for phase, steps in phases.items():
            ax.axvline(offsets[phase] + _width(steps), color="#cccccc", linewidth=0.8, zorder=0)
        ax.set_xlim(0, sum(map(_width, phases.values())))
        plain_axes(ax)
    _name_phases(axes[0], phases)
    axes[-1].set_xlabel("step, phases laid end to end")
    return figure, axes


def _offsets(phases: Mapping[str, Mapping[int, Row]]) -> dict[str, int]:
    """Where each phase begins on the common axis."""
    ends = accumulate(map(_width, phases.values()), initial=0)
    return dict(zip(phases, ends, strict=False))


def _width(steps: Mapping[int, Row]) -> int:
    """Steps that a phase takes on the common axis."""
    return max(steps) + 1


def _draw_curve(ax: "Axes", x: Sequence[float], y: Sequence[float], colour: str) -> None:
    """The points, faint, and their running mean over a tenth of them, bold; few points are drawn as they are."""
    half = len(y) // 20
    if half == 0:
        ax.plot(x, y, color=colour, linewidth=1.5, marker="o" if len(y) < 10 else None, markersize=3)
        return
    # Windows shrink towards the ends, staying symmetric: lopsided ones would bend a steep curve.
    halves = [min(half, i, len(y) - 1 - i) for i in range(len(y))]
    windows = [y[i - half : i + half + 1] for i, half in enumerate(halves)]
    ax.plot(x, y, color=colour, linewidth=0.8, alpha=0.3)
    ax.plot(x, [sum(window) / len(window) for window in windows], color=colour, linewidth=1.6)


def _name_phases(ax: "Axes", phases: Mapping[str, Mapping[int, Row]]) -> None:
    """Put each phase's name above its stretch of the steps, upright where slanted names would overlap."""
    widths = [_width(steps) for steps in phases.values()]
    upright = min(widths) < 0.04 * sum(widths)
    offset = 0
    for phase, width in zip(phases, widths, strict=True):
        ax.annotate(
            phase, (offset + width / 2, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 4),
            textcoords="offset points", rotation=90 if upright else 30, ha="center" if upright else "left",
            va="bottom", fontsize=8, color=_colour(phase),
        )  # fmt: skip
        offset += width


def plain_axes(ax: "Axes") -> None:
    """Leave out the frame's upper and right side, and draw a grid of heights behind what is drawn."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#eeeeee", linewidth=0.8)
    ax.set_axisbelow(True)


def _by_phase(metrics: Sequence[Row]) -> dict[str, dict[int, Row]]:
    """Rows by phase and step, both in order; rows without a step are counted on from the last one."""
    phases: dict[str, dict[int, Row]] = {}
    for row in metrics:
        steps = phases.setdefault(_phase(row), {})
        step = int(_or(row.get("step"), max(steps, default=-1) + 1))
        steps[step] = {**steps.get(step, {}), **row}
    return {phase: dict(sorted(steps.items())) for phase, steps in phases.items()}


def _points(steps: Mapping[int, Row], key: str) -> tuple[list[int], list[float]]:
    """The steps at which a finite value was logged, and these values."""
    found = {step: row[key] for step, row in steps.items() if _finite(row.get(key))}
    return list(found), list(found.values())


def _is_headline(row: Row, role: Role) -> bool:
    return row.get("role") == role and row.get("metric") == HEADLINE[role] and _finite(row.get("value"))


def _phase(row: Row) -> str:
    return str(row.get("phase", ""))


def _colour(phase: str) -> str:
    """The colour of the role that a phase's name (`NN-round-role-kind`) holds."""
    return next((COLOURS[role] for role in ROLES if role in phase.split("-")), OTHER_COLOUR)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
