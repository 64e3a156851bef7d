"""A control: relabelling whose labels are dealt out among the pairs at random. It should gain nothing.

    repeat for each round
        z ~ Q(z | x, y)                 label state-only pairs, then permute the labels
        SFT of both roles on them and the true labels

Whatever a method gains here comes from more training, or from seeing more states, and not from its labels.
"""

from swirl.methods.phases import Pair
from swirl.methods.runner import Runner


def random_label(run: Runner, pair: Pair) -> Pair:
    """The settings are those of `verified`."""
    settings = run.recipe.verified
    for r in range(1, settings.rounds + 1):
        dealt = run.label(f"random-label{r}", pair, settings.pairs, shuffled=True)
        pair = run.sft(f"random-label{r}", pair, run.supervised([run.labelled, dealt], settings.label_share), settings)
    return pair
