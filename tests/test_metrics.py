import itertools
import math
from collections import Counter

import pytest
import sacrebleu
from conftest import means
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from swirl import metrics

DOOR_CLOSED = "agent at (1, 2)\ndoor closed\nkey on floor"
DOOR_OPEN = "agent at (1, 2)\ndoor open\nkey on floor"

lines = st.lists(st.sampled_from(["a b", "c", "d e f", "c d"]), min_size=1, max_size=6)


def test_normalise_drops_what_does_not_show():
    assert metrics.normalise("\r\n  a \t\r\nb  \rc\n\n") == "a\nb\nc"
    assert metrics.normalise("a\n  b") == "a\n  b"  # indentation inside stays


def test_facts_are_lines_with_multiplicity():
    assert metrics.facts(" wall \n\nwall\ndoor. open\n") == Counter({"wall": 2, "door. open": 1})
    assert metrics.facts("") == Counter()


def test_facts_of_prose_are_sentences():
    assert metrics.facts("You see a door. It is 3.5 m high!  Go?") == Counter(
        ["You see a door.", "It is 3.5 m high!", "Go?"]
    )
    assert metrics.facts("One. Two.", prose=False) == Counter(["One. Two."])


def test_exact_match_and_changed():
    assert metrics.exact_match("a \nb\n", "a\nb")
    assert not metrics.exact_match("A\nb", "a\nb")
    assert metrics.changed("a", "b")
    assert not metrics.changed("a\n", "a")


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (DOOR_OPEN, 1.0),
        (DOOR_CLOSED, 0.0),  # a copy: no change told
        ("key on floor\nagent at (1, 2)\ndoor open", 1.0),  # facts have no order
        # D(truth) = {-closed, +open}; D(prediction) = {-closed, +open, -key}: 2·2 / (2 + 3)
        ("agent at (1, 2)\ndoor open", 0.8),
        # D(prediction) = {-closed, +ajar}: 2·1 / (2 + 2)
        ("agent at (1, 2)\ndoor ajar\nkey on floor", 0.5),
        # D(prediction) = {+open}: the old fact was kept: 2·1 / (2 + 1)
        (DOOR_CLOSED + "\ndoor open", 2 / 3),
        ("nonsense", 0.0),  # takes the right fact away too, with all others
        ("", 0.0),  # a reply that cannot be read
        (" \n", 0.0),
    ],
)
def test_changed_facts_f1(prediction, expected):
    assert metrics.changed_facts_f1(DOOR_CLOSED, DOOR_OPEN, prediction) == pytest.approx(expected, abs=1e-12)


def test_changed_facts_f1_counts_multiplicity():
    # D(truth) = {+coin, +coin}, D(prediction) = {+coin}: 2·1 / (2 + 1)
    assert metrics.changed_facts_f1("coin\nx", "coin\ncoin\ncoin\nx", "coin\ncoin\nx") == pytest.approx(2 / 3)


def test_removing_is_not_adding():
    # D(truth) = {-coin}, D(prediction) = {+coin}
    assert metrics.changed_facts_f1("coin\nx", "x", "coin\ncoin\nx") == 0.0


def test_changed_facts_f1_on_unchanged_transitions():
    assert metrics.changed_facts_f1("a\nb", "a\nb", "a\nb ") == 1.0
    assert metrics.changed_facts_f1("a\nb", "a\nb", "a\nc") == 0.0
    assert metrics.changed_facts_f1("a\nb", "a\nb", "b\na") == 0.0


def test_copying_earns_nothing_where_the_truth_swaps_rows():
    above, below = "#@.#\n#..#", "#..#\n#@.#"
    assert metrics.changed_facts_f1(above, below, above) == 0.0
    assert metrics.changed_facts_f1(above, below, below) == 1.0


def test_changed_facts_f1_splits_all_three_texts_alike():
    # Prose: {-It is shut., +It is open.} both times, whatever the prediction's line breaks.
    assert metrics.changed_facts_f1("A door. It is shut.", "A door. It is open.", "A door.\nIt is open.") == 1.0
    # Lines: the truth's second line makes the first one fact, so D(prediction) = {-Hi. You., +Hi. Me.}.
    assert metrics.changed_facts_f1("Hi. You.", "Hi. You.\nkey", "Hi. Me.") == 0.0


def test_false_change():
    assert metrics.false_change("a", "b", "a") is None
    assert metrics.false_change("a", "a", "a\n") is False
    assert metrics.false_change("a", "a", "b") is True


def test_token_f1():
    assert metrics.token_f1("a b", "b\na") == 1.0
    assert metrics.token_f1("a a b", "a c") == pytest.approx(2 * 1 / 5)
    assert metrics.token_f1("", "a") == 0.0
    assert metrics.token_f1("", " ") == 1.0


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("The cat,\nsat!", "the cat sat", 1.0),  # words alone count
        ("police kill the gunman", "police killed the gunman", 2 * 3 / 8),  # police, the, gunman
        ("the gunman kill police", "police killed the gunman", 2 * 2 / 8),  # the, gunman: order counts
        ("a b c", "a x b y c z", 2 * 3 / 9),  # gaps do not
        ("door 12", "door 13", 2 * 1 / 4),
        ("", "a", 0.0),
        ("a", "#_#", 0.0),
        ("", "", 0.0),
        (" \n", "", 0.0),
        ("#.@\n$..", "#.@  \n$..\n", 1.0),  # a map: the same, without a word
        ("#.@\n$..", "#@.\n$..", 0.0),
    ],
)
def test_rouge_l(prediction, truth, expected):
    assert metrics.rouge_l(prediction, truth) == pytest.approx(expected, abs=1e-12)


