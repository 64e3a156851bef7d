import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl import models, prompts
from swirl.errors import InputError

ROW = {"state": "door open", "action": "go left", "next_state": "door shut", "trajectory": "t7", "step": 3}
PARTS = {
    "state": [{"type": "text", "text": "door"}, {"type": "text", "text": "open"}],
    "next_state": [{"type": "text", "text": "door"}, {"type": "text", "text": "shut"}],
    "action": "go left",
}
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=30)


def text(messages):
    return messages[-1]["content"]


@pytest.mark.parametrize("style", ["terse", "instruct"])
def test_a_prompt_holds_what_the_role_may_know_and_not_the_answer(style):
    forward = text(prompts.transition_prompt("forward", ROW, style))
    assert "door open" in forward
    assert "go left" in forward
    assert "door shut" not in forward
    inverse = text(prompts.transition_prompt("inverse", ROW, style))
    assert "door open" in inverse
    assert "door shut" in inverse
    assert "go left" not in inverse


@pytest.mark.parametrize("style", ["terse", "instruct"])
def test_a_pair_without_an_action_can_ask_for_it(style):
    unlabelled = {key: value for key, value in ROW.items() if key != "action"}
    asked = prompts.transition_prompt("inverse", unlabelled, style)
    assert asked == prompts.transition_prompt("inverse", ROW, style)


@pytest.mark.parametrize("style", ["terse", "instruct"])
def test_both_roles_begin_with_the_state_so_that_prompts_can_share_a_pass(style):
    forward, inverse = (text(prompts.transition_prompt(role, ROW, style)) for role in ("forward", "inverse"))
    assert forward[: forward.index("door open") + 9] == inverse[: inverse.index("door open") + 9]


@pytest.mark.parametrize("style", ["terse", "instruct"])
@pytest.mark.parametrize("role", ["forward", "inverse"])
def test_states_of_parts_read_as_their_text(style, role):
    joined = {key: "\n".join(p["text"] for p in v) if isinstance(v, list) else v for key, v in PARTS.items()}
    assert prompts.transition_prompt(role, PARTS, style) == prompts.transition_prompt(role, joined, style)
    assert prompts.target(role, PARTS) == ("door\nshut" if role == "forward" else "go left")


@pytest.mark.parametrize("style", ["terse", "instruct"])
@pytest.mark.parametrize("role", ["forward", "inverse"])
def test_history_comes_before_the_state_oldest_first(style, role):
    asked = text(prompts.transition_prompt(role, {**ROW, "history": ["first", "second"]}, style))
    assert asked.index("first") < asked.index("second") < asked.index("door open")
    bare = prompts.transition_prompt(role, ROW, style)
    for nothing in ([], None, ()):
        assert prompts.transition_prompt(role, {**ROW, "history": nothing}, style) == bare


@given(st.lists(st.tuples(WORDS, WORDS), min_size=2, max_size=4, unique=True))
def test_different_questions_are_different_prompts(questions):
    for style, role in itertools.product(("terse", "instruct"), ("forward", "inverse")):
        marks = (prompts.ACTION, prompts.NEXT, "\n")
        if not any(mark in word for pair in questions for word in pair for mark in marks):
            asked = [text(prompts.prompt(role, state, word, style=style)) for state, word in questions]
            assert len(set(asked)) == len(asked)


def test_only_the_instruct_style_has_a_system_turn_and_it_says_the_role():
    assert [m["role"] for m in prompts.prompt("forward", "a", "b")] == ["user"]
    for role in ("forward", "inverse"):
        first, second = prompts.prompt(role, "a", "b", style="instruct")
        assert (first["role"], second["role"]) == ("system", "user")
        assert first["content"] == prompts.INSTRUCTIONS[role]


@pytest.mark.parametrize(
    ("role", "reply", "expected"),
    [
        ("forward", " door open\nkey \n", "door open\nkey"),
        ("inverse", "go left\nbecause it is shorter", "go left"),
        ("inverse", "\n go left \n", "go left"),
        ("forward", "<think>a door\n\nperhaps</think>\ndoor open", "door open"),
        ("inverse", "<think></think>go left", "go left"),
        ("forward", "```\ndoor open\nkey\n```", "door open\nkey"),
        ("forward", "```json\n{}\n```", "{}"),
        ("inverse", "```\ngo left\n```", "go left"),
        ("forward", "a ``` b", "a ``` b"),
        ("forward", "", ""),
        ("inverse", "  \n ", ""),
        ("forward", "<think>only thought</think>", ""),
        ("forward", "<think>a door, cut off", ""),
        ("inverse", "<think>left or right?\ngo left", ""),
        ("inverse", "<think>once</think><think>again", ""),
        ("forward", "door open\n<think>was it?", ""),
    ],
)
def test_parse_reply(role, reply, expected):
    assert prompts.parse_reply(role, reply) == expected


@given(st.text(max_size=60))
def test_any_reply_parses_and_an_action_is_one_line(reply):
    assert prompts.parse_reply("forward", reply) == prompts.parse_reply("forward", reply).strip()
    assert "\n" not in prompts.parse_reply("inverse", reply)


@pytest.mark.parametrize("name", ["tiny", "qwen3"])
def test_a_prompt_ends_where_the_reply_begins(request, name):
    tokenizer = models.load_tokenizer(request.getfixturevalue(name))
    messages = prompts.prompt("forward", "door open", "go left", style="instruct")
    ids = prompts.encode_prompt(tokenizer, messages)
    full = tokenizer.apply_chat_template(
        [*messages, {"role": "assistant", "content": "door shut"}], tokenize=True, return_dict=True
    )["input_ids"]
    assert full[: len(ids)] == ids
    assert full[len(ids) :][: len(prompts.encode_completion(tokenizer, "door shut"))] == prompts.encode_completion(
        tokenizer, "door shut"
    )


