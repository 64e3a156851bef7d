"""Stage 1 of SPA: episodes of the starting policy, with the two states of every reply put right.

    the policy writes   <observation>what it believes</observation> ... <prediction>what it expects</prediction>
    what it learns from <observation>s_t</observation> ... <prediction>s_{t+1}</prediction>

where s_{t+1} is the state after all actions of the turn, so that learning from it is learning how the world moves.
Earlier turns of a conversation are put right as well. No episode is left out for having failed; a turn whose reply
cannot be read is not learned from, but stays in the conversation. `self_play.rehearse`, this project's own, adds as
many episodes in the plain form, whose replies are learned as they are: a tiny model forgets what it is not tuned in.

Source: Internalizing World Models via Self-Play Finetuning for Agentic RL, arXiv 2510.15047, section 3.2. A departure:
where turns are read in their episode, a row is a whole episode with the loss on its replies, not one row per turn; the
tokens that are learned are the same, each once per epoch.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from swirl.agents import conversation
from swirl.agents.episodes import Episode
from swirl.agents.replies import Context, Form, Part, Reply, told, with_states
from swirl.types import Encoded

Row = tuple[Encoded, list[float]]
"""Token ids of a prompt and of all that follows, and a weight for each of the latter: 1 on what is learned."""


def put_right(episode: Episode, part: Part) -> list[Reply | None]:
    """The replies of an episode with the states that were; `None` where one cannot be read or tells no states.

    Actions for which there was no more room are left out: the state after the turn is not theirs.
    """
    new: list[Reply | None] = []
    for reply, turn in zip(as_written(episode, "states"), episode.turns, strict=True):
        if reply and not (episode.ended and turn is episode.turns[-1]):
            reply = replace(reply, actions=reply.actions[: len(turn.actions) + turn.unknown])
        new.append(reply and with_states(reply, told(turn.state, part), told(turn.after, part)))
    return new


def as_written(episode: Episode, form: Form) -> list[Reply | None]:
    """The replies of an episode in a form as they are; `None` where one cannot be read or is of another form."""
    read = [turn.read for turn in episode.turns]
    return [reply if reply and (reply.prediction is not None) == (form == "states") else None for reply in read]


def dealt_out(episodes: Sequence[Episode], rng: np.random.Generator) -> list[list[Reply | None]]:
    """The replies of episodes of one form, each with states that others told: what the form is, and no more.

    Who learns from them learns to tell states, and nothing of how the world moves: that is for self-play to teach.
    """
    told = [turn.read for episode in episodes for turn in episode.turns if turn.read]
    seen, expected = (rng.permutation(len(told)) for _ in range(2))
    new = iter(
        replace(reply, observation=told[i].observation, prediction=told[j].prediction)
        for reply, i, j in zip(told, seen, expected, strict=True)
    )
    return [[turn.read and next(new) for turn in episode.turns] for episode in episodes]


def rows(
    tokenizer: Any,
    episode: Episode,
    replies: Sequence[Reply | None],
    masked: bool = False,
    context: Context = "episode",
) -> list[Row]:
    """An episode to learn from: one row, or one for each turn where turns are read alone.

    Args:
        tokenizer: The policy's.
        episode: What was played.
        replies: In place of its own; `None` keeps one, and leaves it out of the loss.
        masked: Leaves the states of the others out of it too.
        context: What was read in a turn.

    Returns:
        Rows in which something is learned.
    """
    turns: list[Row] = []
    for turn, new in zip(episode.turns, replies, strict=True):
        ids, of_state = conversation.reply(tokenizer, new.text()) if new else (turn.reply, [])
        weights = [float(not (masked and state)) for state in of_state] or [0.0] * len(ids)
        turns.append(((turn.prompt, ids), weights))
    if context == "episode":
        ((first, begin), weights), *others = turns
        for (prompt, ids), own in others:
            begin, weights = [*begin, *prompt, *ids], [*weights, *[0.0] * len(prompt), *own]
        turns = [((first, begin), weights)]
    return [row for row in turns if any(row[1])]


def evened(row: Row) -> Row:
    """A row whose weights have the sum 1."""
    encoded, weights = row
    return encoded, [weight / sum(weights) for weight in weights]
