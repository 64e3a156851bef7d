"""The baselines of the papers: what each trains, from where, on what, and their rewards by hand."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_rewards import Fixed, asked, replies
from test_run import RECIPE, refused, rows, write
from whole_runs import phases_of

from swirl import labelling, train
from swirl.changes import changed_tokens
from swirl.config import Inferred, Recipe
from swirl.data.table import SCHEMA
from swirl.eval import held_out
from swirl.methods.bootstrap import bootstrap
from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.rewards.likelihood import Likelihood
from swirl.rewards.verifiable import changed_facts, decoded_action
from swirl.scorer import Scorer

METHODS = ["warmup", "sft-continue", "bootstrap", "sft-merge", "rlvr", "inverse-reward", "rwml"]
SMALL = """
[inferred]
rounds = 2
pairs = 30
steps = 2
batch = 4
[swirl]
steps = 2
prompts = 2
generations = 2
learning_rate = 1e-3
"""


@pytest.fixture(scope="module")
def run(swirl, bert, tmp_path_factory):
    """A run through all of them; where it is cut into phases says what each is made of."""
    folder = tmp_path_factory.mktemp("baselines")
    methods = json.dumps(METHODS)
    # Warmed up until the inverse model writes something to label with.
    recipe = RECIPE.replace('methods = ["warmup"]', f"methods = {methods}").replace("steps = 2", "steps = 60")
    (folder / "recipe.toml").write_text(recipe.replace("steps = 60", "steps = 60\nlearning_rate = 5e-3") + SMALL)
    write(folder / "in.jsonl", rows())
    words = ["train", "recipe.toml", "--data", "in.jsonl", "--out", "run", "--evaluation.select", "last"]
    words += ["--evaluation.best_of", "[2, 3]", "--evaluation.encoder", bert]
    words += ["--swirl.encoder", bert, "--swirl.easy", "0.5"]
    code, _, stderr = swirl(*words, cwd=folder)
    assert code == 0, stderr
    return folder / "run"


def folder(run, name):
    [found] = (run / "phases").glob(f"*-{name}")
    return found


def test_the_phases_of_each(run):
    assert phases_of(run) == [
        "data",
        "start",
        "warmup-forward-sft",
        "warmup-inverse-sft",
        "sft-continue-label",
        "sft-continue-forward-sft",
        "bootstrap1-label",
        "bootstrap1-forward-sft",
        "bootstrap2-label",
        "bootstrap2-forward-sft",
        "sft-merge-label",
        "sft-merge-forward-sft",
        "rlvr-label",
        "rlvr-forward-grpo",
        "inverse-reward-label",
        "inverse-reward-forward-grpo",
        "rwml-label",
        "rwml-easy",
        "rwml-forward-grpo",
        "test",
    ]
    results = json.loads((run / "results.json").read_text())
    assert results["inverse"].endswith("warmup-inverse-sft")  # which none of them trains
    assert results["forward"].endswith("rwml-forward-grpo")


def test_the_last_pair_is_tested_with_verification_as_well(run):
    rows = json.loads((run / "results.json").read_text())["rows"]
    tested = {row["phase"]: row for row in rows if row["split"] == "test" and row["metric"] == "exact_match"}
    assert {"rwml", "best-of-2", "best-of-3"} <= set(tested)
    assert tested["best-of-2"]["n"] == tested["rwml"]["n"]
    assert {row["role"] for row in rows if row["phase"] == "best-of-2"} == {"forward"}


def test_similarity_is_measured_of_the_test_alone(run):
    rows = json.loads((run / "results.json").read_text())["rows"]
    scored = {(row["split"], row["phase"]) for row in rows if row["metric"] == "bert_score"}
    forward = {(row["split"], row["phase"]) for row in rows if row["metric"] == "rouge_l" and row["split"] == "test"}
    assert scored == forward
    assert {("test", "copy-input"), ("test", "warmup"), ("test", "best-of-2")} <= scored


def test_of_all_samples_the_one_is_kept_that_the_action_is_read_off_best(monkeypatch):
    asked = {}

    def generate(model, tokenizer, prompts, **options):
        asked.update(options)
        return [
            [SimpleNamespace(text=text) for text in group] for group in (["a", "b", ""], ["", "", ""], ["c", "d", "c"])
        ]

    def score(scorer, role, rows, style, template):
        asked["rows"] = [(row["state"], row["given"], row["target"]) for row in rows]
        return [{"a": -3.0, "b": -1.0, "c": -2.0, "d": -9.0}[row["given"]] for row in rows], [1] * len(rows)

    monkeypatch.setattr(held_out.models, "generate", generate)
    monkeypatch.setattr(held_out, "score", score)
    monkeypatch.setattr(held_out.prompts, "encode_prompt", lambda *a, **k: [1])
    rows = [{"state": str(i), "action": f"act {i}"} for i in range(3)]
    forward = SimpleNamespace(model=None, tokenizer=None, suppressed=lambda role, style: ())
    assert held_out.best_of(3, forward, None, rows, Recipe(), 9, seed=4) == ["b", "", "c"]
    assert (asked["n"], asked["temperature"], asked["seed"]) == (3, 1.0, 4)
    assert asked["rows"][:3] == [("0", "a", "act 0"), ("0", "b", "act 0"), ("2", "c", "act 2")]


def test_merging_begins_where_the_warm_up_began_and_continuing_where_it_ended(run):
    """The last step's loss cannot tell, but the first one's can: before it nothing has been learned."""

    def first_loss(name):
        return json.loads((folder(run, name) / "log.jsonl").read_text().splitlines()[0])["loss"]

    warm, merged = first_loss("warmup-forward-sft"), first_loss("sft-merge-forward-sft")
    assert merged == pytest.approx(warm, rel=0.15)  # of an untrained model
    for name in ("sft-continue", "bootstrap1"):
        assert first_loss(f"{name}-forward-sft") < 0.7 * warm


def test_labels_are_inferred_for_pairs_of_the_state_only_part(run):
    known = {(row["state"], row["next_state"]) for row in pq.read_table(run / "data/state_only.parquet").to_pylist()}
    for name in ("sft-continue", "rlvr"):
        labelled = pq.read_table(folder(run, f"{name}-label") / "rows.parquet").to_pylist()
        assert labelled and {(row["state"], row["next_state"]) for row in labelled} <= known
        assert all(row["action"] for row in labelled)


def test_bootstrap_weighs_what_changed_where_the_recipe_says_so(tiny, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(train, "sft", lambda start, rows, out, **options: told.append((rows, options["weights"])))
    table = [{**row, "trajectory": "t", "step": 0} for row in rows()[:1]]
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), tmp_path / "rows.parquet")
    for weight in (1.0, 3.0):
        recipe = Recipe(inferred=Inferred(rounds=1, change_weight=weight))
        runner = Runner(
            cast(Any, SimpleNamespace(phase=lambda name, work, **_: work(tmp_path) or tmp_path)), recipe, tmp_path
        )
        monkeypatch.setattr(Runner, "labelled", tmp_path / "rows.parquet")
        monkeypatch.setattr(Runner, "label", lambda self, *_: self.labelled)
        bootstrap(runner, Pair(tiny, tiny))
    (_, plain), (encoded, weights) = told
    assert plain is None
    tokenizer = Scorer(tiny).tokenizer
    before = [*tokenizer(table[0]["state"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    for (_, completion), row in zip(encoded, weights, strict=True):
        assert row == [3.0 if mark else 1.0 for mark in changed_tokens(before, completion)]
        assert {1.0, 3.0} == set(row)


def test_merging_without_a_warm_up_is_refused(swirl, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE + SMALL)
    write(tmp_path / "in.jsonl", rows())
    words = ["train", "recipe.toml", "--data", "in.jsonl", "--out", "run", "--methods", '["sft-merge"]']
    refused(swirl(*words, cwd=tmp_path), "methods has no 'warmup' before a method that begins where it began")


def test_the_metric_reward_is_the_f1_of_what_changes(tiny):
    scorer = Fixed(Scorer(tiny).tokenizer, [])
    texts = ["door open\nkey", "key\ndoor shut", "door open", "door shut"]
    values = changed_facts(Likelihood(scorer))(
        prompts=asked("forward", 4),
        **replies(scorer.tokenizer, texts),
        state=["door open\nkey"] * 4,
        action=["go left"] * 4,
        next_state=["door shut\nkey"] * 4,
    )
    # Against -open +shut: nothing; the same facts in another order; -key alone; -open +shut -key.
    assert values == [0, 1, 0, pytest.approx(2 * 2 / (2 + 3))]
    assert scorer.calls == []


def test_a_prediction_that_was_cut_off_earns_nothing_and_close_groups_are_levelled(tiny):
    scorer = Fixed(Scorer(tiny).tokenizer, [])
    seen = {}
    columns = {"state": ["door open"] * 2, "action": ["go left"] * 2, "next_state": ["door shut"] * 2}
    reward = changed_facts(Likelihood(scorer, min_spread=0.5))
    whole, cut = (replies(scorer.tokenizer, ["door shut"], finished) for finished in (True, False))
    both = {key: whole[key] + cut[key] for key in whole}
    assert reward(prompts=asked("forward", 2), **both, **columns, log_metric=seen.__setitem__) == [1, 0]
    assert seen == {"unreadable": 0.5, "levelled": 0}
    reward = changed_facts(Likelihood(scorer, min_spread=1.5))
    assert reward(prompts=asked("forward", 2), **both, **columns) == [0.5, 0.5]


def test_the_inverse_reward_is_whether_the_action_is_decoded(tiny, monkeypatch):
    told = []

    def infer(scorer, pairs, **options):
        told.extend((pair["state"], pair["next_state"], pair["history"]) for pair in pairs)
        return [["Go  left"] if pair["next_state"] == "door shut" else ["go right"] for pair in pairs]

    monkeypatch.setattr(labelling, "infer", infer)
    scorer = Fixed(Scorer(tiny).tokenizer, [])
    values = decoded_action(Likelihood(scorer))(
        prompts=asked("forward", 2),
        **replies(scorer.tokenizer, ["door shut", "key"]),
        state=["door open"] * 2,
        action=["go left"] * 2,
        next_state=["never read"] * 2,
        history=[["before"], []],
    )
    assert values == [1, 0]
    assert told == [("door open", "door shut", ["before"]), ("door open", "key", [])]
