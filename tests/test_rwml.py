"""RWML: its reward by hand, and which pairs it trains on."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_rewards import Fixed, asked, replies
from test_similarity import minilm

from swirl import data, metrics, worlds
from swirl.config import Recipe, Swirl
from swirl.data.table import SCHEMA
from swirl.errors import InputError, MissingPartError
from swirl.eval import held_out
from swirl.methods import rwml as method
from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.recipe import load_recipe
from swirl.rewards import embedding
from swirl.rewards.embedding import embedding_match
from swirl.rewards.likelihood import Likelihood
from swirl.scorer import Scorer
from swirl.similarity import Encoder

PLACES = {"door open": (1.0, 0.0), "door shut": (0.8, 0.6), "key": (0.0, 1.0)}


class Placed:
    """An encoder whose embeddings are given: cosines 0.8, 0.6 and 0 between the three texts."""

    def __init__(self, name, device):
        self.asked = name, device

    def cosine_distance(self, texts, truths):
        return np.array([1 - np.dot(PLACES[a], PLACES[b]) if a else 1.0 for a, b in zip(texts, truths, strict=True)])


@pytest.fixture
def placed(monkeypatch):
    monkeypatch.setattr(embedding, "Encoder", Placed)
    monkeypatch.setattr(method, "Encoder", Placed)


@pytest.mark.parametrize(("distance", "earned"), [(0.1, [1, 0, 0]), (0.3, [1, 1, 0]), (0.5, [1, 1, 1])])
def test_the_reward_is_a_step_at_the_distance(placed, tiny, distance, earned):
    scorer = Fixed(Scorer(tiny).tokenizer, [])
    scorer.model = SimpleNamespace(device="cpu")
    seen = {}
    texts = ["door shut", "door open", "key"]  # 0, 0.2 and 0.4 away from the truth
    values = embedding_match("ours", distance)(Likelihood(scorer))(
        prompts=asked("forward", 3),
        **replies(scorer.tokenizer, texts),
        state=["key"] * 3,
        action=["go left"] * 3,
        next_state=["door shut"] * 3,
        log_metric=seen.__setitem__,
    )
    assert values == earned
    assert seen["unreadable"] == 0


def test_a_reply_that_was_cut_off_earns_nothing(placed, tiny):
    scorer = Fixed(Scorer(tiny).tokenizer, [])
    scorer.model = SimpleNamespace(device="cpu")
    columns = {"state": ["key"], "action": ["go left"], "next_state": ["door shut"]}
    cut = replies(scorer.tokenizer, ["door shut"], finished=False)
    assert embedding_match("ours", 0.5)(Likelihood(scorer))(prompts=asked("forward", 1), **cut, **columns) == [0]


def test_a_real_encoder_gives_the_reward(bert, tiny):
    scorer = Fixed(Scorer(tiny).tokenizer, [])
    scorer.model = SimpleNamespace(device="cpu")
    columns = {"state": ["key"] * 3, "action": ["go left"] * 3, "next_state": ["door shut"] * 3}
    texts = ["door shut", "door open", "key"]
    found = Encoder(str(bert), "cpu").cosine_distance(texts, columns["next_state"])
    between = float(np.sort(found)[:2].mean())
    values = embedding_match(str(bert), between)(Likelihood(scorer))(
        prompts=asked("forward", 3), **replies(scorer.tokenizer, texts), **columns
    )
    assert values == [1, 0, 0]
    assert found[0] == 0 < found[1:].min()


def easy(tmp_path, monkeypatch, predicted, **settings):
    """The kept rows and the facts of the phase, where the forward model predicts as told."""
    names = [f"t{n}" for n in range(len(predicted))]
    rows = [
        {"state": "key", "action": "go left", "next_state": "door shut", "trajectory": name, "step": 0}
        for name in names
    ]
    for name in ("labelled", "inferred"):
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / f"{name}.parquet")
    monkeypatch.setattr(Runner, "scorer", lambda self, checkpoint: checkpoint)
    monkeypatch.setattr(Runner, "max_new_tokens", {"forward": 30, "inverse": 5})
    monkeypatch.setattr(held_out, "predict", lambda model, part, actions, *_: predicted)
    run = Runner(None, Recipe(swirl=Swirl(encoder="ours", **settings)), tmp_path)
    monkeypatch.setattr(run, "phase", lambda name, work, facts: work(tmp_path) or tmp_path)
    out = method._without_easy(run, Pair(tmp_path, tmp_path), tmp_path / "inferred.parquet")
    kept = pq.read_table(out)["trajectory"].to_pylist()
    return [int(name[1:]) for name in kept], json.loads((tmp_path / "phase.json").read_text())["facts"]


def test_pairs_that_are_right_already_are_thinned_out(placed, tmp_path, monkeypatch, caplog):
    predicted = ["door shut"] * 300 + ["key", "", "door open"]
    kept, facts = easy(tmp_path, monkeypatch, predicted, distance=0.1, easy=0.1)
    assert kept[-3:] == [300, 301, 302]  # what is wrong or cannot be read stays
    assert 15 <= len(kept) - 3 <= 50  # a binomial of 300 and 0.1
    assert facts == {
        "pairs": 303,
        "easy": 300,
        "easy_kept": len(kept) - 3,
        "kept": len(kept),
        "changed": 303,
        "copies_close": 0,
    }
    assert not caplog.records
    assert easy(tmp_path, monkeypatch, predicted, distance=0.1, easy=0.1)[0] == kept
    assert easy(tmp_path, monkeypatch, predicted, distance=0.1, easy=0.0)[0] == [300, 301, 302]
    assert len(easy(tmp_path, monkeypatch, predicted, distance=0.1, easy=1.0)[0]) == 303


def test_a_distance_that_copies_pass_is_said(placed, tmp_path, monkeypatch, caplog):
    easy(tmp_path, monkeypatch, ["door open"] * 3, distance=0.5, easy=1.0)
    assert "in 3 of 3 changed pairs a copy of the state is closer" in caplog.text


def test_nothing_left_to_learn_is_an_error(placed, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"all 2 predictions .* swirl.distance = 0.1, and none is kept; lower it"):
        easy(tmp_path, monkeypatch, ["door shut"] * 2, distance=0.1, easy=0.0)


def test_a_missing_encoder_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    from swirl.methods import session

    monkeypatch.setattr("swirl.similarity.find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match="pip install"):
        session.run_recipe(Recipe(methods=("warmup", "rwml")), tmp_path / "run", tmp_path)
    assert not (tmp_path / "run").exists()


@minilm
def test_on_minigrid_a_copy_means_nearly_the_same(tmp_path):
    options = load_recipe("recipes/minigrid.toml").data.options
    data.collect(partial(worlds.make, "minigrid", **options), tmp_path / "in.parquet", 200)
    rows = [r for r in data.read(tmp_path / "in.parquet").to_pylist() if metrics.changed(r["state"], r["next_state"])]
    distances = Encoder("all-minilm-l6-v2", "cpu").cosine_distance(
        [row["state"] for row in rows], [row["next_state"] for row in rows]
    )
    assert distances.min() > 0 and distances.max() < 0.1  # as docs/methods.md says
