"""Back to a moment of an episode: no world can be set to a state, but an episode follows from its seed and actions."""

from collections.abc import Sequence

from swirl.data.playing import Playable
from swirl.errors import SkippedError
from swirl.types import State


def replay(world: Playable, seed: int, actions: Sequence[str]) -> State:
    """Reset a world and take the actions, so that it stands where they lead.

    Args:
        world: Left standing there; a `repeatable` one gives the same states each time.
        seed: What it is reset with; `swirl.data.origin` knows that of a recorded trajectory.
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
