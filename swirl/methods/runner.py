"""What methods are written with: label, verify, sft, grpo, each a phase of the run folder.

Methods only pass handles: paths of checkpoints and of Parquet files, which exist once the phase is done.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from swirl import changes, metrics, models, parallel, prompts, train
from swirl.config import Experience, Inferred, Pretrain, Swirl, Verified, Warmup
from swirl.errors import InputError
from swirl.methods import selection
from swirl.methods.labels import Labels
from swirl.methods.phases import Pair
from swirl.rewards.likelihood import Likelihood, Reward, check_groups
from swirl.types import ROLES, Encoded, Role, state_text

Supervised = Pretrain | Warmup | Verified | Inferred | Experience
"""The settings of a supervised phase."""
Examples = Callable[[Role], list[tuple[dict[str, Any], str]]]
"""The rows that a role trains on, each with its completion; read when the phase is made."""


class Runner(Labels):
    """A run in progress, and the phases that methods are made of."""

    def sft(
        self,
        stage: str,
        pair: Pair,
        examples: Examples,
        settings: Supervised,
        trained: tuple[Role, ...] = ROLES,
        change_weight: float = 1.0,
    ) -> Pair:
        """Supervised fine-tuning of both roles, or of those named; one phase where weights are shared.

        With a `change_weight` the tokens of what changed count so many times as much as the others: forward role, whole
        states.
        """
        self._began[stage] = pair
        if settings.steps == 0:
            return pair
        shared = self.recipe.model.shared
        for roles in self.together(trained):
            name = f"{stage}-{'both' if shared else roles[0]}-sft"
            work = partial(self._sft, name, roles, pair, examples, settings, change_weight)
            folder = self.phase(name, work, {"kind": "sft", "steps": settings.steps, "rows": settings.batch})
            pair = Pair(folder, folder) if shared else pair._replace(**{roles[0]: folder})
            if not isinstance(settings, Pretrain):
                self.trained.append((name, ROLES if shared else roles, pair))
        return pair

    def _sft(
        self,
        name: str,
        roles: Sequence[Role],
        pair: Pair,
        examples: Examples,
        settings: Supervised,
        change_weight: float,
        out: Path,
    ) -> None:
        begin: Path = getattr(pair, roles[0])
        tokenizer = models.load_tokenizer(begin, self.recipe.model.trust_remote_code)
        schedule = self.schedule(settings, settings.batch, name)
        asked: list[tuple[Role, dict[str, Any], str]] = [
            (role, *example) for role in roles for example in examples(role)
        ]
        rows = [self.encode(tokenizer, *one) for one in asked]
        if not rows:
            raise InputError(f"{name}: no labelled transitions to train on; raise data.labels, or set warmup.steps = 0")
        train.sft(
            begin,
            rows,
            out,
            schedule=schedule,
            model=self.recipe.model,
            weights=None if change_weight == 1 else _weights(tokenizer, asked, rows, change_weight),
            device=self.recipe.device,
            trainer=self.recipe.trainer,
            title=name,
            select=self._select(name, roles, pair, schedule, out, self._keep(settings)),
        )
        self.finish(out, roles)

    def _keep(self, settings: Supervised) -> selection.Keep:
        """Which checkpoint of a supervised phase is kept: as its method's section says, else as `evaluation` does."""
        match settings:
            case Pretrain():  # what the pretext task teaches is not yet what validation asks
                return "last"
            case Verified() | Inferred():
                return settings.select
            case _:
                return self.recipe.evaluation.select

    def _select(
        self,
        name: str,
        roles: Sequence[Role],
        pair: Pair,
        schedule: train.Schedule,
        out: Path,
        keep: selection.Keep,
    ) -> Callable[[list[Path]], Path]:
        """How a phase picks one of its checkpoints; weights that both roles share are judged in both."""
        judged = ROLES if self.recipe.model.shared else roles
        return lambda found: selection.choose(
            self, name, judged, pair, dict(zip(schedule.saved, found, strict=True)), out, keep
        )

    def together(self, roles: tuple[Role, ...] = ROLES) -> list[tuple[Role, ...]]:
        """The roles that one phase trains: each by itself, or all at once where they share weights."""
        return [roles] if self.recipe.model.shared else [(role,) for role in roles]

    def began(self, stage: str) -> Pair:
        """The checkpoints that a supervised stage of this run began with.

        Raises:
            InputError: There was none.
        """
        if stage not in self._began:
            raise InputError(f"methods has no {stage!r} before a method that begins where it began; put it there")
        return self._began[stage]

    def supervised(self, sources: Sequence[Path], label_share: float = 0.0) -> Examples:
        """Labelled rows of all sources; the first holds true labels and is repeated to about its least share.

        It is repeated whole, the nearest number of times, so the share may fall short: by a third of itself, where the
        rows would be needed one and a half times.
        """

        def examples(role: Role) -> list[tuple[dict[str, Any], str]]:
            tables = [pq.read_table(path).to_pylist() for path in sources]
            if role == "inverse" and not self.recipe.data.inverse_unchanged:
                tables = [
                    [row for row in table if metrics.changed(row["state"], row["next_state"])] for table in tables
                ]
            rest = [row for table in tables[1:] for row in table]
            repeats = round(label_share / (1 - label_share) * len(rest) / max(1, len(tables[0])))
            return [
                (row, prompts.target(role, row, self.recipe.model.prompt)) for row in tables[0] * max(1, repeats) + rest
            ]

        return examples

    def pretext(self, settings: Pretrain) -> Examples:
        """Training pairs, labelled or not, with the task that each poses by itself; as many as the steps will read."""

        def examples(role: Role) -> list[tuple[dict[str, Any], str]]:
            tables = [pq.read_table(path) for path in (self.labelled, self.state_only)]
            pairs = pa.concat_tables([table.select(tables[1].column_names) for table in tables])
            order = np.random.default_rng(self.seed(f"pretext-{role}")).permutation(pairs.num_rows)
            rows = pairs.take(pa.array(order[: settings.steps * settings.batch])).to_pylist()
            return [prompts.pretext(role, row, self.recipe.model.prompt) for row in rows]

        return examples

    def grpo(
        self, stage: str, role: Role, pair: Pair, rows: Path, reward: Callable[[Likelihood], Reward], settings: Swirl
    ) -> Pair:
        """One RL phase of `role`, rewarded by the frozen other role."""
        name = f"{stage}-{role}-grpo"
        begin, other = getattr(pair, role), getattr(pair, "inverse" if role == "forward" else "forward")
        schedule = self.schedule(settings, settings.prompts, name, settings.max_grad_norm)

        def work(out: Path) -> None:
            check_groups(settings.min_spread, settings.prompts, settings.generations, parallel.world_size())
            scorer = self.scorer(other)
            before = models.weights_hash(scorer.model)
            spec = Likelihood(
                scorer,
                self.recipe.model.prompt,
                self.recipe.model.chat_template_kwargs,
                "sum" if settings.setting == "elbo" else "mean",
                settings.floor,
                settings.min_spread,
            )
            train.grpo(
                begin,
                self._prompts(role, rows),
                reward(spec),
                out,
                schedule=schedule,
                settings=settings,
                model=self.recipe.model,
                device=self.recipe.device,
                trainer=self.recipe.trainer,
                title=name,
                max_completion=self.max_new_tokens[role],
                suppress=scorer.suppressed(role, self.recipe.model.prompt),
                select=self._select(name, (role,), pair, schedule, out, settings.select),
                **self._replay(role, begin, rows, settings, schedule),
            )
            if models.weights_hash(scorer.model) != before:
                raise AssertionError(f"{name}: the frozen scorer's weights changed")
            self.finish(out, ROLES if self.recipe.model.shared else (role,))

        facts = {"kind": "grpo", "steps": settings.steps, "rows": settings.prompts * settings.generations}
        folder = self.phase(name, work, facts)
        pair = Pair(folder, folder) if self.recipe.model.shared else pair._replace(**{role: folder})
        self.trained.append((name, ROLES if self.recipe.model.shared else (role,), pair))
        return pair

    def _prompts(self, role: Role, rows: Path) -> list[dict[str, Any]]:
        keep = ("state", "action", "next_state", "history")
        return [
            {"prompt": prompts.transition_prompt(role, row, self.recipe.model.prompt)}
            | {key: row[key] for key in keep if key in row}
            for row in pq.read_table(rows).to_pylist()
        ]

    def _replay(self, role: Role, begin: Path, rows: Path, settings: Swirl, schedule: train.Schedule) -> dict[str, Any]:
        """The anchors' supervised batches: true labels (replay) and, in Phase I, inferred ones (fidelity)."""
        weights = [(self.labelled, settings.replay)]
        if role == "forward":
            weights.append((rows, settings.fidelity))
        total = sum(weight for _, weight in weights)
        if not total:
            return {}
        tokenizer = models.load_tokenizer(begin, self.recipe.model.trust_remote_code)
        rng = np.random.default_rng(schedule.seed)
        batches: list[list[Encoded]] = [[] for _ in range(settings.steps)]
        for path, weight in weights:
            table = pq.read_table(path).to_pylist()
            size = round(settings.replay_batch * weight / total)
            for batch in batches if size else ():
                batch += [
                    self.encode(tokenizer, role, table[i], prompts.target(role, table[i], self.recipe.model.prompt))
                    for i in rng.integers(len(table), size=size)
                ]
        return {"replay": batches, "replay_weight": total}


def _weights(
    tokenizer: Any, asked: Sequence[tuple[Role, dict[str, Any], str]], rows: Sequence[Encoded], change_weight: float
) -> list[list[float]]:
    """Weights of completion tokens, `change_weight` where the state before does not have them."""
    before = [prompts.encode_completion(tokenizer, state_text(row["state"])) for _, row, _ in asked]
    marks = [changes.changed_tokens(old, completion) for old, (_, completion) in zip(before, rows, strict=True)]
    return [[change_weight if mark else 1.0 for mark in row] for row in marks]
