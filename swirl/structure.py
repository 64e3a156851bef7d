"""What a text holds as a tree, as the multiset of its leaves: pairs of a path and a value.

Three kinds of texts hold one, and they are looked for in this order:

- `page`: a page as the world `web` writes it. Every line is a leaf: an element's path is its kind and name, its value
  the rest of the line. Its number is left out, for one more element would renumber all that follow.
- `html`: the elements of a page, with or without their nesting (Mind2Web's are lines of start tags). Every element is a
  leaf, as is each of its attributes and each line of text. An element that is never closed holds nothing: what follows
  it is beside it.
- `json`: an object or an array that takes whole lines, behind a label or not (`output: {"fuel": 50.0}`); where there
  are several, as in a conversation, the last one, which is what the step brought. Its leaves are its scalars, empty
  objects and empty arrays; the path holds keys, and places in arrays.

Values are compared as JSON writes them: 1, 1.0, "1" and true are four. Lines, elements and keys have no order.
"""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any, Literal, NamedTuple

Leaf = tuple[tuple[str | int, ...], str]

_PAGE = re.compile(r'page "(?:[^"\\]|\\.)*" \S+')
_ELEMENT = re.compile(r'\[\d+\] (\S+) ("(?:[^"\\]|\\.)*")(.*)')
_TAG = re.compile(r"^<(?:!doctype|[a-z])[^<>]*>", re.M | re.I)
_BLOCK = re.compile(r"^(?:[\w-]+: )?(?=[\[{])", re.M)


class Structure(NamedTuple):
    """The tree of a text.

    Attributes:
        kind: How it is written; trees of different kinds are not compared.
        leaves: Its leaves.
    """

    kind: Literal["page", "html", "json"]
    leaves: Counter[Leaf]


def structure(text: str) -> Structure | None:
    """The tree that a text holds; `None` where it holds none, or a damaged one. Never raises."""
    if _PAGE.match(text):
        return Structure("page", Counter(map(_page_leaf, text.split("\n"))))
    value = None if _TAG.match(text) else _last_json(text)
    if value is not None:
        return Structure("json", _json_leaves(value))
    leaves = _html_leaves(text) if _TAG.search(text) else None
    return None if leaves is None else Structure("html", leaves)


def _page_leaf(line: str) -> Leaf:
    element = _ELEMENT.fullmatch(line)
    return ((element[1], element[2]), element[3].strip()) if element else ((), line)


def _last_json(text: str) -> dict | list | None:
    """The value of the last object or array that takes whole lines."""
    value, end = None, 0
    for start in (match.end() for match in _BLOCK.finditer(text)):
        if start < end:
            continue
        try:
            found, stop = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if text[stop : stop + 1] in ("", "\n"):
            value, end = found, stop
    return value


def _json_leaves(value: Any) -> Counter[Leaf]:
    leaves: Counter[Leaf] = Counter()
    left: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while left:
        path, value = left.pop()
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        if parts and value:
            left += [((*path, key), part) for key, part in parts]
        else:
            leaves[path, json.dumps(value)] += 1
    return leaves


def _html_leaves(text: str) -> Counter[Leaf] | None:
    parser = _Elements()
    try:
        parser.feed(text)
        parser.close()
    except AssertionError:  # Python's parser has no other word for a declaration it does not know
        return None
    return parser.leaves()


class _Elements(HTMLParser):
    """Notes each element, attribute and text with the elements that are open there; not all of them will be closed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._tags = [""]
        self._parents = [0]
        self._closed = {0}
        self._open = [0]
        self._found: list[tuple[int, tuple[str, ...], str]] = []  # within an element: the end of the path, the value

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element and its attributes."""
        parent = self._open[-1]
        self._found.append((parent, (tag,), ""))
        self._found += [(parent, (tag, f"@{key}"), value or "") for key, value in attrs]
        self._open.append(len(self._tags))
        self._tags.append(tag)
        self._parents.append(parent)

    def handle_endtag(self, tag: str) -> None:
        """The end of the innermost open element of that tag, if there is one."""
        for place in range(len(self._open) - 1, 0, -1):
            if self._tags[self._open[place]] == tag:
                self._closed.add(self._open[place])
                del self._open[place:]
                return

    def handle_data(self, data: str) -> None:
        """The lines of a text, their spaces as one."""
        lines = (" ".join(line.split()) for line in data.split("\n"))
        self._found += [(self._open[-1], ("text",), line) for line in lines if line]

    def leaves(self) -> Counter[Leaf]:
        """What was noted, each with the path of the elements that hold it."""
        paths: list[tuple[str, ...]] = []
        for node, (tag, parent) in enumerate(zip(self._tags, self._parents, strict=True)):
            above = paths[parent] if node else ()
            paths.append((*above, tag) if node and node in self._closed else above)
        return Counter(((*paths[node], *end), value) for node, end, value in self._found)
