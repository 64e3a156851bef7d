"""Conversations as transitions: each tool call is one.

The state is the conversation so far, a block of lines for each message:

    user: Is there a flight to Seattle?
    assistant: Let me look.
    call: search {"to": "SEA"}
    tool: ["HAT136"]

The action is the call, `search {"to": "SEA"}`: its arguments as JSON with sorted keys, so that equal calls are equal
texts; arguments that are no JSON stay as they are. The next state is the tool's output, or the conversation up to and
with it, but without the call itself: an inverse model that could read the call in the next state would learn nothing.
What a tool answers depends on more than was said, so the world is partially observed.
Where actions are hidden (`--drop-actions`, `--labels`) no state shows a call, or a later row would tell it.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from swirl.importers.context import Context
from swirl.importers.rows import Row


class Call(NamedTuple):
    """A tool call: the tool's name, the whole as text, and the output, `None` where the log has none."""

    name: str
    text: str
    output: str | None


Entry = str | Call
"""What a conversation is made of: a message as it stands in the state, or a call."""


def call_text(name: str, arguments: Any) -> str:
    """A call as an action."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return f"{name} {arguments.strip()}".strip()
    if arguments in (None, {}, ""):
        return name
    return f"{name} {json.dumps(arguments, ensure_ascii=False, sort_keys=True)}"


def content_text(content: Any) -> str | None:
    """The text of a message's content: text, null, or a list of parts; `None` where it is none of these."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return None
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, dict) and isinstance(part.get("type"), str):
            texts.append(f"[{part['type']}]")
        else:
            return None
    return "\n".join(texts)


def transitions(
    entries: list[Entry], where: str, trajectory: str, context: Context, first: int = 0, **ends: Any
) -> Iterator[Row]:
    """A transition for each call that has an output; those without are counted.

    Args:
        entries: The conversation, in order.
        where: Where it stands.
        trajectory: Its name.
        context: The import.
        first: How many of the calls, from the first, give no transition: they are there for the state.
        **ends: Columns of the last transition, e.g. its reward; `layout` goes to all.
    """
    layout = ends.pop("layout", None)
    said: list[str] = []
    calls = step = 0
    answers = sum(isinstance(entry, Call) and entry.output is not None for entry in entries)
    for entry in entries:
        if isinstance(entry, str):
            said.append(entry)
            continue
        calls += 1
        if entry.output is None:
            context.counts["calls without an output"] += calls > first
            said += _shown(entry, context)
            continue
        state = "\n".join(said) or "(nothing was said)"
        output = f"tool: {entry.output}"
        if calls > first:
            after = f"{state}\n{output}" if context.options.next_state == "conversation" else output
            row = Row(where, state, after, entry.text, trajectory, step, layout=layout, partial=True, kind=entry.name)
            if step == answers - 1:
                for name, value in ends.items():
                    setattr(row, name, value)
            yield row
        said += [*_shown(entry, context), output]
        step += 1


def _shown(call: Call, context: Context) -> list[str]:
    return [] if context.options.hides_actions else [f"call: {call.text}"]
