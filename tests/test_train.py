import dataclasses
import itertools
import json
import logging
import shutil

import pytest
import torch
from conftest import TINY
from transformers import AutoModelForCausalLM

from swirl import fit, models, order, prompts, recipe, train
from swirl.config import Model, Swirl
from swirl.errors import InputError
from swirl.rewards.likelihood import Likelihood, action_likelihood
from swirl.scorer import Scorer

STATES = ["door open", "door shut", "key", "key key", "door"]
ROWS = [
    {"state": a, "action": z, "next_state": b, "trajectory": "t", "step": 0}
    for a, z, b in zip(STATES, ["go left", "go right"] * 3, STATES[1:] + STATES[:1], strict=False)
]
SCHEDULE = train.Schedule(steps=6, batch=4, learning_rate=1e-2, lr_warmup=0.2, seed=3, checkpoints=3)
SETTINGS = Swirl(generations=4, beta=0.1, temperature=1.0, top_p=1.0)


def last(checkpoints):
    return checkpoints[-1]


def encoded(path, role="forward", style="terse", **template):
    tokenizer = models.load_tokenizer(path)
    return [prompts.encode(tokenizer, role, row, style, 512, **template) for row in ROWS]


def questions(role="forward", style="terse"):
    return [{"prompt": prompts.transition_prompt(role, row, style), **row} for row in ROWS]


def by_length(completion_ids, **columns):
    return [float(len(ids) % 5) for ids in completion_ids]


def constant(completion_ids, **columns):
    return [1.0] * len(completion_ids)


def run_sft(start, out, rows=None, schedule=SCHEDULE, model=TINY, select=last, **options):
    rows = rows or encoded(start)
    return train.sft(start, rows, out, schedule=schedule, model=model, select=select, device="cpu", **options)


def run_grpo(start, out, reward=by_length, schedule=SCHEDULE, settings=SETTINGS, model=TINY, select=last, **options):
    options = {"prompts": questions(), "max_completion": 6, "device": "cpu"} | options
    return train.grpo(
        start, reward=reward, out=out, schedule=schedule, settings=settings, model=model, select=select, **options
    )


def run_replay(start, out, **options):
    rows = encoded(start)
    batches = [[rows[(step + i) % len(rows)] for i in range(3)] for step in range(SCHEDULE.steps)]
    return run_grpo(start, out, replay=batches, replay_weight=0.7, **options)


KINDS = {"sft": run_sft, "grpo": run_grpo, "grpo with replay": run_replay}
MOST = ["sft", pytest.param("grpo", marks=pytest.mark.slow), "grpo with replay"]  # replay holds all that GRPO does


def fingerprint(path):
    return models.weights_hash(models.load(path)[0])


def log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def timeless(rows):
    """Log rows without what the clock says."""
    clocks = ("time", "cpu", "runtime", "per_second", "profiling")
    return [{key: value for key, value in row.items() if not any(clock in key for clock in clocks)} for row in rows]


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """Undisturbed runs of every kind."""
    folder = tmp_path_factory.mktemp("whole")
    return {kind: run(tiny, folder / kind) for kind, run in KINDS.items()}


@pytest.fixture
def trainers(monkeypatch):
    """Trainers that are built from here on."""
    seen = []
    for name in ("SFTTrainer", "SwirlGRPOTrainer"):
        real = getattr(train, name)

        class Seen(real):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                seen.append(self)

        monkeypatch.setattr(train, name, Seen)
    return seen


class Killed(Exception):
    """Stands for a kill."""


def kill_at(monkeypatch, step):
    """Let training die after an optimiser step; give back what lets it live again."""
    real = fit._Progress.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        real(self, args, state, control, **kwargs)
        if state.global_step == step:
            raise Killed

    monkeypatch.setattr(fit._Progress, "on_step_end", on_step_end)
    return lambda: monkeypatch.setattr(fit._Progress, "on_step_end", real)


# The same recipe, seed and machine: the same weights


