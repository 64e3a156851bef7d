r"""Web pages in a real headless Chromium: MiniWoB++'s, and any local page or URL.

A state is what can be seen of the page, a line each, with the elements that can be acted on numbered:

    page "Login User Task" login-user.html
    "Enter the username \"cheree\" and the password \"JAze\" into the text fields and press login."
    [1] input "Username" = "cheree" focused
    [2] password "Password" = ""
    [3] button "Login"

Actions: `click [3]`, `type [2] "JAze"` (in place of what is there), `select [4] "May"`. What lies in frames inside the
page is left out, and so is what does not fit: a line keeps its first 200 characters and a page its first 150 lines.

Chances and the clock follow the seed. Layouts and fonts are the browser's own, so the world is not `repeatable`,
although it mostly repeats. What a page may do, and when it counts as hung, is said in `browser`.

    swirl collect web --option 'pages=["login-user", "my/form.html", "http://localhost:8000/"]'
"""

import hashlib
import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from swirl.errors import InputError, MissingPartError, SkippedError
from swirl.types import State, state_text
from swirl.worlds.base import Step, refuse_outside_episode, unknown
from swirl.worlds.browser import Browser, Page, executable

INSTALL, INSTALL_BROWSER = "pip install '.[web]'", "apt-get install chromium"
DEFAULT_PAGES = ("click-checkboxes", "choose-list", "enter-text", "enter-password", "login-user", "click-tab-2")
WIDTH, LINES = 200, 150
UNREACHABLE = re.compile(r"net::ERR_(CONNECTION_REFUSED|NAME_NOT_RESOLVED)")
ACTION = re.compile(r'(click) \[(\d+)\]|(type|select) \[(\d+)\] ("(?:[^"\\]|\\.)*")')
ELEMENT = re.compile(r"^\[(\d+)\] (\S+)(.*)$", re.M)
TYPED = {"input", "textarea", "password", "search", "email", "tel", "url", "textbox"}
VALUES = {
    "number": ("1", "2", "10"),
    "date": ("2023-11-15", "2024-02-29", "2024-12-31"),
    "time": ("09:30", "12:00", "18:45"),
    "datetime-local": ("2023-11-15T09:30", "2024-02-29T18:45"),
    "month": ("2023-11", "2024-02", "2024-12"),
    "week": ("2023-W46", "2024-W09"),
    "color": ("#ff0000", "#00ff00", "#0000ff"),
}
"""Kind of a field that takes no words -> what the behaviours write into it; a number of the page goes before."""


def missing() -> str | None:
    """The command that installs what the world needs and is not here; None if nothing is missing."""
    commands = [] if find_spec("playwright") and find_spec("miniwob") else [INSTALL]
    commands += [] if executable() else [INSTALL_BROWSER]
    return " && ".join(commands) or None


class Web:
    """Web pages as a world; see the module.

    Behaviours: "random" draws an element, and then what to do with it; "curious" takes the action least taken so far in
    this episode in the current state. What is typed are words that stand on the page; a date, a number, a colour or the
    like (`VALUES`); one of five places of a slider.

    Args:
        pages: MiniWoB++ tasks by name, local HTML files, URLs; seed s opens page s mod their number.
        timeout: Seconds after which a page counts as hung.

    Raises:
        InputError: There is no such page.
        MissingPartError: Playwright, MiniWoB++ or Chromium is not installed.
    """

    name = "web"
    behaviours = ("random", "curious")
    complete = repeatable = False

    def __init__(self, pages: Sequence[str] = DEFAULT_PAGES, timeout: float = 20.0):
        if command := missing():
            raise MissingPartError(f"the world 'web' needs Playwright, MiniWoB++ and Chromium: {command}")
        pages = (pages,) if isinstance(pages, str) else tuple(pages)
        if not pages or timeout <= 0:
            raise InputError(f"pages {list(pages)} and timeout {timeout}: expected a page or more, and some seconds")
        self.pages = tuple(map(_page, pages))
        self._browser = Browser(
            Path(__file__).with_suffix(".js").read_text("utf-8").replace("LINES", str(LINES)), timeout
        )
        self._running = self._began = False

    def reset(self, seed: int) -> tuple[State, dict[str, Any]]:
        """Opens the page of a seed; info holds "layout" and "page".

        Raises:
            InputError: Nobody answers at the first address.
            SkippedError: The page does not open.
        """
        self._running = False  # unless it opens
        page = self.pages[seed % len(self.pages)]
        try:
            self._text, _ = _describe(*self._browser.open(page, seed))
        except SkippedError as error:
            if not self._began and UNREACHABLE.search(str(error)):
                raise InputError(f"{page.address} cannot be reached; start its server, or mend the address") from None
            raise
        self._counts: dict[str, dict[str, int]] = {}
        self._running = self._began = True
        layout = hashlib.sha256(self._text.encode()).hexdigest()[:16]
        return self._text, {"layout": layout, "page": page.address}

    def step(self, action: str) -> Step:
        """Acts on an element; where it does not take the action (no such option, no text field) nothing happens."""
        refuse_outside_episode(self._running)
        verb, number, text = _parse(action)
        known = [element[1] for element in ELEMENT.finditer(self._text)]
        if number not in known:
            raise unknown("element", number, known)
        counts = self._counts.setdefault(self._text, {})
        counts[action] = counts.get(action, 0) + 1
        self._running = False  # unless it comes back
        self._text, reward = _describe(*self._browser.act(verb, int(number), text))
        self._running = reward is None
        return self._text, float(reward or 0), not self._running, False, {}

    def actions(self, state: State) -> None:
        """Actions cannot be listed: any text can be typed."""

    def act(self, behaviour: str, rng: np.random.Generator) -> str:
        """The action that a behaviour takes now; see the class."""
        if behaviour not in self.behaviours:
            raise unknown("behaviour", behaviour, self.behaviours)
        refuse_outside_episode(self._running)
        options = candidates(self._text)
        if not options:
            raise SkippedError("there is nothing on the page to act on")
        if behaviour == "random":
            among = options[rng.integers(len(options))]
        else:
            counts = self._counts.get(self._text, {})
            every = [action for element in options for action in element]
            least = min(counts.get(action, 0) for action in every)
            among = [action for action in every if counts.get(action, 0) == least]
        return among[rng.integers(len(among))]

    def close(self) -> None:
        """Ends the browser."""
        self._running = False
        self._browser.close()


