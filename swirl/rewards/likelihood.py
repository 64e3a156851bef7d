"""The reciprocal reward: each model is rewarded by the other's log-likelihood.

    Phase I,  forward trains:  r_k = log Q(z | x, y_k)   y_k ~ P(. | x, z)     `action_likelihood`
    Phase II, inverse trains:  r_k = log P(y | x, z_k)   z_k ~ Q(. | x, y)     `next_state_likelihood`

Source: SWIRL, arXiv 2602.06130. The released code takes the mean over tokens, clipped below at -10; the theorem is
about the sum. The scorer is a copy of its own, frozen: neither the policy nor the reference policy.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from swirl import prompts as chat
from swirl.errors import InputError
from swirl.scorer import Scorer
from swirl.types import Role

Reward = Callable[..., list[float | None]]


@dataclass(frozen=True)
class Likelihood:
    """How a log-likelihood becomes a reward.

    Attributes:
        scorer: The frozen opposite model.
        style: Prompt style.
        template: Keyword arguments of the chat template.
        reduce: "mean" over tokens (nats per token) or "sum" (nats).
        floor: Least reward per token, nats; the reward of completions that were cut off or cannot be read.
        min_spread: A group whose rewards differ by less gets its mean, so no policy gradient; nats.
    """

    scorer: Scorer
    style: str = "terse"
    template: dict[str, Any] | None = None
    reduce: Literal["mean", "sum"] = "mean"
    floor: float = -10.0
    min_spread: float = 0.0


def action_likelihood(spec: Likelihood) -> Reward:
    """Phase I: log Q(z | x, y_k), how well the action can be told from the predicted next state."""

    def log_q_action(
        completions: list[Any], completion_ids: list[list[int]], state: list[Any], action: list[Any], **rest: Any
    ) -> list[float | None]:
        predicted = [
            chat.parse_reply("forward", reply_text(completion), spec.style, before)
            for completion, before in zip(completions, state, strict=True)
        ]
        return _reward(spec, "inverse", completion_ids, state, predicted, action, **rest)

    return log_q_action


def next_state_likelihood(spec: Likelihood) -> Reward:
    """Phase II: log P(y | x, z_k), how well the inferred action explains the recorded next state."""

    def log_p_next_state(
        completions: list[Any], completion_ids: list[list[int]], state: list[Any], next_state: list[Any], **rest: Any
    ) -> list[float | None]:
        inferred = [chat.parse_reply("inverse", reply_text(completion)) for completion in completions]
        return _reward(spec, "forward", completion_ids, state, inferred, next_state, **rest)

    return log_p_next_state


def _reward(
    spec: Likelihood,
    role: Role,
    completion_ids: list[list[int]],
    states: list[Any],
    given: list[str],
    targets: list[Any],
    prompts: list[Any],
    history: list[Any] | None = None,
    draw: list[int] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    **_: Any,
) -> list[float | None]:
    """Score `targets` under the scorer's role, given what the policy wrote."""
    ends = spec.scorer.end_ids
    readable = [bool(text) and bool(ids) and ids[-1] in ends for text, ids in zip(given, completion_ids, strict=True)]
    known = [target is not None and target != "" for target in targets]
    rows = [i for i in range(len(given)) if readable[i] and known[i]]
    past = history or [()] * len(given)
    sums, counts = score(
        spec.scorer,
        role,
        [{"state": states[i], "given": given[i], "target": targets[i], "history": past[i]} for i in rows],
        spec.style,
        spec.template,
    )
    rewards: list[float | None] = [
        _floor(spec, role, states[i], targets[i]) if known[i] else None for i in range(len(given))
    ]
    for i, total, count in zip(rows, sums, counts, strict=True):
        value = total / count
        value = max(value, spec.floor) if math.isfinite(value) else spec.floor
        rewards[i] = value if spec.reduce == "mean" else value * count
    rewards, levelled = level(rewards, draw or prompts, spec.min_spread)
    if log_metric:
        log_metric("unreadable", 1 - sum(readable) / len(readable))
        log_metric("levelled", levelled)
    return rewards


def _floor(spec: Likelihood, role: Role, state: Any, target: Any) -> float:
    """The least reward for a target, in the units of the reward."""
    if spec.reduce == "mean":
        return spec.floor
    return spec.floor * len(chat.encode_completion(spec.scorer.tokenizer, _written(role, state, target, spec.style)))


def _written(role: Role, state: Any, target: Any, style: str) -> str:
    """A target as the role writes it."""
    return chat.written(style, state, target) if role == "forward" else target


def score(
    scorer: Scorer,
    role: Role,
    rows: Sequence[dict[str, Any]],
    style: str,
    template: dict[str, Any] | None = None,
    suppress: Sequence[int] = (),
) -> tuple[list[float], list[int]]:
    """Log-likelihood of each row's `target` under a role's scorer, given `state`, `given` and `history`.

    `suppress` has tokens that cannot be written; see `Scorer.log_likelihood`.

    Returns:
        Sums in nats and token counts, the end token included.
    """
    messages = [chat.prompt(role, row["state"], row["given"], row.get("history") or (), style) for row in rows]
    asked = _once(messages, lambda turns: chat.encode_prompt(scorer.tokenizer, turns, **(template or {})), str)
    texts = [_written(role, row["state"], row["target"], style) for row in rows]
    wanted = _once(texts, lambda text: chat.encode_completion(scorer.tokenizer, text))
    return scorer.log_likelihood(asked, wanted, suppress)


def _once(items: Sequence[Any], encode: Callable[[Any], list[int]], key: Callable[[Any], str] = str) -> list[list[int]]:
    """Each item encoded; equal ones once. Candidates of one pair differ in the prompt or the completion, never both."""
    known: dict[str, list[int]] = {}
    return [known[k] if (k := key(item)) in known else known.setdefault(k, encode(item)) for item in items]


def level(
    rewards: Sequence[float | None], groups: Sequence[Any], min_spread: float
) -> tuple[list[float | None], float]:
    """Give groups of nearly equal rewards their mean.

    Division by the group's spread blows up differences that are rounding, or that no longer matter once the policy is
    sure. A group is a run of equal entries in `groups`.

    Returns:
        The rewards, and the share of groups that were levelled.
    """
    out, levelled, count, start = list(rewards), 0, 0, 0
    while start < len(out):
        end = start + 1
        while end < len(out) and groups[end] == groups[start]:
            end += 1
        values = [value for value in out[start:end] if value is not None]
        if values and max(values) - min(values) < min_spread:
            mean = math.fsum(values) / len(values)
            out[start:end] = [None if value is None else mean for value in out[start:end]]
            levelled += 1
        count, start = count + 1, end
    return out, levelled / max(count, 1)


def check_groups(min_spread: float, prompts: int, group: int, processes: int) -> None:
    """Refuse to level groups that lie on two processes: a reward sees the completions of its own process only.

    Args:
        min_spread: As in `Likelihood`; 0 levels nothing.
        prompts: Groups per optimiser step over all processes.
        group: Completions per group.
        processes: How many share the step.

    Raises:
        InputError: A process's completions are not whole groups.
    """
    rows = prompts * group / processes
    if min_spread > 0 and rows % group:
        raise InputError(
            f"swirl.min_spread levels whole groups, but {prompts} groups of {group} over {processes} processes are "
            f"{rows:g} completions each; make swirl.prompts a multiple of {processes}, or set swirl.min_spread = 0"
        )


def reply_text(completion: Any) -> str:
    """The text of a completion, conversational (TRL's default here) or plain."""
    return completion if isinstance(completion, str) else completion[-1]["content"]
