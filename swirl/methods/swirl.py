"""SWIRL: the two models in turn, each rewarded by the frozen other's log-likelihood.

    repeat for each round
        z ~ Q(z | x, y)                             label state-only pairs with the inverse model
        Phase I   forward:  max E[log Q(z | x, y_k)],   y_k ~ P(. | x, z)
        Phase II  inverse:  max E[log P(y | x, z_k)] - beta KL(Q || Q_start),   z_k ~ Q(. | x, y)

Phase I raises a lower bound of I(Z; Y | X), Phase II the evidence lower bound. In the `published` setting the body is
what the paper runs; the anchors (`replay`, `fidelity`, `min_spread`) are off unless the recipe sets them.

Source: SWIRL, arXiv 2602.06130, algorithm 1. `swirl train recipes/minigrid-published.toml`
"""

from collections.abc import Callable

from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.rewards.likelihood import Likelihood, Reward, action_likelihood, next_state_likelihood

Rewarding = Callable[[Likelihood], Reward]
"""What makes a reward of the frozen model that scores."""


def swirl(
    run: Runner,
    pair: Pair,
    stage: str = "swirl",
    control: Callable[[Rewarding], Rewarding] = lambda rewarding: rewarding,
) -> Pair:
    """Alternate Phase I and Phase II; stop early where neither role has improved for `patience` rounds.

    `control` makes the rewards of a control of the two.
    """
    settings = run.recipe.swirl
    for r in range(1, settings.rounds + 1):
        labelled = run.label(f"{stage}{r}", pair, settings.steps * settings.prompts)
        pair = run.grpo(f"{stage}{r}", "forward", pair, labelled, control(action_likelihood), settings)
        pair = run.grpo(f"{stage}{r}", "inverse", pair, labelled, control(next_state_likelihood), settings)
        if run.stalled(settings.patience, r):
            break
    return pair
