"""A world as models see it: its images written with the tokens of an image tokenizer."""

from typing import Any

import numpy as np

from swirl import imagetokens
from swirl.imagetokens import ImageTokenizer
from swirl.types import State
from swirl.worlds.base import Step, World


class WrittenWorld:
    """Another world, with its images as tokens.

    Args:
        world: The world; its actions do not depend on what a state looks like.
        tokenizer: Writes its images.
    """

    def __init__(self, world: World, tokenizer: ImageTokenizer) -> None:
        self._world, self._tokenizer = world, tokenizer
        self.name, self.behaviours = world.name, world.behaviours
        self.complete, self.repeatable = world.complete, world.repeatable

    def reset(self, seed: int) -> tuple[State, dict[str, Any]]:
        """See `World.reset`."""
        state, info = self._world.reset(seed)
        return imagetokens.written(self._tokenizer, [state])[0], info

    def step(self, action: str) -> Step:
        """See `World.step`."""
        state, reward, terminated, truncated, info = self._world.step(action)
        return imagetokens.written(self._tokenizer, [state])[0], reward, terminated, truncated, info

    def actions(self, state: State) -> tuple[str, ...] | None:
        """See `World.actions`."""
        return self._world.actions(state)

    def act(self, behaviour: str, rng: np.random.Generator) -> str:
        """See `World.act`."""
        return self._world.act(behaviour, rng)

    def close(self) -> None:
        """See `World.close`."""
        self._world.close()
