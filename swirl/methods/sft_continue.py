"""SFT-continue: the forward model goes on training on what the inverse model infers.

    z ~ Q(z | x, y)                     label state-only pairs
    SFT of P(y | x, z) on them, from the warm-up's checkpoint

Source: SWIRL, arXiv 2602.06130, baselines.
"""

from swirl.methods.phases import Pair
from swirl.methods.runner import Runner


def sft_continue(run: Runner, pair: Pair) -> Pair:
    """The inverse model labels and stays as it is."""
    settings = run.recipe.inferred.at_once()
    inferred = run.label("sft-continue", pair, settings.pairs)
    return run.sft("sft-continue", pair, run.supervised([inferred]), settings, ("forward",))
