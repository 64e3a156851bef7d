"""State-only pre-training of the forward model: P(y | x) on every training pair, with the action left blank.

It needs no labels. A model built from scratch learns here what a pretrained one brings along: to copy what a step
leaves alone, and what steps in this world look like. It is part of the warm-up, so that comparisons stay fair. The
inverse model does not start from it, for it learned more slowly when it did; with shared weights it must.

`swirl train recipes/minigrid.toml --methods '["pretrain", "warmup"]'`
"""

from swirl.methods.runner import Pair, Runner


def pretrain(run: Runner, pair: Pair) -> Pair:
    """SFT of P(y | x) on state-only pairs."""
    checkpoint = run.adapt("pretrain", pair.forward, run.recipe.pretrain)
    return Pair(checkpoint, checkpoint if run.recipe.model.shared else pair.inverse)
