"""Transition <-> chat messages, for both roles, and back from a reply.

The state comes first in both roles' prompts, so that the prompts of one pair share their longest part:

    forward:  state  action  ->  next_state
    inverse:  state  next_state  ->  action

One instruction per role, never drawn at random: within a group only the completions may differ.

States and actions come from foreign logs. Where a control token stands in their text (`<|im_end|>`, `</s>`, our own
marks), it is spelt out, in prompts as in completions: only the chat template and `prompt` write control tokens.
"""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from swirl import changes
from swirl.errors import InputError
from swirl.types import Role, State, state_text

Messages = list[dict[str, str]]

ACTION, NEXT = "<|action|>", "<|next|>"
"""Marks of the terse style; the tokenizer of `tiny` has a token for each."""

GUARD = "\ufdd0"
"""Stands inside a control token of a foreign text and breaks it; tokenization cuts there and leaves the guard out.

A noncharacter, which Unicode reserves for uses like this one: texts hold none.
"""

INSTRUCTIONS: dict[Role, str] = {
    "forward": (
        "You are a world model. Given the state of a world and the action that is taken, write the state that "
        "follows, complete and in the same form, and nothing else."
    ),
    "inverse": (
        "You are an inverse world model. Given two consecutive states of a world, write the one action that led from "
        "the first to the second, and nothing else."
    ),
}


CHANGE_FORM = (
    " The next state is written as the change to the state: a line that goes is marked with -, a line that comes with "
    "+; @ and a line number, from 0, before a part that only adds lines; = alone where nothing changes. Where that is "
    "longer than the next state itself: * alone, and the next state below it."
)


def in_change_form(style: str) -> bool:
    """Whether a style writes next states as changes."""
    return "-change" in style


def written(style: str, state: State, next_state: State) -> str:
    """A next state as a style has it written: whole, or as its change against the state."""
    after = state_text(next_state)
    return changes.shortest(state_text(state), after) if in_change_form(style) else after


def shown(style: str, state: State, next_state: State) -> str:
    """A next state as a style shows it to the inverse role; where that is all it reads, with all that went."""
    before, after = state_text(state), state_text(next_state)
    return changes.describe(before, after) if style.endswith("-only") else written(style, before, after)


def prompt(
    role: Role, state: State, given: str | State, history: Sequence[State] = (), style: str = "terse"
) -> Messages:
    """The messages that ask a role for its completion.

    Args:
        role: Which model is asked.
        state: The state before the step.
        given: The action for the forward role, the next state for the inverse role.
        history: Earlier states of the trajectory, oldest first.
        style: `terse` (marks only, for models trained from scratch) or `instruct` (with the role's instruction); with
            `-change`, next states are written as changes; with `-change-only`, the inverse role reads nothing else.
    """
    given = _foreign(given if role == "forward" else shown(style, state, given))
    before = [] if role == "inverse" and style.endswith("-only") else [*map(_foreign, history), _foreign(state)]
    if style.startswith("terse"):
        mark = ACTION if role == "forward" else NEXT
        return [{"role": "user", "content": f"{NEXT.join(before)}{mark}{given}"}]
    titles = ["Earlier state"] * (len(before) - 1) + ["State"]
    past = "".join(f"{title}:\n{text}\n\n" for title, text in zip(titles, before, strict=False))
    asked = "Action: " if role == "forward" else "Change:\n" if in_change_form(style) else "Next state:\n"
    return [
        {"role": "system", "content": INSTRUCTIONS[role] + (CHANGE_FORM if in_change_form(style) else "")},
        {"role": "user", "content": f"{past}{asked}{given}"},
    ]


def _foreign(state: State) -> str:
    """The text of a state or an action, without marks of ours."""
    return guard(state_text(state), (ACTION, NEXT))


def guard(text: str, tokens: Collection[str]) -> str:
    """The text with every one of the tokens broken by a guard."""
    found = [token for token in tokens if token in text]
    while found:  # a token can stand in another one
        for token in found:
            text = text.replace(token, token[0] + GUARD + token[1:])
        found = [token for token in found if token in text]
    return text


def transition_prompt(role: Role, row: dict[str, Any], style: str = "terse") -> Messages:
    """The prompt of a role for a row with `state` and `action` (forward) or `next_state` (inverse)."""
    given = row["action"] if role == "forward" else row["next_state"]
    return prompt(role, row["state"], given, row.get("history") or (), style)


