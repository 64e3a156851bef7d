import json
import math
from types import SimpleNamespace

import pytest
from conftest import save_qwen3

from swirl import models, prompts
from swirl.errors import InputError
from swirl.rewards.likelihood import Likelihood, action_likelihood, check_groups, level, next_state_likelihood, score
from swirl.scorer import Scorer


@pytest.fixture(scope="module")
def scorer(tiny):
    return Scorer(tiny)


def replies(tokenizer, texts, finished=True):
    """Completions and their ids as TRL hands them to a reward."""
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return {
        "completions": [[{"role": "assistant", "content": text}] for text in texts],
        "completion_ids": [[*row, tokenizer.eos_token_id] if finished else row for row in ids],
    }


def asked(role, count, given="go left"):
    return [prompts.prompt(role, "door open", given)] * count


class Fixed:
    """A scorer that says what it is told to, one value per row."""

    def __init__(self, tokenizer, values):
        self.tokenizer, self.values, self.calls = tokenizer, values, []
        self.end_ids = [tokenizer.eos_token_id]

    def log_likelihood(self, prompt_ids, completion_ids, suppress):
        self.calls.append((prompt_ids, completion_ids))
        return self.values[: len(prompt_ids)], [len(ids) for ids in completion_ids]


def test_phase_one_is_the_mean_log_likelihood_of_the_action_given_the_predicted_state(scorer):
    texts = ["door shut", "key"]
    reward = action_likelihood(Likelihood(scorer))
    values = reward(
        prompts=asked("forward", 2),
        **replies(scorer.tokenizer, texts),
        state=["door open"] * 2,
        action=["go left"] * 2,
        trainer_state=None,
        log_extra=None,
    )
    target = [*scorer.tokenizer("go left", add_special_tokens=False)["input_ids"], scorer.tokenizer.eos_token_id]
    for text, value in zip(texts, values, strict=True):
        messages = prompts.prompt("inverse", "door open", text)
        question = scorer.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        (total,), _ = scorer.log_likelihood([question], [target])
        assert value == pytest.approx(total / len(target), abs=1e-5)
    assert abs(values[0] - values[1]) > 1e-3


def test_phase_two_is_the_mean_log_likelihood_of_the_next_state_given_the_inferred_action(scorer):
    reward = next_state_likelihood(Likelihood(scorer))
    (value,) = reward(
        prompts=asked("inverse", 1, "door shut"),
        **replies(scorer.tokenizer, ["go right"]),
        state=["door open"],
        next_state=["door shut"],
    )
    target = [*scorer.tokenizer("door shut", add_special_tokens=False)["input_ids"], scorer.tokenizer.eos_token_id]
    messages = prompts.prompt("forward", "door open", "go right")
    question = scorer.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    (total,), _ = scorer.log_likelihood([question], [target])
    assert value == pytest.approx(total / len(target), abs=1e-5)


BOTH = [
    (action_likelihood, "forward", "action", "go left"),
    (next_state_likelihood, "inverse", "next_state", "door shut"),
]


@pytest.mark.parametrize(("make", "role", "column", "target"), BOTH)
def test_the_sum_is_the_mean_times_the_tokens(scorer, make, role, column, target):
    rows = {"prompts": asked(role, 2), "state": ["door open"] * 2, column: [target] * 2}
    rows |= replies(scorer.tokenizer, ["key", "go right"])
    mean = make(Likelihood(scorer))(**rows)
    total = make(Likelihood(scorer, reduce="sum"))(**rows)
    tokens = len(scorer.tokenizer(target, add_special_tokens=False)["input_ids"]) + 1
    assert total == pytest.approx([value * tokens for value in mean], rel=1e-12)


