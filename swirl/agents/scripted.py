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
        say: The next reply for a scene in which so many actions were said before.
    """

    def __init__(self, scenes: Sequence[Scene], tokenizer: Any, say: Callable[[Scene, int], Reply]) -> None:
        self.ends = [tokenizer.eos_token_id]
        self._scenes, self._tokenizer, self._say = list(scenes), tokenizer, say
        self._said = [0] * len(scenes)

    def reply(self, prompts: Sequence[list[int]]) -> list[Sampled]:
        """The next reply of every scene."""
        replies = [self._say(scene, said) for scene, said in zip(self._scenes, self._said, strict=True)]
        self._said = [said + len(reply.actions) for said, reply in zip(self._said, replies, strict=True)]
        return [Sampled(conversation.reply(self._tokenizer, reply.text())[0], True) for reply in replies]

    def forget(self) -> None:
        """Nothing was read."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these scenes alone."""
        self._scenes = [self._scenes[row] for row in rows]
        self._said = [self._said[row] for row in rows]
