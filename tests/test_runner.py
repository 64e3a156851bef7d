"""What phases are given to train on, and what they note; nothing here trains, and no model is loaded."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swirl import labelling, models, parallel, posterior, train
from swirl.config import Data, Evaluation, Inferred, Pretrain, Recipe, Swirl, Verified, Warmup
from swirl.data.table import SCHEMA
from swirl.errors import InputError
from swirl.labelling import Candidate
from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.posterior import Posterior
from swirl.train import Schedule

PAIR = Pair(Path("the-forward"), Path("the-inverse"))


class Frozen:
    """A scorer that is not asked for a score."""

    def __init__(self, checkpoint):
        self.model = checkpoint

    def suppressed(self, role, style):
        return []


def lamp(name, action, after="on"):
    return {"state": f"{name} off", "action": action, "next_state": f"{name} {after}", "trajectory": name, "step": 0}


LABELLED = [lamp("a", "press"), lamp("b", "push"), lamp("c", "wait", "off"), lamp("d", "rest", "off")]
INFERRED = [lamp(f"i{n}", f"guess {n}", "on" if n < 8 else "off") for n in range(12)]
STATE_ONLY = [lamp(f"s{n}", "", "on" if n % 2 else "off") for n in range(6)]
VALIDATION = [lamp("v", "press"), lamp("w", "wait", "off"), lamp("x", "push")]


def write(path, rows, hidden=()):
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA).drop_columns(list(hidden)), path)
    return path


def read(folder):
    """A labelling phase's kept pairs as (name, action), and its facts."""
    rows = pq.read_table(folder / "rows.parquet").to_pylist()
    return [(r["trajectory"], r["action"]) for r in rows], json.loads((folder / "phase.json").read_text())["facts"]


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """A runner over fixed rows whose phases are folders and whose scorers are the checkpoints' paths."""

    def phase(name, work, seconds_before=0.0):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        work(folder)
        return folder

    write(tmp_path / "labelled.parquet", LABELLED)
    write(tmp_path / "state_only.parquet", STATE_ONLY, ["action"])
    write(tmp_path / "validation.parquet", VALIDATION)
    monkeypatch.setattr(Runner, "scorer", lambda self, checkpoint: Frozen(checkpoint))
    monkeypatch.setattr(Runner, "max_new_tokens", {"forward": 30, "inverse": 5})
    monkeypatch.setattr(Runner, "encode", lambda self, tokenizer, role, row, text: (role, row["trajectory"], text))
    monkeypatch.setattr(models, "load_tokenizer", lambda *_: None)
    return Runner(SimpleNamespace(phase=phase), Recipe(), tmp_path)


def names(examples):
    return [row["trajectory"] for row, _ in examples]


@pytest.mark.parametrize(("share", "repeats"), [(0.0, 1), (0.2, 1), (0.5, 3), (0.6, 4)])
def test_labels_are_repeated_whole_to_about_their_least_share(runner, tmp_path, share, repeats):
    # Of 12 inferred rows and 4 labelled ones: share / (1 - share) x 12 / 4 repeats, rounded, at least one.
    examples = runner.supervised([runner.labelled, write(tmp_path / "inferred.parquet", INFERRED)], share)("forward")
    assert names(examples) == ["a", "b", "c", "d"] * repeats + [f"i{n}" for n in range(12)]


def test_each_role_is_told_its_own_completion(runner):
    examples = runner.supervised([runner.labelled])
    assert [text for _, text in examples("forward")] == ["a on", "b on", "c off", "d off"]
    assert [text for _, text in examples("inverse")] == ["press", "push", "wait", "rest"]


def test_unchanged_rows_are_left_out_for_the_inverse_role_only(runner, tmp_path):
    sources = [runner.labelled, write(tmp_path / "inferred.parquet", INFERRED)]
    assert len(runner.supervised(sources)("inverse")) == 16
    runner.recipe = Recipe(data=Data(inverse_unchanged=False))
    examples = runner.supervised(sources, 0.5)
    # 8 inferred rows and 2 labelled ones changed something: these are repeated 4 times.
    assert names(examples("inverse")) == ["a", "b"] * 4 + [f"i{n}" for n in range(8)]
    assert names(examples("forward")) == ["a", "b", "c", "d"] * 3 + [f"i{n}" for n in range(12)]


def replay(runner, role, rows, seed=7, **settings):
    return runner._replay(role, Path("start"), rows, Swirl(steps=3, **settings), Schedule(3, 1, 1e-3, 0, seed, 1))