@pytest.mark.parametrize(("make", "role", "column", "target"), BOTH)
@pytest.mark.parametrize("text", ["", "   ", "<think>hm</think>"])
def test_a_completion_that_cannot_be_read_gets_the_floor(scorer, make, role, column, target, text):
    texts = ["key", text]
    for reduce in ("mean", "sum"):
        good, bad = make(Likelihood(scorer, floor=-3.0, reduce=reduce))(
            prompts=asked(role, 2),
            **replies(scorer.tokenizer, texts),
            state=["door open"] * 2,
            **{column: [target] * 2},
        )
        tokens = len(scorer.tokenizer(target, add_special_tokens=False)["input_ids"]) + 1
        least = -3.0 * (tokens if reduce == "sum" else 1)
        assert bad == least
        assert good >= least


@pytest.mark.parametrize(("make", "role", "column", "target"), BOTH)
def test_a_completion_that_was_cut_off_gets_the_floor_and_is_not_scored(scorer, make, role, column, target):
    fixed = Fixed(scorer.tokenizer, [-1.0])
    whole, cut = replies(scorer.tokenizer, ["key"]), replies(scorer.tokenizer, ["door"], finished=False)
    values = make(Likelihood(fixed, floor=-7.5))(
        prompts=asked(role, 3),
        completions=whole["completions"] + cut["completions"] + cut["completions"],
        completion_ids=whole["completion_ids"] + cut["completion_ids"] + [[]],
        state=["door open"] * 3,
        **{column: [target] * 3},
    )
    assert values[1:] == [-7.5, -7.5]
    assert len(fixed.calls[0][0]) == 1


def test_every_token_that_ends_a_reply_makes_it_finished(tmp_path, one_thread):
    """Instruct models name several in their generation settings, and TRL stops at each."""
    save_qwen3(tmp_path / "m")
    file = tmp_path / "m" / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [0, 2]}))
    scorer = Scorer(tmp_path / "m")
    assert scorer.end_ids == [2, 0]
    whole, other = replies(scorer.tokenizer, ["key"]), replies(scorer.tokenizer, ["key"], finished=False)
    values = action_likelihood(Likelihood(scorer, floor=-99.0))(
        prompts=asked("forward", 3),
        completions=whole["completions"] * 3,
        completion_ids=[whole["completion_ids"][0], [*other["completion_ids"][0], 0], other["completion_ids"][0]],
        state=["door open"] * 3,
        action=["go left"] * 3,
    )
    assert values[1] == values[0] > -99.0 == values[2]


@pytest.mark.parametrize("bad", [math.nan, -math.inf, math.inf])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_a_scorer_that_says_no_number_means_the_floor(scorer, bad, reduce):
    fixed = Fixed(scorer.tokenizer, [-2.0, bad])
    target = len(prompts.encode_completion(scorer.tokenizer, "go left"))
    values = action_likelihood(Likelihood(fixed, floor=-10.0, reduce=reduce))(
        prompts=asked("forward", 2),
        **replies(scorer.tokenizer, ["key", "key"]),
        state=["door open"] * 2,
        action=["go left"] * 2,
    )
    expected = [-2.0 / target, -10.0] if reduce == "mean" else [-2.0, -10.0 * target]
    assert values == pytest.approx(expected)


def test_likelihoods_below_the_floor_are_clipped_per_token(scorer):
    target = len(prompts.encode_completion(scorer.tokenizer, "go left"))
    fixed = Fixed(scorer.tokenizer, [-10.5 * target, -9.5 * target])
    columns = {"state": ["door open"] * 2, "action": ["go left"] * 2} | replies(scorer.tokenizer, ["key", "key"])
    for reduce, scale in (("mean", 1), ("sum", target)):
        values = action_likelihood(Likelihood(fixed, floor=-10.0, reduce=reduce))(
            prompts=asked("forward", 2), **columns
        )
        assert values == pytest.approx([-10.0 * scale, -9.5 * scale])


@pytest.mark.parametrize(("make", "role", "column", "target"), BOTH)
@pytest.mark.parametrize("missing", [None, ""])
def test_none_only_where_the_target_cannot_be_scored(scorer, make, role, column, target, missing):
    fixed = Fixed(scorer.tokenizer, [-1.0])
    values = make(Likelihood(fixed))(
        prompts=asked(role, 3),
        **replies(scorer.tokenizer, ["key", "key", ""]),
        state=["door open"] * 3,
        **{column: [target, missing, missing]},
    )
    assert values[0] is not None
    assert values[1:] == [None, None]
    assert len(fixed.calls[0][0]) == 1


