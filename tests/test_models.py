import json
import os
import shutil
import subprocess
import sys

import httpx2
import pytest
import torch
from conftest import TINY, save_qwen3
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from swirl import models
from swirl.config import Model
from swirl.errors import InputError
from swirl.tiny import build, train_tokenizer


@pytest.fixture(scope="module")
def loaded(tiny):
    return models.load(tiny)


# Building


def test_the_same_seed_builds_the_same_folder_and_another_seed_other_weights(tmp_path, one_thread):
    texts = ["door open", "key"]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(name))
        build(texts, tmp_path / name, TINY, seed)
    a, b, c = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in "abc")
    assert a == b
    assert {name for name in a if a[name] != c[name]} == {"model.safetensors"}


def test_building_leaves_the_global_generator_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build(["key"], tmp_path / "m", TINY, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_tiny_is_an_ordinary_checkpoint_of_the_asked_shape(tiny):
    model = AutoModelForCausalLM.from_pretrained(tiny)
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (TINY.hidden, TINY.layers)
    assert model.config.max_position_embeddings == TINY.max_length
    assert (tiny / "model.safetensors").is_file()
    assert not list(tiny.glob("*.bin"))


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=40))
def test_the_tokenizer_of_tiny_reads_and_writes_any_text(loaded, text):
    _, tokenizer = loaded
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_words_that_recur_become_tokens(loaded):
    _, tokenizer = loaded
    assert len(tokenizer("door open", add_special_tokens=False)["input_ids"]) == 2


def test_lines_that_recur_become_tokens_where_asked_for(tmp_path):
    state = "\ta substance called air\n\ta red box"
    counts = {}
    for tokens in ("words", "lines"):
        tokenizer = train_tokenizer([state] * 2, Model(vocabulary=400, tokens=tokens))
        ids = tokenizer(state, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == state
        counts[tokens] = len(ids)
        tokenizer.save_pretrained(tmp_path / tokens)
        loaded = models.load_tokenizer(tmp_path / tokens)
        assert loaded(state, add_special_tokens=False)["input_ids"] == ids
    # a tab, four words, the break, a tab, three words; two lines and the break
    assert counts == {"words": 10, "lines": 3}


def test_a_vocabulary_smaller_than_the_bytes_is_raised_to_them(tmp_path):
    build(["key"], tmp_path / "m", Model(vocabulary=10, hidden=8, layers=1, heads=1), seed=0)
    assert len(models.load_tokenizer(tmp_path / "m")) >= 256


# Loading


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot load a tokenizer from"):
        models.load_tokenizer(tmp_path)


def test_a_name_that_the_hub_does_not_know_is_refused_before_anything_retries(monkeypatch):
    with pytest.raises(InputError, match="no such model on the Hub"):
        models.load("not a name")
    asked = []

    def unknown(name, file):
        asked.append((name, file))
        return False

    monkeypatch.setattr("huggingface_hub.file_exists", unknown)
    for load in (models.load, models.load_config, models.load_tokenizer):
        with pytest.raises(InputError, match=r"^no run or checkpoint at no-such/model, and no such model on the Hub; "):
            load("no-such/model")
    assert asked == [("no-such/model", "config.json")] * 3


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch, caplog):
    def unreachable(name, file):
        raise httpx2.ConnectError("no route")

    monkeypatch.setattr("huggingface_hub.file_exists", unreachable)
    with pytest.raises(InputError, match=r"at no-such/model, and the Hub cannot be asked for it \(no route\); give"):
        models.load("no-such/model")
    assert caplog.text == ""


@pytest.mark.parametrize(
    "name", ["./liquid-7b", "../liquid-7b", "/x/liquid-7b", "~/liquid-7b", "models/a/b", "runs/demo"]
)
def test_a_folder_that_is_not_there_is_said_so_and_no_rule_of_a_hub(name):
    for load in (models.load, models.load_config, models.load_tokenizer):
        with pytest.raises(InputError, match=rf"^{name}: no such folder; give"):
            load(name)


def test_what_a_hub_may_know_is_left_to_transformers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.file_exists", lambda name, file: True)
    assert [str(models.located(name)) for name in ("gpt2", "owner/model")] == ["gpt2", "owner/model"]
    (tmp_path / "owner").mkdir()
    with pytest.raises(InputError, match="no such folder"):
        models.located("owner/model")


