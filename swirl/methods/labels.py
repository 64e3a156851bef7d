"""How methods come by labels: sampled from the inverse model, or inferred by both models and kept where certain."""

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from swirl import labelling, metrics, parallel, posterior
from swirl.config import Verified
from swirl.errors import InputError
from swirl.methods.phases import Pair, Phases
from swirl.scorer import Scorer

logger = logging.getLogger("swirl")


class Labels(Phases):
    """The labelling phases of a run."""

    def label(self, stage: str, pair: Pair, count: int) -> Path:
        """Sample z ~ Q(z | x, y): `count` state-only pairs, each with one sampled action.

        Pairs that changed something, where the inverse model was taught no others (`data.inverse_unchanged = false`).
        """

        def work(out: Path) -> None:
            rows = self.draw(count, stage, changed=not self.recipe.data.inverse_unchanged)
            inverse = self.scorer(pair.inverse)
            actions = parallel.spread(rows, lambda part: self._sample(inverse, part, 1, stage))
            kept = [{**row, "action": group[0]} for row, group in zip(rows, actions, strict=True) if group[0]]
            if not kept:
                raise InputError(
                    f"{stage}: the inverse model of {pair.inverse} wrote no readable action; warm it up first"
                )
            self.write_rows(kept, out, {"pairs": len(rows), "kept": len(kept)})

        return self.phase(f"{stage}-label", work, {"kind": "label", "rows": count}) / "rows.parquet"

    def relabel(self, stage: str, pair: Pair, settings: Verified, first: bool = False, shuffled: bool = False) -> Path:
        """State-only pairs whose action both frozen models together are certain of; see `posterior`.

        Args:
            stage: Name of the round.
            pair: Both roles' checkpoints.
            settings: How many pairs, and which to keep.
            first: Keep the surest share of each action and nothing else; no pair that changed nothing.
            shuffled: Give each kept pair the label of another: a control.
        """

        def work(out: Path) -> None:
            changed, same = _by_change(self.draw(settings.pairs, stage))
            told, _ = _by_change(self.validation)
            if not told:
                raise InputError("verified relabelling is calibrated on validation labels; set data.validation_labels")
            forward, inverse = self.scorer(pair.forward), self.scorer(pair.inverse)

            def scored(part: Sequence[dict[str, Any]]) -> list[list[labelling.Candidate]]:
                proposed = labelling.propose(
                    part,
                    self.list_actions if settings.listed else None,
                    lambda unlisted: self._sample(inverse, unlisted, settings.candidates, stage),
                )
                return labelling.verify(
                    inverse,
                    forward,
                    part,
                    proposed,
                    style=self.recipe.model.prompt,
                    template=self.recipe.model.chat_template_kwargs,
                    least=0.0,  # who is surest is for both models to say, of all candidates
                    title=f"{stage}-verify",
                )

            known = parallel.spread(told, scored)
            belief = posterior.fit(known, [row["action"] for row in told])
            precision = math.inf if first else settings.precision
            certain, least = posterior.certain(parallel.spread(changed, scored), belief, precision, settings.coverage)
            checked = posterior.check(known, [row["action"] for row in told], belief, least)
            idle = {}
            if not first:
                taken = pq.read_table(self.labelled)["action"].to_pylist()
                idle = posterior.idle(parallel.spread(same, scored), taken, self.seed(f"{stage}-idle"))
            kept = [{**changed[i], "action": action} for i, action in certain.items()]
            kept += [{**same[i], "action": action} for i, action in idle.items()]
            if shuffled:
                order = np.random.default_rng(self.seed(f"{stage}-shuffle")).permutation(len(kept))
                kept = [{**row, "action": kept[i]["action"]} for row, i in zip(kept, order, strict=True)]
            facts = {
                "changed": len(changed),
                "changed_kept": len(certain),
                "unchanged": len(same),
                "unchanged_kept": len(idle),
                "least_probability": min(least.values(), default=None),
                **checked,
                "posterior": asdict(belief),
            }
            logger.info(
                "%s: kept %d of %d changed pairs; of %d validation pairs it would keep %d, %d of them rightly "
                "(weights: inverse model %.2f, forward model %.2f)",
                *(stage, len(certain), len(changed)),
                *(checked[name] for name in ("validation", "validation_kept", "validation_right")),
                *(belief.inverse, belief.forward),
            )
            if not kept:
                logger.warning("%s: no label was kept; this round trains on the recorded labels alone", stage)
            self.write_rows(kept, out, facts)

        facts = {"kind": "label", "rows": settings.pairs, "candidates": settings.candidates}
        return self.phase(f"{stage}-label", work, facts) / "rows.parquet"

    def _sample(self, inverse: Scorer, rows: Sequence[dict[str, Any]], n: int, stage: str) -> list[list[str]]:
        return labelling.infer(
            inverse,
            rows,
            n=n,
            temperature=1.0,
            max_new_tokens=self.max_new_tokens["inverse"],
            style=self.recipe.model.prompt,
            template=self.recipe.model.chat_template_kwargs,
            seed=self.seed(stage),
            batch=self.recipe.evaluation.batch,
            title=f"{stage}-infer",
        )


def _by_change(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Transitions that changed something, and those that did not."""
    changed = [metrics.changed(row["state"], row["next_state"]) for row in rows]
    return [row for row, yes in zip(rows, changed, strict=True) if yes], [
        row for row, yes in zip(rows, changed, strict=True) if not yes
    ]