@pytest.mark.parametrize("kind", MOST)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny, whole, tmp_path, kind):
    torch.manual_seed(torch.initial_seed() + 1)  # the phase must not depend on what ran before it
    again = KINDS[kind](tiny, tmp_path / "again")
    assert fingerprint(again) == fingerprint(whole[kind]) != fingerprint(tiny)
    assert timeless(log(again)) == timeless(log(whole[kind]))
    other = KINDS[kind](tiny, tmp_path / "other", schedule=dataclasses.replace(SCHEDULE, seed=4))
    assert fingerprint(other) != fingerprint(again)


def test_the_seed_decides_what_is_sampled(tiny, tmp_path):
    def sampled(name, seed):
        seen = []

        def reward(completion_ids, **columns):
            seen.append(completion_ids)
            return [0.0] * len(completion_ids)

        schedule = train.Schedule(steps=1, batch=2, learning_rate=1e-3, lr_warmup=0, seed=seed, checkpoints=1)
        run_grpo(tiny, tmp_path / name, reward, schedule, prompts=questions()[:1])
        return seen

    assert sampled("a", 0) == sampled("b", 0) != sampled("c", 1)


@pytest.mark.parametrize("kind", MOST)
def test_a_killed_phase_ends_with_the_weights_of_an_undisturbed_one(
    tiny, whole, tmp_path, kind, monkeypatch, caplog, trainers
):
    out = tmp_path / "out"
    revive = kill_at(monkeypatch, 5)
    with pytest.raises(Killed):
        KINDS[kind](tiny, out)
    assert sorted(path.name for path in (out / "trainer").glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert not (out / "model.safetensors").exists()
    revive()
    with caplog.at_level(logging.INFO, "swirl"):
        KINDS[kind](tiny, out)
    assert "continues at step 4 of 6" in caplog.text
    assert fingerprint(out) == fingerprint(whole[kind])
    assert timeless(log(out)) == timeless(log(whole[kind]))
    if kind != "sft":  # the reference is where the phase started, not where it continued
        assert models.weights_hash(trainers[-1].ref_model) == fingerprint(tiny)


def cut(name, keep):
    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:keep] if keep >= 0 else content[:keep] + b"\0" * -keep)

    return damage


DAMAGES = {
    "no optimizer state": lambda folder: (folder / "optimizer.pt").unlink(),
    "no random state": lambda folder: (folder / "rng_state.pth").unlink(),
    "short weights": cut("model.safetensors", 1000),
    "empty schedule": cut("scheduler.pt", 0),
    "other bytes": cut("optimizer.pt", -64),
    "no seal": lambda folder: (folder / "complete.json").unlink(),
    "a seal edited by hand": lambda folder: (folder / "complete.json").write_text('{"bad'),
    "a seal of another kind": lambda folder: (folder / "complete.json").write_text("[1, 2]"),
}


