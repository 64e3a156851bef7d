"""SFT-merge: the forward model is trained anew on the labels and on what the inverse model infers, together.

    z ~ Q(z | x, y)                     label state-only pairs
    SFT of P(y | x, z) on them and the true labels, from where the warm-up began

Source: SWIRL, arXiv 2602.06130, baselines.
"""

from swirl.methods.phases import Pair
from swirl.methods.runner import Runner


def sft_merge(run: Runner, pair: Pair) -> Pair:
    """The inverse model labels and stays as it is."""
    settings = run.recipe.inferred.at_once()
    begin = pair._replace(forward=run.began("warmup").forward)
    inferred = run.label("sft-merge", pair, settings.pairs)
    merged = run.supervised([run.labelled, inferred], settings.label_share)
    return run.sft("sft-merge", begin, merged, settings, ("forward",))
