"""A control: `swirl` whose rewards are dealt out among the completions of a batch at random. It should gain nothing.

Whatever it gains comes from the optimiser and from the choice of checkpoints, and not from the reciprocal reward.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.rewards.likelihood import Likelihood, Reward, action_likelihood, next_state_likelihood


def shuffled_reward(run: Runner, pair: Pair) -> Pair:
    """As `swirl`, with its settings."""
    settings = run.recipe.swirl
    for r in range(1, settings.rounds + 1):
        labelled = run.label(f"shuffled-reward{r}", pair, settings.steps * settings.prompts)
        pair = run.grpo(
            f"shuffled-reward{r}", "forward", pair, labelled, partial(_shuffled, action_likelihood), settings
        )
        pair = run.grpo(
            f"shuffled-reward{r}", "inverse", pair, labelled, partial(_shuffled, next_state_likelihood), settings
        )
    return pair


def _shuffled(reward: Callable[[Likelihood], Reward], spec: Likelihood) -> Reward:
    told = reward(spec)

    def dealt(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
        # Seeded by what is rewarded: a phase that resumes deals the same.
        rng = np.random.default_rng([token for ids in completion_ids for token in ids])
        rewards = told(completion_ids=completion_ids, **columns)
        return [rewards[i] for i in rng.permutation(len(rewards))]

    return dealt
