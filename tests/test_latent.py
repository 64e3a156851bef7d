import math

import pytest

from swirl import api
from swirl.eval import held_out, latent

ROWS = [
    {"state": a, "action": b, "next_state": c, "trajectory": "a", "step": i, "history": []}
    for i, (a, b, c) in enumerate(
        [("door shut", "go left", "door open"), ("door open", "go right", "key"), ("key", "wait", "key")]
    )
]


def test_signs_by_the_models_own_likelihoods(run_folder):
    inverse = api.load_inverse(run_folder, "cpu")
    known = [inverse.log_likelihood(r["state"], r["next_state"], r["action"]) for r in ROWS]
    tokens = [len(inverse.scorer.tokenizer(r["action"], add_special_tokens=False)["input_ids"]) + 1 for r in ROWS]
    found = latent.signs(inverse.scorer, ROWS, ["key", "", "x"], (known, tokens), inverse.recipe)
    nmi, ratio = found
    assert (nmi["metric"], nmi["value"], nmi["n"]) == ("action_nmi", pytest.approx(1), 2)  # the third changes nothing
    ours = inverse.log_likelihood(ROWS[0]["state"], ROWS[0]["next_state"], "key")
    n = len(inverse.scorer.tokenizer("key", add_special_tokens=False)["input_ids"]) + 1
    # The second cannot be read, so it is left out on both sides.
    assert ratio["value"] == pytest.approx(math.exp(known[0] / tokens[0] - ours / n), rel=1e-4)
    assert (ratio["metric"], ratio["n"]) == ("action_perplexity_ratio", 1)
    assert latent.signs(inverse.scorer, ROWS[2:], ["x"], (known, tokens), inverse.recipe) == []


def test_they_are_among_the_inverse_metrics(run_folder):
    inverse = api.load_inverse(run_folder, "cpu")
    rows, _ = held_out.measure("inverse", inverse.scorer, ROWS, inverse.recipe, 8, "t")
    assert "action_nmi" in [row["metric"] for row in rows]
