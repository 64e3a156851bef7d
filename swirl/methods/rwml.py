"""RWML: reinforcement learning of the forward model by whether its prediction means what happened.

    z ~ Q(z | x, y)                                                 label state-only pairs
    keep the pairs whose greedy prediction earns nothing yet, and a tenth of the others
    forward:  max E[1 if 1 - cos(e(y_k), e(y)) < tau else 0],       y_k ~ P(. | x, z)

e is a frozen encoder of sentences (`swirl.encoder`, an extra), tau is `swirl.distance`, the tenth `swirl.easy`. Where a
step changes one line of many, a copy of the state may lie within tau and earn the reward; the run then warns.

Source: RWML, arXiv 2602.05842; there the actions are the agent's own and known, and a model trained for the purpose
says what is easy.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from swirl import metrics, parallel
from swirl.errors import InputError
from swirl.eval import held_out
from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.rewards.embedding import close, embedding_match
from swirl.similarity import Encoder
from swirl.types import state_text

logger = logging.getLogger("swirl")


def rwml(run: Runner, pair: Pair) -> Pair:
    """The settings of the optimiser are those of `swirl`; the inverse model labels and stays as it is."""
    settings = run.recipe.swirl
    inferred = run.label("rwml", pair, settings.steps * settings.prompts)
    hard = _without_easy(run, pair, inferred)
    return run.grpo("rwml", "forward", pair, hard, embedding_match(settings.encoder, settings.distance), settings)


def _without_easy(run: Runner, pair: Pair, inferred: Path) -> Path:
    """The rows that the forward model has yet to learn, and a share `swirl.easy` of those that it gets right."""
    settings = run.recipe.swirl

    def work(out: Path) -> None:
        rows = pq.read_table(inferred).to_pylist()
        forward, limit = run.scorer(pair.forward), run.max_new_tokens["forward"]
        encoder = Encoder(settings.encoder, run.recipe.device)

        def solved(part: list[dict[str, Any]]) -> list[bool]:
            actions = [row["action"] for row in part]
            predicted = held_out.predict(forward, part, actions, run.recipe, limit, "rwml-easy")
            return close(encoder, part, predicted, settings.distance)

        changed = [row for row in rows if metrics.changed(row["state"], row["next_state"])]
        copies = sum(close(encoder, changed, [state_text(row["state"]) for row in changed], settings.distance))
        if copies > len(changed) / 2:
            logger.warning(
                "rwml: in %d of %d changed pairs a copy of the state is closer to the next state than swirl.distance = "
                "%s and would earn the reward; lower it",
                *(copies, len(changed), settings.distance),
            )
        easy = np.array(parallel.spread(rows, solved))
        kept = ~easy | (np.random.default_rng(run.seed("rwml-easy")).random(len(rows)) < settings.easy)
        facts = {"pairs": len(rows), "easy": int(easy.sum()), "easy_kept": int((easy & kept).sum())}
        facts |= {"kept": int(kept.sum()), "changed": len(changed), "copies_close": copies}
        if not kept.any():
            raise InputError(
                f"rwml: all {len(rows)} predictions are already closer to the recorded next state than "
                f"swirl.distance = {settings.distance}, and none is kept; lower it, or raise swirl.easy"
            )
        run.write_rows([rows[i] for i in np.flatnonzero(kept)], out, facts)

    facts = {"kind": "predict", "rows": settings.steps * settings.prompts}
    return run.phase("rwml-easy", work, facts) / "rows.parquet"