def _parse(action: str) -> tuple[str, str, str]:
    """The verb, the element's number and the text of an action."""
    match = ACTION.fullmatch(action.strip())
    if match is None:
        raise InputError(f"unknown action {action!r}: expected 'click [1]', 'type [1] \"a\"' or 'select [1] \"a\"'")
    try:
        text = json.loads(match[5] or '""')
        text.encode()  # half a character (a lone surrogate) cannot be typed
    except ValueError:
        raise InputError(f"{action!r}: expected the text as JSON writes it") from None
    return match[1] or match[3], match[2] or match[4], text


def _describe(url: str, seen: dict[str, Any]) -> tuple[str, float | None]:
    """The state of what a page shows, and the reward if it has ended."""
    file = urlsplit(url).path.rpartition("/")[2] or "/"
    lines = [f"page {json.dumps(seen['title'], ensure_ascii=False)} {file}", *seen["lines"]]
    lines = [line if len(line) <= WIDTH else f"{line[:WIDTH]} … {len(line)} characters" for line in lines]
    return "\n".join(lines if len(lines) <= LINES else [*lines[:LINES], "… more lines"]), seen["reward"]


def candidates(state: State) -> list[list[str]]:
    """Actions that make sense in a state, for each element; words of the page are what can be typed."""
    text = state_text(state)
    words = sorted(set(re.findall(r"\w[\w@.\-]*\w|\w", " ".join(re.findall(r'(?m)^"(.*)"', text)))))
    options = []
    for number, kind, rest in (match.groups() for match in ELEMENT.finditer(text)):
        actions = [f"click [{number}]"]
        if kind in TYPED and words:
            actions = [f"type [{number}] {json.dumps(word, ensure_ascii=False)}" for word in words]
        elif kind in VALUES:
            numbers = [word for word in words if word.isdecimal()] if kind == "number" else []
            actions = [f'type [{number}] "{value}"' for value in numbers or VALUES[kind]]
        elif kind in ("select", "range") and " of " in rest:
            verb, given = "select" if kind == "select" else "type", rest.rpartition(" of ")[2]
            actions = [f"{verb} [{number}] {word}" for word in re.findall(r'"(?:[^"\\]|\\.)*"', given)]
        options.append(actions)
    return options


def _page(name: str) -> Page:
    """The page of a URL, of a file, or of a task's name."""
    if re.match(r"https?://", name):
        return Page(name)
    if (file := Path(name).resolve()).is_file():
        return Page(file.as_uri(), file.parent)
    spec = find_spec("miniwob")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent.resolve() / "html"
    tasks = {file.stem: file for file in sorted((folder / "miniwob").glob("*.html"))}
    if name not in tasks:
        raise unknown("page (neither a file nor a URL nor a task)", name, tasks)
    return Page(tasks[name].as_uri(), folder)
