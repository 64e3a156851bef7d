"""Kept files of a comparison with known numbers."""

COUNTS = {"exact_match_changed": [2, 3], "action_exact_match_changed": [2, 3]}


def point(phase, role, cost, sums):
    spent = {} if cost is None else {"cpu_seconds": cost, "tokens": 10 * cost}
    return {"phase": phase, "role": role, **spent, "sums": {"exact_match_changed": sums}}


def cell(*later, warm=(0, 1)):
    """A run of two test layouts; the inverse model is right in half of the rows."""
    inverse = point("warmup-inverse-sft", "inverse", 30, [0, 0])
    inverse["sums"] = {"action_exact_match_changed": [1, 1.5]}
    points = [point("copy-input", "forward", None, [0, 0]), point("warmup-forward-sft", "forward", 20, list(warm))]
    return {
        "points": [*points, inverse, *later],
        "counts": {role: COUNTS for role in ("forward", "inverse")},
        "rewards": {"swirl1-forward-grpo": {"first": -0.5, "last": -0.25}},
        "rows": [
            {"role": "inverse", "phase": "warmup", "metric": "action_unique_share", "value": 0.25},
        ],
        "alarms": ["swirl1-forward-grpo: reward rose"],
        "samples": [
            {"role": "forward", "kind": "worst", "row": 3, "state": "lamp <b>off</b>", "action": "press"}
            | {"next_state": "lamp on", "prediction": "lamp off", "score": 0.0}
        ],
        "commit": "abc1234",
        "machine": {"cores": 2},
        "versions": {"torch": "2.13.0"},
    }
