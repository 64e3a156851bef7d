"""A clumsy player: replies as an agent writes them, to teach a model from scratch what replies are.

A real policy replies as it is told to; a tiny model has to see it done. The player follows the world's "solver" where
there is one and takes a random action every so often, so that whom it teaches is no good at the task. Its thoughts are
the actions of the turn. With random actions alone it is the paper's control of self-play.
"""

import copy
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from swirl.agents.arena import Scene
from swirl.agents.episodes import Terms
from swirl.agents.evaluation import Cast
from swirl.agents.replies import Reply, of_turn
from swirl.agents.scripted import Scripted
from swirl.types import state_text
from swirl.worlds import World
from swirl.worlds.puzzle import Puzzle, TooLargeError


def say(scene: Scene, said: int, slips: float, terms: Terms, rng: np.random.Generator) -> Reply:
    """A reply for a scene, which is left as it is: some of the actions that a turn may have, all without slips.

    Args:
        scene: What is played.
        said: Actions that were taken in it.
        slips: Share of actions that are random.
        terms: How episodes go.
        rng: Of all chances.
    """
    most = min(terms.per_turn, terms.actions - said)
    world, after, actions = copy.deepcopy(scene.handle), scene.state, []
    for _ in range(rng.integers(1, most + 1) if slips else most):
        actions.append(world.act("random", rng) if rng.random() < slips else _best(world, rng))
        state, _, terminated, truncated, _ = world.step(actions[-1])
        after = state_text(state)
        if terminated or truncated:
            break
    return of_turn(actions, scene.state, after, terms.form, terms.part)


def cast(tokenizer: Any, slips: float, terms: Terms) -> Cast:
    """The player for any scenes; see `say`."""

    def player(scenes: Sequence[Scene], seed: int) -> Scripted:
        rng = np.random.default_rng(seed)
        return Scripted(scenes, tokenizer, lambda scene, said: say(scene, said, slips, terms, rng))

    return player


def _best(world: World, rng: np.random.Generator) -> str:
    """The next step of a solution, or what the world's solver does, which may slip; random where there is none."""
    if isinstance(world, Puzzle):
        with suppress(TooLargeError):
            if found := world.solve():
                return found[0]
    return world.act("solver" if "solver" in world.behaviours else "random", rng)
