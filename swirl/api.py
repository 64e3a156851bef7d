"""The two models in Python.

forward = swirl.load_forward("runs/demo")
forward.predict(state, "forward")                         # ["room 8 8 ..."]
inverse = swirl.load_inverse("runs/demo")
inverse.infer(state, next_state)                          # [Candidate(action="forward", ...)]

A path is a run folder, a phase of a run, or any `transformers` checkpoint whose tokenizer has a chat template. A run
knows how its models were prompted; any other checkpoint is asked with the role's instruction, zero-shot, and does not
think aloud where its chat template can switch that off.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swirl import imagetokens, labelling, models, prompts
from swirl.checkpoints import resolve
from swirl.errors import InputError
from swirl.labelling import Candidate
from swirl.rewards.likelihood import score
from swirl.scorer import Scorer
from swirl.types import Role, State, state_images, state_text

__all__ = ["Candidate", "ForwardModel", "InverseModel", "load_forward", "load_inverse", "resolve"]

logger = logging.getLogger("swirl")

UNKNOWN_CONTEXT = 4096
"""Longest prompt and completion together, tokens, for a checkpoint that does not say what it can read."""


class _Model:
    """A frozen checkpoint with the prompts of its role.

    Attributes:
        checkpoint: Where it was loaded from.
        recipe: How it is prompted (`model`), and how many earlier states its prompts show (`data.history`).
        scorer: The loaded model and tokenizer.
        max_length: Longest prompt and completion together, tokens.
    """

    role: Role

    def __init__(self, path: str | Path, device: str = "auto", template: Mapping[str, Any] | None = None) -> None:
        self.checkpoint, self.recipe = resolve(path, self.role, template)
        self.spec = self.recipe.model
        self.scorer = Scorer(
            self.checkpoint,
            models.device_of(device),
            self.spec.dtype,
            trust_remote_code=self.spec.trust_remote_code,
            images=imagetokens.carried(self.checkpoint),
        )
        context = getattr(self.scorer.model.config.get_text_config(), "max_position_embeddings", None)
        self.max_length: int = self.spec.max_length or context or UNKNOWN_CONTEXT

    def write(self, state: State) -> str:
        """A state as the model reads it: its text, images as tokens; what is written so already stays as it is.

        Raises:
            InputError: An image cannot be read, or the model reads none.
        """
        text, tokens = state_text(state), self.scorer.images
        if tokens is None:
            if state_images(text):
                raise InputError(f"{self.checkpoint} reads no images; give the state as text")
            return text
        if isinstance(state, str) and tokens.pattern.search(state):
            return state
        return imagetokens.written(tokens, [state])[0]

    def draw(self, text: str) -> State:
        """A state that the model wrote, its images as `data:` URIs; "" where a grid of tokens is broken."""
        if self.scorer.images is None or not text:
            return text
        return imagetokens.drawn(self.scorer.images, text) or ""

    def encode(self, row: dict[str, Any], completion: str | None = None, least: int = 0) -> tuple[list[int], int]:
        """Token ids of a prompt, and how many more tokens the model reads after it and its completion.

        Args:
            row: `state`, `action` (forward) or `next_state` (inverse), `history`, and `where` it stands, for the error.
            completion: What follows the prompt, where it is known.
            least: Tokens to leave for what is yet to be written.

        Raises:
            InputError: The model does not read so many tokens.
        """
        tokenizer, spec = self.scorer.tokenizer, self.spec
        messages = prompts.transition_prompt(self.role, row, spec.prompt)
        asked = prompts.encode_prompt(tokenizer, messages, **spec.chat_template_kwargs)
        told = 0 if completion is None else len(prompts.encode_completion(tokenizer, completion))
        room = self.max_length - len(asked) - told
        if room < least:
            where = f"{row['where']}: " if "where" in row else ""
            what = f"{len(asked)} tokens" + (f" and its completion {told}" if told else "")
            raise InputError(
                f"{where}the {self.role} prompt has {what}, but the model reads {self.max_length}; shorten the state"
            )
        return asked, room

    def reads(self, row: dict[str, Any]) -> bool:
        """Whether the model can read a row's prompt, and has room left to write something."""
        try:
            self.encode(row, least=1)
        except InputError:
            return False
        return True

    def _log_likelihood(self, state: State, action: str, next_state: State, history: Sequence[State]) -> float:
        """Nats of the role's completion."""
        before, after = self.write(state), self.write(next_state)
        row = {"state": before, "action": action, "next_state": after, "history": [*map(self.write, history)]}
        self.encode(row, prompts.target(self.role, row, self.spec.prompt))
        given, target = ("action", "next_state") if self.role == "forward" else ("next_state", "action")
        asked = {"state": before, "given": row[given], "target": row[target], "history": row["history"]}
        return score(self.scorer, self.role, [asked], self.spec.prompt, self.spec.chat_template_kwargs)[0][0]


