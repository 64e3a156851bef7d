"""Back to a moment of an episode: a world cannot be set to a state, but an episode follows from its seed and actions.

Episodes that `collect` played have names that say which they are, and so the seed that each was reset with.
"""

import re
from collections.abc import Sequence

from swirl.data.playing import Playable, begin, trajectory_name
from swirl.errors import SkippedError
from swirl.types import State

__all__ = ["replay", "seed_of"]


def seed_of(trajectory: str, seed: int) -> int | None:
    """The seed that the world was reset with for a recorded trajectory.

    Args:
        trajectory: Its name.
        seed: Seed of the collection.

    Returns:
        `None` where the name is not one that `collect` gives.
    """
    if not re.fullmatch(r"t\d+", trajectory):
        return None
    index = int(trajectory[1:])
    return begin(seed, index)[0] if trajectory_name(index) == trajectory else None


def replay(world: Playable, seed: int, actions: Sequence[str]) -> State:
    """Reset a world and take the actions, so that it stands where they lead.

    Args:
        world: Left standing there; a `repeatable` one gives the same states each time.
        seed: What it is reset with.
        actions: In order; none leads to the first state.

    Returns:
        The state after the last action.

    Raises:
        SkippedError: The episode ended before the last action was taken, or the world broke it off.
        InputError: The world knows no such action.
    """
    state, _ = world.reset(seed)
    for number, action in enumerate(actions):
        state, _, terminated, truncated, _ = world.step(action)
        if (terminated or truncated) and number + 1 < len(actions):
            raise SkippedError(f"the replayed episode ended after {number + 1} of {len(actions)} actions")
    return state
