"""A clumsy player: replies as an agent writes them, to teach a model from scratch what replies are.

A real policy replies as it is told to; a tiny model has to see it done. The player follows the world's "solver" where
there is one and takes a random action every so often, so that whom it teaches is no good at the task. Its thoughts are
the actions of the turn. With random actions alone it is the paper's control of self-play.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from swirl.agents import conversation
from swirl.agents.arena import Scene
from swirl.agents.episodes import Terms
from swirl.agents.player import Sampled
from swirl.agents.replies import Reply, told
from swirl.types import state_text


def say(scene: Scene, slips: float, terms: Terms, rng: np.random.Generator) -> Reply:
    """A clumsy reply for a scene, which is left as it is.

    Args:
        scene: What is played.
        slips: Share of actions that are random.
        terms: How episodes go.
        rng: Of all chances.
    """
    world, after, actions = copy.deepcopy(scene.handle), scene.state, []
    skilled = "solver" if "solver" in world.behaviours else "random"
    for _ in range(rng.integers(1, terms.per_turn + 1)):
        actions.append(world.act("random" if rng.random() < slips else skilled, rng))
        state, _, terminated, truncated, _ = world.step(actions[-1])
        after = state_text(state)
        if terminated or truncated:
            break
    thoughts = " ".join(actions)
    if terms.form == "plain":
        return Reply(tuple(actions), thoughts)
    return Reply(tuple(actions), thoughts, told(scene.state, terms.part), told(after, terms.part))


class Clumsy:
    """Plays scenes as `swirl.agents.player.Player` does.

    Args:
        scenes: What it will play.
        tokenizer: Of whom it teaches.
        slips: Share of its actions that are random.
        terms: How episodes go.
        seed: Of its chances.
    """

    def __init__(self, scenes: Sequence[Scene], tokenizer: Any, slips: float, terms: Terms, seed: int) -> None:
        self.ends = [tokenizer.eos_token_id]
        self._scenes, self._tokenizer, self._slips, self._terms = list(scenes), tokenizer, slips, terms
        self._rng = np.random.default_rng(seed)

    def reply(self, prompts: Sequence[list[int]]) -> list[Sampled]:
        """The next reply of every scene; what is told before is not read."""
        replies = [say(scene, self._slips, self._terms, self._rng) for scene in self._scenes]
        return [Sampled(conversation.reply(self._tokenizer, reply.text())[0], True) for reply in replies]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these scenes alone."""
        self._scenes = [self._scenes[row] for row in rows]
