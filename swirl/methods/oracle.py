"""The oracle: what the M-step of verified relabelling would reach if every label were true.

    for each role
        repeat SFT on the true labels
        until it has not improved on validation for some rounds; a limit on all rounds is told where it ends them

An upper bound where the budget is every label (`data.labels = 0`), and not limited in cost: what a method gains is told
as a share of what the oracle gains.
"""

import logging
from dataclasses import replace

from swirl.methods import ORACLE_ROUNDS
from swirl.methods.phases import Pair
from swirl.methods.runner import Runner

logger = logging.getLogger("swirl")

PATIENCE = 3
"""Rounds without a better validation score that end it."""


def oracle(run: Runner, pair: Pair) -> Pair:
    """The settings are those of `verified`, but for its rounds and the choice of the best checkpoint."""
    settings = replace(run.recipe.verified, select="best")
    for roles in run.together():
        for r in range(1, ORACLE_ROUNDS + 1):
            pair = run.sft(f"oracle{r}", pair, run.supervised([run.labelled]), settings, roles)
            if run.stalled(PATIENCE, r, roles):
                break
        else:
            if run.run:  # else the phases are only listed, and none of them can stall
                logger.warning(
                    "oracle: the %s model did all of its %d rounds and may not have stopped improving: it may be too "
                    "low a bound",
                    " and ".join(roles),
                    ORACLE_ROUNDS,
                )
    return pair
