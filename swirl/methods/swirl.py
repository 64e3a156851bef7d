"""SWIRL: the two models in turn, each rewarded by the frozen other's log-likelihood.

    repeat for each round
        z ~ Q(z | x, y)                             label state-only pairs with the inverse model
        Phase I   forward:  max E[log Q(z | x, y_k)],   y_k ~ P(. | x, z)
        Phase II  inverse:  max E[log P(y | x, z_k)] - beta KL(Q || Q_start),   z_k ~ Q(. | x, y)

Phase I raises a lower bound of I(Z; Y | X), Phase II the evidence lower bound. In the `published` setting the body is
what the paper runs; the anchors (`replay`, `fidelity`, `min_spread`) are off unless the recipe sets them.

Source: SWIRL, arXiv 2602.06130, algorithm 1. `swirl train recipes/minigrid-published.toml`
"""

from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.rewards.likelihood import action_likelihood, next_state_likelihood


def swirl(run: Runner, pair: Pair) -> Pair:
    """Alternate Phase I and Phase II; stop early where neither role has improved for `patience` rounds."""
    settings = run.recipe.swirl
    for r in range(1, settings.rounds + 1):
        labelled = run.label(f"swirl{r}", pair, settings.steps * settings.prompts)
        pair = run.grpo(f"swirl{r}", "forward", pair, labelled, action_likelihood, settings)
        pair = run.grpo(f"swirl{r}", "inverse", pair, labelled, next_state_likelihood, settings)
        if run.stalled(settings.patience, r):
            break
    return pair