@pytest.fixture(scope="module")
def killed(tiny, tmp_path_factory):
    """Folders of phases killed after five of six steps."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 5)
        for kind in ("sft", "grpo with replay"):
            with pytest.raises(Killed):
                KINDS[kind](tiny, folder / kind)
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_not_used(tiny, whole, killed, tmp_path, damage, caplog):
    # Replayed batches are chosen by the step, so GRPO is checked too, once.
    for kind in ("sft", "grpo with replay") if damage == "no optimizer state" else ("sft",):
        out = tmp_path / kind
        shutil.copytree(killed / kind, out)
        DAMAGES[damage](out / "trainer" / "checkpoint-4")
        with caplog.at_level(logging.INFO, "swirl"):
            KINDS[kind](tiny, out)
        assert "continues at step 2 of 6" in caplog.text
        assert "continues at step 4" not in caplog.text
        assert fingerprint(out) == fingerprint(whole[kind])


def test_a_hole_among_the_checkpoints_is_filled(tiny, whole, killed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(killed / "sft", out)
    cut("model.safetensors", 10)(out / "trainer" / "checkpoint-2")
    candidates = []

    def select(found):
        candidates.extend(path.name for path in found)
        return found[-1]

    run_sft(tiny, out, select=select)
    assert candidates[1:] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    assert fingerprint(out) == fingerprint(whole["sft"])


def test_a_phase_that_is_trained_but_not_exported_trains_no_more(tiny, whole, tmp_path, trainers):
    out = tmp_path / "out"
    shutil.copytree(whole["sft"] / "trainer", out / "trainer")
    run_sft(tiny, out)
    assert trainers == []
    assert fingerprint(out) == fingerprint(whole["sft"])
    assert log(out) == log(whole["sft"])


# Frozen and trained models


@pytest.mark.parametrize("setting", ["published", "elbo"])
def test_the_kl_reference_is_the_checkpoint_that_the_phase_starts_from(whole, tmp_path, trainers, setting):
    start = whole["sft"]  # its own configuration was saved with another path in it
    settings = Swirl(generations=4, beta=0.5, setting=setting)
    out = run_grpo(start, tmp_path / "out", settings=settings)
    (trainer,) = trainers
    assert models.weights_hash(trainer.ref_model) == fingerprint(start)
    assert models.weights_hash(trainer.model) == fingerprint(out) != fingerprint(start)
    assert trainer.ref_model is not trainer.model
    divergences = [row["kl"] for row in log(out)]
    assert divergences[0] == pytest.approx(0, abs=1e-6)
    assert divergences[-1] > 1e-4


def test_the_scorer_does_not_move_with_the_policy_that_starts_from_the_same_folder(tiny, tmp_path):
    scorer = Scorer(tiny)
    before = models.weights_hash(scorer.model)
    out = run_grpo(tiny, tmp_path / "out", reward=action_likelihood(Likelihood(scorer)))
    assert models.weights_hash(scorer.model) == before == fingerprint(tiny) != fingerprint(out)
    assert all(not p.requires_grad and p.grad is None for p in scorer.model.parameters())


# The same tokens everywhere


@pytest.mark.parametrize(
    ("name", "style", "template"),
    [("tiny", "terse", {}), ("qwen3", "instruct", {}), ("qwen3", "instruct", {"think": False})],
)
@pytest.mark.parametrize("role", ["forward", "inverse"])
def test_training_of_both_kinds_and_scoring_see_the_same_tokens(
    request, tmp_path, trainers, name, style, template, role
):
    start = request.getfixturevalue(name)
    model = Model(lora_rank=0, max_length=512, prompt=style, chat_template_kwargs=template)
    rows = encoded(start, role, style, **template)
    schedule = train.Schedule(steps=1, batch=5, learning_rate=0.0, lr_warmup=0, seed=0, checkpoints=1)
    run_sft(start, tmp_path / "sft", rows, schedule, model)
    seen = {}

    def reward(prompts, completion_ids, completions, **columns):
        seen.update(completions=completions, ids=completion_ids)
        return [0.0] * len(completion_ids)

    run_grpo(start, tmp_path / "grpo", reward, schedule, model=model, prompts=questions(role, style))
    supervised, reinforced = trainers
    asked, _, _ = reinforced._tokenize_prompts([row["prompt"] for row in questions(role, style)])
    assert asked == [prompt for prompt, _ in rows]
    logged = {**ROWS[0], "state": "<|im_end|>door<|end|>", "action": prompts.ACTION}
    (spelt,), _, _ = reinforced._tokenize_prompts([prompts.transition_prompt(role, logged, style)])
    assert spelt == prompts.encode(models.load_tokenizer(start), role, logged, style, 512, **template)[0]
    expected = {(tuple(p + c), tuple([-100] * len(p) + c)) for p, c in rows}
    assert {(tuple(r["input_ids"]), tuple(r["labels"])) for r in supervised.train_dataset} == expected
    tokenizer = models.load_tokenizer(start)
    assert all(completion[-1] == tokenizer.eos_token_id for _, completion in rows)
    if template:
        assert tokenizer.decode(asked[0]).endswith("<think></think>")
    # A completion's text is what its tokens say, so that scoring it reads what was sampled.
    for ids, ((message,),) in zip(seen["ids"], zip(seen["completions"], strict=True), strict=True):
        assert message["content"] == tokenizer.decode(ids, skip_special_tokens=True)


def test_the_supervised_loss_is_the_mean_over_completion_tokens(tiny, tmp_path):
    rows = encoded(tiny)
    schedule = train.Schedule(steps=1, batch=len(rows), learning_rate=1e-3, lr_warmup=0, seed=0, checkpoints=1)
    scorer = Scorer(tiny)
    sums, counts = scorer.log_likelihood([p for p, _ in rows], [c for _, c in rows])
    for trainer in (None, {"per_device_train_batch_size": 1}):
        out = run_sft(tiny, tmp_path / f"{trainer}", rows, schedule, trainer=trainer)
        assert log(out)[0]["loss"] == pytest.approx(-sum(sums) / sum(counts), rel=1e-4)


# Labelled replay


def test_replay_alone_lowers_the_loss_of_its_rows(tiny, tmp_path):
    rows = encoded(tiny)
    settings = Swirl(generations=2, beta=0.0)
    schedule = train.Schedule(steps=12, batch=2, learning_rate=1e-2, lr_warmup=0, seed=0, checkpoints=1)

    def nll(path):
        sums, counts = Scorer(path).log_likelihood([p for p, _ in rows], [c for _, c in rows])
        return -sum(sums) / sum(counts)

    options = {"reward": constant, "settings": settings, "schedule": schedule, "replay": [rows] * 12}
    without = run_grpo(tiny, tmp_path / "without", **options, replay_weight=0.0)
    assert fingerprint(without) == fingerprint(tiny)  # equal rewards, no divergence: nothing to learn
    with_replay = run_grpo(tiny, tmp_path / "with", **options, replay_weight=1.0)
    assert nll(with_replay) < nll(tiny) - 1


@pytest.mark.parametrize("trainer", [None, {"per_device_train_batch_size": 4}])
def test_each_step_replays_its_own_batch_whole(tiny, tmp_path, trainer):
    rows = encoded(tiny)
    batches = [[rows[0], rows[3]], [rows[1]], [rows[2], rows[4], rows[0]]]
    schedule = train.Schedule(steps=3, batch=2, learning_rate=1.0, lr_warmup=0, seed=0, checkpoints=3, max_grad_norm=0)
    plain = {"optim": "sgd", "lr_scheduler_type": "constant"} | (trainer or {})
    settings = Swirl(generations=4, beta=0.0)
    out = run_grpo(
        tiny,
        tmp_path / "out",
        constant,
        schedule,
        settings,
        replay=batches,
        replay_weight=0.01,
        trainer=plain,
    )
    checkpoints = [tiny, *(out / "trainer" / f"checkpoint-{step}" for step in (1, 2, 3))]
    for batch, (before, after) in zip(batches, itertools.pairwise(checkpoints), strict=True):
        model, _ = models.load(before)
        total = sum(
            -model(torch.tensor([p + c])).logits[0, len(p) - 1 : -1].log_softmax(-1)[range(len(c)), c].sum()
            for p, c in batch
        )
        (total / sum(len(c) for _, c in batch)).backward()
        moved, _ = models.load(after)
        for was, now in zip(model.parameters(), moved.parameters(), strict=True):
            torch.testing.assert_close(was - 0.01 * was.grad, now, atol=1e-5, rtol=0)
    if trainer is None:
        expected, counts = Scorer(tiny).log_likelihood([p for p, _ in batches[0]], [c for _, c in batches[0]])
        assert log(out)[0]["replay_nll"] == pytest.approx(-sum(expected) / sum(counts), rel=1e-4)


# Checkpoints


def test_select_sees_the_start_and_evenly_spaced_checkpoints_and_its_choice_is_exported(tiny, tmp_path):
    seen = []

    def first_saved(candidates):
        seen.extend(candidates)
        return candidates[1]

    out = run_sft(tiny, tmp_path / "out", select=first_saved)
    steps = [out / "trainer" / f"checkpoint-{step}" for step in (2, 4, 6)]
    assert seen == [tiny, *steps]
    assert fingerprint(out) == fingerprint(steps[0]) != fingerprint(steps[1])


def test_the_start_can_be_kept(tiny, tmp_path):
    out = run_sft(tiny, tmp_path / "out", select=lambda candidates: candidates[0])
    assert fingerprint(out) == fingerprint(tiny)


def test_a_start_that_is_a_name_can_be_kept(tiny, tmp_path, monkeypatch):
    """A name that `transformers` resolves is no folder here."""
    real = models.load
    monkeypatch.setattr(models, "load", lambda path, *rest: real(tiny if str(path) == "some/name" else path, *rest))
    run_sft(tiny, tmp_path / "out", select=lambda candidates: models.Path("some/name"))
    assert fingerprint(tmp_path / "out") == fingerprint(tiny)


def test_steps_that_do_not_divide_still_end_with_a_checkpoint(tiny, tmp_path):
    seen = []
    schedule = train.Schedule(steps=5, batch=2, learning_rate=1e-3, lr_warmup=0, seed=0, checkpoints=3)
    run_sft(tiny, tmp_path / "out", schedule=schedule, select=lambda found: seen.extend(found) or found[-1])
    assert [path.name for path in seen[1:]] == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]


def test_a_checkpoint_is_an_ordinary_folder_without_the_trainers_files(whole):
    for out in whole.values():
        names = {path.name for path in out.iterdir() if path.is_file()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
        assert not [name for name in names if name.endswith((".pt", ".pth", ".bin"))]
        assert not names & {"complete.json", "trainer_state.json"}
        assert AutoModelForCausalLM.from_pretrained(out).config.vocab_size
        assert models.load_tokenizer(out)


# Adapters


@pytest.mark.parametrize("kind", MOST)
def test_adapters_end_merged_in_an_ordinary_checkpoint(tiny, tmp_path, kind):
    adapted = dataclasses.replace(TINY, lora_rank=4)
    out = KINDS[kind](tiny, tmp_path / "out", model=adapted)
    names = {path.name for path in out.iterdir() if path.is_file()}
    assert "model.safetensors" in names
    assert not [name for name in names if "adapter" in name]
    before, after = (dict(models.load(path)[0].named_parameters()) for path in (tiny, out))
    assert before.keys() == after.keys()
    moved = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert fingerprint(KINDS[kind](tiny, tmp_path / "again", model=adapted)) == fingerprint(out)


def test_adapters_resume_exactly(tiny, tmp_path, monkeypatch):
    adapted = dataclasses.replace(TINY, lora_rank=4)
    undisturbed = run_sft(tiny, tmp_path / "undisturbed", model=adapted)
    out = tmp_path / "out"
    revive = kill_at(monkeypatch, 5)
    with pytest.raises(Killed):
        run_sft(tiny, out, model=adapted)
    revive()
    run_sft(tiny, out, model=adapted)
    assert fingerprint(out) == fingerprint(undisturbed)


def test_a_merge_of_adapters_that_was_cut_short_is_made_anew(tiny, tmp_path, monkeypatch):
    adapted = dataclasses.replace(TINY, lora_rank=4)
    out = tmp_path / "out"

    def half(model, tokenizer, folder):
        folder.mkdir(parents=True, exist_ok=True)
        model.config.save_pretrained(folder)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(models, "save", half)
        run_sft(tiny, out, model=adapted)
    run_sft(tiny, out, model=adapted)
    assert fingerprint(out) != fingerprint(tiny)


def test_the_reference_of_adapters_is_the_start(tiny, tmp_path):
    adapted = dataclasses.replace(TINY, lora_rank=4)
    out = run_grpo(tiny, tmp_path / "out", model=adapted)
    divergences = [row["kl"] for row in log(out)]
    assert divergences[0] == pytest.approx(0, abs=1e-6)
    assert divergences[-1] > 1e-5


# [trainer] of the recipe


def test_trainer_keys_are_passed_on_verbatim(tiny, tmp_path, trainers):
    options = {
        "weight_decay": 0.25,
        "activation_checkpointing": True,
        "lr_scheduler_type": "linear",
    }
    schedule = train.Schedule(steps=1, batch=2, learning_rate=1e-3, lr_warmup=0, seed=0, checkpoints=1)
    run_sft(tiny, tmp_path / "sft", schedule=schedule, trainer=options | {"epsilon": 0.3})  # GRPO's alone
    run_grpo(tiny, tmp_path / "grpo", schedule=schedule, trainer=options | {"epsilon": 0.3})
    for trainer in trainers:
        assert trainer.args.weight_decay == 0.25
        assert trainer.args.lr_scheduler_type == "linear"
    assert trainers[1].args.epsilon == 0.3


@pytest.mark.parametrize(("lr_warmup", "steps"), [(0.0, 0), (0.5, 3), (1, 1), (4, 4)])
def test_the_rise_of_the_learning_rate_is_a_share_or_a_number_of_steps(tiny, tmp_path, trainers, lr_warmup, steps):
    run_sft(tiny, tmp_path / "out", schedule=dataclasses.replace(SCHEDULE, lr_warmup=lr_warmup))
    assert trainers[0].args.warmup_steps == steps
    rates = [row["learning_rate"] for row in log(tmp_path / "out")]
    assert rates.index(max(rates)) == steps
    assert max(rates) == pytest.approx(SCHEDULE.learning_rate)


@pytest.mark.parametrize("run", [run_sft, run_grpo])
def test_checkpointing_of_activations_goes_by_either_name(tiny, tmp_path, trainers, run):
    schedule = train.Schedule(steps=1, batch=2, learning_rate=1e-3, lr_warmup=0, seed=0, checkpoints=1)
    for number, options in enumerate([{"gradient_checkpointing": True}, {"activation_checkpointing": True}, {}]):
        run(tiny, tmp_path / str(number), schedule=schedule, trainer=options)
    assert [trainer.args.activation_checkpointing for trainer in trainers] == [True, True, False]


@pytest.mark.parametrize("run", [run_sft, run_grpo])
def test_an_unknown_trainer_key_names_the_nearest_and_writes_nothing(tiny, tmp_path, run):
    with pytest.raises(
        InputError, match=r"unknown recipe key trainer\.learning_rat;.*did you mean trainer\.learning_rate"
    ):
        run(tiny, tmp_path / "out", trainer={"learning_rat": 1e-3})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("run", [run_sft, run_grpo])
def test_a_trainer_key_that_is_set_elsewhere_is_refused_and_nothing_written(tiny, tmp_path, run):
    with pytest.raises(InputError, match=r"^trainer\.save_steps is set by the recipe.*evaluation\.checkpoints"):
        run(tiny, tmp_path / "out", trainer={"save_steps": 1})
    assert not (tmp_path / "out").exists()


def test_the_trainer_keys_that_are_refused_are_keys_of_trls():
    known = {field.name for cls in (train.SFTConfig, train.GRPOConfig) for field in dataclasses.fields(cls)}
    assert {key for keys in recipe._RESERVED.values() for key in keys.split()} <= known


def test_a_batch_that_does_not_divide_is_refused(tiny, tmp_path):
    with pytest.raises(InputError, match="4 rows per step do not divide into 1 processes x 3 rows"):
        run_sft(tiny, tmp_path / "out", trainer={"per_device_train_batch_size": 3})


def test_a_batch_smaller_than_the_processes_is_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(InputError, match="4 rows per step do not divide into 8 processes"):
        run_sft(tiny, tmp_path / "out")


# Order


def test_supervised_steps_read_the_rows_in_batch_order(tiny, tmp_path, monkeypatch):
    seen = []

    class Seen(train.SFTTrainer):
        def training_step(self, model, inputs, *rest):
            seen.append([row[row >= 0].tolist() for row in inputs["labels"]])
            return super().training_step(model, inputs, *rest)

    monkeypatch.setattr(train, "SFTTrainer", Seen)
    rows = encoded(tiny)
    run_sft(tiny, tmp_path / "out", rows)
    drawn = order.batch_order([len(p) for p, _ in rows], SCHEDULE.steps, SCHEDULE.batch, SCHEDULE.seed)
    assert drawn != sorted(drawn)
    # Which rows share a step does not depend on their completions: short ones would weigh more among each other.
    assert drawn != order.batch_order([len(p) + len(c) for p, c in rows], SCHEDULE.steps, SCHEDULE.batch, SCHEDULE.seed)
    assert seen == [[rows[i][1] for i in drawn[start : start + 4]] for start in range(0, 24, 4)]


def test_grpo_reads_one_permutation_of_the_prompts_after_another(tiny, tmp_path):
    seen, groups = [], []

    def reward(prompts, completion_ids, state, action, next_state, draw, **columns):
        groups.extend(draw)
        seen.append(list(zip(state, action, next_state, [row[0]["content"] for row in prompts], strict=True)))
        return [0.0] * len(completion_ids)

    schedule = train.Schedule(steps=5, batch=3, learning_rate=1e-3, lr_warmup=0, seed=0, checkpoints=1)
    run_grpo(tiny, tmp_path / "out", reward, schedule)
    assert [len(step) for step in seen] == [3 * SETTINGS.generations] * 5
    for step in seen:  # each prompt's group lies together
        assert all(len(set(step[i : i + 4])) == 1 for i in range(0, 12, 4))
    assert groups == [number for number in range(15) for _ in range(SETTINGS.generations)]
    drawn = [step[i] for step in seen for i in range(0, 12, 4)]
    for epoch in range(3):
        assert len(set(drawn[epoch * 5 : epoch * 5 + 5])) == 5
    expected = {(r["state"], r["action"], r["next_state"], r["prompt"][0]["content"]) for r in questions()}
    assert set(drawn) == expected


def weighted(rows, seed=5):
    """A weight between 0.5 and 4 for every completion token."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(len(c), generator=generator) * 3.5 + 0.5).tolist() for _, c in rows]


