import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import save_qwen3
from transformers import RwkvConfig

from swirl import models, prompts
from swirl.config import Data, Evaluation, Model, Recipe, Swirl, Verified, Warmup
from swirl.errors import InputError
from swirl.methods import plan, session
from swirl.methods.cost import EFFICIENCY, STEP, Cost, Lengths, Machine, Shape
from swirl.tiny import build

TINY = Model(vocabulary=300, hidden=32, layers=2, heads=2, max_length=128)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr(plan, "_benchmark", lambda recipe, shape: Machine(1e9, 1e9))


@pytest.fixture
def recipe(tmp_path):
    rows = [{"state": f"door {i} shut", "action": "go left", "next_state": f"door {i} open"} for i in range(10, 50)]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Recipe(
        methods=("warmup", "swirl", "verified"),
        threads=1,
        device="cpu",
        model=TINY,
        data=Data(path=str(path), validation_labels=3, labels=9),
        warmup=Warmup(steps=10, batch=4),
        swirl=Swirl(rounds=2, steps=5, prompts=2, generations=4),
        verified=Verified(rounds=1, pairs=7, steps=6, batch=8),
        evaluation=Evaluation(max_rows=3),
    )


def test_the_phases_are_those_that_the_methods_make(recipe, tmp_path):
    phases = plan.plan(recipe, tmp_path)["phases"]
    assert [(p["phase"], p["kind"], p["steps"], p["rows"]) for p in phases] == [
        ("start", "build", 0, 0),
        ("warmup-forward-sft", "sft", 10, 4),
        ("warmup-inverse-sft", "sft", 10, 4),
        ("swirl1-label", "label", 0, 10),
        ("swirl1-forward-grpo", "grpo", 5, 8),
        ("swirl1-inverse-grpo", "grpo", 5, 8),
        ("swirl2-label", "label", 0, 10),
        ("swirl2-forward-grpo", "grpo", 5, 8),
        ("swirl2-inverse-grpo", "grpo", 5, 8),
        ("verified1-label", "label", 0, 7),
        ("verified1-forward-sft", "sft", 6, 8),
        ("verified1-inverse-sft", "sft", 6, 8),
        ("test", "test", 0, 3),
    ]
    assert all(math.isfinite(p["seconds"]) and p["seconds"] > 0 for p in phases[1:])


def test_nothing_is_written(recipe, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    plan.show(recipe, Path("cache"))
    assert not list((tmp_path / "empty").iterdir())


def test_lengths_and_parameters_are_those_of_the_model_that_will_be_built(recipe, tmp_path):
    found = plan.plan(recipe, tmp_path)
    texts = [f"door {i} {word}" for i in range(10, 50) for word in ("open", "shut")]
    build(sorted([*texts, "go left"]), tmp_path / "tiny", TINY, seed=0)
    model, tokenizer = models.load(tmp_path / "tiny")
    assert found["model"]["parameters"] == sum(p.numel() for p in model.parameters())
    asked, told = [], []
    for i in range(10, 50):
        messages = prompts.prompt("forward", f"door {i} shut", "go left")
        asked.append(len(tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]))
        told.append(len(tokenizer(f"door {i} open", add_special_tokens=False)["input_ids"]) + 1)
    assert found["lengths"]["prompt"]["forward"] == pytest.approx(np.mean(asked))
    assert found["lengths"]["reply"]["forward"] == pytest.approx(np.mean(told))
    assert found["phases"][1]["tokens"] == round(10 * 4 * (np.mean(asked) + np.mean(told)))


