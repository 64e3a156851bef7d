"""A control: verified relabelling whose labels are dealt out among the pairs at random. It should gain nothing.

    repeat for each round
        label, verify and keep as `verified` does, then permute the labels
        SFT of both roles on them and the true labels

Whatever a method gains here comes from more training, or from seeing more states, and not from its labels.
"""

from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.methods.verified import verified


def random_label(run: Runner, pair: Pair) -> Pair:
    """The settings are those of `verified`."""
    return verified(run, pair, "random-label", shuffled=True)
