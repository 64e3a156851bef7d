"""A language model as the judge: 0 to 10 for each prediction, by any endpoint that speaks OpenAI's protocol.

Every answer goes to a cache before it counts, so that a rerun, or one after a kill, asks nothing twice. A call that
fails and a reply that cannot be read are missing data: counted, never a zero. Rows are asked in the order of their
keys, which are hashes, so that those which a cap leaves are a random sample, the same each time.

`swirl eval recording.parquet --forward runs/demo --judge http://localhost:8000/v1 --judge-model NAME`
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from swirl import intervals, progress
from swirl.errors import InputError, MissingPartError
from swirl.eval.answers import Answers
from swirl.eval.rows import clusters, result
from swirl.eval.rubrics import SCHEMA, Draw, Question, key_of, question, read_score, turns
from swirl.types import Role

logger = logging.getLogger("swirl")

INSTALL = "pip install '.[judge]'"
PARALLEL = 4
"""Calls under way at a time."""
RETRIES = 4
"""How often the client repeats a call that the endpoint refuses for the moment, or that was lost."""
GIVE_UP = 20
"""Calls one after the other without a score, after which no more are made."""
LONGEST = 2048
"""Tokens of a reply, thinking included."""
FORM = "response_format"
IMAGE_TOKENS = 1000
"""What an image is taken to cost where the endpoint does not say; most models take fewer."""


class Judge:
    """An endpoint, what it has answered, and what may still be asked of it.

    The key of the endpoint is taken from the environment variable `OPENAI_API_KEY` and from nowhere else; where there
    is none, "none" is sent, which local servers do not look at. It is cut out of everything that is written.

    Args:
        url: The endpoint's base, as `http://localhost:8000/v1`.
        model: The judging model's name there.
        cache: JSONL file of answers; made if need be.
        requests: Most calls; `None`: as many as there are rows.
        tokens: Tokens, of prompts and replies together, after which no more calls are made; `None`: no limit. Calls
            that are under way by then still end, so it is passed by a few of them.
        timeout: Seconds that a call may take.
        parts: How many times `results` will be called; each may use an equal part of what the caps leave.

    Raises:
        InputError: The address is none, a cap is negative, or the cache holds something else.
        MissingPartError: The client is not installed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        cache: str | Path = ".swirl/judge.jsonl",
        requests: int | None = None,
        tokens: int | None = None,
        timeout: float = 120.0,
        parts: int = 1,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"--judge {url}, expected the base of an endpoint, such as http://localhost:8000/v1")
        for option, cap in (("requests", requests), ("tokens", tokens)):
            if cap is not None and cap < 0:
                raise InputError(f"--judge-{option} {cap}, expected 0 or more")
        try:
            import openai  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise MissingPartError(f"a judge needs OpenAI's client; install it: {INSTALL}") from None
        self.url, self.model = url, model
        self._openai: Any = openai
        self._secret = os.environ.get("OPENAI_API_KEY", "")
        self._timeout = timeout
        # What an endpoint refuses of these by name is left out from then on.
        form = {"name": "verdict", "schema": SCHEMA, "strict": True}
        self._options: dict[str, Any] = {
            "temperature": 0.0,
            "max_completion_tokens": LONGEST,
            FORM: {"type": "json_schema", "json_schema": form},
        }
        self._answers = Answers(Path(cache))
        self._lock = threading.Lock()
        self._all, self._parts = (requests, tokens), parts
        self._caps = requests, tokens
        self._requests = self._tokens = self._in_vain = 0
        self._fault = ""

    def results(
        self, role: Role, rows: Sequence[dict[str, Any]], predictions: Sequence[str], draw: Draw | None = None
    ) -> list[dict[str, Any]]:
        """Judge predictions.

        Args:
            role: Whose they are.
            rows: Transitions with actions.
            predictions: A next state or an action each; one that could not be read ("") scores 0 unasked.
            draw: What the texts of states, recorded and predicted, show where image tokens stand in them; a predicted
                one that cannot be drawn scores 0 unasked as well.

        Returns:
            Rows {"role", "metric", "value", "low", "high", "n"}: `judge_score`, the mean over the rows that have one,
            with its interval, and `judge_missing`, the number of those that have none.

        Raises:
            InputError: The endpoint refuses the key or does not have the model; or a recorded image cannot be shown.
        """
        scores = self.scores(role, rows, predictions, draw)
        known = [i for i, score in enumerate(scores) if score is not None]
        out: list[dict[str, Any]] = []
        if known:
            values = np.array([scores[i] for i in known], dtype=np.float64)
            low, high = intervals.bootstrap_interval(values, clusters(rows)[known], bounds=(0.0, 10.0))
            out.append(result(role, "judge_score", float(values.mean()), low, high, len(known)))
        return [*out, result(role, "judge_missing", float(len(rows) - len(known)), None, None, len(rows))]

    def scores(
        self, role: Role, rows: Sequence[dict[str, Any]], predictions: Sequence[str], draw: Draw | None = None
    ) -> list[int | None]:
        """A score of 0 to 10 for each prediction, in their order; `None` where it is missing. See `results`."""
        keys, readable = [], []
        for row, text in zip(rows, predictions, strict=True):
            asked = question(role, row, text, draw)
            keys.append(key_of(self.model, role, asked))
            readable.append(asked.readable)
        found = {key: i for i, (key, good) in enumerate(zip(keys, readable, strict=True)) if good}
        waiting = sorted(found.keys() - self._answers.scores.keys())
        before, self._fault = (self._requests, self._tokens), ""
        self._caps = tuple(
            None if cap is None else spent + (cap - spent) // self._parts
            for cap, spent in zip(self._all, before, strict=True)
        )
        self._parts = max(1, self._parts - 1)
        if waiting:
            # Questions are made anew when their turn comes: with images they would not all fit into the memory.
            places = [(key, found[key]) for key in waiting]
            self._ask_all(role, [(key, partial(question, role, rows[i], predictions[i], draw)) for key, i in places])
        known = self._answers.scores.keys() & found.keys()
        scored = sum(self._answers.scores[key] is not None for key in known)
        # Of the unreadable ones as large a share counts as of the others: all of them would weigh too much.
        blank = sorted({key for key, good in zip(keys, readable, strict=True) if not good})
        zeros = set(blank[: round(len(blank) * scored / len(found))] if found else blank)
        scores = [
            self._answers.scores.get(key) if good else 0 if key in zeros else None
            for key, good in zip(keys, readable, strict=True)
        ]
        unasked = sum(key not in self._answers.scores for key in waiting)
        logger.info(
            "judge %s, %s: %d rows, %d without a score; asked %d times now (%d tokens), %d answers were in the cache",
            *(self.model, role, len(rows), scores.count(None)),
            *(self._requests - before[0], self._tokens - before[1], len(found) - len(waiting)),
        )
        if unasked or self._fault:
            self._explain(role, unasked)
        return scores

    def _ask_all(self, role: Role, asked: list[tuple[str, Callable[[], Question]]]) -> None:
        if self._caps[0] is not None:  # which are asked must not depend on which thread is first
            asked = asked[: max(0, self._caps[0] - self._requests)]
        client = self._openai.OpenAI(
            api_key=self._secret or "none", base_url=self.url, max_retries=RETRIES, timeout=self._timeout
        )
        with client, progress.bar(f"judge {role}", len(asked)) as bar, ThreadPoolExecutor(PARALLEL) as pool:
            calls = [pool.submit(self._ask, client, role, key, make) for key, make in asked]
            try:
                for call in as_completed(calls):
                    call.result()
                    bar.advance()
            except BaseException:  # what is under way is waited for: it has been paid for
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, client: Any, role: Role, key: str, make: Callable[[], Question]) -> None:
        """One call, whose answer goes to the cache; nothing where a cap is reached or the call fails."""
        messages = turns(role, make())
        try:
            reply = self._complete(client, messages)
        except (
            self._openai.AuthenticationError,
            self._openai.PermissionDeniedError,
            self._openai.NotFoundError,
        ) as error:
            self._in_vain = GIVE_UP  # for the calls that wait
            raise InputError(
                f"the judge at {self.url} refuses the key or the model {self.model!r}: {self._said(error)}"
            ) from None
        except (self._openai.APIError, ValueError) as error:
            return self._in_vain_again(self._said(error))
        if reply is None:
            return None
        try:
            text = reply.choices[0].message.content
        except (AttributeError, IndexError, TypeError):
            return self._in_vain_again("a reply that is not of OpenAI's protocol")
        tokens = _tokens_of(reply, messages, text)
        score = read_score(text)
        with self._lock:
            self._tokens += tokens
            self._in_vain = 0 if score is not None else self._in_vain + 1
            if score is None:
                self._fault = f"a reply that is not as asked for: {self._clean(str(text))[:100]!r}"
            self._answers.add(
                {"key": key, "model": self.model, "score": score, "tokens": tokens, "reply": self._clean(str(text))}
            )
        return None

    def _complete(self, client: Any, messages: list[dict[str, Any]]) -> Any:
        """The endpoint's reply; `None` where a cap forbids to ask.

        Some endpoints refuse the form of the reply without naming it. Whether it was that shows when they are asked
        without it; only then the others are as well.
        """
        formless = False
        while True:
            with self._lock:
                requests, tokens = self._caps
                spent = (requests is not None and self._requests >= requests) or (
                    tokens is not None and self._tokens >= tokens
                )
                if spent or self._in_vain >= GIVE_UP:
                    return None
                self._requests += 1
                options = {name: value for name, value in self._options.items() if name != FORM or not formless}
            try:
                reply = client.chat.completions.create(model=self.model, messages=messages, **options)
            except (self._openai.BadRequestError, self._openai.UnprocessableEntityError) as error:
                named = str(error.param or "").split(".")[0]
                if named in options:
                    with self._lock:
                        self._options.pop(named, None)
                elif FORM in options:
                    formless = True
                else:
                    raise
            else:
                if formless:
                    with self._lock:
                        self._options.pop(FORM, None)
                return reply

    def _in_vain_again(self, fault: str) -> None:
        with self._lock:
            self._in_vain, self._fault = self._in_vain + 1, fault

    def _explain(self, role: Role, unasked: int) -> None:
        """Say why scores are missing."""
        requests, tokens = self._caps
        if self._fault:
            logger.warning("judge %s, %s: calls failed; the last: %s", self.model, role, self._fault)
        if self._in_vain >= GIVE_UP:
            logger.warning("judge: given up after %d calls in a row without a score", self._in_vain)
        elif requests is not None and self._requests >= requests:
            logger.warning("judge: --judge-requests %d reached", requests)
        elif tokens is not None and self._tokens >= tokens:
            logger.warning("judge: --judge-tokens %d reached (%d used)", tokens, self._tokens)
        if unasked:
            logger.warning(
                "judge, %s: %d questions have no answer yet; the same command asks those alone", role, unasked
            )

    def _said(self, error: Exception) -> str:
        return self._clean(f"{type(error).__name__}: {error}".splitlines()[0][:300])

    def _clean(self, text: str) -> str:
        """The text without the key, should an endpoint say it back."""
        return text.replace(self._secret, "[key]") if self._secret else text


def _tokens_of(reply: Any, messages: list[dict[str, Any]], text: Any) -> int:
    """Tokens of a call; where the endpoint does not say, a third of its bytes, and `IMAGE_TOKENS` for an image."""
    total = getattr(getattr(reply, "usage", None), "total_tokens", None)
    if isinstance(total, int):
        return total
    contents = [message["content"] for message in messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    texts = [content for content in contents if isinstance(content, str)]
    texts += [part["text"] for part in parts if part["type"] == "text"]
    shown = sum(part["type"] == "image_url" for part in parts)
    return sum(len(part.encode(errors="replace")) for part in (*texts, str(text))) // 3 + IMAGE_TOKENS * shown