def test_without_a_recording_a_sample_of_the_world_is_measured_and_thrown_away(recipe, tmp_path):
    world = replace(recipe, data=Data(max_steps=20), model=replace(TINY, max_length=512))
    found = plan.plan(world, tmp_path / "cache")
    assert found["lengths"]["measured"]
    assert not (tmp_path / "cache").exists()
    rows, total, images = plan._recording(world, tmp_path / "cache")
    assert (len(rows), total) == (plan.TRIAL, 20_000)
    tokenizer, _ = plan._model(world, rows, images)
    asked = [len(prompts.encode_prompt(tokenizer, prompts.transition_prompt("forward", row))) for row in rows]
    assert found["lengths"]["prompt"]["forward"] == pytest.approx(np.mean(asked))
    assert found["phases"][-1]["rows"] == 3  # of the 2,000 that the whole recording will have for the test
    # MiniGrid lists six actions, so none of 8 candidates is sampled.
    known = Cost(world, Shape(**found["model"]), Lengths(**found["lengths"]), Machine(1e9, 1e9), total, 6)
    label = next(phase for phase in found["phases"] if phase["phase"] == "verified1-label")
    assert label["seconds"] == known.label(7, 8)


def test_without_the_simulator_texts_are_taken_to_be_as_long_as_allowed(monkeypatch, recipe, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "minigrid", None)
    world = replace(recipe, data=replace(recipe.data, path=""))
    found = plan.plan(world, tmp_path)
    assert not found["lengths"]["measured"]
    for role in ("forward", "inverse"):
        assert found["lengths"]["prompt"][role] + found["lengths"]["reply"][role] == 128
    plan.show(world, tmp_path)
    assert "assumed, for the world's simulator is missing" in capsys.readouterr().out


def test_a_recording_of_the_users_that_is_not_there_is_the_error_of_train(recipe, tmp_path):
    gone = replace(recipe, data=replace(recipe.data, path=str(tmp_path / "gone.parquet")))
    with pytest.raises(InputError, match=r"gone\.parquet: no such file; give a Parquet or JSONL recording"):
        plan.plan(gone, tmp_path)


def refusal(recipe, tmp_path):
    """What a dry run says, which a run says too; neither leaves anything that was trained."""
    with pytest.raises(InputError) as dry:
        plan.plan(recipe, tmp_path)
    with pytest.raises(InputError) as run:
        session.run_recipe(recipe, tmp_path / "run", tmp_path)
    assert str(dry.value) == str(run.value)
    return str(dry.value)


def test_what_a_run_would_refuse_is_refused(recipe, qwen3, tmp_path):
    more = replace(recipe, data=replace(recipe.data, labels=99))
    assert refusal(more, tmp_path / "more").startswith("labels = 99 with validation_labels = 3 asks for 96 train")
    short = replace(recipe, model=replace(TINY, max_length=20))
    assert "max_length" in refusal(short, tmp_path / "short")
    short = replace(recipe, model=replace(TINY, name=str(qwen3), prompt="instruct", max_length=64))
    assert "max_length" in refusal(short, tmp_path / "pretrained")
    blank = tmp_path / "blank.jsonl"
    rows = [{"state": f"door {i} shut", "next_state": f"door {i} open"} for i in range(40)]
    blank.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = Data(path=str(blank))
    assert "no training transition has an action" in refusal(replace(recipe, data=spec), tmp_path / "none")
    blank.write_text("".join(json.dumps({**row, "action": "go", "layout": "one"}) + "\n" for row in rows))
    assert "layouts" in refusal(replace(recipe, data=spec), tmp_path / "one")


def test_a_checkpoint_is_measured_without_its_weights(recipe, qwen3, tmp_path):
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(qwen3, copy, ignore=shutil.ignore_patterns("*.safetensors"))
    spec = replace(TINY, name=str(copy), prompt="instruct", max_length=1024)
    found = plan.plan(replace(recipe, model=spec), tmp_path)
    model, _ = models.load(qwen3)
    assert found["model"]["parameters"] == sum(p.numel() for p in model.parameters())
    with pytest.raises(InputError, match="cannot read the configuration"):
        plan.plan(replace(recipe, model=replace(spec, name=str(tmp_path))), tmp_path)