class ForwardModel(_Model):
    """P(next_state | state, action)."""

    role: Role = "forward"

    def predict(
        self,
        state: State,
        action: str,
        n: int = 1,
        temperature: float | None = None,
        history: Sequence[State] = (),
        seed: int = 0,
        max_new_tokens: int | None = None,
    ) -> list[State]:
        """Next states.

        Args:
            state: The state before the step.
            action: What is done, in words.
            n: How many; 1 is greedy unless a temperature is given, more are sampled at temperature 1.
            temperature: Of the sampling; 0 is greedy, and then all `n` are equal.
            history: Earlier states, oldest first.
            seed: Of the sampling.
            max_new_tokens: Token limit of a reply (default: twice the prompt and at least 256, within the context).
                What is cut off there is given back as it is, with a warning.

        Returns:
            `n` states, of the kind that the model was trained on: texts, or parts with images as `data:` URIs
            (`swirl.images.open_image` opens them). "" where a reply cannot be read (a change that does not fit the
            state, a grid of image tokens that is none), with a warning.

        Raises:
            InputError: The prompt leaves no room for a reply in the model's context, or `n` or `temperature` is no
                number to sample with.
        """
        texts = self._predict(
            self.write(state), action, n, temperature, [*map(self.write, history)], seed, max_new_tokens
        )
        return self._drawn(texts)

    def _drawn(self, texts: Sequence[str]) -> list[State]:
        """Predicted states as the user gets them."""
        states = [self.draw(text) for text in texts]
        if "" in states:
            logger.warning("%d of %d predicted states cannot be read and are empty", states.count(""), len(states))
        return states

    def _predict(
        self,
        state: str,
        action: str,
        n: int = 1,
        temperature: float | None = None,
        history: Sequence[str] = (),
        seed: int = 0,
        max_new_tokens: int | None = None,
    ) -> list[str]:
        """`predict`, of states that are written and as the model writes them."""
        if temperature is None:
            temperature = 0.0 if n == 1 else 1.0
        if n < 1 or temperature < 0:
            raise InputError(f"n = {n}, temperature = {temperature}; expected at least 1, and at least 0")
        asked, room = self.encode({"state": state, "action": action, "history": history}, least=1)
        replies = models.generate(
            self.scorer.model,
            self.scorer.tokenizer,
            [asked],
            n=n if temperature else 1,
            temperature=temperature,
            max_new_tokens=min(room, max_new_tokens or max(256, 2 * len(asked))),
            seed=seed,
            suppress=self.scorer.suppressed("forward", self.spec.prompt),
        )[0]
        cut = sum(not reply.finished for reply in replies)
        if cut:
            logger.warning("%d of %d predicted states were cut off at the token limit", cut, len(replies))
        states = [prompts.parse_reply("forward", reply.text, self.spec.prompt, state) for reply in replies]
        return states if temperature else states * n

    def log_likelihood(self, state: State, action: str, next_state: State, history: Sequence[State] = ()) -> float:
        """Nats of log P(next_state | state, action), the end of the reply included.

        Raises:
            InputError: The two states and the action are longer than what the model reads.
        """
        return self._log_likelihood(state, action, next_state, history)

    def imagine(self, state: State, actions: Sequence[str]) -> list[State]:
        """Next states of a list of actions, each predicted from the one before: len(actions) of them.

        Raises:
            InputError: A step's prompt leaves no room for a reply, or its reply cannot be read.
        """
        states, drawn = [self.write(state)], list[State]()
        for step, action in enumerate(actions, start=1):
            past = states[:-1][-self.recipe.data.history :] if self.recipe.data.history else ()
            states += self._predict(states[-1], action, history=past)
            drawn += self._drawn(states[-1:])
            if not drawn[-1]:
                raise InputError(
                    f"step {step}, {action!r}: what the model wrote cannot be read as a next state; imagine fewer "
                    "steps, or train the model further"
                )
        return drawn


