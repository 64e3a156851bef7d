"""What phases cost: seconds and bytes, by arithmetic on the shape of the model and the lengths of texts.

FLOPs     per token 2 (N + layers x hidden x length) to read, three times that to train
seconds   FLOPs / (speed of a matrix product of the model's own shape x EFFICIENCY); an optimiser step also waits for
the trainer, a generated token for the weights to pass through memory and the framework to call every layer
bytes     weights, gradients, two Adam moments, reference and scorer copies, activations, logits
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swirl.config import Recipe
from swirl.types import ROLES, Role

EFFICIENCY = 0.35
"""Share of the speed of plain matrix products that whole training and scoring steps reach: measured on CPU, 0.26 at
width 96 in a run (with padding), 0.7 at width 768 in a step alone."""
STEP = 0.022
"""Seconds that the trainer needs per optimiser step beside the model's own; measured on CPU."""
LAYER_CALL = 4e-4
"""Seconds that the framework needs per layer and generated token, whatever the batch; measured on CPU."""
WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Shape:
    """The model, as far as its cost goes.

    Attributes:
        parameters: Weights, embeddings included.
        multiplied: Weights that a token is multiplied with: all but an input embedding of its own.
        layers: Depth.
        hidden: Width.
        vocabulary: Tokens.
    """

    parameters: int
    multiplied: int
    layers: int
    hidden: int
    vocabulary: int


@dataclass(frozen=True)
class Lengths:
    """Mean tokens per role, and what a reply is limited to.

    Attributes:
        prompt: Tokens of a role's prompt.
        reply: Tokens of a role's completion.
        limit: Token limit of a role's completion.
        measured: Whether a recording was measured; else a prompt and reply fill `model.max_length` between them.
    """

    prompt: dict[Role, float]
    reply: dict[Role, float]
    limit: dict[Role, int]
    measured: bool


@dataclass(frozen=True)
class Machine:
    """Speed of this machine: FLOP per second of a matrix product, and bytes of weights per second."""

    flops: float
    bytes: float


