import itertools
import math

import pytest

from swirl import labelling, models, prompts
from swirl.labelling import Candidate
from swirl.scorer import Scorer

ROWS = [{"state": f"door {i}", "next_state": f"door {i + 1}"} for i in range(4)]
OPTIONS = {"style": "terse", "template": {}}


class Told:
    """A scorer whose log-likelihoods are a function of the prompt's and the completion's text."""

    def __init__(self, tokenizer, value):
        self.tokenizer, self.value, self.asked = tokenizer, value, []

    def log_likelihood(self, prompt_ids, completion_ids, suppress):
        texts = [
            (self.tokenizer.decode(p), self.tokenizer.decode(c, skip_special_tokens=True))
            for p, c in zip(prompt_ids, completion_ids, strict=True)
        ]
        self.asked += texts
        return [self.value(*text) for text in texts], [len(c) for c in completion_ids]


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return models.load_tokenizer(tiny)


# Inferring


def test_infer_asks_the_inverse_model_and_reads_its_replies(tiny):
    inverse = Scorer(tiny)
    asked = [prompts.encode_prompt(inverse.tokenizer, prompts.transition_prompt("inverse", row)) for row in ROWS]
    options = {"n": 3, "temperature": 1.0, "max_new_tokens": 4, "seed": 5}
    replies = models.generate(inverse.model, inverse.tokenizer, asked, **options)
    inferred = labelling.infer(inverse, ROWS, **options, **OPTIONS)
    assert inferred == [
        [prompts.parse_reply("inverse", reply.text) if reply.finished else "" for reply in group] for group in replies
    ]
    assert [len(group) for group in inferred] == [3] * 4


def test_a_reply_that_was_cut_off_is_no_action(tiny, monkeypatch):
    replies = [[models.Reply("go left\nthen", True), models.Reply("go le", False), models.Reply(" ", True)]]
    monkeypatch.setattr(models, "generate", lambda *args, **kwargs: replies)
    assert labelling.infer(Scorer(tiny), ROWS[:1], n=3, max_new_tokens=3, **OPTIONS) == [["go left", "", ""]]


# Proposing


def test_listed_actions_are_taken_and_the_rest_is_sampled():
    asked = []

    def sample(rows):
        asked.extend(rows)
        return [["jump", "", "jump", "Jump "] for _ in rows]

    listed = {"door 0": ["go left", "go right"], "door 2": []}
    proposed = labelling.propose(ROWS, lambda state: listed.get(state), sample)
    assert proposed[0] == ["go left", "go right"]
    assert proposed[2] == []
    assert [len(proposed[i]) for i in (1, 3)] == [1, 1]
    assert asked == [ROWS[1], ROWS[3]]


def test_nothing_is_sampled_where_all_actions_are_listed():
    proposed = labelling.propose(ROWS, lambda state: ["go left"], lambda rows: pytest.fail("sampled"))
    assert proposed == [["go left"]] * 4


# Verifying

ACTIONS = ["a", "b", "c"]


def by_action(table):
    """Value of the action that a completion (inverse) or a prompt (forward) names."""
    return lambda prompt, completion: next(
        (value for action, value in table.items() if completion == action or f"{prompts.ACTION}{action}" in prompt), -50
    )


def test_candidates_are_ordered_by_the_forward_model_and_carry_both_scores(tokenizer):
    inverse = Told(tokenizer, by_action({"a": -0.5, "b": -1.0, "c": -3.0}))
    forward = Told(tokenizer, by_action({"a": -4.0, "b": -2.0, "c": -3.0}))
    out = labelling.verify(inverse, forward, ROWS, [ACTIONS] * 4, **OPTIONS)
    assert out == [[Candidate("b", -1.0, -2.0), Candidate("c", -3.0, -3.0), Candidate("a", -0.5, -4.0)]] * 4
    assert {completion for _, completion in forward.asked} == {row["next_state"] for row in ROWS}
    assert all("door" in prompt for prompt, _ in forward.asked + inverse.asked)


def test_without_a_forward_model_the_inverse_model_orders(tokenizer):
    inverse = Told(tokenizer, by_action({"a": -2.0, "b": -1.0, "c": -3.0}))
    (group,) = labelling.verify(inverse, None, ROWS[:1], [ACTIONS], **OPTIONS)
    assert group == [Candidate("b", -1.0), Candidate("a", -2.0), Candidate("c", -3.0)]


def test_what_the_inverse_model_rules_out_is_not_given_to_the_forward_model(tokenizer):
    inverse = Told(tokenizer, by_action({"a": math.log(0.9), "b": math.log(0.02), "c": math.log(0.005)}))
    forward = Told(tokenizer, by_action({"a": -4.0, "b": -2.0, "c": -1.0}))
    (group,) = labelling.verify(inverse, forward, ROWS[:1], [ACTIONS], least=0.01, **OPTIONS)
    assert [candidate.action for candidate in group] == ["b", "a"]
    assert len(forward.asked) == 2
    (group,) = labelling.verify(inverse, forward, ROWS[:1], [ACTIONS], least=0.0, **OPTIONS)
    assert [candidate.action for candidate in group] == ["c", "b", "a"]


def test_many_equal_candidates_are_all_verified(tokenizer):
    """None of 300 actions has a hundredth of the probability, and none is less likely than another."""
    actions = [f"{a}{b}" for a, b in itertools.product("abcdefghijklmnopqrst", "abcdefghijklmno")]
    inverse = Told(tokenizer, lambda prompt, completion: math.log(1 / 300))
    forward = Told(tokenizer, lambda prompt, completion: -1.0 if prompt.count("bc") else -2.0)
    (group,) = labelling.verify(inverse, forward, ROWS[:1], [actions], **OPTIONS)
    assert len(group) == 300
    assert group[0].action == "bc"


def test_rows_without_candidates_keep_their_place_over_chunks(tokenizer, monkeypatch):
    monkeypatch.setattr(labelling, "CHUNK", 2)
    inverse = Told(tokenizer, by_action({"a": -2.0, "b": -1.0}))
    forward = Told(tokenizer, by_action({"a": -2.0, "b": -1.0}))
    out = labelling.verify(inverse, forward, ROWS, [["a"], [], ["b", "a"], []], **OPTIONS)
    assert [[c.action for c in group] for group in out] == [["a"], [], ["b", "a"], []]
    assert labelling.verify(inverse, forward, [], [], **OPTIONS) == []


def test_the_history_of_a_row_is_in_both_prompts(tokenizer):
    inverse, forward = (Told(tokenizer, lambda prompt, completion: -1.0) for _ in range(2))
    labelling.verify(inverse, forward, [{**ROWS[0], "history": ["once"]}], [["a"]], **OPTIONS)
    assert all("once" in prompt for prompt, _ in inverse.asked + forward.asked)
