"""A player whose replies are written, not sampled: it teaches (`clumsy`), or shows what was done (`cloning`)."""

from collections.abc import Callable, Sequence
from typing import Any

from swirl.agents import conversation
from swirl.agents.arena import Scene
from swirl.agents.player import Sampled
from swirl.agents.replies import Reply


class Scripted:
    """Plays scenes as `swirl.agents.player.Player` does; what is told before is not read.

    Args:
        scenes: What it will play.
        tokenizer: Of whom its replies are for.
        say: The next reply for a scene.
    """

    def __init__(self, scenes: Sequence[Scene], tokenizer: Any, say: Callable[[Scene], Reply]) -> None:
        self.ends = [tokenizer.eos_token_id]
        self._scenes, self._tokenizer, self._say = list(scenes), tokenizer, say

    def reply(self, prompts: Sequence[list[int]]) -> list[Sampled]:
        """The next reply of every scene."""
        texts = [self._say(scene).text() for scene in self._scenes]
        return [Sampled(conversation.reply(self._tokenizer, text)[0], True) for text in texts]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these scenes alone."""
        self._scenes = [self._scenes[row] for row in rows]