class Cost:
    """Seconds and bytes of phases.

    Args:
        recipe: The recipe.
        shape: The model.
        lengths: Of prompts and completions.
        machine: What computes.
        transitions: Rows of the recording.
        listed: Actions that the world lists in a state; 0 where they are sampled.
    """

    def __init__(
        self, recipe: Recipe, shape: Shape, lengths: Lengths, machine: Machine, transitions: int, listed: int
    ) -> None:
        self.recipe, self.shape, self.lengths, self.machine = recipe, shape, lengths, machine
        self.transitions, self.listed = transitions, listed
        self.validation = recipe.data.validation_labels or round(recipe.data.validation * transitions)

    def length(self, role: Role) -> float:
        """Mean tokens of a prompt and its completion."""
        return self.lengths.prompt[role] + self.lengths.reply[role]

    def read(self, tokens: float, length: float) -> float:
        """Seconds to read tokens in texts of a length."""
        flops = 2 * tokens * (self.shape.multiplied + self.shape.layers * self.shape.hidden * length)
        return flops / (EFFICIENCY * self.machine.flops)

    def score(self, role: Role, rows: float) -> float:
        """Seconds of the likelihoods of rows."""
        return self.read(rows * self.length(role), self.length(role))

    def train(self, role: Role, rows: float) -> float:
        """Seconds of forward and backward passes over rows."""
        return 3 * self.score(role, rows)

    def generate(self, role: Role, rows: float, batch: int) -> float:
        """Seconds of one completion a row, `batch` at a time."""
        prompt, steps = self.lengths.prompt[role], self.lengths.limit[role]
        weights = self.shape.multiplied * WIDTHS[self.recipe.model.dtype] / self.machine.bytes
        wait = steps * -(-rows // batch) * (weights + LAYER_CALL * self.shape.layers)
        return self.read(rows * (prompt + steps), prompt + steps) + wait

    def measure(self, role: Role, rows: float) -> float:
        """Greedy replies and likelihoods, as validation and test take them."""
        return self.generate(role, rows, self.recipe.evaluation.batch) + self.score(role, rows)

    def phase(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The facts of a planned phase with its tokens and seconds, validation included."""
        name, kind, steps = facts["phase"], facts["kind"], facts.get("steps", 0)
        rows = facts.get("rows", 0)
        if kind == "label":  # all pairs, where none is said or there are fewer
            rows = min(rows or self.transitions, self.transitions)
        roles: tuple[Role, ...] = ROLES if "-both-" in name else ("inverse",) if "-inverse-" in name else ("forward",)
        share = rows * steps / len(roles)
        if kind == "sft":
            seconds = sum(self.train(role, share) for role in roles)
            tokens = sum(share * self.length(role) for role in roles)
        elif kind == "grpo":
            seconds, tokens = self.grpo(roles[0], rows, steps), rows * steps * self.length(roles[0])
        elif kind == "label":
            seconds, tokens = self.label(rows, facts.get("candidates", 0)), rows * self.length("inverse")
        elif kind == "predict":
            seconds = self.generate("forward", rows, self.recipe.evaluation.batch)
            tokens = rows * self.length("forward")
        else:
            seconds, tokens = 0.0, 0.0
        if kind in ("sft", "grpo"):
            seconds += steps * STEP + self.validate(roles)
        return {"phase": name, "kind": kind, "steps": steps, "rows": rows, "tokens": round(tokens), "seconds": seconds}

    def validate(self, roles: Sequence[Role]) -> float:
        """Every new checkpoint of a phase in the roles that it trains, and the cycle of the one that is kept."""
        each = sum(self.measure(role, self.validation) for role in roles)
        cycle = self.generate("forward", self.validation, self.recipe.evaluation.batch)
        return self.recipe.evaluation.checkpoints * each + cycle

    def grpo(self, role: Role, rows: int, steps: int) -> float:
        """Generate, score by the other role, read by the reference, train."""
        settings, other = self.recipe.swirl, ROLES[role == "forward"]
        reference = self.score(role, rows) if settings.beta else 0.0
        anchors = self.train(role, settings.replay_batch) if settings.replay or settings.fidelity else 0.0
        once = self.generate(role, rows, rows) + self.score(other, rows) + reference + self.train(role, rows) + anchors
        return steps * once

    def label(self, rows: int, candidates: int) -> float:
        """One sampled action a pair, or candidates that both models score (validation pairs too)."""
        batch = self.recipe.evaluation.batch
        if not candidates:
            return self.generate("inverse", rows, batch)
        pairs = rows + self.validation
        count = self.listed or candidates
        made = 0.0 if self.listed else self.generate("inverse", pairs * candidates, batch)
        shared = pairs * self.lengths.prompt["inverse"] + pairs * count * self.lengths.reply["inverse"]
        return made + self.read(shared, self.length("inverse")) + self.score("forward", pairs * count / 2)

    def test(self) -> dict[str, Any]:
        """The test part, read for the first and every later method, and the cycle."""
        rows = round(self.recipe.data.test * self.transitions)
        rows = min(rows, self.recipe.evaluation.max_rows or rows)
        once = sum(self.measure(role, rows) for role in ROLES) + self.generate(
            "forward", rows, self.recipe.evaluation.batch
        )
        times = max(1, len(self.recipe.methods))
        tokens = times * rows * sum(self.length(role) for role in ROLES)
        facts = {"phase": "test", "kind": "test", "steps": 0, "rows": rows, "tokens": round(tokens)}
        return {**facts, "seconds": times * once}

    def memory(self, planned: Sequence[dict[str, Any]]) -> float:
        """Bytes at the peak: the phase that needs most."""
        return max((self._bytes(facts) for facts in planned), default=0.0)

    def _bytes(self, facts: dict[str, Any]) -> float:
        model, shape, width = self.recipe.model, self.shape, WIDTHS[self.recipe.model.dtype]
        weights = shape.parameters * width
        if facts["kind"] not in ("sft", "grpo"):
            return 2 * weights  # the two scorers
        trained = weights
        if model.lora_rank:  # about eight matrices a layer, each with two thin factors
            trained = min(weights, 8 * shape.layers * 4 * shape.hidden * model.lora_rank * width)
        copies = 1 + (facts["kind"] == "grpo") * (1 + bool(self.recipe.swirl.beta and not model.lora_rank))
        rows = self.recipe.trainer.get("per_device_train_batch_size", facts["rows"])
        tokens = rows * max(self.length(role) for role in ROLES)
        kept = 2 if self.recipe.trainer.get("gradient_checkpointing") else 34
        activations = tokens * shape.layers * shape.hidden * kept / 2 * width
        logits = 3 * 4 * tokens * shape.vocabulary
        return copies * weights + 3 * trained + activations + logits
