"""Stage 1 of SPA: episodes of the starting policy, with the two states of every reply put right.

    the policy writes   <observation>what it believes</observation> ... <prediction>what it expects</prediction>
    what it learns from <observation>s_t</observation> ... <prediction>s_{t+1}</prediction>

where s_{t+1} is the state after all actions of the turn, so that learning from it is learning how the world moves.
Earlier turns of a conversation are put right as well. No episode is left out for having failed; a turn whose reply
cannot be read is not learned from, but stays in the conversation.

Source: Internalizing World Models via Self-Play Finetuning for Agentic RL, arXiv 2510.15047, section 3.2. A departure:
a row is a whole episode with the loss on its replies, not one row per turn; the tokens that are learned are the same,
each once per epoch.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from swirl.agents import conversation
from swirl.agents.episodes import Episode
from swirl.agents.replies import Part, Reply, told, with_states
from swirl.types import Encoded

Row = tuple[Encoded, list[float]]
"""Token ids of a first prompt and of all that follows, and a weight for each of the latter: 1 on what is learned."""


def put_right(episode: Episode, part: Part) -> list[Reply | None]:
    """The replies of an episode with the states that were; `None` where one cannot be read or tells no states."""
    return [
        with_states(reply, told(turn.state, part), told(turn.after, part)) if reply else None
        for reply, turn in zip(as_written(episode), episode.turns, strict=True)
    ]


def as_written(episode: Episode) -> list[Reply | None]:
    """The replies of an episode with the states that the agent believed in."""
    read = [turn.read for turn in episode.turns]
    return [reply if reply and reply.prediction is not None else None for reply in read]


def row(tokenizer: Any, episode: Episode, replies: Sequence[Reply | None], masked: bool = False) -> Row | None:
    """An episode to learn from.

    Args:
        tokenizer: The policy's.
        episode: What was played.
        replies: In place of its own; `None` keeps one, and leaves it out of the loss.
        masked: Leaves the states of the others out of it too.

    Returns:
        `None` where there is nothing to learn.
    """
    pieces: list[tuple[list[int], list[float]]] = []
    for turn, new in zip(episode.turns, replies, strict=True):
        ids, of_state = conversation.reply(tokenizer, new.text()) if new else (turn.reply, [])
        weights = [float(not (masked and state)) for state in of_state] or [0.0] * len(ids)
        pieces += [(turn.prompt, [0.0] * len(turn.prompt)), (ids, weights)]
    (first, _), *rest = pieces
    weights = list(chain.from_iterable(weights for _, weights in rest))
    return ((first, list(chain.from_iterable(ids for ids, _ in rest))), weights) if any(weights) else None