def test_replay_and_fidelity_share_each_steps_batch_by_their_weights(runner, tmp_path):
    rows = write(tmp_path / "inferred.parquet", INFERRED)
    found = replay(runner, "forward", rows, replay=1.5, fidelity=0.5, replay_batch=8)
    assert found["replay_weight"] == 2.0
    rng = np.random.default_rng(7)
    told = [rng.integers(4, size=6) for _ in range(3)]
    guessed = [rng.integers(12, size=2) for _ in range(3)]
    assert found["replay"] == [
        [("forward", row["trajectory"], row["next_state"]) for row in rows]
        for rows in ([*(LABELLED[i] for i in a), *(INFERRED[i] for i in b)] for a, b in zip(told, guessed, strict=True))
    ]
    assert len({str(batch) for batch in found["replay"]}) == 3
    assert replay(runner, "forward", rows, seed=8, replay=1.5, fidelity=0.5, replay_batch=8) != found


def test_phase_ii_replays_labels_alone(runner, tmp_path):
    rows = write(tmp_path / "inferred.parquet", INFERRED)
    found = replay(runner, "inverse", rows, replay=1.5, fidelity=0.5, replay_batch=8)
    assert (found["replay_weight"], [len(batch) for batch in found["replay"]]) == (1.5, [8, 8, 8])
    known = {("inverse", row["trajectory"], row["action"]) for row in LABELLED}
    assert {row for batch in found["replay"] for row in batch} <= known
    assert replay(runner, "inverse", rows, fidelity=0.5) == {}


def test_fidelity_alone_replays_inferred_pairs(runner, tmp_path):
    found = replay(
        runner, "forward", write(tmp_path / "inferred.parquet", INFERRED), fidelity=0.5, replay=0.0, replay_batch=8
    )
    assert (found["replay_weight"], [len(batch) for batch in found["replay"]]) == (0.5, [8, 8, 8])
    known = {("forward", row["trajectory"], row["next_state"]) for row in INFERRED}
    assert {row for batch in found["replay"] for row in batch} <= known


@pytest.fixture
def inferred(monkeypatch):
    """Fakes sampling: `reply` says what a row's samples are; notes what was asked for."""
    found = {"reply": lambda row: "press"}

    def infer(inverse, rows, **options):
        found.update(options, asked=inverse.model, rows=[row["trajectory"] for row in rows])
        return [[found["reply"](row)] * options["n"] for row in rows]

    monkeypatch.setattr(labelling, "infer", infer)
    return found


def test_labels_are_one_sample_at_temperature_1_and_unreadable_ones_are_dropped_and_counted(runner, inferred):
    inferred["reply"] = lambda row: "" if row["trajectory"] in ("s1", "s4") else f"guess {row['trajectory']}"
    kept, facts = read(runner.label("round", PAIR, 0).parent)
    assert (inferred["n"], inferred["temperature"], inferred["seed"]) == (1, 1.0, runner.seed("round"))
    assert (inferred["asked"], inferred["max_new_tokens"]) == (PAIR.inverse, 5)
    assert sorted(kept) == [(name, f"guess {name}") for name in ("s0", "s2", "s3", "s5")]
    assert facts == {"pairs": 6, "kept": 4}
    assert read(runner.label("fewer", PAIR, 3).parent)[1]["pairs"] == 3


def test_only_pairs_that_changed_are_labelled_where_the_inverse_model_knows_no_others(runner, inferred):
    runner.recipe = Recipe(data=Data(inverse_unchanged=False))
    drawn = [row["trajectory"] for row in runner.draw(0, "round")]
    kept, facts = read(runner.label("round", PAIR, 2).parent)
    assert [name for name, _ in kept] == [name for name in drawn if int(name[1]) % 2][:2]
    assert facts == {"pairs": 2, "kept": 2}


def test_an_inverse_model_without_a_readable_action_is_refused(runner, inferred):
    inferred["reply"] = lambda row: ""
    with pytest.raises(InputError, match="wrote no readable action; warm it up first"):
        runner.label("round", PAIR, 0)


@pytest.fixture
def verified(monkeypatch):
    """Fakes the models' scores, and what the posterior makes of them; notes what both were given."""
    found = {
        "least": [],
        "belief": Posterior(0.5, 0.25, 0.125, 1.0),
        "certain": {2: "push", 0: "press"},
        "idle": {1: "wait"},
    }

    def verify(inverse, forward, rows, proposed, *, least, **_):
        found["least"].append(least)
        found.update(proposed=proposed, models=(forward.model, inverse.model))
        return [[Candidate(row["trajectory"], -1.0, -1.0)] for row in rows]

    def note(name, answer):
        def noted(*args):
            found[f"asked of {name}"] = args
            return answer()

        monkeypatch.setattr(posterior, name, noted)

    monkeypatch.setattr(labelling, "verify", verify)
    note("fit", lambda: found["belief"])
    note("certain", lambda: (found["certain"], {"push": 0.75, "press": 0.875}))
    note("check", lambda: {"validation": 2, "validation_kept": 1, "validation_right": 1})
    note("idle", lambda: found["idle"])
    return found


