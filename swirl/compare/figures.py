"""The figures of a comparison's report, from `results.json` and the kept cells.

Figures are built without pyplot, whose figures are global state, and matplotlib is imported inside the functions.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from swirl.compare import reading, tables
from swirl.compare.kept import BASELINES
from swirl.compare.reading import SCORE
from swirl.health import LIMITS
from swirl.types import ROLES, Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLAIN = "#888888"
# The Okabe-Ito palette, which stays apart for colour-blind readers, and four more.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444", "#7f3c8d", "#80ba5a", "#a5aa99")
LINES = ("-", "--", ":")
SIGNS = ("action_unique_share", "action_length_mean", "action_nmi", "action_perplexity_ratio")
ROUNDS = 2
"""Of fewer the figure over cost says as much."""


def _look(i: int) -> dict[str, Any]:
    """The colour and line of the i-th method."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i // len(COLOURS) % len(LINES)]}


def _looks(cells: reading.Cells) -> dict[str, dict[str, Any]]:
    """The colour and line of every method and table entry, the same in all figures of these cells."""
    return {name: _look(i) for i, name in enumerate(dict.fromkeys([*reading.entries(cells), *cells]))}


def _axes(across: str, roles: Sequence[Role] = ROLES) -> "tuple[Figure, dict[Role, Axes]]":
    """A figure with the score of each role over something."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(roles), 4.5), layout="constrained")
    axes = dict(zip(roles, figure.subplots(1, len(roles), squeeze=False)[0], strict=True))
    for role, ax in axes.items():
        ax.set(xlabel=across, ylabel=tables.TITLES[SCORE[role]], title=f"{role} model")
        ax.grid(alpha=0.3)
    return figure, axes


def varied(results: dict[str, Any]) -> "Figure":
    """The score of each role over the values of what varies, with its intervals."""
    figure, axes = _axes(results["vary"])
    for role, ax in axes.items():
        rows = tables.scores(results["rows"], role)
        values = list(dict.fromkeys(row["at"] for row in rows))
        for i, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            mine = [row for row in rows if row["method"] == method]
            mean = [row["value"] for row in mine]
            errors = np.abs([[row[end] - row["value"] for row in mine] for end in ("low", "high")])
            x = [values.index(row["at"]) for row in mine]
            ax.errorbar(x, mean, errors, label=method, capsize=3, **_look(i))
        ax.set_xticks(range(len(values)), values)
        if values:
            ax.legend(fontsize=7)
    return figure


def over_cost(cells: reading.Cells, reference: str) -> "Figure":
    """The score of each role over CPU seconds: mean over seeds, of which one that ended early stays where it ended.

    Dashed is what the baseline scores, dotted what the reference spends: where the tables read the others.
    """
    figure, axes = _axes("CPU seconds")
    looks = _looks(cells)
    budget = float(np.mean([reading.spent(cell, "cpu_seconds") for cell in cells[reference].values()]))
    for role, ax in axes.items():
        for name, value in _baselines(cells[reference], role).items():
            ax.axhline(value, color=PLAIN, linestyle="--", linewidth=1, label=name)
        for method, by_seed in reading.entries(cells).items():
            curves = _curves(by_seed, role)
            if not curves:
                continue
            grid = np.linspace(min(c.cost[0] for c in curves), max(c.cost[-1] for c in curves), 200)
            mean = np.mean([np.interp(grid, c.cost, c.values()) for c in curves], axis=0)
            ax.plot(grid, mean, marker="o", markersize=4, markevery=[-1], label=method, **looks[method])
        ax.axvline(budget, color=PLAIN, linestyle=":", linewidth=1, label=f"cost of {reference}")
        ax.legend(fontsize=7)
    return figure


def _baselines(by_seed: dict[int, dict[str, Any]], role: Role) -> dict[str, float]:
    """What each baseline scores in a role: mean over seeds."""
    found: dict[str, list[float]] = {}
    for cell in by_seed.values():
        for point in cell["points"]:
            if point["phase"] in BASELINES and (read := reading.at_point(cell, point, role, SCORE[role])):
                found.setdefault(point["phase"], []).append(read.mean())
    return {name: float(np.mean(values)) for name, values in found.items()}


def by_round(cells: reading.Cells) -> "Figure | None":
    """The score of each role over the number of phases that trained it since the warm-up: mean over seeds.

    A seed that stopped early counts with where it ended, as it does over cost. Drawn is what has `ROUNDS` or more.

    Returns:
        The figure, with one set of axes for each role that has such a method; `None` where neither has.

    Source: SWIRL, arXiv 2602.06130, figure 2.
    """
    found: dict[Role, dict[str, np.ndarray]] = {
        role: means for role in ROLES if (means := _means_by_round(cells, role))
    }
    if not found:
        return None
    figure, axes = _axes("round (0: warm-up)", list(found))
    looks = _looks(cells)
    for role, ax in axes.items():
        for method, mean in found[role].items():
            ax.plot(range(len(mean)), mean, marker="o", markersize=4, label=method, **looks[method])
        ax.locator_params(axis="x", integer=True)
        ax.legend(fontsize=7)
    return figure


def _means_by_round(cells: reading.Cells, role: Role) -> dict[str, np.ndarray]:
    """A role's score after the warm-up and after each round of each method that has enough of them."""
    found = {}
    for method, by_seed in cells.items():
        values = [curve.values() for curve in _curves(by_seed, role)]
        rounds = max(map(len, values), default=1) - 1
        if rounds >= ROUNDS:
            found[method] = np.mean([np.pad(one, (0, rounds + 1 - len(one)), mode="edge") for one in values], axis=0)
    return found