def test_loading_and_generating_are_silent_and_leave_the_users_settings(tiny):
    """A fresh interpreter: what libraries print depends on the environment that they are imported in."""
    code = (
        "import sys\nfrom swirl import models\nfrom transformers.utils import logging as theirs\n"
        "model, tokenizer = models.load(sys.argv[1])\n"
        "models.generate(model, tokenizer, [[5, 6]], max_new_tokens=2)\n"
        "print(theirs.is_progress_bar_enabled(), theirs.get_verbosity() == theirs.WARNING)"
    )
    heard = ("HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY")
    env = {name: value for name, value in os.environ.items() if name not in heard}
    done = subprocess.run([sys.executable, "-c", code, str(tiny)], capture_output=True, text=True, env=env)
    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_a_tokenizer_without_a_chat_template_is_refused(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template; use an instruct model, or set one and save it"):
        models.load(tmp_path / "m")


def test_a_tokenizer_that_loses_text_is_refused(tiny, tmp_path):
    """What becomes of a custom tokenizer that another model's own class takes over."""
    shutil.copytree(tiny, tmp_path / "m")
    file = tmp_path / "m" / "tokenizer.json"
    table = json.loads(file.read_text())
    table["normalizer"] = {"type": "Replace", "pattern": {"Regex": "[a-z]"}, "content": ""}
    file.write_text(json.dumps(table))
    with pytest.raises(InputError, match="does not give back what it reads"):
        models.load(tmp_path / "m")


def test_a_missing_padding_token_becomes_the_end_token(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "m")
    file = tmp_path / "m" / "tokenizer_config.json"
    table = json.loads(file.read_text())
    del table["pad_token"]
    file.write_text(json.dumps(table))
    tokenizer = models.load_tokenizer(tmp_path / "m")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("damage", ["gone", "short", "empty", "config"])
def test_a_damaged_checkpoint_is_refused_in_one_line(tiny, tmp_path, damage):
    shutil.copytree(tiny, tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    if damage == "gone":
        weights.unlink()
    elif damage == "config":
        (tmp_path / "m" / "config.json").write_text("{")
    else:
        weights.write_bytes(weights.read_bytes()[: 1000 if damage == "short" else 0])
    with pytest.raises(InputError, match="cannot load a") as caught:
        models.load(tmp_path / "m")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "other shape"])
