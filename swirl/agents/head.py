"""Reward and end of a step, learned: two linear heads on a forward model's own hidden states.

    learned = fit(forward, rows)
    learned.outcome(states, actions, next_states)  # [(reward, terminated), ...]

The forward model reads a transition as it was trained to write it, prompt and completion; the head sees the mean of the
last layer's hidden states over all their tokens. The reward is a ridge regression on that, the end a logistic one.
Where few different rewards were recorded, the nearest of them is told: 0.003 is none, and would else be taken for one.
Earlier states are not shown, so that a step is read alike wherever it stands. For worlds whose states do not tell the
two (see `swirl.worlds.base.Rules`).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swirl import durable, models, progress, prompts
from swirl.api import ForwardModel
from swirl.errors import InputError

STRENGTHS = tuple(10.0**k for k in range(-4, 3))
"""Of the penalty on weights, per row, that held-out trajectories choose among; features have variance 1."""
HELD_OUT = 0.2
"""Share of trajectories that choose it; the heads are then fitted on all."""
STEPS = 30
"""Newton steps of the logistic regression, at most."""
BATCH = 32
NAMES = ("mean", "scale", "reward", "terminated", "levels")
"""Of a head's arrays."""
LEVELS = 16
"""Most different rewards that are told as they were recorded."""


@dataclass(frozen=True)
class Quality:
    """On the held-out trajectories, before the last fit.

    Attributes:
        rows: How many.
        reward_r2: 1 - mean squared error / variance of the rewards; `None` where all are equal.
        terminated_f1: Of the steps that ended an episode; `None` where none did.
    """

    rows: int
    reward_r2: float | None
    terminated_f1: float | None


@dataclass(frozen=True)
class Head:
    """Two fitted heads and the model that they read.

    Attributes:
        forward: The model.
        weights: Arrays by name: `mean` and `scale` of the features (H), `reward` and `terminated` (H + 1 weights, the
            last added to the sum), and `levels`, the rewards that there are, none where they are many.
        quality: On held-out trajectories.
    """

    forward: ForwardModel
    weights: dict[str, np.ndarray]
    quality: Quality

    def outcome(
        self, states: Sequence[str], actions: Sequence[str], next_states: Sequence[str]
    ) -> list[tuple[float, bool]]:
        """Reward and whether it ends the episode, of each step; (0.0, False) where the model cannot read it at once."""
        rows = zip(states, actions, next_states, strict=True)
        encoded = [_encoded(self.forward, {"state": x, "action": z, "next_state": y}) for x, z, y in rows]
        there = {i: ids for i, ids in enumerate(encoded) if ids is not None}
        out = [(0.0, False)] * len(encoded)
        if there:
            seen = (features(self.forward, [*there.values()]) - self.weights["mean"]) / self.weights["scale"]
            rewards, ends = (_linear(seen, self.weights[name]) for name in ("reward", "terminated"))
            if len(levels := self.weights["levels"]):
                rewards = levels[np.abs(rewards[:, None] - levels).argmin(1)]
            for i, reward, end in zip(there, rewards.tolist(), ends.tolist(), strict=True):
                out[i] = reward, end > 0
        return out


def fit(forward: ForwardModel, rows: Sequence[dict[str, Any]], seed: int = 0) -> Head:
    """Fit the heads on recorded transitions.

    Args:
        forward: The model; it stays as it is.
        rows: With `state`, `action`, `next_state`, `reward`, `terminated` and `trajectory`. Those without an action or
            a reward, and those that are longer than the model reads, are left out.
        seed: Draws the held-out trajectories.

    Raises:
        InputError: Fewer than two trajectories are left.
    """
    known = [row for row in rows if row["action"] is not None and row["reward"] is not None]
    encoded = [_encoded(forward, row) for row in known]
    kept = [row for row, ids in zip(known, encoded, strict=True) if ids is not None]
    names = sorted({row["trajectory"] for row in kept})
    if len(names) < 2:
        raise InputError(
            f"{len(kept)} of {len(rows)} rows have an action and a reward and can be read, from {len(names)} "
            "trajectories, expected two at least; give a labelled recording of a world"
        )
    found = features(forward, [ids for ids in encoded if ids is not None])
    mean, scale = found.mean(0), found.std(0) + 1e-6
    found = (found - mean) / scale
    drawn = np.random.default_rng(seed).permutation(names)[: max(1, round(HELD_OUT * len(names)))]
    out = np.isin([row["trajectory"] for row in kept], drawn)
    rewards, ends = (np.array([row[name] for row in kept], float) for name in ("reward", "terminated"))
    reward, told = _chosen(ridge, _squared_error, found, rewards, out)
    terminated, logits = _chosen(logistic, _log_loss, found, ends, out)
    quality = Quality(int(out.sum()), _r2(told, rewards[out]), _f1(logits > 0, ends[out] > 0))
    levels = np.unique(rewards)
    weights = {"mean": mean, "scale": scale, "reward": reward, "terminated": terminated}
    return Head(forward, {**weights, "levels": levels[: len(levels) * (len(levels) <= LEVELS)]}, quality)


