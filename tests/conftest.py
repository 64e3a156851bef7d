"""Shared fixtures: models small enough for one thread, built once per session."""

import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import pytest
from hypothesis import settings

from swirl.config import Model

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("swirl", deadline=None)
settings.load_profile("swirl")

TINY = Model(vocabulary=300, hidden=32, layers=2, heads=2, max_length=128)
"""What `tiny` is built from; tests that train pass it along."""

# A template in ChatML's form: a system turn, a user turn, an open assistant turn.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if think is defined %}<think></think>{% endif %}{% endif %}"
)


SLOWEST = (
    "test_compare.py",
    "test_java_worlds.py",
    "test_docs.py",
    "test_resume.py",
    "test_data_recording.py",
    "test_distributed.py",
    "test_theorem.py",
    "test_cli.py",
)
"""Files that take longest, in that order: `pytest --durations=0`."""


def pytest_collection_modifyitems(items):
    """Several processes end at about the same time where what takes longest begins first."""
    place = {name: i for i, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(SLOWEST)))


def means(values):
    """Per metric the mean of its values and how many they are, of what `swirl.metrics` gives row by row."""
    return {name: (float(value.mean()), len(rows)) for name, (value, rows) in values.items()}


def load_benchmark(name):
    """A module of benchmarks/, anew."""
    folder = Path(__file__).parent.parent / "benchmarks"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # they import each other
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def randomise(folder, std):
    """Give a saved model wide random weights: every token of the past matters, and tasks are learnt in a hurry."""
    import torch

    from swirl import models

    model, tokenizer = models.load(folder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=std, generator=generator)
    models.save(model, tokenizer, folder)


@pytest.fixture(scope="session")
def one_thread():
    """Several busy threads on a small machine are slower than one, and results must not depend on their number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, one_thread):
    """Folder of a `tiny` model; never written to."""
    from swirl.tiny import build

    folder = tmp_path_factory.mktemp("tiny")
    build(["door open", "door shut", "key", "go left", "go right"] * 9, folder, TINY, seed=0)
    randomise(folder, std=0.2)
    return folder


def save_qwen3(folder, **config):
    """Save a random Qwen3 with a byte-level tokenizer of its own class and a ChatML template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate([*special, *letters])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=special[0],
        eos_token=special[2],
        extra_special_tokens=special[1:2],
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Wide initial weights, or all log-probabilities are nearly uniform and nothing could differ.
        model = Qwen3ForCausalLM(Qwen3Config(**settings | {"initializer_range": 0.3} | config))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory, one_thread):
    """Folder of a random Qwen3 with grouped heads, a system turn, and two ids that end a text."""
    folder = tmp_path_factory.mktemp("qwen3")
    save_qwen3(folder)
    return folder


@pytest.fixture(scope="session")
def windowed(tmp_path_factory, one_thread):
    """Folder of a random Qwen3 whose second layer sees four tokens only."""
    folder = tmp_path_factory.mktemp("windowed")
    save_qwen3(folder, use_sliding_window=True, sliding_window=4, max_window_layers=1)
    return folder


BERT_WORDS = ["the", "door", "is", "open", "shut", "key", "floor", "you", "see", "a", "on", ".", ","]
BERT_LENGTH = 24
"""What the encoder `bert` reads: these words, and so many tokens at once."""


@pytest.fixture(scope="session")
def bert(tmp_path_factory, one_thread):
    """Folder of a random BERT; its weights are wide, so that a token's states depend on its place and neighbours."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *BERT_WORDS]
    BertTokenizer({word: i for i, word in enumerate(vocabulary)}, model_max_length=BERT_LENGTH).save_pretrained(folder)
    settings = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": BERT_LENGTH,
        "initializer_range": 0.5,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(BertConfig(**settings)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory, tiny):
    """A run whose final checkpoints are `tiny` as it was built: whole for whoever reads it, but nothing was trained."""
    import json
    import shutil
    from dataclasses import asdict, replace
    from functools import partial

    from swirl import ledger
    from swirl.config import Data, Recipe

    folder = tmp_path_factory.mktemp("runs") / "run"
    recipe = Recipe(model=replace(TINY, max_length=128), data=Data(history=1), threads=1)
    roles = {"start": ["forward", "inverse"], "warmup-forward-sft": ["forward"], "warmup-inverse-sft": ["inverse"]}

    def checkpoint(name, out):
        shutil.copytree(tiny, out, dirs_exist_ok=True)
        card = {"roles": roles[name], "model": asdict(recipe.model)}
        card |= {"data": {"history": 1, "seed": 3}, "evaluation": {"max_rows": 5}}
        (out / "swirl.json").write_text(json.dumps(card))

    with ledger.Run.open(folder, recipe.toml()) as run:
        for name in roles:
            run.phase(name, partial(checkpoint, name))
        run.phase("verified1-label", lambda out: (out / "rows.parquet").write_bytes(b""))
    results = {"forward": "phases/02-warmup-forward-sft", "inverse": "phases/03-warmup-inverse-sft"}
    (folder / "results.json").write_text(json.dumps({**results, "alarms": [], "rows": []}))
    return folder


@pytest.fixture(scope="session")
def swirl(tmp_path_factory):
    """Runs `swirl` in fresh processes that share one import; see `whole_runs.Server`."""
    from whole_runs import Server

    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture
def recipe_file(tmp_path):
    """An empty recipe: everything is an override."""
    path = tmp_path / "recipe.toml"
    path.write_text("")
    return path


@pytest.fixture
def small(monkeypatch):
    """Overrides with which an agent's run takes seconds, and their world; for the tests in `agents/`."""
    from agent_runs import SMALL

    from swirl import worlds

    monkeypatch.setitem(worlds.WORLDS, "choice", "choice:Choice")
    return dict(SMALL)