def test_weights_that_do_not_fit_the_configuration_are_refused(tiny, tmp_path, change):
    """`transformers` would fill the gap with random numbers and go on."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny, tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    tensors = load_file(weights)
    name = "model.layers.1.mlp.up_proj.weight"
    if change == "missing":
        del tensors[name]
    else:
        tensors[name] = tensors[name][:, :5].contiguous()
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(
        InputError, match="no weights for model.layers.1.mlp.up_proj" if change == "missing" else "ismatch"
    ):
        models.load(tmp_path / "m")


def test_a_model_is_loaded_for_use_in_the_asked_type(qwen3):
    model, _ = models.load(qwen3, dtype="bfloat16")
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_device_of():
    assert models.device_of("cpu") == torch.device("cpu")
    assert models.device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InputError, match="device 'tpu9', expected auto, cpu or cuda"):
        models.device_of("tpu9")


def test_weights_hash_sees_every_value_name_and_shape():
    def made(**tensors):
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return models.weights_hash(module)

    base = made(a=torch.zeros(2, 2), b=torch.tensor(3))
    assert made(a=torch.zeros(2, 2), b=torch.tensor(3)) == base
    assert made(b=torch.tensor(3), a=torch.zeros(2, 2)) == base
    assert made(a=torch.tensor([[0.0, 0.0], [0.0, -0.0]]), b=torch.tensor(3)) != base
    assert made(a=torch.zeros(2, 2), b=torch.tensor(4)) != base
    assert made(c=torch.zeros(2, 2), b=torch.tensor(3)) != base
    assert made(a=torch.zeros(4), b=torch.tensor(3)) != base
    assert made(a=torch.zeros(2, 2, dtype=torch.int32), b=torch.tensor(3)) != base
    assert made(a=torch.zeros(2, 2, dtype=torch.bfloat16)) != made(a=torch.zeros(2, 2))


# Generating

PROMPTS = [[10, 11, 12, 13, 14, 15], [20], [30, 31, 32], [40, 41]]


def greedy(model, prompt, limit, end):
    ids = list(prompt)
    for _ in range(limit):
        with torch.no_grad():
            ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
        if ids[-1] == end:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("batch", [1, 3, 128])
def test_greedy_replies_are_the_arg_max_whatever_the_batch(loaded, batch):
    model, tokenizer = loaded
    replies = models.generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch=batch)
    for prompt, (reply,) in zip(PROMPTS, replies, strict=True):
        ids = greedy(model, prompt, 6, tokenizer.eos_token_id)
        finished = ids[-1] == tokenizer.eos_token_id
        assert reply == models.Reply(tokenizer.decode(ids, skip_special_tokens=True), finished, tuple(ids))


def test_settings_saved_with_a_model_do_not_change_what_is_generated(tmp_path, one_thread):
    """Instruct models come with a temperature, a repetition penalty and several end tokens of their own."""
    save_qwen3(tmp_path / "m")
    plain, tokenizer = models.load(tmp_path / "m")
    file = tmp_path / "m" / "generation_config.json"
    own = {"do_sample": True, "temperature": 0.1, "top_k": 3, "top_p": 0.5, "repetition_penalty": 9.0, "min_p": 0.9}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    opinionated, _ = models.load(tmp_path / "m")
    assert opinionated.generation_config.repetition_penalty == 9.0
    for options in ({}, {"temperature": 1.0, "n": 4, "seed": 3}):
        expected = models.generate(plain, tokenizer, PROMPTS, max_new_tokens=12, **options)
        assert models.generate(opinionated, tokenizer, PROMPTS, max_new_tokens=12, **options) == expected


def test_a_reply_ends_at_every_token_that_the_model_ends_with(tmp_path, one_thread):
    save_qwen3(tmp_path / "m")
    model, tokenizer = models.load(tmp_path / "m")
    first = greedy(model, PROMPTS[0], 1, None)[0]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, first]
    ((reply,),) = models.generate(model, tokenizer, PROMPTS[:1], max_new_tokens=6)
    assert reply == models.Reply("", True, (first,))


def test_samples_follow_their_seed_and_leave_the_global_generator_alone(loaded):
    model, tokenizer = loaded
    options = {"n": 3, "temperature": 1.0, "max_new_tokens": 8}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = models.generate(model, tokenizer, PROMPTS, seed=7, **options)
    assert torch.equal(torch.rand(3), expected)
    assert models.generate(model, tokenizer, PROMPTS, seed=7, **options) == first
    assert models.generate(model, tokenizer, PROMPTS, seed=8, **options) != first
    assert [len(group) for group in first] == [3] * 4


def test_samples_at_temperature_one_follow_the_models_distribution(loaded):
    model, tokenizer = loaded
    (group,) = models.generate(
        model, tokenizer, [[40, 41]], n=4000, temperature=1.0, max_new_tokens=1, batch=4000, seed=0
    )
    with torch.no_grad():
        probabilities = model(torch.tensor([[40, 41]])).logits[0, -1].softmax(-1)
    texts = [tokenizer.decode([token], skip_special_tokens=True) for token in range(len(tokenizer))]
    best = probabilities.topk(5).indices.tolist()
    for token in best:
        expected = sum(p for p, text in zip(probabilities.tolist(), texts, strict=True) if text == texts[token])
        share = sum(reply.text == texts[token] for reply in group) / len(group)
        assert share == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 4000) ** 0.5)


def test_a_reply_says_whether_it_ended(loaded):
    _, tokenizer = loaded
    end, key = tokenizer.eos_token_id, tokenizer("key", add_special_tokens=False)["input_ids"]
    assert models._reply(tokenizer, [*key, end, *key], [end]) == models.Reply("key", True, (*key, end))
    assert models._reply(tokenizer, key, [end]) == models.Reply("key", False, tuple(key))
    assert models._reply(tokenizer, [end], [end]) == models.Reply("", True, (end,))


def test_progress_counts_prompts_and_no_prompts_are_no_replies(loaded):
    model, tokenizer = loaded
    done = []
    models.generate(model, tokenizer, PROMPTS, max_new_tokens=2, n=2, batch=4, temperature=1.0, advance=done.append)
    assert done == [2, 2]
    assert models.generate(model, tokenizer, [], max_new_tokens=2) == []


def test_left_pad():
    ids, mask = models.left_pad([[1, 2, 3], [4]], 9, "cpu")
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