def save(learned: Head, folder: Path) -> None:
    """Write a head into a folder, `head.safetensors` and `head.json`; the model is named by the hash of its weights."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(learned.weights, folder / "head.safetensors")
    facts = {"forward": models.weights_hash(learned.forward.scorer.model), "quality": asdict(learned.quality)}
    durable.atomic_write(folder / "head.json", json.dumps(facts, indent=1) + "\n")


def load(folder: Path, forward: ForwardModel) -> Head:
    """Read a head that `save` wrote.

    Raises:
        InputError: There is none, it is broken, or it was fitted on another model.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        facts = json.loads((folder / "head.json").read_text())
        found = load_file(folder / "head.safetensors")
        weights = {name: found[name] for name in NAMES}
        quality = Quality(**facts["quality"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{folder} holds no head ({models.first_line(error)}); fit one and save it there") from None
    if facts["forward"] != models.weights_hash(forward.scorer.model):
        raise InputError(
            f"{folder} was fitted on another model than {forward.checkpoint}; give that one, or fit a head"
        )
    return Head(forward, weights, quality)


def _encoded(forward: ForwardModel, row: dict[str, Any]) -> list[int] | None:
    """Token ids of a transition, prompt and completion; None where the model does not read so many."""
    row = {**row, "state": forward.write(row["state"]), "next_state": forward.write(row["next_state"]), "history": ()}
    told = prompts.target("forward", row, forward.spec.prompt)
    try:
        asked, _ = forward.encode(row, told)
    except InputError:
        return None
    return [*asked, *prompts.encode_completion(forward.scorer.tokenizer, told)]


@torch.inference_mode()
def features(forward: ForwardModel, rows: Sequence[list[int]]) -> np.ndarray:
    """Mean of the last layer's hidden states over the tokens of each row (B, H), float64; in any order of rows."""
    model, pad = forward.scorer.model, forward.scorer.tokenizer.pad_token_id
    size = 1 if models.reads_padding(model.config) else BATCH
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    out: list[np.ndarray] = [np.empty(0)] * len(rows)
    with progress.bar("read transitions", len(rows)) as bar:
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            longest = len(rows[chosen[-1]])
            # On the right: what follows is not seen by what comes before.
            ids = torch.tensor([[*rows[i], *[pad] * (longest - len(rows[i]))] for i in chosen], device=model.device)
            mask = torch.tensor(
                [[1] * len(rows[i]) + [0] * (longest - len(rows[i])) for i in chosen], device=model.device
            )
            hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state.double()  # (B, T, H)
            means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            for i, mean in zip(chosen, means.cpu().numpy(), strict=True):
                out[i] = mean
            bar.advance(len(chosen))
    return np.stack(out)


Fit = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""Features (B, H), targets (B) and a strength to H + 1 weights."""


def _chosen(
    fitting: Fit, loss: Callable[[np.ndarray, np.ndarray], float], x: np.ndarray, y: np.ndarray, out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the strength that does best on the rows that were held out, fitted on all; what it said of those."""
    told = {s: _linear(x[out], fitting(x[~out], y[~out], s)) for s in STRENGTHS}
    best = min(STRENGTHS, key=lambda s: loss(told[s], y[out]))
    return fitting(x, y, best), told[best]


def ridge(x: np.ndarray, y: np.ndarray, strength: float) -> np.ndarray:
    """Weights w of least mean (w·x + b - y)² + strength w·w, in closed form; b last."""
    one = np.column_stack([x, np.ones(len(x))])
    return np.linalg.solve(one.T @ one / len(x) + _penalty(x, strength), one.T @ y / len(x))


def logistic(x: np.ndarray, y: np.ndarray, strength: float) -> np.ndarray:
    """Weights of least mean log-loss of y (0 or 1) + strength w·w / 2, by Newton's method; the constant last."""
    one, w = np.column_stack([x, np.ones(len(x))]), np.zeros(x.shape[1] + 1)
    penalty = _penalty(x, strength)
    for _ in range(STEPS):
        p = _sigmoid(one @ w)
        gradient = one.T @ (p - y) / len(x) + penalty @ w
        step = np.linalg.solve((one.T * (p * (1 - p))) @ one / len(x) + penalty, gradient)
        w = w - step * min(1.0, 5.0 / max(np.abs(one @ step).max(), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return w


def _penalty(x: np.ndarray, strength: float) -> np.ndarray:
    """Nearly nothing on the constant: where all targets are equal it must not grow without bound."""
    return np.diag([strength] * x.shape[1] + [1e-6])


def _linear(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return x @ w[:-1] + w[-1]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))


def _squared_error(told: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean((told - y) ** 2))


def _log_loss(logits: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, logits) - y * logits))


def _r2(told: np.ndarray, y: np.ndarray) -> float | None:
    return 1 - _squared_error(told, y) / float(y.var()) if y.var() > 0 else None


def _f1(told: np.ndarray, y: np.ndarray) -> float | None:
    return float(2 * (told & y).sum() / (told.sum() + y.sum())) if y.any() else None
