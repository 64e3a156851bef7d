"""RLVR: reinforcement learning of the forward model with a verifiable reward, a metric of its decoded prediction.

    z ~ Q(z | x, y)                                     label state-only pairs
    forward:  max E[F1 of the changed facts of y_k against y],   y_k ~ P(. | x, z)

Source: RLVR-World, arXiv 2505.13934; there the actions are recorded ones.
"""

from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.rewards.verifiable import changed_facts


def rlvr(run: Runner, pair: Pair) -> Pair:
    """The settings of the optimiser are those of `swirl`; the inverse model labels and stays as it is."""
    settings = run.recipe.swirl
    inferred = run.label("rlvr", pair, settings.steps * settings.prompts)
    return run.grpo("rlvr", "forward", pair, inferred, changed_facts, settings)
