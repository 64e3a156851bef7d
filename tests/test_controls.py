"""The bound and the controls of a comparison, and the test part read after every phase."""

import json

import pyarrow.parquet as pq
import pytest
from test_run import RECIPE, rows, write
from whole_runs import phases_of

from swirl import metrics
from swirl.config import Recipe, Swirl
from swirl.eval import held_out
from swirl.methods import ORACLE_ROUNDS
from swirl.methods.oracle import PATIENCE, oracle
from swirl.methods.phases import Pair
from swirl.methods.shuffled_reward import _shuffled, shuffled_reward
from swirl.methods.swirl import swirl as published
from swirl.types import ROLES

SMALL = """
[verified]
rounds = 2
steps = 2
pairs = 20
batch = 4
[swirl]
rounds = 1
steps = 1
prompts = 1
generations = 2
"""


@pytest.fixture(scope="module")
def run(swirl, tmp_path_factory):
    folder = tmp_path_factory.mktemp("controls")
    # Warmed up until the inverse model writes something.
    recipe = RECIPE.replace("steps = 2", "steps = 60\nlearning_rate = 5e-3")
    methods = '["warmup", "random-label", "shuffled-reward", "oracle"]'
    (folder / "recipe.toml").write_text(recipe.replace('["warmup"]', methods) + SMALL)
    write(folder / "in.jsonl", rows())
    words = ["train", "recipe.toml", "--data", "in.jsonl", "--out", "run", "--evaluation.test_phases", "true"]
    code, _, stderr = swirl(*words, cwd=folder)
    assert code == 0, stderr
    (folder / "stderr").write_text(stderr)
    return folder / "run"


def test_the_phases_of_each(run):
    phases = phases_of(run)
    assert phases[4:13] == [
        "random-label1-label",
        "random-label1-forward-sft",
        "random-label1-inverse-sft",
        "random-label2-label",
        "random-label2-forward-sft",
        "random-label2-inverse-sft",
        "shuffled-reward1-label",
        "shuffled-reward1-forward-grpo",
        "shuffled-reward1-inverse-grpo",
    ]
    forward = [phase for phase in phases[13:-1] if "forward" in phase]
    inverse = phases[13 + len(forward) : -1]
    for role, rounds in (("forward", forward), ("inverse", inverse)):
        assert rounds == [f"oracle{r}-{role}-sft" for r in range(1, len(rounds) + 1)]
        assert PATIENCE <= len(rounds) <= ORACLE_ROUNDS


def test_the_oracle_ends_each_role_when_its_validation_has_stood_still_for_its_patience(run):
    rows = json.loads((run / "results.json").read_text())["rows"]
    for role in ROLES:
        phases = [phase for phase in phases_of(run) if f"-{role}-" in phase]
        measured = [[r for r in rows if (r["split"], r["phase"]) == ("validation", phase)] for phase in phases]
        worth = [held_out.worth(role, [r for r in found if r["role"] == role])[0] for found in measured]
        rounds = sum("oracle" in phase for phase in phases)
        stalled = max(worth[-PATIENCE:]) <= max(worth[:-PATIENCE])
        told = f"the {role} model did all of its {ORACLE_ROUNDS} rounds" in (run.parent / "stderr").read_text()
        assert told != stalled and (stalled or rounds == ORACLE_ROUNDS)
        for n in range(PATIENCE, rounds):  # and not before
            done = worth[: len(worth) - rounds + n]
            assert max(done[-PATIENCE:]) > max(done[:-PATIENCE])


@pytest.mark.parametrize("after", [5, ORACLE_ROUNDS, None])
def test_an_oracle_that_its_limit_ends_says_so(after, caplog):
    class Run:
        """The forward model stalls after so many rounds, or never; the inverse model after four."""

        run, recipe, labelled = object(), Recipe(), "labels"

        def together(self):
            return [("forward",), ("inverse",)]

        def supervised(self, sources):
            return sources

        def sft(self, stage, pair, examples, settings, roles):
            done.append(f"{stage}-{roles[0]}")
            return pair

        def stalled(self, patience, r, roles):
            return r == (after if roles == ("forward",) else 4)

    done = []
    oracle(Run(), Pair("f", "i"))
    assert len(done) == (after or ORACLE_ROUNDS) + 4
    told = ["oracle: the forward model did all of its 12 rounds and may not have stopped improving: it may be too low"]
    assert [message.rpartition(" a bound")[0] for message in caplog.messages] == ([] if after else told)
    caplog.clear()
    Run.run = None  # a dry run
    oracle(Run(), Pair("f", "i"))
    assert caplog.messages == []


def test_the_test_part_is_read_after_every_phase_that_trained_and_what_was_written_is_kept(run):
    trained = [name for name in phases_of(run) if name.endswith(("-sft", "-grpo"))]
    found = [r for r in json.loads((run / "results.json").read_text())["rows"] if r["split"] == "test"]
    assert set(trained) <= {row["phase"] for row in found}
    wrote = pq.read_table(run / "test" / "predictions.parquet").to_pylist()
    methods = {"warmup", "random-label", "shuffled-reward", "oracle"}
    assert {"copy-input", "majority-action", *methods, *trained} == {row["phase"] for row in wrote}
    test = pq.read_table(run / "data" / "test.parquet").to_pylist()
    for phase in ("oracle", "shuffled-reward1-forward-grpo", "copy-input"):  # the metrics are those of what was written
        mine = [row for row in wrote if (row["phase"], row["role"]) == (phase, "forward")]
        assert [row["row"] for row in mine] == list(range(len(test)))
        exact = [metrics.exact_match(row["prediction"], test[row["row"]]["next_state"]) for row in mine]
        [told] = [
            r["value"] for r in found if (r["phase"], r["role"], r["metric"]) == (phase, "forward", "exact_match")
        ]  # fmt: skip
        assert sum(exact) / len(exact) == pytest.approx(told)


def test_rewards_are_dealt_out_alike_for_the_same_completions_and_otherwise_for_others():
    def rewards(completion_ids, **_):
        return [float(ids[0]) for ids in completion_ids]

    reward = _shuffled(lambda spec: rewards, None)
    given = [[i] for i in range(40)]
    dealt = reward(completion_ids=given, state=[])
    assert sorted(dealt) == [float(i) for i in range(40)]
    assert dealt != [float(i) for i in range(40)]
    assert reward(completion_ids=given, state=[]) == dealt  # a phase that resumes
    assert reward(completion_ids=[[i, 1] for i in range(40)], state=[]) != dealt


def test_shuffled_rewards_are_dealt_in_the_phases_of_the_method_and_stop_when_it_would():
    class Run:
        """Stalls after the second round; notes what was trained."""

        recipe = Recipe(swirl=Swirl(rounds=5, patience=2))

        def __init__(self):
            self.done = []

        def label(self, stage, pair, count):
            return f"{stage}-label"

        def grpo(self, stage, role, pair, labelled, rewarding, settings):
            self.done.append((stage, role, rewarding))
            return pair

        def stalled(self, patience, r):
            return (patience, r) == (2, 2)

    control, plain = Run(), Run()
    assert shuffled_reward(control, Pair("f", "i")) == published(plain, Pair("f", "i"))
    assert [done[:2] for done in control.done] == [
        (f"shuffled-reward{r}", role) for r in (1, 2) for role in ("forward", "inverse")
    ]
    assert [(rewarding.func, *rewarding.args) for *_, rewarding in control.done] == [
        (_shuffled, rewarding) for *_, rewarding in plain.done
    ]
