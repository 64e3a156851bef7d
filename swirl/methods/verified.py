"""Verified relabelling: the same reciprocal reward, maximised by expectation-maximisation instead of policy gradients.

    repeat for each round
        E:  z* = argmax_z a log Q(z | x, y) + b log P(y | x, z)    over the actions that the world lists, or samples
            keep the surest (x, z*, y): a share of each action's and, after the first round, as many as are expected to
            be right often enough, and pairs with x = y, of z ~ P(z) P(x | x, z); a, b: from validation labels
        M:  SFT of both roles on the kept pairs and the true labels
        stop when neither role has improved for some rounds

The verifier must stay able to disagree. A forward model trained on every inferred label agrees with their mistakes; one
that waits for certainty waits for ever where labels are few. The surest share is right often enough to learn from, for
what the models get wrong has less of a pattern than what they get right.

The first round is the careful one: what the warmed-up models are least sure of, and that an action changes nothing
where they have never seen it change something, would be learned for good before anything can speak against it.

`swirl train recipes/minigrid.toml`
"""

from swirl.methods.phases import Pair
from swirl.methods.runner import Runner


def verified(run: Runner, pair: Pair, stage: str = "verified", shuffled: bool = False) -> Pair:
    """Label, verify, keep what is certain, train both; `shuffled` deals the labels that were kept out at random."""
    settings = run.recipe.verified
    for r in range(1, settings.rounds + 1):
        kept = run.relabel(f"{stage}{r}", pair, settings, first=r == 1, shuffled=shuffled)
        examples = run.supervised([run.labelled, kept], settings.label_share)
        pair = run.sft(f"{stage}{r}", pair, examples, settings)
        if run.stalled(settings.patience, r):
            break
    return pair