def test_rewards_of_a_batch_without_one_readable_completion(scorer):
    values = action_likelihood(Likelihood(scorer))(
        prompts=asked("forward", 2),
        **replies(scorer.tokenizer, ["", ""]),
        state=["door open"] * 2,
        action=["go left"] * 2,
    )
    assert values == [-10.0, -10.0]


def test_the_history_of_a_row_is_in_the_scorers_prompt(scorer):
    def value(**columns):
        return action_likelihood(Likelihood(scorer))(
            prompts=asked("forward", 2),
            **replies(scorer.tokenizer, ["key", "key"]),
            state=["door open"] * 2,
            action=["go left"] * 2,
            **columns,
        )

    plain, same = value()
    assert plain == same
    first, second = value(history=[[], ["door shut"]])
    assert first == pytest.approx(plain, abs=1e-5)
    expected, counts = score(
        scorer,
        "inverse",
        [{"state": "door open", "given": "key", "target": "go left", "history": ["door shut"]}],
        "terse",
    )
    assert second == pytest.approx(expected[0] / counts[0], abs=1e-5)
    assert abs(second - plain) > 1e-3


def test_a_reply_in_change_form_is_applied_to_the_state_before_it_is_scored(scorer):
    target = len(prompts.encode_completion(scorer.tokenizer, "go left"))
    fixed = Fixed(scorer.tokenizer, [-1.0 * target])
    values = action_likelihood(Likelihood(fixed, style="terse-change", floor=-5.0))(
        prompts=asked("forward", 3),
        **replies(scorer.tokenizer, ["-key\n+open", "-lamp", "door\nopen"]),
        state=["door\nkey"] * 3,
        action=["go left"] * 3,
    )
    assert values == [-1.0, -5.0, -5.0]
    ((question,), _) = fixed.calls[0]
    messages = prompts.prompt("inverse", "door\nkey", "door\nopen", style="terse-change")
    assert question == prompts.encode_prompt(scorer.tokenizer, messages)


def test_a_next_state_is_scored_in_change_form(scorer):
    fixed = Fixed(scorer.tokenizer, [-1.0, -1.0])
    values = next_state_likelihood(Likelihood(fixed, style="terse-change", reduce="sum", floor=-2.0))(
        prompts=asked("inverse", 2),
        **replies(scorer.tokenizer, ["go left", ""]),
        state=["door\nkey"] * 2,
        next_state=["door\nopen"] * 2,
    )
    ((answer,),) = (fixed.calls[0][1],)
    assert answer == prompts.encode_completion(scorer.tokenizer, "-key\n+open")
    assert values == [-1.0, -2.0 * len(answer)]


def test_style_and_template_reach_the_scorers_prompt(qwen3):
    scorer = Fixed(models.load_tokenizer(qwen3), [-1.0])
    action_likelihood(Likelihood(scorer, style="instruct", template={"think": False}))(
        prompts=asked("forward", 1),
        **replies(scorer.tokenizer, ["key"]),
        state=["door open"],
        action=["go left"],
    )
    ((question,), (answer,)) = scorer.calls[0]
    messages = prompts.prompt("inverse", "door open", "key", style="instruct")
    assert question == prompts.encode_prompt(scorer.tokenizer, messages, think=False)
    assert question != prompts.encode_prompt(scorer.tokenizer, messages)
    assert scorer.tokenizer.decode(answer) == "go left<|im_end|>"


def test_what_is_logged_is_the_share_of_unreadable_completions_and_of_level_groups(scorer):
    logged = {}
    fixed = Fixed(scorer.tokenizer, [-1.0, -1.0, -1.0])
    reward = action_likelihood(Likelihood(fixed, min_spread=0.5))
    reward(
        prompts=asked("forward", 2) + asked("forward", 2, "go right"),
        **replies(scorer.tokenizer, ["key", "key", "key", ""]),
        state=["door open"] * 4,
        action=["go left"] * 4,
        log_metric=logged.__setitem__,
    )
    assert logged == {"unreadable": 0.25, "levelled": 0.5}


