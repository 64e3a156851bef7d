"""Reinforcement learning with inverse rewards (RLIR): can the commanded action be read off the prediction?

    z ~ Q(z | x, y)                                     label state-only pairs
    forward:  max E[1 if argmax Q(. | x, y_k) = z],      y_k ~ P(. | x, z)

Phase I of `swirl` rewards by the likelihood of the action where this one rewards by its being decoded.

Source: RLIR, arXiv 2509.23958.
"""

from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.rewards.verifiable import decoded_action


def inverse_reward(run: Runner, pair: Pair) -> Pair:
    """The settings of the optimiser are those of `swirl`; the inverse model labels, rewards and stays as it is."""
    settings = run.recipe.swirl
    inferred = run.label("inverse-reward", pair, settings.steps * settings.prompts)
    return run.grpo("inverse-reward", "forward", pair, inferred, decoded_action, settings)