def _curves(by_seed: dict[int, dict[str, Any]], role: Role) -> list[reading.Curve]:
    """The curve of a role's score in each seed that has one."""
    curves = [reading.curve(cell, role, SCORE[role], "cpu_seconds") for cell in by_seed.values()]
    return [curve for curve in curves if curve]


def health(cells: reading.Cells) -> "Figure | None":
    """Signs of collapsed inferred actions after each phase that trained the inverse model: mean over seeds.

    Dashed are the limits of the alarms, where the sign is what they bear on. Those of uniqueness and length bear on
    ratios to the recorded actions, which cells do not keep.

    Returns:
        The figure, with one set of axes for each sign that was measured, over the phase's number among all that
        trained; `None` where none was.
    """
    from matplotlib.figure import Figure

    found = {sign: means for sign in SIGNS if (means := _means_by_phase(cells, sign))}
    if not found:
        return None
    figure = Figure(figsize=(3.2 * len(found) + 1.6, 3), layout="constrained")
    looks, lines = _looks(cells), {}
    for ax, (sign, means) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        for method, mean in means.items():
            (lines[method],) = ax.plot(list(mean), list(mean.values()), marker="o", markersize=4, **looks[method])
        for limit in filter(np.isfinite, LIMITS.get(sign.removeprefix("action_"), ())):
            lines["limit of an alarm"] = ax.axhline(limit, color=PLAIN, linestyle="--", linewidth=1)
        ax.set(xlabel="phase of the run", title=sign)
        ax.locator_params(axis="x", integer=True)
        ax.grid(alpha=0.3)
    figure.legend(list(lines.values()), list(lines), loc="outside right upper", fontsize=7)
    return figure


def _means_by_phase(cells: reading.Cells, sign: str) -> dict[str, dict[int, float]]:
    """A sign by method and number of the phase, from 1: mean over the seeds that have it."""
    found: dict[str, dict[int, list[float]]] = {}
    for method, by_seed in cells.items():
        for cell in by_seed.values():
            # Baselines, and what each of the run's methods ended with, are no phases and cost nothing.
            phases = list(dict.fromkeys(point["phase"] for point in cell["points"] if "cpu_seconds" in point))
            for row in cell["rows"]:
                if (row["role"], row["metric"]) == ("inverse", sign) and row["phase"] in phases:
                    number = phases.index(row["phase"]) + 1
                    found.setdefault(method, {}).setdefault(number, []).append(row["value"])
    return {method: {number: float(np.mean(of[number])) for number in sorted(of)} for method, of in found.items()}
