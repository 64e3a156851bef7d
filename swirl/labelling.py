"""Actions for state-only transitions: inferred by the inverse model, verified by the forward model.

`infer` samples z ~ Q(z | x, y); `propose` gathers candidates; `verify` scores them by both models. What the scores say
together is `posterior`'s.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from swirl import models, progress, prompts
from swirl.metrics import normalise_action
from swirl.rewards.likelihood import score
from swirl.scorer import Scorer
from swirl.types import Role, State

Rows = Sequence[dict[str, Any]]
ListActions = Callable[[State], Sequence[str] | None]
"""The legal actions in a state, where the world lists them."""

CHUNK = 512
"""Pairs per scoring call, so that the progress bar moves; equal prompts share a pass within a chunk."""


@dataclass(frozen=True)
class Candidate:
    """One possible action of a pair.

    Attributes:
        action: The action in words.
        inverse: log Q(action | state, next_state), nats.
        forward: log P(next_state | state, action), nats; `None` where no forward model was asked.
    """

    action: str
    inverse: float
    forward: float | None = None


def ask(
    role: Role,
    scorer: Scorer,
    rows: Rows,
    *,
    max_new_tokens: int,
    style: str,
    template: dict[str, Any],
    title: str,
    **sampling: Any,
) -> list[list[models.Reply]]:
    """A model's replies to the prompts of rows, as `models.generate` gives them; `sampling` goes there."""
    asked = [
        prompts.encode_prompt(scorer.tokenizer, prompts.transition_prompt(role, row, style), **template) for row in rows
    ]
    with progress.bar(title, len(rows)) as bar:
        return models.generate(
            scorer.model,
            scorer.tokenizer,
            asked,
            max_new_tokens=max_new_tokens,
            suppress=scorer.suppressed(role, style),
            advance=bar.advance,
            **sampling,
        )


def action_in(reply: models.Reply) -> str:
    """The action in a reply; "" where it is empty or was cut off."""
    return prompts.parse_reply("inverse", reply.text) if reply.finished else ""


def infer(
    inverse: Scorer,
    rows: Rows,
    *,
    n: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int,
    style: str,
    template: dict[str, Any],
    seed: int = 0,
    batch: int = 128,
    title: str = "infer actions",
) -> list[list[str]]:
    """Actions that the inverse model gives each pair.

    Returns:
        `n` actions per row as they were sampled; a reply that was cut off or is empty is "".
    """
    replies = ask(
        "inverse",
        inverse,
        rows,
        n=n,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        style=style,
        template=template,
        seed=seed,
        batch=batch,
        title=title,
    )
    return [[action_in(reply) for reply in group] for group in replies]


def propose(rows: Rows, list_actions: ListActions | None, sample: Callable[[Rows], list[list[str]]]) -> list[list[str]]:
    """Candidate actions per row, each once: those that the world lists, or samples from the inverse model."""
    listed = [list_actions(row["state"]) if list_actions else None for row in rows]
    unlisted = [i for i, actions in enumerate(listed) if actions is None]
    sampled = dict(zip(unlisted, sample([rows[i] for i in unlisted]), strict=True)) if unlisted else {}
    out = []
    for i, actions in enumerate(listed):
        once = {normalise_action(a): a for a in (sampled[i] if actions is None else actions) if a}
        out.append(list(once.values()))
    return out


def verify(
    inverse: Scorer,
    forward: Scorer | None,
    rows: Rows,
    candidates: Sequence[Sequence[str]],
    *,
    style: str,
    template: dict[str, Any],
    least: float = 0.01,
    title: str = "verify labels",
) -> list[list[Candidate]]:
    """Score every candidate by the inverse model, and by the forward model those that it does not rule out.

    Args:
        inverse: Q(action | state, next_state).
        forward: P(next_state | state, action), or `None` to score by the inverse model alone.
        rows: Pairs (state, next_state).
        candidates: Actions per row.
        style: Prompt style.
        template: Keyword arguments of the chat template.
        least: Probability under the inverse model, relative to the most likely candidate's, below which an action is
            not worth the forward model's time; 0: all are.
        title: Shown in the progress bar.

    Returns:
        Candidates per row, best first: by the forward model, or by the inverse model where there is none.
    """
    out: list[list[Candidate]] = []
    with progress.bar(title, len(rows)) as bar:
        for start in range(0, len(rows), CHUNK):
            part = list(zip(rows[start : start + CHUNK], candidates[start : start + CHUNK], strict=True))
            asked = [(row, action) for row, actions in part for action in actions]
            inverse_scores, _ = score(
                inverse, "inverse", [_ask(row, row["next_state"], action) for row, action in asked], style, template
            )
            flat = iter(inverse_scores)
            scored = [[Candidate(action, next(flat)) for action in actions] for _, actions in part]
            if forward is not None:
                scored = _by_forward(forward, [row for row, _ in part], scored, style, template, least)
            out += [sorted(group, key=_rank, reverse=True) for group in scored]
            bar.advance(len(part))
    return out


def _ask(row: dict[str, Any], given: Any, target: Any) -> dict[str, Any]:
    return {"state": row["state"], "given": given, "target": target, "history": row.get("history")}


def _by_forward(
    forward: Scorer,
    rows: Rows,
    groups: list[list[Candidate]],
    style: str,
    template: dict[str, Any],
    least: float,
) -> list[list[Candidate]]:
    kept = []
    for group in groups:
        best = max((c.inverse for c in group), default=0.0)
        kept.append([c for c in group if least == 0 or c.inverse - best >= math.log(least)])
    asked = [_ask(row, c.action, row["next_state"]) for row, group in zip(rows, kept, strict=True) for c in group]
    flat = iter(score(forward, "forward", asked, style, template)[0])
    return [[Candidate(c.action, c.inverse, next(flat)) for c in group] for group in kept]


def _rank(candidate: Candidate) -> float:
    return candidate.inverse if candidate.forward is None else candidate.forward