@pytest.mark.parametrize("rows_at_once", [4, 2])  # 2: the step's gradient is accumulated over two micro-batches
def test_weighted_sft_takes_the_gradient_of_the_weighted_cross_entropy(tiny, tmp_path, rows_at_once):
    rows = encoded(tiny)
    weights = weighted(rows)
    schedule = dataclasses.replace(SCHEDULE, steps=1, lr_warmup=0.0, checkpoints=1)
    options = {"per_device_train_batch_size": rows_at_once}
    out = run_sft(tiny, tmp_path / "out", rows, schedule, weights=weights, trainer=options)
    model, _ = models.load(tiny)
    total, mass = torch.zeros(()), 0.0
    for i in order.batch_order([len(p) for p, _ in rows], 1, 4, schedule.seed):
        (prompt, completion), weight = rows[i], weights[i]
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        nll = torch.nn.functional.cross_entropy(logits, torch.tensor(completion), reduction="none")
        total, mass = total + (nll * torch.tensor(weight)).sum(), mass + sum(weight)
    (total / mass).backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item()
    [row] = log(out)
    assert (row["loss"], row["grad_norm"]) == (
        pytest.approx((total / mass).item(), abs=1e-6),
        pytest.approx(norm, 1e-5),
    )


def test_equal_weights_change_nothing_and_others_do(tiny, tmp_path):
    rows = encoded(tiny)
    twos = [[2.0] * len(c) for _, c in rows]
    plain, even, uneven = (
        fingerprint(run_sft(tiny, tmp_path / name, rows, weights=weights))
        for name, weights in (("plain", None), ("even", twos), ("uneven", weighted(rows)))
    )
    assert plain == even != uneven
