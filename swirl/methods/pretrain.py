"""State-only pre-training: both roles learn from every training pair what needs no action label.

    forward:  P(y | x, no action)      to copy what a step leaves alone, and what steps in this world look like
    inverse:  P(change | x, y)         to find what changed, written as the lines removed and added

A model built from scratch brings nothing along; with a few hundred labels it would learn neither to copy nor to
compare. After this, the labels only have to say which action goes with which change. It is part of the warm-up, so that
comparisons stay fair. Not in the paper, whose models are pretrained on text.

`swirl train recipes/minigrid.toml --methods '["pretrain", "warmup"]'`
"""

from swirl.methods.runner import Pair, Runner


def pretrain(run: Runner, pair: Pair) -> Pair:
    """SFT of both roles on the tasks that state-only pairs pose by themselves."""
    return run.sft("pretrain", pair, run.pretext(run.recipe.pretrain), run.recipe.pretrain)
