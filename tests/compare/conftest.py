"""A small comparison: three methods, two seeds, one role trained."""

import pytest
from kept_runs import cell, point

from swirl.compare import summary


@pytest.fixture
def cells():
    return {
        "verified": {s: cell(point("verified1-forward-sft", "forward", 50, [2, 2])) for s in (0, 1)},
        "swirl": {s: cell(point("swirl1-forward-grpo", "forward", 90, [0, 2])) for s in (0, 1)},
        "oracle": {s: cell(point("oracle1-forward-sft", "forward", 99, [2, 3])) for s in (0, 1)},
    }


@pytest.fixture
def results(cells):
    rows = [{**row, "at": ""} for row in summary.summarise(cells, "verified")]
    return {
        "reference": "verified",
        "methods": ["swirl", "oracle", "verified"],
        "seeds": [0, 1],
        "learning_rates": {"swirl": 1e-5},
        "tuning_seed": 1000,
        "tried": [
            {"method": "swirl", "learning_rate": rate, "score": score} for rate, score in ((1e-5, 0.5), (1e-4, 0.25))
        ],
        "vary": None,
        "rows": rows,
        "rewards": summary.rewarded(cells),
    }
