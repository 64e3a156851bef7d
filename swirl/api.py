"""The two models in Python.

forward = swirl.load_forward("runs/minigrid")
forward.predict(state, "move forward")                    # ["room 8 8 ..."]
inverse = swirl.load_inverse("runs/minigrid")
inverse.infer(state, next_state)                          # [Candidate(action="move forward", ...)]
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swirl import labelling, models, prompts
from swirl.config import Model, load_recipe
from swirl.errors import InputError
from swirl.labelling import Candidate
from swirl.rewards.likelihood import score
from swirl.scorer import Scorer
from swirl.types import Role, State, state_text


def resolve(path: str | Path, role: Role) -> tuple[Path, Model]:
    """The checkpoint that a path means for a role, and how to prompt it.

    Args:
        path: A run folder (its final checkpoint of the role), a phase of a run, or any `transformers` checkpoint.
        role: Which of the two models.
    """
    path = Path(path)
    run = next((folder for folder in (path, *path.parents) if (folder / "ledger.json").is_file()), None)
    spec = load_recipe(run / "recipe.toml").model if run else Model(prompt="instruct", max_length=4096)
    if run != path:
        return path, spec
    if not (path / "results.json").is_file():
        raise InputError(f"{path} has no results yet; let `swirl train` finish a phase, or name a folder under phases/")
    return path / json.loads((path / "results.json").read_text())[role], spec


class _Model:
    role: Role

    def __init__(self, path: str | Path, device: str = "auto") -> None:
        checkpoint, self.spec = resolve(path, self.role)
        self.scorer = Scorer(
            checkpoint,
            models.device_of(device),
            self.spec.dtype,
            trust_remote_code=self.spec.trust_remote_code,
        )

    def _log_likelihood(self, rows: Sequence[dict[str, Any]]) -> list[float]:
        return score(self.scorer, self.role, rows, self.spec.prompt, self.spec.chat_template_kwargs)[0]


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
    ) -> list[str]:
        """Next states.

        Args:
            state: The state before the step.
            action: What is done, in words.
            n: How many; 1 is greedy unless a temperature is given, more are sampled at temperature 1.
            temperature: Of the sampling; 0 is greedy.
            history: Earlier states, oldest first.
            seed: Of the sampling.

        Raises:
            InputError: The prompt leaves no room for a reply in the model's context.
        """
        asked = prompts.encode_prompt(
            self.scorer.tokenizer,
            prompts.prompt("forward", state, action, history, self.spec.prompt),
            **self.spec.chat_template_kwargs,
        )
        room = self.spec.max_length - len(asked)
        if room < 1:
            raise InputError(f"the prompt has {len(asked)} tokens, but model.max_length is {self.spec.max_length}")
        replies = models.generate(
            self.scorer.model,
            self.scorer.tokenizer,
            [asked],
            n=n,
            temperature=(0.0 if n == 1 else 1.0) if temperature is None else temperature,
            max_new_tokens=room,
            seed=seed,
        )
        return [prompts.parse_reply("forward", reply.text) for reply in replies[0]]

    def log_likelihood(self, state: State, action: str, next_state: State, history: Sequence[State] = ()) -> float:
        """Nats of log P(next_state | state, action), the end of the reply included."""
        return self._log_likelihood([{"state": state, "given": action, "target": next_state, "history": history}])[0]

    def imagine(self, state: State, actions: Sequence[str]) -> list[str]:
        """Next states of a list of actions, each predicted from the one before: len(actions) of them."""
        states = [state_text(state)]
        for action in actions:
            states += self.predict(states[-1], action)
        return states[1:]


class InverseModel(_Model):
    """P(action | state, next_state)."""

    role: Role = "inverse"

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
            actions: The actions to choose among; by default the greedy one and `n` samples.
            n: Samples.
            history: Earlier states, oldest first.
            seed: Of the sampling.
        """
        rows = [{"state": state, "next_state": next_state, "history": history}]
        return candidates(self, rows, actions, n, seed)[0]

    def log_likelihood(self, state: State, next_state: State, action: str, history: Sequence[State] = ()) -> float:
        """Nats of log P(action | state, next_state), the end of the reply included."""
        return self._log_likelihood([{"state": state, "given": next_state, "target": action, "history": history}])[0]


def candidates(
    inverse: InverseModel,
    rows: Sequence[dict[str, Any]],
    actions: Sequence[str] | None = None,
    n: int = 8,
    seed: int = 0,
    forward: ForwardModel | None = None,
) -> list[list[Candidate]]:
    """Scored actions per row, best first: by the forward model where there is one, else by the inverse model."""
    spec = inverse.spec

    def sample(unlisted: Sequence[dict[str, Any]]) -> list[list[str]]:
        common: dict[str, Any] = {
            "max_new_tokens": max(16, spec.max_length // 4),
            "style": spec.prompt,
            "template": spec.chat_template_kwargs,
        }
        greedy = labelling.infer(inverse.scorer, unlisted, **common)
        sampled = labelling.infer(inverse.scorer, unlisted, n=n, temperature=1.0, seed=seed, **common) if n else greedy
        return [a + b for a, b in zip(greedy, sampled, strict=True)]

    proposed = labelling.propose(rows, (lambda _: actions) if actions else None, sample)
    return labelling.verify(
        inverse.scorer,
        forward.scorer if forward else None,
        rows,
        proposed,
        style=spec.prompt,
        template=spec.chat_template_kwargs,
        title="score actions",
    )


def load_forward(path: str | Path, device: str = "auto") -> ForwardModel:
    """Load a forward model from a run folder or a checkpoint.

    Raises:
        InputError: There is no whole checkpoint.
    """
    return ForwardModel(path, device)


def load_inverse(path: str | Path, device: str = "auto") -> InverseModel:
    """Load an inverse model from a run folder or a checkpoint.

    Raises:
        InputError: There is no whole checkpoint.
    """
    return InverseModel(path, device)