def grouped(groups):
    return [group[0].action for group in groups]


def test_relabelling_keeps_what_the_posterior_is_certain_of_and_idle_pairs(runner, inferred, verified, caplog):
    caplog.set_level("INFO", "swirl")
    settings = Verified(pairs=0, candidates=4, precision=0.8, coverage=0.3)
    kept, facts = read(runner.relabel("round", PAIR, settings).parent)
    drawn = [row["trajectory"] for row in runner.draw(0, "round")]
    changed, same = ([name for name in drawn if int(name[1]) % 2 == odd] for odd in (1, 0))
    assert kept == [(changed[2], "push"), (changed[0], "press"), (same[1], "wait")]
    groups, belief, *rest = verified["asked of certain"]
    assert (grouped(groups), belief, rest) == (changed, verified["belief"], [0.8, 0.3])
    assert grouped(verified["asked of idle"][0]) == same
    assert caplog.messages[-1] == (
        "round: kept 2 of 3 changed pairs; of 2 validation pairs it would keep 1, 1 of them rightly "
        "(weights: inverse model 0.50, forward model 0.25)"
    )
    assert facts == {
        "changed": 3,
        "changed_kept": 2,
        "unchanged": 3,
        "unchanged_kept": 1,
        "least_probability": 0.75,
        "validation": 2,
        "validation_kept": 1,
        "validation_right": 1,
        "posterior": {"inverse": 0.5, "forward": 0.25, "absent": 0.125, "covered": 1.0},
    }


def test_relabelling_is_calibrated_on_validation_pairs_that_changed(runner, inferred, verified):
    runner.relabel("round", PAIR, Verified(pairs=0, candidates=4))
    groups, actions = verified["asked of fit"]
    assert (grouped(groups), actions) == (["v", "x"], ["press", "push"])
    assert verified["asked of check"][1:] == (["press", "push"], verified["belief"], {"push": 0.75, "press": 0.875})
    assert verified["models"] == PAIR
    # Candidates are proposed by sampling where nobody lists them: four per pair, each action once.
    assert (inferred["n"], inferred["temperature"]) == (4, 1.0)
    assert verified["proposed"] == [["press"]] * 3
    assert verified["least"] == [0.0] * 3  # every candidate is put to the forward model


@pytest.mark.parametrize(("listed", "proposed"), [(True, ["left", "right"]), (False, ["press"])])
def test_candidates_are_what_the_world_lists_unless_they_are_to_be_sampled(
    runner, inferred, verified, listed, proposed
):
    runner.list_actions = lambda state: ["left", "right"]
    runner.relabel("round", PAIR, Verified(pairs=0, listed=listed))
    assert verified["proposed"] == [proposed] * 3
    assert ("asked" in inferred) != listed


def test_the_first_round_keeps_the_surest_share_alone_and_nothing_idle(runner, inferred, verified):
    kept, facts = read(runner.relabel("round", PAIR, Verified(pairs=0, coverage=0.3), first=True).parent)
    assert verified["asked of certain"][2:] == (math.inf, 0.3)
    assert [action for _, action in kept] == ["push", "press"]
    assert "asked of idle" not in verified
    assert (facts["unchanged"], facts["unchanged_kept"]) == (3, 0)


def test_relabelling_needs_validation_labels_and_may_keep_nothing(runner, inferred, verified, caplog):
    verified["certain"], verified["idle"] = {}, {}
    assert read(runner.relabel("round", PAIR, Verified(pairs=0)).parent)[0] == []
    assert "no label was kept" in caplog.text
    runner.validation = [VALIDATION[1]]
    with pytest.raises(InputError, match=r"set data\.validation_labels"):
        runner.relabel("again", PAIR, Verified(pairs=0))


@pytest.fixture
def trained(monkeypatch):
    """Fakes training by RL; notes what it was given."""
    found = {"hash": lambda: "same"}

    def grpo(start, rows, reward, out, **options):
        found.update(options, start=start, rows=rows, reward=reward)

    monkeypatch.setattr(train, "grpo", grpo)
    monkeypatch.setattr(models, "weights_hash", lambda model: found["hash"]())
    return found