@pytest.fixture(scope="module")
def tokenizers(tiny, qwen3):
    return [models.load_tokenizer(path) for path in (tiny, qwen3)]


@given(WORDS)
def test_a_completion_reads_back_as_its_text_whatever_it_holds(tokenizers, word):
    for tokenizer, extra in itertools.product(tokenizers, ("", "<|end|>", "<|im_end|>", prompts.NEXT)):
        ids = prompts.encode_completion(tokenizer, word + extra)
        assert ids[-1] == tokenizer.eos_token_id
        assert ids.count(tokenizer.eos_token_id) == 1
        assert tokenizer.decode(ids[:-1], skip_special_tokens=True) == word + extra


def test_template_arguments_reach_the_template(qwen3):
    tokenizer = models.load_tokenizer(qwen3)
    messages = prompts.prompt("forward", "a", "b")
    plain, told = prompts.encode_prompt(tokenizer, messages), prompts.encode_prompt(tokenizer, messages, think=False)
    assert tokenizer.decode(told) == tokenizer.decode(plain) + "<think></think>"


def test_encode_is_the_prompt_and_the_target(tiny):
    tokenizer = models.load_tokenizer(tiny)
    for role in ("forward", "inverse"):
        asked, answer = prompts.encode(tokenizer, role, ROW, "terse", 128)
        assert asked == prompts.encode_prompt(tokenizer, prompts.transition_prompt(role, ROW))
        assert answer == prompts.encode_completion(tokenizer, prompts.target(role, ROW))


def test_a_row_that_is_too_long_is_refused_and_never_cut(tiny):
    tokenizer = models.load_tokenizer(tiny)
    length = sum(map(len, prompts.encode(tokenizer, "forward", ROW, "terse", 512)))
    assert prompts.encode(tokenizer, "forward", ROW, "terse", length)
    message = f"trajectory 't7' step 3: {length} tokens as a forward prompt and completion, but model.max_length is"
    with pytest.raises(InputError, match=message):
        prompts.encode(tokenizer, "forward", ROW, "terse", length - 1)
    with pytest.raises(
        InputError, match=r"tokens as an inverse prompt.*shorten the states \(swirl import --max-state\)$"
    ):
        prompts.encode(tokenizer, "inverse", ROW, "terse", 1)


# Next states in change form

LINES = st.lists(st.text("abc -+@=", max_size=4).map(str.strip).filter(bool), min_size=1, max_size=6).map("\n".join)


@given(LINES, LINES)
def test_a_change_reads_back_as_the_next_state(before, after):
    row = {"state": before, "next_state": after, "action": "go left"}
    for style in ("terse-change", "instruct-change", "terse-change-only", "instruct-change-only"):
        written = prompts.target("forward", row, style)
        assert prompts.parse_reply("forward", written, style, before) == after
        assert prompts.parse_reply("forward", f"<think>x</think>\n```\n{written}\n```", style, before) == after


def test_only_next_states_are_written_as_changes():
    row = {"state": "door\nkey", "next_state": "door\nopen", "action": "go left"}
    assert prompts.target("forward", row, "terse-change") == "-key\n+open"
    assert prompts.target("inverse", row, "terse-change") == "go left"
    assert text(prompts.transition_prompt("inverse", row, "terse-change")) == f"door\nkey{prompts.NEXT}-key\n+open"
    forward = prompts.transition_prompt("forward", row, "terse-change")
    assert forward == prompts.transition_prompt("forward", row, "terse")
    assert text(prompts.transition_prompt("inverse", row, "instruct-change")).endswith("Change:\n-key\n+open")


def test_a_next_state_shorter_than_its_change_is_written_whole():
    row = {"state": "hall\nlamp\ndoor", "next_state": "kitchen\ndoor", "action": "go"}
    assert prompts.target("forward", row, "terse-change") == "*\nkitchen\ndoor"
    assert prompts.parse_reply("forward", "*\nkitchen\ndoor\n", "terse-change", row["state"]) == "kitchen\ndoor"
    shown = text(prompts.transition_prompt("inverse", row, "terse-change"))
    assert shown == f"{row['state']}{prompts.NEXT}*\nkitchen\ndoor"
    # What it was before has to be said to one that does not see it.
    assert text(prompts.transition_prompt("inverse", row, "terse-change-only")).endswith("-hall\n-lamp\n+kitchen")


def test_an_inverse_model_that_reads_the_change_only_is_shown_no_state():
    row = {"state": "door\nkey", "next_state": "door\nopen", "action": "go left", "history": ["lamp"]}
    assert text(prompts.transition_prompt("inverse", row, "terse-change-only")) == f"{prompts.NEXT}-key\n+open"
    assert text(prompts.transition_prompt("inverse", row, "instruct-change-only")) == "Change:\n-key\n+open"
    for style in ("terse", "instruct"):
        change = prompts.transition_prompt("forward", row, f"{style}-change")
        assert prompts.transition_prompt("forward", row, f"{style}-change-only") == change


def test_a_change_that_does_not_fit_the_state_is_unreadable():
    for reply in ("-lamp\n+open", "door\nopen", "", "@9\n+open", "@" + "9" * 5000 + "\n+open"):
        assert prompts.parse_reply("forward", reply, "terse-change", "door\nkey") == ""