def test_a_model_that_reads_padding_is_refused_before_grpo_would_pad_for_it(recipe, tmp_path):
    RwkvConfig(hidden_size=32, attention_hidden_size=32, num_hidden_layers=2).save_pretrained(tmp_path / "model")
    spec = replace(TINY, name=str(tmp_path / "model"), prompt="instruct")
    with pytest.raises(InputError, match=r"a rwkv model takes padding for text.* use the method verified"):
        plan.plan(replace(recipe, model=spec), tmp_path)
    # Without GRPO it gets as far as the tokenizer.
    with pytest.raises(InputError, match="the tokenizer of"):
        plan.plan(replace(recipe, model=spec, methods=("warmup", "verified")), tmp_path)


def test_an_input_embedding_of_its_own_multiplies_nothing(recipe, qwen3, tmp_path):
    spec = replace(TINY, name=str(qwen3), prompt="instruct", max_length=1024)
    tied = plan.plan(replace(recipe, model=spec), tmp_path)["model"]
    assert tied["multiplied"] == tied["parameters"]
    save_qwen3(tmp_path / "untied", tie_word_embeddings=False)
    spec = replace(spec, name=str(tmp_path / "untied"))
    untied = plan.plan(replace(recipe, model=spec), tmp_path)["model"]
    assert untied["parameters"] - untied["multiplied"] == untied["vocabulary"] * untied["hidden"]
    assert untied["multiplied"] == tied["multiplied"]


def cost(recipe, **shape):
    numbers = {"parameters": 1000, "multiplied": 900, "layers": 2, "hidden": 10, "vocabulary": 50} | shape
    lengths = Lengths({"forward": 6, "inverse": 8}, {"forward": 4, "inverse": 2}, {"forward": 5, "inverse": 3}, True)
    return Cost(recipe, Shape(**numbers), lengths, Machine(1e6, 1e6), 40, 0)


def test_seconds_by_hand():
    machine = cost(Recipe())
    flops = 2 * 7 * 10 * (900 + 2 * 10 * 10)  # 7 rows of 10 tokens, N = 900, 2 layers x 10 wide x 10 long
    assert machine.score("forward", 7) == pytest.approx(flops / (EFFICIENCY * 1e6))
    assert machine.train("forward", 7) == pytest.approx(3 * machine.score("forward", 7))
    read = 2 * 7 * 11 * (900 + 2 * 10 * 11) / (EFFICIENCY * 1e6)
    weights = 900 * 4 / 1e6  # float32, once for each of 5 tokens and each of 4 batches
    assert machine.generate("forward", 7, 2) == pytest.approx(read + 5 * 4 * (weights + 2 * 4e-4))


def test_validation_by_hand():
    machine = cost(Recipe(data=Data(validation_labels=7), evaluation=Evaluation(checkpoints=3, batch=2)))
    both = {role: machine.generate(role, 7, 2) + machine.score(role, 7) for role in ("forward", "inverse")}
    cycle = machine.generate("forward", 7, 2)
    for name, kind, each in (
        ("pretrain-forward-sft", "sft", both["forward"]),
        ("swirl1-inverse-grpo", "grpo", both["inverse"]),
        ("warmup-both-sft", "sft", sum(both.values())),
    ):
        facts = {"phase": name, "kind": kind, "steps": 0, "rows": 4}
        assert machine.phase(facts)["seconds"] == pytest.approx(3 * each + cycle)
    for rows in (0, 4000):  # there are 40
        label = machine.phase({"phase": "swirl1-label", "kind": "label", "rows": rows})
        assert (label["rows"], label["seconds"]) == (40, machine.label(40, 0))


def test_an_optimiser_step_has_a_cost_of_its_own():
    machine = cost(Recipe(data=Data(validation_labels=7)))
    seconds = [
        machine.phase({"phase": "warmup-forward-sft", "kind": "sft", "steps": steps, "rows": 4})["seconds"]
        for steps in (0, 2)
    ]
    assert seconds[1] - seconds[0] == pytest.approx(machine.train("forward", 8) + 2 * STEP)