def target(role: Role, row: dict[str, Any], style: str = "terse") -> str:
    """The completion that a role should give for a labelled row."""
    return written(style, row["state"], row["next_state"]) if role == "forward" else row["action"]


def pretext(role: Role, row: dict[str, Any], style: str = "terse") -> tuple[dict[str, Any], str]:
    """A task that a state-only pair poses to a role by itself: the row to ask about, and the completion.

    Forward: the next state, with the action left blank. Inverse: the change, in place of its cause.
    """
    if role == "forward":
        return {**row, "action": ""}, target("forward", row, style)
    return row, changes.describe(state_text(row["state"]), state_text(row["next_state"]))


def parse_reply(role: Role, text: str, style: str = "terse", state: State = "") -> str:
    """The next state or action in a reply: what is in it (`unwrapped`), one line for an action.

    "" where the reply is still thinking, and where a change does not fit the `state` that it is applied to.
    """
    text = unwrapped(text)
    if role == "inverse":
        return text.split("\n", 1)[0].strip()
    return (changes.apply(state_text(state), text) or "") if in_change_form(style) else text


def unwrapped(text: str) -> str:
    """A reply without its thinking and its code fence; "" where it is still thinking."""
    text = re.sub(r"(?s)^.*?</think>", "", text).strip()
    if "<think>" in text.rpartition("</think>")[2]:
        return ""
    fenced = re.fullmatch(r"(?s)```[^\n]*\n(.*?)\n?```", text)
    return (fenced[1] if fenced else text).strip()


@lru_cache(maxsize=8)
def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """The tokens that mean something to the model: the special ones, and others that its chat template writes.

    A special token of one letter cannot be told from that letter, and a template's white space is ordinary text.
    """
    return tuple(
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if len(token.content) > 1
        and (token.special or (token.content in tokenizer.chat_template and not token.content.isspace()))
    )


def encode_prompt(tokenizer: Any, messages: Messages, **template: Any) -> list[int]:
    """Token ids of a prompt; control tokens that stand in a state or an action are spelt out.

    Ordinary text has the ids that `apply_chat_template` gives. Marks that the messages hold unguarded are ours.
    """
    tokens = [token for token in control_tokens(tokenizer) if token not in (ACTION, NEXT)]
    guarded = [{**turn, "content": guard(turn["content"], tokens)} for turn in messages]
    text = tokenizer.apply_chat_template(guarded, add_generation_prompt=True, tokenize=False, **template)
    return token_ids(tokenizer, text)


def encode_completion(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a completion, with the token that ends it.

    Control tokens that stand in the text (a log of another model's chat) are spelt out: they must not end it.
    """
    ids = token_ids(tokenizer, guard(text, control_tokens(tokenizer)), split_special_tokens=True)
    return [*ids, tokenizer.eos_token_id]


def token_ids(tokenizer: Any, text: str, **options: Any) -> list[int]:
    """Token ids of a text, cut at its guards."""

    def encode(piece: str) -> list[int]:
        # Too long a text is told by ours, in `encode` and in `api`; the tokenizer's own advice would come on top.
        return tokenizer(piece, add_special_tokens=False, verbose=False, **options)["input_ids"]

    first, *rest = text.split(GUARD)
    ids = encode(first)
    for piece in rest:
        # SentencePiece puts a space before a text, but not before what follows a line break.
        newline, after = encode("\n"), encode(f"\n{piece}")
        ids = ids + (after[len(newline) :] if after[: len(newline)] == newline else encode(piece))
    return ids


def encode(
    tokenizer: Any,
    role: Role,
    row: dict[str, Any],
    style: str,
    max_length: int,
    completion: str | None = None,
    room: int = 0,
    **template: Any,
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and the completion of a row; the completion is the row's label unless it is given.

    `room` is tokens to leave for an action that the row does not have yet.

    Raises:
        InputError: They are longer than `max_length` together; nothing is ever cut.
    """
    prompt_ids = encode_prompt(tokenizer, transition_prompt(role, row, style), **template)
    completion_ids = encode_completion(tokenizer, target(role, row, style) if completion is None else completion)
    length = len(prompt_ids) + len(completion_ids) + room
    if length > max_length:
        named = "an inverse" if role == "inverse" else "a forward"
        left = f", with room for an inferred action of {room}" if room else ""
        raise InputError(
            f"trajectory {row.get('trajectory')!r} step {row.get('step')}: {length} tokens as {named} "
            f"prompt and completion{left}, but model.max_length is {max_length}; raise it, or shorten the states "
            "(swirl import --max-state)"
        )
    return prompt_ids, completion_ids
