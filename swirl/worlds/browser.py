"""A headless Chromium, driven by Playwright, with one page at a time: seeded, timed and shut in.

A page draws its chances and reads its clock from the seed: an action is half a second of the page's time.

A local page may read the files of its folder and nothing from the network: what it may not ask for is refused, and its
proxy does not exist, which holds for what cannot be refused (a worker's socket, a page opened in advance). A URL's page
may fetch what it needs over http(s), but only reads (GET, HEAD), and goes to its own site alone. Where a page leaves
its folder or site all the same (a redirection, about:blank), the episode is broken off. Nothing is downloaded, no
second window stays open, cookies end with the episode.

A page that hangs is given up, and its Chromium ended, after `timeout` seconds. Playwright's driver ends Chromium when
this process does, however that ends.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Coroutine
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from swirl.errors import SkippedError

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--font-render-hinting=none", "--webrtc-ip-handling-policy=disable_non_proxied_udp")
NOWHERE = {"server": "http://127.0.0.1:9", "bypass": "<-loopback>"}  # a proxy for all addresses, this machine's too
AT_ONCE = {"date", "time", "datetime-local", "month", "week", "color", "range"}  # inputs that take no single keys
LAUNCH = 120.0  # seconds for the browser to start, which on a busy machine takes long
STEP, START = 500, 1_700_000_000  # a step in the page's time in milliseconds, its first moment in seconds since 1970
T = TypeVar("T")


def executable() -> str | None:
    """Where Chromium is; None if it is not installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass(frozen=True)
class Page:
    """A page to open.

    Attributes:
        address: Its URL.
        folder: For a local file, the folder that it may read.
    """

    address: str
    folder: Path | None = None


