"""The figure of `swirl eval --plot`: of each model how reliable it is, and how far its own predictions carry.

Nothing is computed here: every number is a row of the suite. Figures are built without pyplot, whose figures are global
state, and matplotlib is imported inside the functions.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swirl.eval import held_out
from swirl.plots import BASELINES, COLOURS, OTHER_COLOUR, plain_axes
from swirl.types import Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Panel = Callable[["Axes"], None]

PARTS = ("rollouts", "trust")
"""Of the suite, that can be drawn."""
DECAY = {"exact_match_changed": "o", "changed_facts_f1": "s", "image_changed_f1": "^"}
"""What is drawn over the turns of rollouts, and its marks."""


def plot(results: Sequence[Row], file: Path) -> None:
    """Draw `figure` to a file, PNG or SVG by its ending; its folder is there.

    Raises:
        ValueError: As `figure`.
    """
    figure(results).savefig(file, dpi=150)


def figure(results: Sequence[Row]) -> "Figure":
    """What was measured of `PARTS`, a panel for each model.

    Args:
        results: Rows of the suite: `model`, `role`, `metric`, `value`, `low`, `high` and `n`.

    Raises:
        ValueError: No row can be drawn.
    """
    from matplotlib.figure import Figure

    panels = [*_decays(results), *_reliabilities(results)]
    if not panels:
        raise ValueError(f"got {len(results)} results, expected some of the suite's {' or '.join(PARTS)}")
    made = Figure(figsize=(4.2 * len(panels), 4.8), layout="compressed")
    for ax, panel in zip(made.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        panel(ax)
        plain_axes(ax)
    return made


def _decays(results: Sequence[Row]) -> list[Panel]:
    """Scores of rollouts by turn, with their 95 % intervals; dashed is what copying the first state scores."""
    names = "|".join(("survivors", *DECAY))
    by_model: dict[str, dict[str, dict[int, Row]]] = {}
    for row in results:
        if match := re.fullmatch(rf"rollout_({names})_t(\d+)", row["metric"]):
            by_model.setdefault(row["model"], {}).setdefault(match[1], {})[int(match[2])] = row
    copied = by_model.pop(held_out.BASELINES["forward"], {})
    return [partial(_decay, model, found, copied) for model, found in by_model.items()]


def _decay(
    model: str, found: Mapping[str, Mapping[int, Row]], copied: Mapping[str, Mapping[int, Row]], ax: "Axes"
) -> None:
    name = held_out.BASELINES["forward"]
    for metric, mark in DECAY.items():
        for rows, colour, line in ((found, COLOURS["forward"], "-"), (copied, BASELINES[name], "--")):
            if turns := dict(sorted(rows.get(metric, {}).items())):
                value = [row["value"] for row in turns.values()]
                off = [
                    [max(0.0, row["value"] - row["low"]) for row in turns.values()],
                    [max(0.0, row["high"] - row["value"]) for row in turns.values()],
                ]
                label = metric.replace("_", " ") if line == "-" else None
                ax.errorbar(
                    list(turns), value, off, color=colour, linestyle=line, marker=mark, markersize=4, capsize=2.5,
                    label=label,
                )  # fmt: skip
    survivors = found["survivors"]
    ax.set_xticks(list(survivors), [f"{turn}\n({row['n']})" for turn, row in survivors.items()], fontsize=8)
    ax.set(xlabel="turn (rollouts that reach it)", ylabel="score", ylim=(-0.02, 1.02))
    ax.set_title(f"rollouts; dashed: {name}\n{Path(model).name}")
    ax.legend(fontsize=8, frameon=False, loc="best")


def _reliabilities(results: Sequence[Row]) -> list[Panel]:
    """Accuracy over mean confidence, bin by bin, beside the diagonal of a model that is as right as it is sure."""
    bins: dict[tuple[Role, str], dict[int, dict[str, Row]]] = {}
    for row in results:
        if match := re.fullmatch(r"trust_(confidence|accuracy)_b(\d+)", row["metric"]):
            bins.setdefault((row["role"], row["model"]), {}).setdefault(int(match[2]), {})[match[1]] = row
    return [
        partial(_reliability, role, model, [numbered[number] for number in sorted(numbered)])
        for (role, model), numbered in bins.items()
    ]


def _reliability(role: Role, model: str, found: Sequence[Mapping[str, Row]], ax: "Axes") -> None:
    x, y = ([pair[name]["value"] for pair in found] for name in ("confidence", "accuracy"))
    ax.plot([0, 1], [0, 1], color=OTHER_COLOUR, linestyle="--", linewidth=1)
    ax.plot(x, y, color=COLOURS[role], marker="o", markersize=4)
    n = sum(pair["accuracy"]["n"] for pair in found)
    ax.set(xlabel="mean confidence", ylabel="accuracy", title=f"{role} model (n = {n})\n{Path(model).name}")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
