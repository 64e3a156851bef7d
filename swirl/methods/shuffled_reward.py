"""A control: `swirl` whose rewards are dealt out among the completions of a batch at random. It should gain nothing.

Whatever it gains comes from the optimiser and from the choice of checkpoints, and not from the reciprocal reward.
"""

from functools import partial
from typing import Any

import numpy as np

from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.methods.swirl import Rewarding, swirl
from swirl.rewards.likelihood import Likelihood, Reward


def shuffled_reward(run: Runner, pair: Pair) -> Pair:
    """As `swirl`, with its settings."""
    return swirl(run, pair, "shuffled-reward", lambda rewarding: partial(_shuffled, rewarding))


def _shuffled(rewarding: Rewarding, spec: Likelihood) -> Reward:
    told = rewarding(spec)

    def dealt(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
        # Seeded by what is rewarded: a phase that resumes deals the same.
        rng = np.random.default_rng([token for ids in completion_ids for token in ids])
        rewards = told(completion_ids=completion_ids, **columns)
        return [rewards[i] for i in rng.permutation(len(rewards))]

    return dealt
