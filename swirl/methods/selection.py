"""Which checkpoint of a phase is kept: scored on validation, chosen, and watched for reward hacking.

`phase.json` says it all: the metrics of every checkpoint by step (`curve`), and of both roles' checkpoints and their
cycle as they are after the phase (`validation`).
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from swirl import health, metrics, parallel
from swirl.eval import held_out
from swirl.methods.phases import Measured, Pair, Phases
from swirl.types import ROLES, Role

logger = logging.getLogger("swirl")

Keep = Literal["best", "last"]
WATCHED: dict[Role, dict[str, bool]] = {
    "forward": {metrics.HEADLINE["forward"]: False, "false_change_rate": True},
    "inverse": {metrics.HEADLINE["inverse"]: False},
}
"""What should not get worse while a reward rises, and whether less of it is better."""
Scored = list[dict[Role, Measured]]
"""What each checkpoint of a phase is worth in each role that the phase trains."""


def choose(
    run: Phases,
    name: str,
    roles: Sequence[Role],
    pair: Pair,
    checkpoints: Mapping[int, Path],
    out: Path,
    keep: Keep,
) -> Path:
    """Score a phase's checkpoints on validation, choose, and note it in `phase.json`.

    Args:
        run: The run.
        name: Of the phase.
        roles: What the phase trains.
        pair: Both roles' checkpoints at its start.
        checkpoints: By optimiser step, in order; the start is at 0.
        out: The phase's folder.
        keep: Keep the best on validation, or the last.

    Returns:
        One of the checkpoints: the last where there is nothing to validate on.
    """
    return Path(parallel.from_main(lambda: str(_chosen(run, name, roles, pair, checkpoints, out, keep))))


def _chosen(
    run: Phases,
    name: str,
    roles: Sequence[Role],
    pair: Pair,
    checkpoints: Mapping[int, Path],
    out: Path,
    keep: Keep,
) -> Path:
    paths = list(checkpoints.values())
    if not run.validation:
        return paths[-1]
    scored: Scored = [{role: measure(run, role, path) for role in roles} for path in paths]
    keys = [[held_out.worth(role, rows) for role, (rows, _) in one.items()] for one in scored]
    best = max(range(len(keys)), key=lambda i: [sum(part) for part in zip(*keys[i], strict=True)])
    chosen = best if keep == "best" else len(paths) - 1
    after = pair._replace(**dict.fromkeys(roles, paths[chosen]))
    run.write_facts(
        out,
        {
            "phase": name,
            "select": keep,
            "chosen": chosen,
            "curve": _curve(list(checkpoints), scored),
            "alarms": _alarms(name, roles, scored, out, run.validation),
            "validation": _validation(run, after),
            "predictions": {role: scored[chosen][role][1] for role in roles},
        },
    )
    return paths[chosen]


def measure(run: Phases, role: Role, checkpoint: Path) -> Measured:
    """A checkpoint on validation, measured unless it was before."""
    if (role, checkpoint) not in run.measured:
        run.measured[role, checkpoint] = held_out.measure(
            role, run.scorer(checkpoint), run.validation, run.recipe, run.max_new_tokens[role], f"validate {role}"
        )
    return run.measured[role, checkpoint]


def _validation(run: Phases, pair: Pair) -> list[dict]:
    """Metrics of both roles' checkpoints, and of the two together."""
    found = {role: measure(run, role, getattr(pair, role)) for role in ROLES}
    cycle = held_out.cycle(
        run.scorer(pair.forward), run.validation, found["inverse"][1], run.recipe, run.max_new_tokens["forward"]
    )
    return [row for rows, _ in found.values() for row in rows] + cycle


def _curve(steps: Sequence[int], scored: Scored) -> list[dict]:
    """What checkpoints are compared by, by step."""
    return [
        {"checkpoint": i, "step": step, **row}
        for i, (step, one) in enumerate(zip(steps, scored, strict=True))
        for role, (rows, _) in one.items()
        for row in rows
        if row["metric"] in (metrics.HEADLINE[role], "changed_facts_f1", "false_change_rate", "nll_changed")
    ]


def _alarms(name: str, roles: Sequence[Role], scored: Scored, out: Path, rows: Sequence[dict]) -> list[str]:
    """Alarms of a phase: hacking where it has a reward, collapse where the inverse model goes on from its warm-up.

    Self-training collapses as well as a reward does. In pre-training and the warm-up a model is only not there yet.
    """
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    rewards = [row["reward"] for row in log if row.get("reward") is not None]
    alarms = []
    for role in roles:
        if rewards:
            alarms += _hacked(rewards, [one[role][0] for one in scored], WATCHED[role])
        if role == "inverse" and not name.startswith(("pretrain-", "warmup-")):
            alarms += _collapse(rows, *scored[-1][role])
    for alarm in alarms:
        logger.warning("%s", alarm)
    return alarms


def _hacked(rewards: Sequence[float], found: Sequence[Sequence[dict]], watched: Mapping[str, bool]) -> list[str]:
    """Alarms for a reward that rises while what is watched gets worse, from the metrics of every checkpoint."""
    alarms = []
    for metric, lower_is_better in watched.items():
        held = [next((row for row in rows if row["metric"] == metric), None) for rows in found]
        if held[0] and held[-1]:
            values = [1 - row["value"] if lower_is_better else row["value"] for row in held if row]
            name = f"1 - {metric}" if lower_is_better else metric
            alarms.append(health.reward_hacking(rewards, values, held[0]["n"], name))
    return [alarm for alarm in alarms if alarm]


def _collapse(rows: Sequence[dict], found: Sequence[dict], predictions: Sequence[str]) -> list[str]:
    """Alarms for the actions that a phase ends with, on changed transitions."""
    changed = [metrics.changed(row["state"], row["next_state"]) for row in rows]
    read = [(text, row["action"]) for text, row, yes in zip(predictions, rows, changed, strict=True) if yes and text]
    ratio = next((row["value"] for row in found if row["metric"] == "action_perplexity_ratio"), None)
    return health.collapse([text for text, _ in read], [action for _, action in read], ratio)
