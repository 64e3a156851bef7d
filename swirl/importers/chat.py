"""Conversations with tool calls in the OpenAI messages format.

A source holds one conversation a line (JSON lines), an array of them, or one alone. A conversation is a list of
messages, or an object that has such a list under `messages`, or `traj` (τ-bench, whose task is the layout and whose
reward goes to the last transition). Outputs answer the calls of the last assistant message only, by id; where ids are
missing or double in order, if there are as many outputs as calls. What is left without an output is counted, never
guessed. Several calls of one message become transitions one after another. The older `function_call` and `function`
messages are read as well.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from swirl.importers.context import Context
from swirl.importers.conversation import Call, Entry, call_text, content_text, transitions
from swirl.importers.rows import Fault, Row
from swirl.importers.sources import JSON, Value, read_all

WRAPPERS = ("messages", "traj")


class Malformed(ValueError):
    """A conversation that cannot be read."""


class _Open(NamedTuple):
    """A call that waits for its output: its id, `None` where it has none, and its place among the entries."""

    key: str | None
    place: int


class _Output(NamedTuple):
    """The output of a call: the id of the call, `None` where it has none, the text, and the number of the message."""

    key: str | None
    text: str
    number: int


def read(paths: list[str], context: Context) -> Iterator[Row | Fault]:
    """Transitions of all conversations; a conversation with a malformed message is left out as a whole."""
    for source, items in groupby(read_all(paths, JSON, _is_conversation, context), itemgetter(0)):
        yield from _file((item for _, item in items), source.name, context)


def _file(items: Iterable[Value | Fault], name: str, context: Context) -> Iterator[Row | Fault]:
    """The conversations of a file; messages in none are one of their own, unless the file is damaged."""
    loose: list[Value] = []
    number = 0
    damaged: str | None = None  # where
    for item in items:
        if isinstance(item, Value) and _is_message(item.value):
            loose.append(item)
            continue
        number += isinstance(item, Value)
        found = [item] if isinstance(item, Fault) else _conversation(item, f"{name}#{number}", context)
        for row in found:
            damaged = row.where if isinstance(row, Fault) else damaged
            yield row
    if loose and damaged:
        yield Fault(loose[0].where, f"{len(loose)} messages of a conversation that is damaged at {damaged}")
    elif loose:
        yield from _conversation(Value(loose[0].where, [item.value for item in loose]), name, context)


def _is_conversation(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(value.get(key), list) for key in WRAPPERS)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value and not _is_conversation(value)


def _conversation(item: Value, name: str, context: Context) -> Iterator[Row | Fault]:
    record = item.value if isinstance(item.value, dict) else {}
    messages = next((record[key] for key in WRAPPERS if isinstance(record.get(key), list)), item.value)
    try:
        if not isinstance(messages, list):
            raise Malformed(f"no list of messages under {' or '.join(WRAPPERS)}")
        entries = _entries(messages, context)
    except Malformed as error:
        yield Fault(item.where, str(error))
        return
    if not any(isinstance(entry, Call) for entry in entries):
        context.counts["conversations without a call"] += 1
        return
    reward, task = record.get("reward"), record.get("task_id")
    ends: dict[str, Any] = {"truncated": True}
    if isinstance(reward, int | float):  # whoever gave a reward had seen the end
        ends = {"terminated": True, "reward": float(reward)}
    if isinstance(task, str | int):
        ends["layout"] = f"task {task}"
    yield from transitions(entries, item.where, name, context, **ends)


def _entries(messages: list[Any], context: Context) -> list[Entry]:
    """The conversation as texts and calls.

    Raises:
        Malformed: A message is none; says which.
    """
    entries: list[Entry] = []
    calls: list[_Open] = []  # of the last assistant message
    outputs: list[_Output] = []  # that came after it
    for number, message in enumerate(messages, start=1):
        role = message.get("role") if isinstance(message, dict) else None
        content = content_text(message.get("content")) if isinstance(message, dict) else None
        if not isinstance(role, str) or content is None:
            raise Malformed(f"message {number} has no role, or a content that is no text")
        if role in ("tool", "function"):
            text = context.text(content) or "(nothing)"
            outputs.append(_Output(_key(message.get("tool_call_id")), text, number))
            continue
        made = list(_calls(message, number))
        if role == "assistant" or made:
            _answer(entries, calls, outputs)
            calls, outputs = [], []
        if content:
            entries.append(context.text(f"{role}: {content}"))
        for key, call in made:
            calls.append(_Open(key, len(entries)))
            entries.append(call._replace(text=context.text(call.text)))
    _answer(entries, calls, outputs)
    return entries


def _key(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) and value != "" else None


def _calls(message: dict[str, Any], number: int) -> Iterator[tuple[str | None, Call]]:
    given = message.get("tool_calls") or []
    old = message.get("function_call")
    if not isinstance(given, list):
        raise Malformed(f"message {number}: tool_calls is no list")
    for call in [*given, *([{"function": old}] if old else [])]:
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if (
            not isinstance(call, dict)
            or not isinstance(function, dict)
            or not isinstance(name, str)
            or not name.strip()
        ):
            raise Malformed(f"message {number}: a call without a function name")
        yield _key(call.get("id")), Call(name.strip(), call_text(name.strip(), function.get("arguments")), None)


def _answer(entries: list[Entry], calls: list[_Open], outputs: list[_Output]) -> None:
    """Put the outputs to the calls that they are of.

    Raises:
        Malformed: It cannot be told which call an output is of.
    """
    keys, answered = [call.key for call in calls], [output.key for output in outputs]
    if None not in keys + answered and len(set(keys)) == len(keys):
        places = {call.key: call.place for call in calls}
        pairs = [(places.pop(output.key, None), output) for output in outputs]
    elif not outputs or keys == answered or (len(keys) == len(answered) and {None} in ({*keys}, {*answered})):
        pairs = [(call.place, output) for call, output in zip(calls, outputs, strict=False)]
    else:
        what = f"{len(outputs)} outputs for {len(calls)} calls"
        raise Malformed(f"message {outputs[0].number}: {what}, and no ids that say which is of which")
    for place, output in pairs:
        call = "" if place is None else entries[place]
        if place is None or not isinstance(call, Call):
            raise Malformed(f"message {output.number}: the output of a call that was not made, or not just before")
        entries[place] = call._replace(output=output.text)