class Browser:
    """A browser that starts with its first page.

    Args:
        script: Runs before the scripts of every page and frame, with SEED put in. It defines `__swirl`: `start()` does
            what a page waits for, `read()` gives what is on the page, and `elements` are what can be acted on.
        timeout: Seconds after which a page counts as hung.
    """

    def __init__(self, script: str, timeout: float):
        self._script, self._timeout = script, timeout
        self._api: Any = import_module("playwright.async_api")
        self._loop = asyncio.new_event_loop()
        # What fails is raised where it is awaited; the rest is what Playwright waits for when its driver ends.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._driver: Any = None
        self._chromium: Any = None
        self._context: Any = None

    def open(self, page: Page, seed: int) -> tuple[str, Any]:
        """Opens a page in place of the one before; returns its URL and what is on it.

        Raises:
            SkippedError: The page, or the browser, does not open.
        """
        if self._chromium is None:
            self._within(LAUNCH, self._launch(), "the browser does not start")
        return self._within(self._timeout, self._open(page, seed), f"{page.address} does not open")

    def act(self, verb: str, number: int, text: str) -> tuple[str, Any]:
        """Does something with an element; where it does not take that, nothing happens.

        Args:
            verb: "click", "type" (in place of what is there) or "select" (an option by its label).
            number: The element's, counted from 1.
            text: What is typed or selected.

        Returns:
            The page's URL and what is on it.

        Raises:
            SkippedError: The page hangs, or has left its site.
        """
        return self._within(self._timeout, self._act(verb, number, text), f"{verb} [{number}] {text}".strip())

    def close(self) -> None:
        """Ends the browser; a second time does nothing."""
        if not self._loop.is_closed():
            self._quit()
            self._loop.close()

    def _within(self, seconds: float, work: Coroutine[Any, Any, T], what: str) -> T:
        """The result of some work in the browser, which is ended, to be started again, where it may be beyond use."""
        task = self._loop.create_task(asyncio.wait_for(work, seconds))
        try:
            return self._loop.run_until_complete(task)
        except BaseException as error:
            task.cancel()
            # An address that does not answer, or a page that has left, says nothing against the browser.
            if not (
                isinstance(error, SkippedError) or (isinstance(error, self._api.Error) and "net::ERR_" in str(error))
            ):
                self._quit()
            if isinstance(error, TimeoutError):
                raise SkippedError(f"{what}: no answer in {seconds:g} seconds") from None
            if isinstance(error, self._api.Error):
                raise SkippedError(f"{what}: {str(error).splitlines()[0]}") from None
            raise

    def _quit(self) -> None:
        ends = [part.close() for part in [self._chromium] if part] + [part.stop() for part in [self._driver] if part]
        self._driver = self._chromium = self._context = None
        for end in ends:
            with contextlib.suppress(TimeoutError, self._api.Error):
                self._loop.run_until_complete(asyncio.wait_for(end, LAUNCH))

    async def _launch(self) -> None:
        self._driver = await self._api.async_playwright().start()
        self._chromium = await self._driver.chromium.launch(
            executable_path=executable(),
            args=ARGUMENTS,
            chromium_sandbox=os.geteuid() != 0,  # Chromium has none for root, who is who runs in a container
            timeout=LAUNCH * 1000,
        )

    async def _open(self, page: Page, seed: int) -> tuple[str, Any]:
        if self._context is not None:
            await self._context.close()
        self._context = await self._chromium.new_context(
            accept_downloads=False,
            service_workers="block",
            locale="en-US",
            timezone_id="UTC",
            reduced_motion="reduce",
            proxy=NOWHERE if page.folder else None,
        )
        await self._context.add_init_script(self._script.replace("SEED", str(seed)))
        await self._context.clock.install(time=START)
        await self._context.clock.pause_at(START + 1)
        self._home = page
        await self._context.route("**/*", self._guard)
        await self._context.route_web_socket("**/*", lambda socket: socket.close())
        self._page = await self._context.new_page()
        await self._page.goto(page.address)
        if page.folder is None:
            self._home = Page(self._page.url)  # where it led to
        await self._evaluate("__swirl.start()")
        return await self._read()

    async def _act(self, verb: str, number: int, text: str) -> tuple[str, Any]:
        quick = self._timeout * 200  # milliseconds, a fifth
        element = (await self._page.evaluate_handle(f"__swirl.elements[{number - 1}]")).as_element()
        with contextlib.suppress(self._api.Error):
            if element is None:  # the page has gone on to another one by itself
                pass
            elif verb == "click":
                await element.click(force=True, timeout=quick)
            elif verb == "type":
                at_once = await element.get_attribute("type") in AT_ONCE
                await element.fill(text if at_once else "", force=True, timeout=quick)
                if not at_once:
                    await element.type(text, timeout=quick)
            else:
                await element.select_option(label=text, force=True, timeout=quick)
        return await self._read()

    async def _read(self) -> tuple[str, Any]:
        """The page's URL and what is on it, once its clock has gone on for a step."""
        await self._page.wait_for_load_state()
        await self._context.clock.run_for(STEP)
        for window in self._context.pages:
            if window is not self._page:
                await window.close()
        seen, url = await self._evaluate("__swirl.read()"), self._page.url
        at_home = _site(url) == _site(self._home.address) if self._home.folder is None else _in(self._home.folder, url)
        if not at_home:
            raise SkippedError(f"{self._home.address} led away to {url}")
        return url, seen

    async def _evaluate(self, expression: str) -> Any:
        for _ in range(3):
            await self._page.wait_for_load_state()
            with contextlib.suppress(self._api.Error):  # the page is just being left for another one
                return await self._page.evaluate(expression)
        return await self._page.evaluate(expression)

    async def _guard(self, route: Any) -> None:
        """Refuses what the page may not ask for; a refused navigation leaves the page as it is."""
        request, target = route.request, urlsplit(route.request.url)
        if self._home.folder:
            allowed = _in(self._home.folder, request.url)
        else:
            leaves = request.is_navigation_request() and _site(request.url) != _site(self._home.address)
            allowed = target.scheme in ("http", "https") and request.method in ("GET", "HEAD") and not leaves
        await (route.continue_() if allowed else route.abort("aborted"))


def _in(folder: Path, url: str) -> bool:
    """Whether a URL is a file of a folder."""
    target = urlsplit(url)
    return target.scheme == "file" and Path(url2pathname(target.path)).resolve().is_relative_to(folder.resolve())


def _site(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