def test_bytes_by_hand():
    facts = {"phase": "x", "steps": 1, "rows": 3}
    tokens, weights = 3 * 10, 1000 * 4
    rest = tokens * 2 * 10 * 34 / 2 * 4 + 3 * 4 * tokens * 50
    assert cost(Recipe()).memory([facts | {"kind": "label"}]) == 2 * weights
    assert cost(Recipe()).memory([facts | {"kind": "sft"}]) == pytest.approx(4 * weights + rest)
    # GRPO holds the scorer and, where there is a KL, the reference too.
    assert cost(Recipe()).memory([facts | {"kind": "grpo"}]) == pytest.approx(6 * weights + rest)
    no_kl = Recipe(swirl=Swirl(beta=0.0))
    assert cost(no_kl).memory([facts | {"kind": "grpo"}]) == pytest.approx(5 * weights + rest)
    assert cost(Recipe()).memory([facts | {"kind": k} for k in ("label", "grpo", "sft")]) == pytest.approx(
        6 * weights + rest
    )


def test_dearer_settings_cost_more(recipe, tmp_path):
    base = plan.plan(recipe, tmp_path)
    for dearer in (
        replace(recipe, warmup=replace(recipe.warmup, steps=20)),
        replace(recipe, swirl=replace(recipe.swirl, generations=8)),
        replace(recipe, verified=replace(recipe.verified, candidates=16)),
        replace(recipe, evaluation=replace(recipe.evaluation, checkpoints=9)),
    ):
        assert plan.plan(dearer, tmp_path)["seconds"] > base["seconds"]
    batches = replace(recipe, trainer={"per_device_train_batch_size": 2})
    assert plan.plan(batches, tmp_path)["bytes"] < base["bytes"]


def test_a_model_that_is_not_there_is_named_as_it_was_given(recipe, tmp_path):
    with pytest.raises(InputError, match=r"^\./gone: no such folder"):
        plan.plan(replace(recipe, model=replace(TINY, name="./gone")), tmp_path)


def test_unknown_methods_are_refused(recipe, tmp_path):
    with pytest.raises(InputError, match="unknown method 'nope'"):
        plan.plan(replace(recipe, methods=("nope",)), tmp_path)


def test_shown_for_people_and_for_scripts(recipe, tmp_path, capsys):
    plan.show(recipe, tmp_path, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found == plan.plan(recipe, tmp_path)
    plan.show(recipe, tmp_path)
    out = capsys.readouterr().out
    for text in ("swirl2-inverse-grpo", "parameters", "memory", "GFLOP/s", "Estimates", "measured"):
        assert text in out


def test_the_machines_speed_is_measured(monkeypatch):
    monkeypatch.undo()
    found = plan._benchmark(Recipe(threads=1, device="cpu"), Shape(1, 1, 1, 64, 1), seconds=0.02)
    assert np.isfinite([found.flops, found.bytes]).all()
    assert found.flops > 1e7
    assert found.bytes > 1e7


def test_the_best_of_several_probes_counts(monkeypatch):
    """A clock that says that every product takes a second, but for one probe in which each takes half of one."""
    monkeypatch.undo()
    seen = []

    def clock():
        seen.append(1.0 if 20 < len(seen) < 30 else 3.0)
        return sum(seen)

    monkeypatch.setattr(plan.time, "perf_counter", clock)
    alone = plan._benchmark(Recipe(threads=1, device="cpu"), Shape(1, 1, 1, 64, 1), seconds=2.0)
    seen[:] = [0.0] * 99
    busy = plan._benchmark(Recipe(threads=1, device="cpu"), Shape(1, 1, 1, 64, 1), seconds=2.0)
    assert alone.bytes > busy.bytes or alone.flops > busy.flops


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59, "59 s"), (90, "1.5 min"), (7200, "2 h"), (3e6, "35 days")]
)
def test_times_have_two_digits(seconds, text):
    assert plan.time_of(seconds) == text


def test_a_list_of_actions_counts_where_it_is_asked_for():
    rows = [{"state": "room 5 5\nagent 1 1 right\ncarrying nothing"}]
    assert plan._listed(Recipe(), rows) == 6
    assert plan._listed(Recipe(verified=Verified(listed=False)), rows) == 0
