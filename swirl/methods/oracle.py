"""The oracle: what the M-step of verified relabelling would reach if every label were true.

    for each role
        repeat SFT on the true labels
        until it has not improved on validation for some rounds

An upper bound where the budget is every label (`data.labels = 0`), and not limited in cost: what a method gains is told
as a share of what the oracle gains.
"""

from dataclasses import replace

from swirl.methods.phases import Pair
from swirl.methods.runner import Runner

PATIENCE, MOST = 3, 12
"""Rounds without a better validation score; most rounds."""


def oracle(run: Runner, pair: Pair) -> Pair:
    """The settings are those of `verified`, but for its rounds and the choice of the best checkpoint."""
    settings = replace(run.recipe.verified, select="best")
    for roles in run.together():
        for r in range(1, MOST + 1):
            pair = run.sft(f"oracle{r}", pair, run.supervised([run.labelled]), settings, roles)
            if run.stalled(PATIENCE, r, roles):
                break
    return pair