def test_which_checkpoint_a_phase_keeps_is_its_own_settings_and_pre_training_keeps_the_last(
    runner, tmp_path, trained, monkeypatch
):
    kept = []
    monkeypatch.setattr(Runner, "_select", lambda self, name, *rest, **_: kept.append((name, rest[-1])))
    monkeypatch.setattr(Runner, "finish", lambda *_: None)
    monkeypatch.setattr(train, "sft", lambda *_, **__: None)
    own = {"best": Inferred(), "last": Inferred(select="last")}
    for select, other in (("best", "last"), ("last", "best")):
        runner.recipe = Recipe(evaluation=Evaluation(select=select))
        for n, settings in enumerate((Pretrain(), Warmup(), Verified(), Verified(select="best"), own[other])):
            runner.sft(f"{select}-{n}", PAIR, runner.supervised([runner.labelled]), settings, ("forward",))
        rl(runner, "forward", tmp_path, select=select)
    assert [keep for _, keep in kept] == [
        *("last", "best", "last", "best", "last", "best"),
        *("last", "last", "last", "best", "best", "last"),
    ]


def rl(runner, role, tmp_path, **settings):
    rows = write(tmp_path / "inferred.parquet", INFERRED)
    return runner.grpo("round", role, PAIR, rows, lambda spec: spec, Swirl(steps=3, prompts=4, **settings))


@pytest.mark.parametrize(("setting", "reduce"), [("elbo", "sum"), ("published", "mean")])
def test_the_reward_is_as_the_settings_say(runner, trained, tmp_path, setting, reduce):
    rl(runner, "forward", tmp_path, setting=setting, floor=-3.5, min_spread=0.25)
    spec = trained["reward"]
    assert (spec.reduce, spec.floor, spec.min_spread) == (reduce, -3.5, 0.25)
    assert (spec.style, spec.template) == (runner.recipe.model.prompt, runner.recipe.model.chat_template_kwargs)


@pytest.mark.parametrize(("role", "other", "limit"), [("forward", "inverse", 30), ("inverse", "forward", 5)])
def test_a_role_trains_from_its_own_checkpoint_and_is_scored_by_the_others(
    runner, trained, tmp_path, role, other, limit
):
    after = rl(runner, role, tmp_path, replay=0.5, replay_batch=4)
    assert (trained["start"], trained["reward"].scorer.model) == (getattr(PAIR, role), getattr(PAIR, other))
    assert after == PAIR._replace(**{role: tmp_path / f"round-{role}-grpo"})
    assert trained["max_completion"] == limit
    assert [row["next_state"] for row in trained["rows"]] == [row["next_state"] for row in INFERRED]
    assert trained["replay_weight"] == 0.5
    assert [{row[0] for row in batch} for batch in trained["replay"]] == [{role}] * 3
    card = json.loads((tmp_path / f"round-{role}-grpo" / "swirl.json").read_text())
    assert card["roles"] == [role]


def test_shared_weights_are_trained_for_one_role_and_are_both_roles_afterwards(runner, trained, tmp_path):
    runner.recipe = replace(runner.recipe, model=replace(runner.recipe.model, shared=True))
    after = rl(runner, "forward", tmp_path)
    assert after == Pair(tmp_path / "round-forward-grpo", tmp_path / "round-forward-grpo")
    assert json.loads((after.forward / "swirl.json").read_text())["roles"] == ["forward", "inverse"]


def test_a_scorer_that_moved_is_a_fault(runner, trained, tmp_path):
    hashes = iter(["before", "after"])
    trained["hash"] = lambda: next(hashes)
    with pytest.raises(AssertionError, match="the frozen scorer's weights changed"):
        rl(runner, "forward", tmp_path)


def test_groups_that_processes_would_cut_are_refused_before_training(runner, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "world_size", lambda: 8)
    monkeypatch.setattr(parallel, "barrier", lambda: None)
    rl(runner, "inverse", tmp_path)
    trained.pop("reward")
    with pytest.raises(InputError, match=r"make swirl\.prompts a multiple of 8"):
        rl(runner, "inverse", tmp_path, min_spread=0.1)
    assert "reward" not in trained


def test_labels_that_are_dealt_out_at_random_are_other_pairs_labels(runner, inferred, verified):
    verified |= {"certain": {0: "a", 1: "b", 2: "c"}, "idle": {0: "d", 1: "e", 2: "f"}}
    told, facts = read(runner.relabel("told", PAIR, Verified(pairs=0)).parent)
    dealt, same = read(runner.relabel("dealt", PAIR, Verified(pairs=0), shuffled=True).parent)
    assert sorted(action for _, action in dealt) == sorted(action for _, action in told) == list("abcdef")
    assert sorted(name for name, _ in dealt) == sorted(name for name, _ in told)
    assert len(set(dealt) & set(told)) < 6
    assert facts == same
