"""Health of latent actions: do inferred actions say what the recorded ones do? See `swirl.health` for the terms."""

from collections.abc import Sequence
from typing import Any

from swirl import health, metrics
from swirl.config import Recipe
from swirl.eval.rows import result
from swirl.rewards.likelihood import score
from swirl.scorer import Scorer


def signs(
    inverse: Scorer,
    rows: Sequence[dict[str, Any]],
    predictions: Sequence[str],
    recorded: tuple[Sequence[float], Sequence[int]],
    recipe: Recipe,
) -> list[dict[str, Any]]:
    """`action_nmi` and `action_perplexity_ratio` on changed transitions, without intervals.

    Args:
        inverse: The inverse model.
        rows: Transitions with actions.
        predictions: Its action for each; "" where unreadable, which the perplexity leaves out.
        recorded: Log-likelihood and token count of each recorded action under it.
        recipe: How it is prompted.
    """
    told = [i for i, row in enumerate(rows) if metrics.changed(row["state"], row["next_state"])]
    if not told:
        return []
    nmi = health.action_nmi([predictions[i] for i in told], [rows[i]["action"] for i in told])
    out = [result("inverse", "action_nmi", nmi, None, None, len(told))]
    read = [i for i in told if predictions[i]]
    if not read:
        return out
    asked = [
        {**rows[i], "given": rows[i]["next_state"], "target": predictions[i], "history": rows[i].get("history")}
        for i in read
    ]
    inferred = score(inverse, "inverse", asked, recipe.model.prompt, recipe.model.chat_template_kwargs)
    known = [recorded[0][i] for i in read], [recorded[1][i] for i in read]
    ratio = health.perplexity_ratio(inferred, known)
    return [*out, result("inverse", "action_perplexity_ratio", ratio, None, None, len(read))]
