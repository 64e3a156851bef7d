"""What an agent writes in a turn, and back.

    plain    <think>thoughts</think><answer>Up || Left</answer>
    states   <think><observation>state now</observation>thoughts<prediction>state after</prediction></think><answer>...

The second is a world model inside the policy: it says what it sees, and what the world will look like after all actions
of the turn. What it wrote there can be put right (`with_states`), which is what self-play is for.

Source: Internalizing World Models via Self-Play Finetuning for Agentic RL, arXiv 2510.15047, section 3. Departures from
its released code: a reply is read whole or not at all, where that code falls back on an answer's single characters as
actions; and it is trained on as it was sampled, not as it was read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Form = Literal["plain", "states"]
"""How a reply is asked for."""
Part = Literal["whole", "facts"]
"""What of a state a reply tells: all of it, or its last line alone where that has coordinates, as puzzles may."""
Context = Literal["episode", "turn"]
"""What an agent reads in a turn: the episode up to it, or that turn's state alone."""
OPEN = "<think>"
"""Begins every reply; it stands in the prompt, so that a reply cannot begin otherwise."""
SEPARATOR = "||"
_REPLY = re.compile(r"(?s)<think>(.*?)</think>\s*<answer>(.*?)</answer>")
_STATES = re.compile(r"(?s)(\s*<observation>)(.*?)(</observation>)(.*?)(<prediction>)(.*?)(</prediction>\s*)")
_COORDINATES = re.compile(r"\(\d+,\d+\)")
_TAG = re.compile(r"</?(?:think|answer|observation|prediction)>")


@dataclass(frozen=True)
class Reply:
    """A turn of an agent.

    Attributes:
        actions: What it does, in order.
        thoughts: What it wrote before, without the two states.
        observation: The state that it believes to be in; `None` where it wrote none.
        prediction: The state that it expects after its actions; `None` where it wrote none.
    """

    actions: tuple[str, ...]
    thoughts: str = ""
    observation: str | None = None
    prediction: str | None = None

    def text(self) -> str:
        """The reply in words."""
        inner = self.thoughts
        if self.observation is not None and self.prediction is not None:
            seen, expected = self.observation, self.prediction
            inner = f"<observation>{seen}</observation>{inner}<prediction>{expected}</prediction>"
        return f"{OPEN}{inner}</think><answer>{f' {SEPARATOR} '.join(self.actions)}</answer>"


def parse(text: str) -> Reply | None:
    """A reply that is written as it should be, in either form; `None` for any other text.

    Args:
        text: The whole reply, `OPEN` included.
    """
    found = _REPLY.fullmatch(text.strip())
    if not found:
        return None
    inner, answer = found.groups()
    states = _STATES.fullmatch(inner)
    seen, thoughts, expected = (states[2], states[4], states[6]) if states else (None, inner, None)
    if any(_TAG.search(part) for part in (seen or "", thoughts, expected or "", answer)):
        return None
    actions = tuple(action.strip() for action in answer.split(SEPARATOR) if action.strip())
    if not actions:
        return None
    strip = [part if part is None else part.strip() for part in (seen, expected)]
    return Reply(actions, thoughts.strip(), *strip)


def told(state: str, part: Part) -> str:
    """What a reply tells of a state."""
    last = state.rpartition("\n")[2]
    return last if part == "facts" and _COORDINATES.search(last) else state


def of_turn(actions: Sequence[str], before: str, after: str, form: Form, part: Part) -> Reply:
    """A turn as who knows the world would write it; its thoughts are its actions.

    Args:
        actions: What it does.
        before: The state before it.
        after: The state after all of them.
        form: Of the reply.
        part: What of the states it tells.
    """
    reply = Reply(tuple(actions), " ".join(actions))
    return with_states(reply, told(before, part), told(after, part)) if form == "states" else reply


def with_states(reply: Reply, observation: str, prediction: str) -> Reply:
    """The same turn with the two states that were: what self-play teaches."""
    return Reply(reply.actions, reply.thoughts, observation, prediction)


def state_spans(text: str) -> list[tuple[int, int]]:
    """Where the two states stand in a reply, tags included, as (begin, end) in characters; none in the plain form."""
    found = _REPLY.fullmatch(text)
    states = _STATES.fullmatch(found[1]) if found else None
    if not found or not states:
        return []
    offset = found.start(1)
    return [(offset + states.start(first), offset + states.end(last)) for first, last in ((1, 3), (5, 7))]
