"""Rewards of the forward model that look at its decoded prediction; in [0, 1], and 0 where it cannot be read.

changed_facts     F1 of what the prediction changes against what was recorded      RLVR-World, arXiv 2505.13934
decoded_action    1 where the inverse model decodes the commanded action from it   RLIR, arXiv 2509.23958
"""

from collections.abc import Callable
from typing import Any

from swirl import labelling, metrics
from swirl import prompts as chat
from swirl.rewards.likelihood import Likelihood, Reward, level, reply_text
from swirl.types import state_text

LONGEST_ACTION = 64
"""Token limit of a decoded action."""

Rows = list[dict[str, Any]]


def changed_facts(spec: Likelihood) -> Reward:
    """The metric `changed_facts_f1` of the predicted next state."""

    def f1(rows: Rows, predicted: list[str]) -> list[float]:
        return [
            metrics.changed_facts_f1(state_text(row["state"]), state_text(row["next_state"]), prediction)
            for row, prediction in zip(rows, predicted, strict=True)
        ]

    return of_prediction(spec, f1)


def decoded_action(spec: Likelihood) -> Reward:
    """Whether the inverse model, greedily, decodes the action that the forward model was given."""

    def decoded(rows: Rows, predicted: list[str]) -> list[float]:
        pairs = [{**row, "next_state": prediction} for row, prediction in zip(rows, predicted, strict=True)]
        template = spec.template or {}
        actions = labelling.infer(
            spec.scorer, pairs, max_new_tokens=LONGEST_ACTION, style=spec.style, template=template
        )
        return [float(metrics.action_match(a, row["action"])) for (a,), row in zip(actions, rows, strict=True)]

    return of_prediction(spec, decoded)


def of_prediction(spec: Likelihood, value: Callable[[Rows, list[str]], list[float]]) -> Reward:
    """The reward that gives readable predictions a value, with nearly equal groups levelled as in `likelihood`."""

    def reward(
        completions: list[Any],
        completion_ids: list[list[int]],
        state: list[Any],
        action: list[str],
        next_state: list[Any],
        prompts: list[Any],
        history: list[Any] | None = None,
        draw: list[int] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        ends = spec.scorer.end_ids
        predicted = [
            chat.parse_reply("forward", reply_text(completion), spec.style, before) if ids and ids[-1] in ends else ""
            for completion, ids, before in zip(completions, completion_ids, state, strict=True)
        ]
        kept = [i for i, prediction in enumerate(predicted) if prediction]
        past = history or [()] * len(state)
        rows = [{"state": state[i], "action": action[i], "next_state": next_state[i], "history": past[i]} for i in kept]
        values = dict(zip(kept, value(rows, [predicted[i] for i in kept]) if kept else [], strict=True))
        rewards: list[float | None] = [values.get(i, 0.0) for i in range(len(state))]
        rewards, levelled = level(rewards, draw or prompts, spec.min_spread)
        if log_metric:
            log_metric("unreadable", 1 - len(kept) / len(state))
            log_metric("levelled", levelled)
        return rewards

    return reward
