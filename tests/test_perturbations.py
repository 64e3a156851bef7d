"""Every metric moves the right way: a prediction made worse step by step never scores better, and in the end worse.

Transitions are like those of the worlds; a perturbation makes all predictions, perfect at first, worse by a step.
"""

import itertools
import random
import re

import pytest
from conftest import means

from swirl import metrics

MINIGRID = (
    "room 8 8\nagent 3 4 right\nyellow door 4 4 closed\nred key 1 2\ncarrying nothing",
    "room 8 8\nagent 3 4 right\nyellow door 4 4 open\nred key 1 2\ncarrying nothing",
)
HOUSE = (
    "This room is called the kitchen. In it, you see a stove (turned off). You also see a door, which is closed.",
    "This room is called the kitchen. In it, you see a stove (turned on). You also see a door, which is closed.",
)
TOOLS = (
    'user: Fill the tank up.\noutput: {"zipcode": 94016}\nCar.fuel 5.0\nCar.engine "stopped"',
    'user: Fill the tank up.\noutput: {"fuel": 50.0, "log": ["ok", "full"]}\nCar.fuel 50.0\nCar.engine "stopped"',
)
WEB = (
    'page "Login" login.html\n"Press the button."\n[1] input "Name" = "" focused\n[2] button "Login"',
    'page "Login" login.html\n"Press the button."\n[1] input "Name" = "cheree"\n[2] button "Login" focused',
)
HTML = (
    '<form id="order">\n<label>Tea</label>\n<input name="size" value="small">\n<b>3 euros</b>\n</form>',
    '<form id="order">\n<label>Tea</label>\n<input name="size" value="large">\n<b>4 euros</b>\n</form>',
)
CHANGED = [MINIGRID, HOUSE, TOOLS, WEB, HTML]
ROWS = CHANGED + [(state, state) for state, _ in CHANGED]
ACTIONS = ["toggle", "turn on stove", 'fill(amount=45.0, unit="gallon")', 'type [1] "cheree"', "select large tea"] * 2

SIGN = {
    "exact_match": 1,
    "exact_match_changed": 1,
    "changed_facts_f1": 1,
    "token_f1": 1,
    "rouge_l": 1,
    "bleu": 1,
    "structured_f1": 1,
    "false_change_rate": -1,
    "copy_rate": -1,
    "unreadable_rate": -1,
}
ACTION_SIGN = {
    "action_exact_match": 1,
    "action_exact_match_changed": 1,
    "action_bleu": 1,
    "action_rouge_l": 1,
    "action_unreadable_rate": -1,
}
NEUTRAL = {"action_length_mean"}
"""Say what actions are like, not whether they are right."""


def dropping(state, truth):
    """Lines, or sentences of prose, from the end."""
    parts = re.split(r"(?<=\n)|(?<=\. )", truth)
    return ["".join(parts[:n]) for n in range(len(parts), -1, -1)]


def scrambling(state, truth):
    """One word after another, in an order by chance, becomes one that is nowhere else."""
    words = re.split(r"(\w+)", truth)
    places = random.Random(len(truth)).sample(range(1, len(words), 2), len(words) // 2)
    texts = [truth]
    for number, place in enumerate(places):
        words[place] = f"junk{number}"
        texts.append("".join(words))
    return texts


def copying(state, truth):
    """One line, or sentence, after another is the input's."""
    before, after = (re.split(r"(?<=\n)|(?<=\. )", text) for text in (state, truth))
    assert len(before) == len(after)
    return ["".join(before[:n] + after[n:]) for n in range(len(after) + 1)]


def adding(state, truth):
    """Made-up lines."""
    return [truth + "".join(f"\nmade up {i}" for i in range(n)) for n in range(5)]


def summaries(perturbed, summarise):
    """The metrics after each step; a text that has no further step stays as it is."""
    steps = max(map(len, perturbed))
    return [summarise([texts[min(n, len(texts) - 1)] for texts in perturbed]) for n in range(steps)]


def check(summaries, sign, still):
    assert set(summaries[0]) == set(sign) | (NEUTRAL & set(summaries[0]))  # a new metric belongs here too
    for name, up in sign.items():
        values = [up * summary[name][0] for summary in summaries]
        assert values[0] == {1: 1, -1: 0}[up], name
        for number, (better, worse) in enumerate(itertools.pairwise(values)):
            assert worse <= better + 1e-12, (name, number, values)
        assert (values[-1] == values[0]) if name in still else (values[-1] < values[0] - 0.05), (name, values)


@pytest.mark.parametrize(
    ("perturb", "still"),
    [
        (dropping, {"copy_rate"}),
        (scrambling, {"copy_rate", "unreadable_rate"}),
        (copying, {"false_change_rate", "unreadable_rate"}),
        (adding, {"copy_rate", "unreadable_rate"}),
    ],
)
def test_a_worse_next_state_scores_worse(perturb, still):
    states, truths = zip(*ROWS, strict=True)
    found = summaries(
        [perturb(*row) for row in ROWS], lambda predictions: means(metrics.forward_values(states, truths, predictions))
    )
    check(found, SIGN, still)


def test_copying_scores_nothing_on_what_changed():
    states, truths = zip(*ROWS, strict=True)
    found = means(metrics.forward_values(states, truths, states))
    assert (found["copy_rate"][0], found["exact_match_changed"][0], found["changed_facts_f1"][0]) == (1, 0, 0)
    assert all(found[name][0] > 0.5 for name in ("token_f1", "rouge_l", "bleu", "structured_f1"))  # and so much there


@pytest.mark.parametrize(("perturb", "still"), [(scrambling, {"action_unreadable_rate"}), (dropping, set())])
def test_a_worse_action_scores_worse(perturb, still):
    states, truths = zip(*ROWS, strict=True)
    found = summaries(
        [perturb("", action) for action in ACTIONS],
        lambda predictions: means(metrics.inverse_values(states, truths, ACTIONS, predictions)),
    )
    check(found, ACTION_SIGN, still)


def test_actions_of_other_rows_score_worse_the_more_of_them():
    states, truths = zip(*ROWS, strict=True)
    mixed = [[action, ACTIONS[(i + 1) % 5]] for i, action in enumerate(ACTIONS)]
    found = [
        means(metrics.inverse_values(states, truths, ACTIONS, [pair[i < n] for i, pair in enumerate(mixed)]))
        for n in range(len(ACTIONS) + 1)
    ]
    check(found, ACTION_SIGN, {"action_unreadable_rate"})