def test_two_groups_that_ask_the_same_are_levelled_apart(scorer):
    fixed = Fixed(scorer.tokenizer, [-1.0, -1.1, -9.0, -3.0])
    logged = {}
    values = action_likelihood(Likelihood(fixed, min_spread=0.5))(
        prompts=asked("forward", 4),
        **replies(scorer.tokenizer, ["key"] * 4),
        state=["door open"] * 4,
        action=["go left"] * 4,
        draw=[0, 0, 1, 1],
        log_metric=logged.__setitem__,
    )
    tokens = len(prompts.encode_completion(scorer.tokenizer, "go left"))
    assert values == pytest.approx([value / tokens for value in (-1.05, -1.05, -9.0, -3.0)])
    assert logged["levelled"] == 0.5


def test_plain_text_completions_are_read_too(scorer):
    conversational = replies(scorer.tokenizer, ["key"])
    columns = {"state": ["door open"], "action": ["go left"], "prompts": asked("forward", 1)}
    reward = action_likelihood(Likelihood(scorer))
    plain = reward(completions=["key"], completion_ids=conversational["completion_ids"], **columns)
    assert plain == reward(**conversational, **columns)


def test_rewards_have_a_name_for_the_trainers_log():
    spec = SimpleNamespace()
    assert action_likelihood(spec).__name__ == "log_q_action"
    assert next_state_likelihood(spec).__name__ == "log_p_next_state"


def test_level_gives_groups_of_nearly_equal_rewards_their_mean():
    rewards = [-1.0, -1.2, -5.0, -1.0, -2.0, -2.05, None, -2.1]
    groups = ["a", "a", "b", "b", "c", "c", "c", "c"]
    out, share = level(rewards, groups, min_spread=0.3)
    assert out[:2] == [-1.1, -1.1]
    assert out[2:4] == [-5.0, -1.0]
    assert out[4:] == [pytest.approx(-2.05)] * 2 + [None] + [pytest.approx(-2.05)]
    assert share == 2 / 3


def test_level_leaves_a_spread_of_the_minimum_and_levels_nothing_at_zero():
    assert level([1.0, 1.5], ["a", "a"], 0.5) == ([1.0, 1.5], 0.0)
    assert level([1.0, 1.0], ["a", "a"], 0.0) == ([1.0, 1.0], 0.0)
    assert level([None, None], ["a", "a"], 1.0) == ([None, None], 0.0)
    assert level([], [], 1.0) == ([], 0.0)


def test_level_keeps_groups_apart_and_the_rewards_it_was_given():
    rewards = [1.0, 1.1, 1.0, 1.1]
    out, share = level(rewards, ["a", "a", "b", "b"], 0.5)
    assert (out, share) == ([1.05] * 4, 1.0)
    assert rewards == [1.0, 1.1, 1.0, 1.1]
    apart, _ = level([0.0, 0.1, 3.0, 3.1], ["a", "a", "b", "b"], 0.5)
    assert apart == [0.05, 0.05, 3.05, 3.05]


@pytest.mark.parametrize(
    ("prompts_per_step", "group", "processes", "cut"),
    [(3, 4, 1, False), (4, 4, 2, False), (3, 4, 2, True), (2, 8, 4, True), (8, 2, 4, False), (3, 2, 4, True)],
)
def test_groups_that_lie_on_two_processes_are_refused_where_they_are_levelled(prompts_per_step, group, processes, cut):
    # 3 groups of 4 over 2 processes: 6 completions each, a group and a half.
    check_groups(0.0, prompts_per_step, group, processes)
    if cut:
        with pytest.raises(
            InputError, match=rf"swirl\.prompts a multiple of {processes}, or set swirl\.min_spread = 0"
        ):
            check_groups(0.1, prompts_per_step, group, processes)
    else:
        check_groups(0.1, prompts_per_step, group, processes)
