"""The two pictures of a run, drawn from the rows that it saved: `training.png` and `held_out.png`.

Nothing is computed here beyond smoothing a curve; every number comes from `metrics.jsonl` or `results.json`. Figures
are built without pyplot, whose figures are global state, and matplotlib is imported inside the functions.

    plot_run(metrics, results, Path("runs/demo"))
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swirl.types import ROLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

HEADLINE = {"forward": "exact_match_changed", "inverse": "action_exact_match_changed"}
"""The metric that `held_out.png` shows for each role; see `swirl.metrics`."""

BASELINES = {"copy-input": "#7f7f7f", "majority-action": "#8c564b"}
"""Phases of `results` that are not models: drawn as dashed lines, in these colours."""

COLOURS = {"forward": "#0072b2", "inverse": "#d55e00"}
"""One per role, from the Okabe-Ito palette, which stays apart for colour-blind readers."""

OTHER_COLOUR = "#444444"


def plot_run(metrics: Sequence[Row], results: Sequence[Row], out: Path) -> list[Path]:
    """Draw a run's pictures as PNG files.

    Args:
        metrics: Rows of `metrics.jsonl`: `phase`, `step` and any of `reward` and `loss`. Rows may lack keys.
        results: Rows of `results.json`: `phase`, `role`, `metric`, `value`, `low`, `high`, `n`, `seed`, `split`; only
            validation rows are drawn, since the test part is read once, by the evaluation.
        out: The folder to write to, which is created where missing.

    Returns:
        The files written: `training.png` and `held_out.png`, less any there is nothing to draw for.
    """
    figures = {"training.png": training_figure(metrics), "held_out.png": held_out_figure(results)}
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
    from matplotlib.figure import Figure

    phases = _by_phase(metrics)
    keys = [key for key in ("reward", "loss") if any(_points(steps, key)[0] for steps in phases.values())]
    if not keys:
        return None
    figure = Figure(figsize=(max(7.0, min(16.0, 1.3 * len(phases) + 3)), 1.4 + 2.4 * len(keys)), layout="constrained")
    axes = figure.subplots(len(keys), 1, sharex=True, squeeze=False)[:, 0]
    for ax, key in zip(axes, keys, strict=True):
        offset = 0
        for phase, steps in phases.items():
            x, y = _points(steps, key)
            _draw_curve(ax, [offset + step for step in x], y, _colour(phase))
            offset += max(steps) + 1
            ax.axvline(offset, color="#cccccc", linewidth=0.8, zorder=0)
        ax.set_ylabel(key)
        ax.set_xlim(0, offset)
        _plain_axes(ax)
    _name_phases(axes[0], phases)
    axes[-1].set_xlabel("step, phases laid end to end")
    return figure


def held_out_figure(results: Sequence[Row]) -> "Figure | None":
    """The headline metric on validation per phase, one set of axes per role, with intervals; baselines dashed.

    Runs of several seeds are drawn as one line each.

    Returns:
        The figure, with one set of axes for each role that occurs; `None` where none does.
    """
    from matplotlib.figure import Figure

    per_role = {role: [row for row in results if _is_headline(row, role)] for role in ROLES}
    roles = [role for role in ROLES if any(row.get("phase") not in BASELINES for row in per_role[role])]
    if not roles:
        return None
    most = max(len({row.get("phase") for row in per_role[role]}) for role in roles)
    figure = Figure(figsize=(max(4.5, min(10.0, 0.6 * most + 2)) * len(roles), 4.2), layout="constrained")
    for ax, role in zip(figure.subplots(1, len(roles), sharey=True, squeeze=False)[0], roles, strict=True):
        _draw_held_out(ax, role, per_role[role])
    figure.axes[0].set_ylabel("validation, 95 % interval")
    return figure


def _draw_held_out(ax: "Axes", role: str, rows: Sequence[Row]) -> None:
    phases = list(dict.fromkeys(_phase(row) for row in rows if _phase(row) not in BASELINES))
    seeds: dict[object, list[Row]] = defaultdict(list)
    for row in rows:
        if _phase(row) in BASELINES:
            ax.axhline(row["value"], color=BASELINES[_phase(row)], linestyle="--", linewidth=1.2, label=_phase(row))
        else:
            seeds[row.get("seed")].append(row)
    apart = min(0.12, 0.5 / max(len(seeds), 1))
    for i, own in enumerate(seeds.values()):
        # Seeds stand side by side, so that their intervals do not hide each other.
        x = [phases.index(_phase(row)) + apart * (i - (len(seeds) - 1) / 2) for row in own]
        y = [row["value"] for row in own]
        ends = [[value - _or(row.get("low"), value) for row, value in zip(own, y, strict=True)]]
        ends += [[_or(row.get("high"), value) - value for row, value in zip(own, y, strict=True)]]
        alpha = 1.0 if len(seeds) == 1 else 0.6
        label = f"{role} model" + (f", {len(seeds)} seeds" if len(seeds) > 1 else "")
        ax.errorbar(
            x, y, [[max(end, 0.0) for end in side] for side in ends], label=None if i else label, color=COLOURS[role],
            marker="o", markersize=4, linewidth=1.3, elinewidth=1.0, capsize=2.5, alpha=alpha,
        )  # fmt: skip
    counts = sorted({row["n"] for row in rows if row.get("n")})
    n = f" (n = {counts[0]}{f' to {counts[-1]}' if len(counts) > 1 else ''})" if counts else ""
    ax.set_title(f"{role} model: {HEADLINE[role].replace('_', ' ')}{n}", fontsize=9)
    ax.set_xticks(range(len(phases)), phases, rotation=35, ha="right", rotation_mode="anchor", fontsize=8)
    ax.set_xlim(-0.5, len(phases) - 0.5)
    ax.set_ylim(-0.02, 1.02)
    handles, labels = ax.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))  # a baseline may have a row per seed
    ax.legend(unique.values(), unique.keys(), fontsize=8, frameon=False, loc="best")
    _plain_axes(ax)


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
    widths = [max(steps) + 1 for steps in phases.values()]
    upright = min(widths) < 0.04 * sum(widths)
    offset = 0
    for phase, width in zip(phases, widths, strict=True):
        ax.annotate(
            phase, (offset + width / 2, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 4),
            textcoords="offset points", rotation=90 if upright else 30, ha="center" if upright else "left",
            va="bottom", fontsize=8, color=_colour(phase),
        )  # fmt: skip
        offset += width


def _plain_axes(ax: "Axes") -> None:
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


def _is_headline(row: Row, role: str) -> bool:
    return (
        row.get("role") == role
        and row.get("metric") == HEADLINE[role]
        and row.get("split", "validation") == "validation"
        and _finite(row.get("value"))
    )


def _phase(row: Row) -> str:
    return str(row.get("phase", ""))


def _colour(phase: str) -> str:
    """The colour of the role that a phase's name (`NN-round-role-kind`) holds."""
    return next((COLOURS[role] for role in ROLES if role in phase.split("-")), OTHER_COLOUR)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