ROUGE = RougeScorer(["rougeL"])
wordy = st.one_of(st.text(), lines.map("\n".join), st.lists(st.sampled_from("abcd ,.\n1")).map("".join))


@given(wordy, wordy)
def test_rouge_l_is_that_of_the_package(prediction, truth):
    same = metrics.exact_match(prediction, truth) and truth.strip()  # the package gives 0 where there is no word
    expected = 1.0 if same else ROUGE.score(truth, prediction)["rougeL"].fmeasure
    assert metrics.rouge_l(prediction, truth) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        ("the door is open", "the door is open", 1.0),
        ("a", "a", 1.0),  # one word has no pairs, and does not need them
        ("a\nb \n", "a\nb", 1.0),  # as `normalise` sees it
        ("A", "a", 0.0),  # case counts
        # 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, 0 of 1 fours, smoothed to 1/2.
        ("the door is shut", "the door is open", (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)),
        # All there is is right, but it is half as long: exp(1 - 4/2).
        ("the door", "the door is open", math.exp(-1)),
        # A word that is said twice counts as often as it is there: 1/2, and a pair smoothed to 1/2.
        ("a a", "a b", 0.5),
        ("", "a", 0.0),
        ("a", "", 0.0),
        ("", "", 0.0),
    ],
)
def test_bleu(prediction, truth, expected):
    assert metrics.bleu(prediction, truth) == pytest.approx(expected, abs=1e-12)


@given(wordy, wordy)
def test_bleu_is_that_of_the_package(prediction, truth):
    texts = metrics.normalise(prediction), metrics.normalise(truth)
    expected = sacrebleu.sentence_bleu(texts[0], [texts[1]], smooth_method="exp", tokenize="13a").score / 100
    assert metrics.bleu(prediction, truth) == pytest.approx(expected, abs=1e-12)


def test_structured_f1_is_over_rows_whose_truth_has_a_tree():
    truths = ["plain", '{"a": 1}', '{"a": 1}', '{"a": 1, "b": 2}']
    predictions = ['{"a": 1}', '{"a": 1}', "plain", '{"a": 1}']
    values, rows = metrics.forward_values(["x"] * 4, truths, predictions)["structured_f1"]
    assert values.tolist() == [1.0, 0.0, pytest.approx(2 / 3)]
    assert rows.tolist() == [1, 2, 3]


def test_action_match():
    assert metrics.action_match(" Open  the\tDOOR\n", "open the door")
    assert not metrics.action_match("open door", "open the door")


def test_majority_action():
    assert metrics.majority_action(["left", "Right", "right", "up"]) == "right"
    assert metrics.majority_action(["up", "left", "up", "left", "down"]) == "left"
    with pytest.raises(ValueError, match="no actions"):
        metrics.majority_action([])


def test_next_state_metrics_by_hand():
    states = ["a\nx", "a\nx", "a\nx", "a\nx"]
    truths = ["b\nx", "b\nx", "a\nx", "a\nx"]
    predictions = ["b\nx", "a\nx", "a\nx", "a\ny"]  # right, copied, right, false change
    assert means(metrics.forward_values(states, truths, predictions)) == {
        "exact_match_changed": (0.5, 2),
        "exact_match": (0.5, 4),
        "changed_facts_f1": (0.5, 2),
        "false_change_rate": (0.5, 2),
        "token_f1": ((1 + 0.5 + 1 + 0.5) / 4, 4),
        "rouge_l": ((1 + 0.5 + 1 + 0.5) / 4, 4),
        # Of "a x" for "b x": 1 of 2 words, 0 of 1 pairs, smoothed to 1/2: the root of 1/4.
        "bleu": ((1 + 0.5 + 1 + 0.5) / 4, 4),
        "copy_rate": (0.5, 2),
        "unreadable_rate": (0.0, 4),
    }


def test_replies_that_cannot_be_read_are_counted_and_wrong():
    found = means(metrics.forward_values(["a", "a"], ["b", "a"], ["", " "]))
    assert found["unreadable_rate"] == (1.0, 2)
    assert found["changed_facts_f1"] == (0.0, 1)
    assert found["false_change_rate"] == (1.0, 1)
    assert means(metrics.inverse_values(["a", "a"], ["b", "a"], ["x", "y"], ["x", ""]))["action_unreadable_rate"] == (
        0.5,
        2,
    )


