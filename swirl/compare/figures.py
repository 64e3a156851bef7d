"""The figures of a comparison's report, from `results.json` and the kept cells.

Figures are built without pyplot, whose figures are global state, and matplotlib is imported inside the functions.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from swirl.compare import reading, summary
from swirl.compare.reading import SCORE
from swirl.types import ROLES, Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The Okabe-Ito palette, which stays apart for colour-blind readers, and four more.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444", "#7f3c8d", "#80ba5a", "#a5aa99")
LINES = ("-", "--", ":")


def _look(i: int) -> dict[str, Any]:
    """The colour and line of the i-th method."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i // len(COLOURS) % len(LINES)]}


def _axes(across: str) -> "tuple[Figure, dict[Role, Axes]]":
    """A figure with the score of each role over something."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = dict(zip(ROLES, figure.subplots(1, 2), strict=True))
    for role, ax in axes.items():
        ax.set(xlabel=across, ylabel=summary.TITLES[SCORE[role]], title=f"{role} model")
        ax.grid(alpha=0.3)
    return figure, axes


def varied(results: dict[str, Any]) -> "Figure":
    """The score of each role over the values of what varies, with its intervals."""
    figure, axes = _axes(results["vary"])
    for role, ax in axes.items():
        rows = summary.scores(results["rows"], role)
        values = list(dict.fromkeys(row["at"] for row in rows))
        for i, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            mine = [row for row in rows if row["method"] == method]
            mean = [row["value"] for row in mine]
            errors = np.abs([[row[end] - row["value"] for row in mine] for end in ("low", "high")])
            x = [values.index(row["at"]) for row in mine]
            ax.errorbar(x, mean, errors, label=method, capsize=3, **_look(i))
        ax.set_xticks(range(len(values)), values)
        ax.legend(fontsize=7)
    return figure


def over_cost(cells: reading.Cells) -> "Figure":
    """The score of each role over CPU seconds: mean over seeds."""
    figure, axes = _axes("CPU seconds")
    for role, ax in axes.items():
        for i, (method, by_seed) in enumerate(reading.entries(cells).items()):
            curves = [reading.curve(cell, role, SCORE[role], "cpu_seconds") for cell in by_seed.values()]
            curves = [one for one in curves if one]
            if not curves:
                continue
            grid = np.linspace(min(c.cost[0] for c in curves), max(c.cost[-1] for c in curves), 200)
            mean = np.mean([np.interp(grid, c.cost, c.values()) for c in curves], axis=0)
            ax.plot(grid, mean, marker="o" * (len(set(grid)) == 1), label=method, **_look(i))
        ax.legend(fontsize=7)
    return figure
