"""Kept files of a comparison with known numbers."""

from swirl.compare import summary

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
        "tested_on": "one",
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
        "recipe": {},
        "commit": "abc1234",
        "machine": {"cores": 2},
        "versions": {"torch": "2.13.0"},
    }


def three_methods():
    """Three methods, two seeds, one role trained."""
    return {
        "verified": {s: cell(point("verified1-forward-sft", "forward", 50, [2, 2])) for s in (0, 1)},
        "swirl": {s: cell(point("swirl1-forward-grpo", "forward", 90, [0, 2])) for s in (0, 1)},
        "oracle": {s: cell(point("oracle1-forward-sft", "forward", 99, [2, 3])) for s in (0, 1)},
    }


def results_of(cells):
    """What `results.json` holds of them."""
    rows = [{**row, "at": ""} for row in summary.summarise(cells, "verified")]
    return {
        "reference": "verified",
        "methods": ["swirl", "oracle", "verified"],
        "seeds": [0, 1],
        "learning_rates": {"swirl": 1e-5},
        "tuning_seed": 1000,
        "tried": [
            {"method": "swirl", "learning_rate": rate, "score": score, "facts": 0.0}
            for rate, score in ((1e-5, 0.5), (1e-4, 0.25))
        ],
        "vary": "",
        "new_recordings": False,
        "warnings": [],
        "rows": rows,
        "rewards": summary.rewarded(cells),
    }