def test_copy_input_baseline():
    states, truths = ["a", "a", "a"], ["b", "c", "a"]
    summary = means(metrics.forward_values(states, truths, predictions=states))
    assert summary["exact_match_changed"] == (0.0, 2)
    assert summary["changed_facts_f1"] == (0.0, 2)
    assert summary["copy_rate"] == (1.0, 2)
    assert summary["false_change_rate"] == (0.0, 1)
    assert summary["exact_match"] == (pytest.approx(1 / 3), 3)


def test_metrics_without_rows_are_left_out():
    assert set(metrics.forward_values(["a"], ["a"], ["b"])) == {
        "exact_match",
        "false_change_rate",
        "token_f1",
        "unreadable_rate",
        "rouge_l",
        "bleu",
    }
    assert "false_change_rate" not in metrics.forward_values(["a"], ["b"], ["b"])
    assert metrics.forward_values([], [], []) == {}
    assert metrics.inverse_values([], [], [], []) == {}
    assert "action_exact_match_changed" not in metrics.inverse_values(["a"], ["a"], ["up"], ["up"])


def test_action_metrics_by_hand():
    states, truths = ["a", "a", "a"], ["b", "c", "a"]
    summary = means(metrics.inverse_values(states, truths, ["go up", "down", "wait"], ["Go  up", "left", "go up"]))
    assert summary == {
        "action_exact_match_changed": (0.5, 2),
        "action_exact_match": (pytest.approx(1 / 3), 3),
        # "left" has no word of "down", "go up" none of "wait".
        "action_bleu": (pytest.approx(1 / 3), 3),
        "action_rouge_l": (pytest.approx(1 / 3), 3),
        "action_length_mean": (pytest.approx(5 / 3), 3),
        "action_unreadable_rate": (0.0, 3),
    }


def test_majority_action_baseline():
    actions = ["up", "down", "up", "wait"]
    baseline = [metrics.majority_action(actions)] * 4
    summary = means(metrics.inverse_values(["a"] * 4, ["b", "b", "b", "a"], actions, baseline))
    assert summary["action_exact_match_changed"] == (pytest.approx(2 / 3), 3)


def test_values_name_their_rows():
    values, rows = metrics.forward_values(["a", "a", "a"], ["a", "b", "c"], ["a", "b", "b"])["exact_match_changed"]
    assert values.tolist() == [1.0, 0.0]
    assert rows.tolist() == [1, 2]
    values, rows = metrics.inverse_values(["a", "a"], ["a", "b"], ["x", "y"], ["x", "y"])["action_exact_match_changed"]
    assert values.tolist() == [1.0]
    assert rows.tolist() == [1]


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="'predictions': 1"):
        metrics.forward_values(["a", "a"], ["b", "b"], ["b"])
    with pytest.raises(ValueError, match="'actions': 2"):
        metrics.inverse_values(["a"], ["b"], ["x", "y"], ["x"])


@given(lines, lines, st.integers(1, 6))
def test_corrupting_a_perfect_next_state_never_raises_a_metric(before, after, count):
    state, truth = "\n".join(before), "\n".join(after)
    prediction = list(after)
    scores = [_next_state_scores(state, truth, truth)]
    for i in range(min(count, len(after))):
        prediction[i] = f"junk{i}"
        scores.append(_next_state_scores(state, truth, "\n".join(prediction)))
    assert all(score == 1 for score in scores[0])
    for better, worse in itertools.pairwise(scores):
        assert all(w <= b for b, w in zip(better, worse, strict=True))
    assert all(w < b for b, w in zip(scores[0], scores[-1], strict=True))


@given(lines, lines, lines)
def test_a_made_up_fact_never_raises_a_metric(before, after, predicted):
    state, truth, prediction = ("\n".join(part) for part in (before, after, predicted))
    plain, longer = (_next_state_scores(state, truth, text) for text in (prediction, prediction + "\njunk"))
    assert all(worse <= better for better, worse in zip(plain, longer, strict=True))


@given(lines, lines, lines)
def test_metrics_stay_within_bounds_and_agree(before, after, predicted):
    state, truth, prediction = ("\n".join(part) for part in (before, after, predicted))
    exact, f1, tokens = _next_state_scores(state, truth, prediction)
    assert 0 <= f1 <= 1 and 0 <= tokens <= 1
    assert not exact or (f1 == 1 and tokens == 1)
    if metrics.changed(state, truth):
        assert metrics.changed_facts_f1(state, truth, state) == 0


def _next_state_scores(state, truth, prediction):
    return (
        float(metrics.exact_match(prediction, truth)),
        metrics.changed_facts_f1(state, truth, prediction),
        metrics.token_f1(prediction, truth),
    )


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["up", "down", "LEFT"]), min_size=1), st.data())
def test_a_wrong_action_never_raises_the_match(actions, data):
    right = data.draw(st.lists(st.booleans(), min_size=len(actions), max_size=len(actions)))
    predictions = [action if ok else "junk" for action, ok in zip(actions, right, strict=True)]
    states, truths = ["a"] * len(actions), ["b"] * len(actions)
    summary = means(metrics.inverse_values(states, truths, actions, predictions))
    assert summary["action_exact_match_changed"] == (pytest.approx(sum(right) / len(right)), len(right))
