"""Bootstrapping a world model from a dynamics model: weak supervision of the forward model by the inverse one.

    repeat for each round
        z ~ Q(z | x, y)                 label state-only pairs
        SFT of P(y | x, z) on them and the true labels,
            the tokens of y that belong to what changed weighted by w

w = 1 unless the recipe sets `inferred.change_weight`. The paper has a model say which image tokens matter; in text that
is read off the pair itself (`changed_tokens` in `swirl/changes.py`).

Source: arXiv 2506.06006, section 4. Its other half, verification at test time, is `best-of-n`.
"""

from swirl.methods.phases import Pair
from swirl.methods.runner import Runner


def bootstrap(run: Runner, pair: Pair) -> Pair:
    """The inverse model labels and stays as it is."""
    settings = run.recipe.inferred
    for r in range(1, settings.rounds + 1):
        inferred = run.label(f"bootstrap{r}", pair, settings.pairs)
        merged = run.supervised([run.labelled, inferred], settings.label_share)
        pair = run.sft(f"bootstrap{r}", pair, merged, settings, ("forward",), settings.change_weight)
    return pair
