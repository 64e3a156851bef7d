"""How well an agent does: Pass@1, Pass@k, and what its replies are like.

Pass@k is the chance that at least one of k samples of a task succeeds, by the unbiased estimator: with c successes
among n samples, 1 - C(n - c, k) / C(n, k). Source: Chen et al., arXiv 2107.03374, equation 1.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np

from swirl import intervals
from swirl.agents.episodes import Episode, Turn
from swirl.agents.replies import Part

COUNT: intervals.Bounds = (0.0, np.inf)


def pass_at_k(samples: int, successes: int, k: int) -> float:
    """The estimate for one task.

    Raises:
        ValueError: k is not between 1 and the number of samples.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k = {k} of {samples} samples, expected 1 to {samples}")
    return 1 - comb(samples - successes, k) / comb(samples, k)


def measure(episodes: Sequence[Episode], ks: Sequence[int], part: Part) -> list[dict[str, Any]]:
    """Rows {"metric", "value", "low", "high", "n"} of episodes, as many to each seed; intervals are over layouts.

    `pass_at_K` for each k, of which `pass_at_1` has also the "successes" of each seed, in order, among its "samples";
    `score`, `steps` per episode, and `outgrown`, the share of episodes that end because the model cannot read more;
    `readable` and `cut_off` replies, `valid_actions` among those written and `effective_actions` among those taken
    (they change the state) as shares; `observation_exact` and `prediction_exact` of the states that replies tell;
    `uncertainty` of imagined steps; `reply_tokens`; and against collapse `repeated_replies`, the chance that two of the
    replies are the same, which does not depend on how many there are.
    """
    by_seed: dict[int, list[Episode]] = defaultdict(list)
    for episode in episodes:
        by_seed[episode.seed].append(episode)
    [samples] = {len(group) for group in by_seed.values()}
    successes = [sum(e.success for e in group) for group in by_seed.values()]
    rows = []
    for k in ks:
        rates = [pass_at_k(samples, won, k) for won in successes]
        of_seeds = {"successes": successes, "samples": samples} if k == 1 else {}
        found = _row(f"pass_at_{k}", rates, [group[0].layout for group in by_seed.values()])
        rows += [row | of_seeds for row in found]
    layouts = [e.layout for e in episodes]
    rows += _row("score", [e.score for e in episodes], layouts)
    rows += _row("steps", [e.steps for e in episodes], layouts)
    rows += _row("outgrown", [float(e.outgrown) for e in episodes], layouts)
    turns = [(episode.layout, turn) for episode in episodes for turn in episode.turns]
    for name, values in _of_turns([turn for _, turn in turns], part).items():
        known = [(layout, value) for (layout, _), value in zip(turns, values, strict=True) if value is not None]
        rows += _row(name, [value for _, value in known], [layout for layout, _ in known])
    repeated = _repeated([turn for _, turn in turns])
    return [*rows, {"metric": "repeated_replies", "value": repeated, "low": None, "high": None, "n": len(turns)}]


def monitored(episodes: Sequence[Episode]) -> dict[str, float | int]:
    """What the log says of an iteration's episodes: how they fared, and whether replies collapse."""
    turns = [turn for episode in episodes for turn in episode.turns]
    doubts = [doubt for turn in turns for doubt in turn.doubts]
    return {
        "success": float(np.mean([episode.success for episode in episodes])),
        "score": float(np.mean([episode.score for episode in episodes])),
        "steps": sum(episode.steps for episode in episodes),
        "episodes": len(episodes),
        "readable": float(np.mean([turn.read is not None for turn in turns])),
        "reply_tokens": float(np.mean([len(turn.reply) for turn in turns])),
        "repeated_replies": _repeated(turns),
        **({"uncertainty": float(np.mean(doubts))} if doubts else {}),
    }


def _of_turns(turns: Sequence[Turn], part: Part) -> dict[str, list[float | None]]:
    """What is measured of each turn; `None` where it has nothing to be measured of."""
    right = [turn.right(part) for turn in turns]
    return {
        "readable": [float(turn.read is not None) for turn in turns],
        "cut_off": [float(not turn.finished) for turn in turns],
        "valid_actions": [_share(len(turn.actions), len(turn.actions) + turn.unknown) for turn in turns],
        "effective_actions": [_share(_effective(turn), len(turn.actions)) for turn in turns],
        "observation_exact": [both and both[0] for both in right],
        "prediction_exact": [both and both[1] for both in right],
        "uncertainty": [_share(sum(turn.doubts), len(turn.doubts)) for turn in turns],
        "reply_tokens": [float(len(turn.reply)) for turn in turns],
    }


def _repeated(turns: Sequence[Turn]) -> float:
    """The chance that two different turns have the same reply; 0 of one turn."""
    times = Counter(turn.text for turn in turns)
    return sum(comb(n, 2) for n in times.values()) / max(1, comb(len(turns), 2))


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _effective(turn: Turn) -> int:
    """Actions that changed the state."""
    return sum(one != two for one, two in zip([turn.state, *turn.states], turn.states, strict=False))


def _row(metric: str, values: Sequence[float], layouts: Sequence[str]) -> list[dict[str, Any]]:
    if not len(values):
        return []
    bounds = {"score": None, "steps": COUNT, "reply_tokens": COUNT}.get(metric, intervals.SHARE)
    low, high = intervals.bootstrap_interval(values, layouts, bounds=bounds)
    return [{"metric": metric, "value": float(np.mean(values)), "low": low, "high": high, "n": len(values)}]
