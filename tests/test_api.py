import json
import logging
import shutil
from dataclasses import replace

import pytest

import swirl
from swirl import api, models, prompts
from swirl.errors import InputError
from swirl.recipe import load_recipe
from swirl.scorer import Scorer

X, Y = "door shut\nkey", "door open\nkey"


@pytest.fixture(scope="module")
def forward(run_folder):
    return swirl.load_forward(run_folder, "cpu")


@pytest.fixture(scope="module")
def inverse(run_folder):
    return swirl.load_inverse(run_folder, "cpu")


def by_hand(folder, messages, completion):
    """log P(completion | messages), with tokens made here."""
    scorer = Scorer(folder)
    tokenizer = scorer.tokenizer
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    asked = tokenizer(text, add_special_tokens=False)["input_ids"]
    told = [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return scorer.log_likelihood([asked], [told])[0][0]


def test_likelihoods_are_the_scorers(forward, inverse, tiny):
    expected = by_hand(tiny, prompts.prompt("forward", X, "go left"), Y)
    assert forward.log_likelihood(X, "go left", Y) == pytest.approx(expected, abs=1e-5)
    expected = by_hand(tiny, prompts.prompt("inverse", X, Y, ["key"]), "go left")
    assert inverse.log_likelihood(X, Y, "go left", history=["key"]) == pytest.approx(expected, abs=1e-5)
    assert inverse.log_likelihood(X, Y, "go left") != pytest.approx(expected, abs=1e-3)


def test_any_checkpoint_is_asked_with_the_instruction(qwen3):
    forward, inverse = swirl.load_forward(qwen3, "cpu"), swirl.load_inverse(str(qwen3), "cpu")
    messages = prompts.prompt("forward", "a", "go", style="instruct")
    assert prompts.INSTRUCTIONS["forward"] in messages[0]["content"]
    assert forward.log_likelihood("a", "go", "b") == pytest.approx(by_hand(qwen3, messages, "b"), abs=1e-4)
    messages = prompts.prompt("inverse", "a", "b", style="instruct")
    assert inverse.log_likelihood("a", "b", "go") == pytest.approx(by_hand(qwen3, messages, "go"), abs=1e-4)
    assert forward.max_length == 512  # what its configuration says it can read
    assert len(forward.predict("a", "go", max_new_tokens=5)) == 1


def test_states_in_parts_are_their_text(forward):
    parts = [{"type": "text", "text": "door shut"}, {"type": "text", "text": "key"}]
    assert forward.log_likelihood(parts, "go left", Y) == forward.log_likelihood(X, "go left", Y)
    assert forward.predict(parts, "go left") == forward.predict(X, "go left")


def test_predict_is_greedy_alone_and_sampled_in_number(forward):
    one = forward.predict(X, "go left")
    assert one == forward.predict(X, "go left", seed=1)
    sampled = forward.predict(X, "go left", n=6, seed=1)
    assert len(sampled) == 6
    assert len(set(sampled)) > 1
    assert sampled == forward.predict(X, "go left", n=6, seed=1)
    assert sampled != forward.predict(X, "go left", n=6, seed=2)
    assert forward.predict(X, "go left", n=3, temperature=0) == one * 3


def test_predict_is_the_models_own_greedy_reply(forward, tiny):
    asked = forward.scorer.tokenizer.apply_chat_template(
        prompts.prompt("forward", X, "go left"),
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    model, tokenizer = models.load(tiny)
    out = model.generate(**asked, max_new_tokens=10, do_sample=False)[0, asked["input_ids"].shape[1] :]
    text = tokenizer.decode(out, skip_special_tokens=True).strip()
    assert forward.predict(X, "go left", max_new_tokens=10) == [text]


def test_a_reply_that_is_cut_off_is_said_so(forward, caplog):
    with caplog.at_level(logging.WARNING, "swirl"):
        forward.predict(X, "go left", max_new_tokens=1)
    assert "1 of 1 predicted states were cut off" in caplog.text


def test_a_prompt_that_leaves_no_room_is_refused(forward):
    with pytest.raises(InputError, match="but the model reads 128; shorten the state"):
        forward.predict("key " * 200, "go left")


def test_what_is_longer_than_the_context_has_no_likelihood_and_no_action(forward, inverse, tiny):
    long, counted = "key " * 200, len(models.load_tokenizer(tiny)("key " * 200, add_special_tokens=False)["input_ids"])
    assert counted > 128
    refused = r"model reads 128; shorten the state"
    for call in (
        lambda: forward.log_likelihood(long, "go left", X),
        lambda: forward.log_likelihood(X, "go left", long),  # the completion alone is too long
        lambda: inverse.log_likelihood(X, long, "go left"),
        lambda: inverse.log_likelihood(X, Y, long),
        lambda: inverse.infer(X, long, n=1),
        lambda: inverse.infer(X, Y, actions=["key", long]),
        lambda: api.candidates(inverse, [{"state": X, "next_state": Y}], [long], forward=forward),
    ):
        with pytest.raises(InputError, match=refused):
            call()


def test_the_whole_context_can_be_used(inverse, monkeypatch):
    """8 tokens left: an action may take them all, and no more."""
    asked, room = inverse.encode({"state": X, "next_state": Y, "history": ()})
    monkeypatch.setattr(inverse, "max_length", len(asked) + 8)
    assert room == 128 - len(asked)
    limits = []
    monkeypatch.setattr(
        api.labelling, "infer", lambda *a, max_new_tokens, **o: limits.append(max_new_tokens) or [["a"]]
    )
    inverse.infer(X, Y, n=0)
    assert limits == [8]
    monkeypatch.setattr(inverse, "max_length", len(asked))
    with pytest.raises(InputError, match="shorten the state"):
        inverse.infer(X, Y, n=0)


def test_rows_with_less_room_are_sampled_by_themselves(inverse, monkeypatch):
    rows = [{"state": text, "next_state": Y} for text in (X, "key " * 50, X + "\nkey")]
    rooms = [inverse.encode(row)[1] for row in rows]
    assert rooms[1] < 32 < min(rooms[0], rooms[2])  # an action's limit is a quarter of 128
    asked = []

    def infer(scorer, part, *, max_new_tokens, **options):
        asked.append((max_new_tokens, [row["state"] for row in part]))
        return [[row["state"]] for row in part]

    monkeypatch.setattr(api.labelling, "infer", infer)
    assert api._sample(inverse, rows, rooms, 0, 0) == [[row["state"]] for row in rows]
    assert asked == [(rooms[1], [rows[1]["state"]]), (32, [rows[0]["state"], rows[2]["state"]])]


def test_a_forward_model_with_less_room_limits_the_action(forward, inverse, monkeypatch):
    row = {"state": X, "next_state": Y}
    told = {"action": "", **row}
    needed = 128 - forward.encode(told, Y)[1]
    monkeypatch.setattr(forward, "max_length", needed + 3)
    assert api._room(inverse, forward, row, None) == 3
    monkeypatch.setattr(forward, "max_length", needed)
    with pytest.raises(InputError, match="the forward prompt has"):
        api._room(inverse, forward, row, None)


def test_an_empty_list_of_actions_is_an_error(inverse):
    with pytest.raises(InputError, match=r"actions = \[\], expected at least one"):
        inverse.infer(X, Y, actions=[])


def test_a_reply_that_cannot_be_read_is_said_so_and_ends_the_rollout(monkeypatch, forward, caplog):
    monkeypatch.setattr(forward, "spec", replace(forward.spec, prompt="terse-change"))
    replies = iter(["-door shut\n+door open", "-door shut\n+door open"])  # the second does not fit the open door
    monkeypatch.setattr(models, "generate", lambda *a, **o: [[models.Reply(next(replies), True)]])
    with pytest.raises(InputError, match="step 2, 'go right': what the model wrote cannot be read as a next state"):
        forward.imagine(X, ["go left", "go right", "key"])
    assert "1 of 1 predicted states cannot be read and are empty" in caplog.text


def test_imagine_feeds_each_state_to_the_next_step(monkeypatch, forward):
    asked = []

    def predict(state, action, history=()):
        asked.append((state, action, list(history)))
        return [f"{state}, then {action}"]

    monkeypatch.setattr(forward, "_predict", predict)
    assert forward.imagine(X, []) == []
    found = forward.imagine([{"type": "text", "text": "x"}], ["a", "b", "c"])
    assert found == ["x, then a", "x, then a, then b", "x, then a, then b, then c"]
    # The run shows one earlier state.
    assert asked == [("x", "a", []), (found[0], "b", ["x"]), (found[1], "c", [found[0]])]


def test_infer_ranks_the_actions_it_is_given(inverse):
    actions = ["go left", "go right", "key", "go left"]
    found = inverse.infer(X, Y, actions=actions)
    assert sorted(c.action for c in found) == ["go left", "go right", "key"]
    assert [c.inverse for c in found] == sorted((c.inverse for c in found), reverse=True)
    for candidate in found:
        assert candidate.inverse == pytest.approx(inverse.log_likelihood(X, Y, candidate.action), abs=1e-5)
        assert candidate.forward is None


def test_infer_samples_where_no_actions_are_given(monkeypatch, inverse):
    found = inverse.infer(X, Y, n=4, seed=3)
    assert found == inverse.infer(X, Y, n=4, seed=3)
    asked = []

    def replies(scorer, rows, n=1, temperature=0.0, **options):
        asked.append((n, temperature))
        return [["go left"] if temperature == 0 else ["go right", "", "GO  right", "key"]]

    monkeypatch.setattr(api.labelling, "infer", replies)
    found = inverse.infer(X, Y, n=4)
    assert asked == [(1, 0.0), (4, 1.0)]
    # Equal actions once, the unreadable one left out.
    assert sorted(c.action for c in found) == ["GO  right", "go left", "key"]


def test_candidates_are_ranked_by_the_forward_model_where_there_is_one(forward, inverse):
    row = {"state": X, "next_state": Y, "history": ["key"]}
    found = api.candidates(inverse, [row], ["go left", "go right", "key"], forward=forward)[0]
    for candidate in found:
        expected = forward.log_likelihood(X, candidate.action, Y, history=["key"])
        assert candidate.forward == pytest.approx(expected, abs=1e-5)
    assert [c.forward for c in found] == sorted((c.forward for c in found), reverse=True)


def test_a_run_folder_means_its_latest_checkpoint(run_folder):
    path, recipe = api.resolve(run_folder, "inverse")
    assert path == run_folder / "phases/03-warmup-inverse-sft"
    whole = load_recipe(run_folder / "recipe.toml")
    assert (recipe.model, recipe.data.history) == (whole.model, whole.data.history)


def test_a_phase_is_prompted_as_its_run_is(run_folder):
    for name in ("01-start", "03-warmup-inverse-sft"):
        path, recipe = api.resolve(run_folder / "phases" / name, "inverse")
        assert path == run_folder / "phases" / name
        assert recipe.model.prompt == "terse"
    with pytest.raises(InputError, match="is a checkpoint of the forward model, expected one of the inverse"):
        api.resolve(run_folder / "phases/02-warmup-forward-sft", "inverse")


def test_a_checkpoint_taken_out_of_its_run_is_asked_as_it_was_trained(run_folder, tmp_path):
    taken = shutil.copytree(run_folder / "phases/02-warmup-forward-sft", tmp_path / "taken")
    assert api.resolve(taken, "forward")[1].model == load_recipe(run_folder / "recipe.toml").model
    with pytest.raises(InputError, match="is a checkpoint of the forward model, expected one of the inverse"):
        api.resolve(taken, "inverse")


def test_what_is_no_model_is_named(run_folder, tmp_path):
    with pytest.raises(InputError, match="gone: no such folder"):
        api.resolve(tmp_path / "gone", "forward")
    for path in (tmp_path, run_folder / "phases/04-verified1-label"):
        with pytest.raises(InputError, match=r"neither a run folder \(no ledger.json\) nor a checkpoint"):
            api.resolve(path, "forward")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    for file in ("ledger.json", "recipe.toml"):
        shutil.copy(run_folder / file, unfinished)
    with pytest.raises(InputError, match="has no results yet"):
        api.resolve(unfinished, "forward")


def test_a_name_on_a_hub_is_left_to_transformers(monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_exists", lambda name, file: True)
    assert str(api.resolve("owner/model", "forward")[0]) == "owner/model"


def test_a_model_that_no_run_made_does_not_think_unless_it_is_told_to(qwen3, run_folder, tmp_path):
    thinker = shutil.copytree(qwen3, tmp_path / "thinker")
    switch = "{% if enable_thinking is defined and not enable_thinking %}<off>{% endif %}"
    template = (thinker / "chat_template.jinja").read_text()
    (thinker / "chat_template.jinja").write_text(template + switch)
    row = {"state": X, "action": "go left", "next_state": Y, "history": []}

    def asked(path, template=None):
        model = swirl.load_forward(path, "cpu", template)
        return model.scorer.tokenizer.decode(model.encode(row)[0])

    assert asked(thinker).endswith("<off>")
    assert not asked(thinker, {"enable_thinking": True}).endswith("<off>")
    assert asked(thinker, {"think": True}).endswith("<think></think><off>")  # the template's other switch
    assert asked(qwen3).endswith("assistant\n")  # has no such switch
    assert swirl.load_forward(run_folder, "cpu", {"think": True}).spec.chat_template_kwargs == {}  # as it was trained


def test_a_model_that_was_never_a_path_of_the_run(run_folder, qwen3, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy)
    (copy / "results.json").write_text(json.dumps({"forward": str(qwen3), "inverse": str(qwen3)}))
    assert api.resolve(copy, "forward")[0] == qwen3


def test_an_unknown_device_is_the_users_error(run_folder):
    with pytest.raises(InputError, match="device 'gpu', expected auto, cpu or cuda"):
        swirl.load_forward(run_folder, "gpu")
