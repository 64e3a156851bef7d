"""A run in progress: its recipe and data, its phases, and what every phase needs.

A phase is made in a staging folder, validated, and committed; a phase that the ledger already vouches for is skipped.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from swirl import durable, imagetokens, labelling, ledger, metrics, models, order, parallel, prompts, tiny, train
from swirl.config import Recipe
from swirl.eval import held_out
from swirl.imagetokens import ImageTokenizer, vocabulary
from swirl.methods import METHODS
from swirl.methods.branching import Base
from swirl.scorer import Scorer
from swirl.types import ROLES, Encoded, Role


class Pair(NamedTuple):
    """The two checkpoints; the same path twice where weights are shared."""

    forward: Path
    inverse: Path


Measured = tuple[list[dict[str, Any]], list[str]]
"""Validation metrics of a checkpoint in a role, and its prediction for every validation row."""
PART = 4096
"""State-only pairs that are looked at together."""


class Phases:
    """A run in progress.

    Args:
        run: The run folder; `None` to only list the phases, in `planned`: nothing is loaded or written.
        recipe: The resolved recipe.
        data: Folder with the four files.
        list_actions: The world's legal actions in a state, where it lists them.
        base: The run that this one begins from.

    Attributes:
        measured: What is known of checkpoints on validation; none is measured twice.
        trained: Phases that trained a role for the task itself, in order: name, roles, and the checkpoints after it.
    """

    def __init__(
        self,
        run: ledger.Run | None,
        recipe: Recipe,
        data: Path,
        list_actions: labelling.ListActions | None = None,
        base: Base | None = None,
    ) -> None:
        self.run, self.recipe, self.data, self.base = run, recipe, data, base
        self.list_actions = list_actions
        self.planned: list[dict[str, Any]] = []
        self.measured: dict[tuple[Role, Path], Measured] = {}
        self.trained: list[tuple[str, tuple[Role, ...], Pair]] = []
        self._best: dict[Role, list[float]] = {}
        self._began: dict[str, Pair] = {}
        self.device = models.device_of(recipe.device)

    # Data

    @property
    def labelled(self) -> Path:
        """Training transitions whose action the budget paid for."""
        return self.data / "labelled.parquet"

    @property
    def state_only(self) -> Path:
        """Training transitions without actions."""
        return self.data / "state_only.parquet"

    @cached_property
    def images(self) -> ImageTokenizer | None:
        """What writes images as tokens; `None` where states hold none."""
        folder = imagetokens.carried(self.data)
        return imagetokens.load(folder) if folder else None

    @cached_property
    def validation(self) -> list[dict[str, Any]]:
        """Labelled transitions of layouts that training never sees."""
        return pq.read_table(self.data / "validation.parquet").to_pylist()

    @cached_property
    def max_new_tokens(self) -> dict[Role, int]:
        """Token limit of a completion: the longest known target and a quarter more, for runaway replies cost time."""
        tokenizer = models.load_tokenizer(self._start, self.recipe.model.trust_remote_code)

        def longest(texts: Sequence[str]) -> int:
            return max((len(prompts.encode_completion(tokenizer, text)) for text in set(texts)), default=0)

        tables = [
            pq.read_table(self.labelled),
            pq.read_table(self.state_only),
            pq.read_table(self.data / "validation.parquet"),
        ]
        pairs = [pair for table in tables for pair in table.select(["state", "next_state"]).to_pylist()]
        states = longest([prompts.written(self.recipe.model.prompt, **pair) for pair in pairs])
        actions = longest([text for table in (tables[0], tables[2]) for text in table["action"].to_pylist()])
        # Where no action is known, a sentence.
        return {"forward": states + states // 4 + 1, "inverse": actions + actions // 4 + 8 if actions else 64}

    def draw(self, count: int, stage: str, changed: bool = False) -> list[dict[str, Any]]:
        """State-only pairs, or those that changed: a permutation's beginning; all for 0 or where they are fewer."""
        table = pq.read_table(self.state_only)
        drawn = np.random.default_rng(self.seed(stage)).permutation(table.num_rows)
        parts = (table.take(pa.array(drawn[i : i + PART])).to_pylist() for i in range(0, len(drawn), PART))
        rows = (row for part in parts for row in part)
        wanted = (row for row in rows if not changed or metrics.changed(row["state"], row["next_state"]))
        return list(islice(wanted, count or None))

    # Phases

    def phase(self, name: str, work: Callable[[Path], None], facts: dict[str, Any]) -> Path:
        """The folder of a phase: as it was committed before, or made by `work`; `facts` say what it will cost."""
        if self.run is None:
            self.planned.append({"phase": name, **facts})
            return self.data / name
        work, seconds = (self.base and self.base.has(name)) or (work, 0.0)
        folder = self.run.phase(name, work, seconds_before=seconds)
        self._remember(name, folder)
        return folder

    def _remember(self, name: str, folder: Path) -> None:
        """What a committed phase measured of the checkpoint that it made."""
        file = folder / "phase.json"
        facts = json.loads(file.read_text()) if file.is_file() else {}
        for role, predictions in facts.get("predictions", {}).items():
            rows = [row for row in facts["validation"] if row["role"] == role]
            self.measured[role, folder] = rows, predictions
            if not name.startswith("pretrain-"):  # its task is another: no round that could have stalled
                best = self._best.setdefault(role, [])
                best.append(held_out.worth(role, rows)[0])

    def start(self) -> Pair:
        """The checkpoint that both roles start from: `tiny` is built from the recording's text."""
        spec, images = self.recipe.model, self.images
        if spec.name != "tiny":
            self._start = models.located(spec.name)
            if any(METHODS.get(name) == "swirl" for name in self.recipe.methods):  # those that sample while they train
                models.check_padding(self._start, spec.trust_remote_code)
            if images is None:
                return Pair(self._start, self._start)

        def extend(out: Path) -> None:
            if images and parallel.is_main():
                model, tokenizer = models.load(spec.name, "cpu", spec.dtype, spec.trust_remote_code)
                tokenizer = vocabulary.ordinary(tokenizer, (*images.tokens, *images.marks))
                vocabulary.extend(model, tokenizer, images.tokens, images.first, self.recipe.seed)
                models.save(model, tokenizer, out)
                self.write_card(out, ROLES)

        def build(out: Path) -> None:
            if parallel.is_main():
                tiny.build(self.texts(), out, spec, self.recipe.seed, images)
                self.write_card(out, ROLES)

        work = build if spec.name == "tiny" else extend
        self._start = self.phase("start", work, {"kind": "build", "steps": 0})
        return Pair(self._start, self._start)

    def texts(self) -> list[str]:
        """Every different text of the training part, in order."""
        tables = [pq.read_table(path) for path in (self.labelled, self.state_only)]
        rows = [row for table in tables for row in table.to_pylist()]
        return sorted({text for row in rows for text in (row["state"], row["next_state"], row.get("action") or "")})

    def stalled(self, patience: int, rounds: int, roles: Sequence[Role] = ROLES) -> bool:
        """Whether no role's score on validation rose in its last `patience` phases; 0: never.

        Args:
            patience: How many rounds may pass without a rise.
            rounds: How many the method has done; what came before it is only what has to be exceeded.
            roles: Those that are asked about.
        """
        history = [values for role in roles if len(values := self._best.get(role, [])) > patience]
        return bool(0 < patience <= rounds and history) and all(
            max(values[-patience:]) <= max(values[:-patience]) for values in history
        )

    # Parts of phases

    def scorer(self, checkpoint: Path) -> Scorer:
        """The checkpoint, frozen."""
        spec, images = self.recipe.model, imagetokens.carried(self.data)
        return Scorer(checkpoint, self.device, spec.dtype, trust_remote_code=spec.trust_remote_code, images=images)

    def seed(self, name: str) -> int:
        """A seed for a phase, from the recipe's and the phase's name."""
        return order.seed_of(self.recipe.seed, *name.encode())

    def schedule(self, settings: Any, batch: int, name: str, max_grad_norm: float = 1.0) -> train.Schedule:
        """How a phase of this name optimises."""
        return train.Schedule(
            settings.steps,
            batch,
            settings.learning_rate,
            settings.lr_warmup,
            self.seed(name),
            self.recipe.evaluation.checkpoints,
            max_grad_norm,
        )

    def encode(self, tokenizer: Any, role: Role, row: dict[str, Any], completion: str) -> Encoded:
        """Token ids as every phase sees them."""
        spec = self.recipe.model
        return prompts.encode(
            tokenizer, role, row, spec.prompt, spec.max_length, completion, **spec.chat_template_kwargs
        )

    def write_rows(self, rows: list[dict[str, Any]], out: Path, facts: dict[str, Any]) -> None:
        """Write a phase's rows with their actions, and facts about them."""
        if parallel.is_main():
            schema = pq.read_schema(self.labelled)
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), out / "rows.parquet")
            self.write_facts(out, {"facts": facts})

    def write_facts(self, out: Path, facts: dict[str, Any]) -> None:
        """Write `phase.json`, from which `results.json` is put together."""
        durable.atomic_write(out / "phase.json", json.dumps(facts, indent=1) + "\n")

    def finish(self, out: Path, roles: Sequence[Role]) -> None:
        """Say how the checkpoint is prompted; drop the trainer's own: the chosen one, its log and metrics stay."""
        parallel.barrier()
        if parallel.is_main():
            self.write_card(out, roles)
            shutil.rmtree(out / "trainer", ignore_errors=True)

    def write_card(self, out: Path, roles: Sequence[Role]) -> None:
        """Write `swirl.json`, the part of the recipe that a checkpoint must carry along, and the image tokenizer.

        It is asked as it was trained, believed of the pairs that it was taught, and on its run's test part measured on
        the rows that the run drew.
        """
        data, evaluation = self.recipe.data, self.recipe.evaluation
        card = {
            "roles": list(roles),
            "model": asdict(self.recipe.model),
            "data": {
                "history": data.history,
                "seed": data.seed,
                "inverse_unchanged": data.inverse_unchanged,
            },
            "evaluation": {"max_rows": evaluation.max_rows},
        }
        durable.atomic_write(out / "swirl.json", json.dumps(card, indent=1) + "\n")
        if images := imagetokens.carried(self.data):
            shutil.copytree(images, out / imagetokens.FOLDER, dirs_exist_ok=True)