class InverseModel(_Model):
    """P(action | state, next_state)."""

    role: Role = "inverse"

    @property
    def action_limit(self) -> int:
        """Token limit of an action where none is known: a quarter of what the model reads, at most 256."""
        return max(16, min(256, self.max_length // 4))

    def infer(
        self,
        state: State,
        next_state: State,
        actions: Sequence[str] | None = None,
        n: int = 8,
        history: Sequence[State] = (),
        seed: int = 0,
    ) -> list[Candidate]:
        """Actions that may have led from one state to the other, the likeliest first.

        Args:
            state: The state before the step.
            next_state: The state after it.
            actions: The actions to choose among; by default the greedy one and `n` samples, each once.
            n: Samples.
            history: Earlier states, oldest first.
            seed: Of the sampling.

        Returns:
            Candidates with their log-likelihoods; empty where no reply could be read.

        Raises:
            InputError: `actions` is empty, or a prompt with its completion is longer than what the model reads.
        """
        row = {"state": self.write(state), "next_state": self.write(next_state), "history": [*map(self.write, history)]}
        return candidates(self, [row], actions, n, seed)[0]

    def log_likelihood(self, state: State, next_state: State, action: str, history: Sequence[State] = ()) -> float:
        """Nats of log P(action | state, next_state), the end of the reply included.

        Raises:
            InputError: The two states and the action are longer than what the model reads.
        """
        return self._log_likelihood(state, action, next_state, history)


def candidates(
    inverse: InverseModel,
    rows: Sequence[dict[str, Any]],
    actions: Sequence[str] | None = None,
    n: int = 8,
    seed: int = 0,
    forward: ForwardModel | None = None,
    least: float = 0.01,
) -> list[list[Candidate]]:
    """Scored actions per row, best first: by the forward model where there is one, else by the inverse model.

    Args:
        inverse: Proposes and scores.
        rows: Pairs with `state`, `next_state` and, where the model wants it, `history`; `where` names a row in errors.
        actions: The actions to choose among; by default the greedy one and `n` samples, each once.
        n: Samples per row.
        seed: Of the sampling.
        forward: Also scores, and then decides.
        least: Probability under the inverse model, relative to the likeliest candidate's, below which a candidate is
            left out before the forward model scores it; 0: none is.

    Returns:
        Candidates per row; none where no reply could be read.

    Raises:
        InputError: `actions` is empty, or a prompt with its completion is longer than what a model reads; nothing has
            been computed then.
    """
    if actions is not None and not actions:
        raise InputError("actions = [], expected at least one; leave it out (None) to have them sampled")
    rooms = [_room(inverse, forward, row, actions) for row in rows]
    spec = inverse.spec
    proposed = [list(actions)] * len(rows) if actions else _sample(inverse, rows, rooms, n, seed)
    return labelling.verify(
        inverse.scorer,
        forward.scorer if forward else None,
        rows,
        labelling.propose(rows, None, lambda _: proposed),
        style=spec.prompt,
        template=spec.chat_template_kwargs,
        least=least,
        title="score actions",
    )


def _room(
    inverse: InverseModel, forward: ForwardModel | None, row: dict[str, Any], actions: Sequence[str] | None
) -> int:
    """How many tokens both models read beyond a pair, for its action; beyond the longest of those that are given.

    Raises:
        InputError: There is no room for it.
    """
    tokenizer = inverse.scorer.tokenizer
    longest = max(actions, key=lambda text: len(prompts.encode_completion(tokenizer, text))) if actions else None
    least = 0 if actions else 1
    _, room = inverse.encode(row, longest, least)
    if forward:
        known = {**row, "action": longest or ""}
        _, beside = forward.encode(known, prompts.target("forward", known, forward.spec.prompt), least)
        room = min(room, beside)
    return room


def _sample(
    inverse: InverseModel, rows: Sequence[dict[str, Any]], rooms: Sequence[int], n: int, seed: int
) -> list[list[str]]:
    """The greedy action of each row and `n` samples, none longer than the room that the row leaves."""
    limits = [min(inverse.action_limit, room) for room in rooms]
    found: dict[int, list[str]] = {}
    for limit in sorted(set(limits)):
        chosen = [i for i, own in enumerate(limits) if own == limit]
        common: dict[str, Any] = {
            "max_new_tokens": limit,
            "style": inverse.spec.prompt,
            "template": inverse.spec.chat_template_kwargs,
        }
        part = [rows[i] for i in chosen]
        groups = labelling.infer(inverse.scorer, part, **common)
        if n:
            sampled = labelling.infer(
                inverse.scorer, part, n=n, temperature=1.0, seed=seed, title="sample actions", **common
            )
            groups = [a + b for a, b in zip(groups, sampled, strict=True)]
        found.update(zip(chosen, groups, strict=True))
    return [found[i] for i in range(len(rows))]


def load_forward(path: str | Path, device: str = "auto", template: Mapping[str, Any] | None = None) -> ForwardModel:
    """Load a forward model.

    Args:
        path: See `resolve`.
        device: `auto` (CUDA where there is one), `cpu`, `cuda`.
        template: See `resolve`.

    Raises:
        InputError: There is no whole checkpoint.
    """
    return ForwardModel(path, device, template)


def load_inverse(path: str | Path, device: str = "auto", template: Mapping[str, Any] | None = None) -> InverseModel:
    """Load an inverse model.

    Args:
        path: See `resolve`.
        device: `auto` (CUDA where there is one), `cpu`, `cuda`.
        template: See `resolve`.

    Raises:
        InputError: There is no whole checkpoint.
    """
    return InverseModel(path, device, template)
