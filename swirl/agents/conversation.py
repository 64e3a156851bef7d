"""A conversation of several turns as token ids: what stands before, between and after an agent's replies.

Replies stay the tokens that were sampled. Only what the world says is encoded here, with what the chat template puts
around it, so nothing is encoded twice and training sees what the agent saw. A template that rewrites earlier replies
(that of Qwen3 drops their thoughts) is thus read as one that does not.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from swirl import prompts
from swirl.agents.replies import OPEN, SEPARATOR, Form, state_spans
from swirl.errors import InputError
from swirl.prompts import ACTION, NEXT

HERE = "\ufdd1"
"""Stands for a reply while a template is filled in: a noncharacter, like `prompts.GUARD`."""
FORMS: dict[Form, str] = {
    "plain": f"{OPEN} your thoughts </think><answer> your actions </answer>",
    "states": (
        f"{OPEN}<observation> the state now </observation> your thoughts <prediction> the state after your actions "
        "</prediction></think><answer> your actions </answer>"
    ),
}


def ask(
    state: str,
    left: int,
    form: Form,
    *,
    told: bool = False,
    before: str = "",
    turn: int = 1,
    reward: float | None = None,
) -> str:
    """What the world says in a turn.

    Args:
        state: The state now.
        left: Actions left in the episode.
        form: The form of reply that is asked for.
        told: Whether it is said in sentences, for a model that follows instructions; else as marks, which are taught.
        before: Said before all else, see `introduction`.
        turn: From 1.
        reward: What the last turn brought; `None` in the first.
    """
    lines = [before] if before else []
    # In hundredths: one that was estimated reads as one that was given. The sum makes 0 of -0.
    lines += [] if reward is None else [f"Reward: {round(reward, 2) + 0.0:g}"]
    if not told:
        return "\n".join([*lines, state, f"{left} left, {form}"])
    asked = f"You have {left} actions left. Reply with {FORMS[form]} and nothing else."
    return "\n".join([*lines, f"Turn {turn}. State:", state, asked])


def introduction(manual: str, actions: Sequence[str], most: int) -> str:
    """What a model that follows instructions is told first.

    Args:
        manual: The world in words.
        actions: The actions that there are, where they can be listed.
        most: Actions that a turn may have.
    """
    one = f" They are {', '.join(actions)}." if actions else ""
    return f"{manual} Write your next actions in order, {most} at most, with {SEPARATOR} between.{one}"


def first(tokenizer: Any, text: str, **template: Any) -> list[int]:
    """Token ids of the first prompt, up to where the reply goes on from `OPEN`."""
    turns = [{"role": "user", "content": _foreign(text)}]
    return prompts.encode_prompt(tokenizer, turns, **template) + _open(tokenizer)


def following(tokenizer: Any, text: str, ends: Sequence[int], **template: Any) -> list[int]:
    """Token ids of what stands between the end of a reply and the next one.

    Args:
        tokenizer: With a chat template of several turns.
        text: What the world says.
        ends: Ids of the tokens that end a reply, see `models.end_ids`.
        **template: For the chat template.

    Raises:
        InputError: The chat template does not write the replies of earlier turns.
    """
    guarded = prompts.guard(_foreign(text), prompts.control_tokens(tokenizer))
    turns = [("user", "."), ("assistant", HERE), ("user", guarded)]
    messages = [{"role": role, "content": content} for role, content in turns]
    whole = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **template)
    _, here, after = whole.partition(HERE)
    if not here:
        raise InputError("the chat template leaves replies out of a conversation; give a model whose template has them")
    for end in tokenizer.convert_ids_to_tokens(list(ends)):
        after = after.removeprefix(end)
    return prompts.token_ids(tokenizer, after) + _open(tokenizer)


def reply(tokenizer: Any, text: str) -> tuple[list[int], list[bool]]:
    """Token ids of a reply that was written, not sampled: what follows `OPEN`, with the token that ends it.

    The two states are encoded by themselves, so that no token is half in one of them.

    Returns:
        The ids, and for each whether it is of a state, tags included.
    """
    control = prompts.control_tokens(tokenizer)
    cuts = sorted({len(OPEN), len(text), *(place for span in state_spans(text) for place in span)})
    ids: list[int] = []
    of_state: list[bool] = []
    for begin, end in pairwise(cuts):
        # A guard before it: the piece goes on, and is no text by itself.
        piece = prompts.GUARD * (begin > len(OPEN)) + prompts.guard(text[begin:end], control)
        new = prompts.token_ids(tokenizer, piece, split_special_tokens=True)
        ids += new
        of_state += [(begin, end) in state_spans(text)] * len(new)
    return [*ids, tokenizer.eos_token_id], [*of_state, False]


def _open(tokenizer: Any) -> list[int]:
    return prompts.token_ids(tokenizer, OPEN)


def _foreign(text: str) -> str:
    return prompts.guard(text, (ACTION, NEXT))
