"""Whole runs of an agent: what is learned, what is kept, and what a kill leaves."""

import json
import math

import pyarrow.parquet as pq
import pytest
from agent_runs import SMALL
from choice import LETTERS
from whole_runs import differing

from swirl import models, worlds
from swirl.agents import agent, plan, proposals, session, settings
from swirl.agents.planning import Search, Task
from swirl.agents.simulators import Node
from swirl.cli import main
from swirl.errors import InputError

STAGES = ("base-episodes", "self-play")


def value(results, policy, metric):
    [found] = [row["value"] for row in results["rows"] if (row["policy"], row["metric"]) == (policy, metric)]
    return found


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_reinforcement_learning_finds_what_is_rewarded(algorithm, recipe_file, small, tmp_path):
    rate = {"ppo": "1e-3", "grpo": "2e-3"}[algorithm]  # of two optimiser steps per iteration, and of one
    recipe = settings.load(
        recipe_file,
        small | {"rl.algorithm": algorithm, "rl.learning_rate": rate, "rl.iterations": "40", "rl.save_every": "40"},
    )
    results = session.run_recipe(recipe, tmp_path / "run")
    assert value(results, "base", "pass_at_1") < 0.6
    assert value(results, "rl", "pass_at_1") > 0.75
    assert 0 < results["steps"]["rl"] <= 40 * 64


@pytest.fixture(scope="module")
def learned(tmp_path_factory, one_thread):
    """A finished run that says the letter more often than not."""
    folder = tmp_path_factory.mktemp("agents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(worlds.WORLDS, "choice", "choice:Choice")
        (folder / "recipe.toml").write_text("")
        more = {"rl.iterations": "40", "rl.save_every": "40", "evaluation.last_samples": "4"}
        session.run_recipe(settings.load(folder / "recipe.toml", SMALL | more), folder / "run")
    return folder / "run"


def test_an_agent_is_measured_and_watched_by_its_run_folder(learned, small, capsys):
    rows = json.loads((learned / "results.json").read_text())["rows"]
    last = [row for row in rows if row["policy"] == "rl"]
    assert main(["agent", "eval", str(learned), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    of_run = ("policy", "form", "arena", "seed")
    assert [{key: row[key] for key in row if key not in of_run} for row in last] == found
    assert main(["agent", "eval", str(learned), "--evaluation.seeds", "3", "--evaluation.samples", "2"]) == 0
    table = capsys.readouterr().out
    assert "pass_at_2" in table
    assert "pass_at_4" not in table
    assert main(["agent", "play", str(learned), "--episode", "4"]) == 0
    shown = capsys.readouterr().out
    assert "--- turn 1\nletter b of 004\n<think>" in shown
    assert main(["agent", "play", str(learned), "--episode", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["turns"][0]["state"] == "letter b of 004"
    base = next(learned.glob("phases/*-base"))
    words = ["agent", "eval", str(learned), "--model.name", str(base), "--json"]  # another policy in its place
    assert main(words) == 0
    start = [row for row in rows if row["policy"] == "base"]
    assert [{k: row[k] for k in row if k not in of_run} for row in start] == json.loads(capsys.readouterr().out)


def test_what_is_no_agent_is_refused(learned, small, tmp_path):
    for name in ("ledger.json", "recipe.toml"):
        (tmp_path / name).write_text((learned / name).read_text())
    with pytest.raises(InputError, match="has no policy; give a run of `swirl agent train` that is finished"):
        agent.load(tmp_path)
    (tmp_path / "results.json").write_text('{"forward": "phases/01"}')
    with pytest.raises(InputError, match="has no policy"):
        agent.load(tmp_path)


def test_a_policy_proposes_what_it_writes_and_plays_alone_by_what_it_writes_most(learned, small):
    propose = proposals.Proposals(agent.load(learned), "", LETTERS, samples=8)
    [first, again] = propose(["letter a of 901", "letter a of 901"])
    assert first == again
    assert sum(math.exp(chance) for _, chance in first) == pytest.approx(1)
    assert [chance for _, chance in first] == sorted((chance for _, chance in first), reverse=True)
    states = [f"letter {'abc'[n % 3]} of {n:03}" for n in range(30)]
    plans = proposals.alone(propose)(lambda *_: [], [Task(Node(state), lambda node: LETTERS) for state in states])
    assert sum(plan.actions == (state[7],) for plan, state in zip(plans, states, strict=True)) > 20
    propose._known["letter a of 901"] = [("a", math.log(0.75)), ("b", math.log(0.25))]
    often = [Task(Node("letter a of 901"), lambda node: LETTERS)] * 400
    drawn = [plan.actions for plan in proposals.alone(propose, seed=0)(lambda *_: [], often)]
    assert {*drawn} == {("a",), ("b",)}
    assert 250 < drawn.count(("a",)) < 350  # 300 expected, 8.7 the standard deviation
    propose._known["letter a of 901"] = []
    assert {plan.actions for plan in proposals.alone(propose, seed=0)(lambda *_: [], often)} == {()}
    world = worlds.make("choice")
    rows = plan.measure(world, [], Search(horizon=1), episodes=12, model=False, real=True, policy=learned)
    success = {row["model"]: row["value"] for row in rows if row["metric"] == "plan_success"}
    assert success["random"] < success["policy"] <= success["real-world"]
    assert success["random"] <= success["policy-sampled"] <= success["real-world"]
    with pytest.raises(InputError, match="plays 'choice', not 'frozenlake'"):
        plan.measure(worlds.make("frozenlake"), [], Search(), model=False, policy=learned)


@pytest.mark.parametrize("context", ["episode", "turn"])
def test_the_log_and_the_table_say_what_was_done(context, recipe_file, small, tmp_path, capsys):
    small = small | {"play.context": context}
    short = {"base.steps": "60", "rl.iterations": "2", "rl.save_every": "1", "rl.form": "states", "method": "spa"}
    short |= {"evaluation.samples": "3"}
    results = session.run_recipe(settings.load(recipe_file, small | short), tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in log] == [1, 2]
    for row in log:  # validated with as many samples of each seed as stages are
        assert row["validation_samples"] == 3
        assert len(row["validation_successes"]) == 8
        assert row["validation_pass_at_1"] == pytest.approx(sum(row["validation_successes"]) / 8 / 3)
    assert results["steps"]["rl"] == sum(row["steps"] for row in log)
    # An episode of this world has one action, or none where the reply cannot be read.
    played = results["self_play"]
    assert played["episodes"] == 8 * 2
    assert results["steps"]["self-play"] == round(played["episodes"] * played["readable"] * played["valid_actions"]) > 1
    assert {row["policy"] for row in results["rows"]} == {"base", "tune", "rl"}  # the world has no solver
    # Lessons weigh the same, what was played a token each.
    learned = {name: pq.read_table(next((tmp_path / "run").glob(f"phases/*-{name}/rows.parquet"))) for name in STAGES}
    sums = {name: {round(sum(weights), 6) for weights in of["weights"].to_pylist()} for name, of in learned.items()}
    assert sums["base-episodes"] == {1.0}
    assert min(sums["self-play"]) > 5
    session.show(results, tmp_path / "run")
    assert "greedy_pass_at_1" in capsys.readouterr().out
    assert (tmp_path / "run" / "layouts.txt").read_text().splitlines() == [str(seed) for seed in range(8)]
    again = session.run_recipe(settings.load(recipe_file, small | short), tmp_path / "run")
    assert again == results


def test_plain_replies_are_rehearsed_beside_those_that_tell_states(recipe_file, small, tmp_path):
    short = {"rl.iterations": "1", "method": "spa", "play.context": "turn"}
    plain = {}
    for given, actions in (("false", "policy"), ("true", "policy"), ("true", "random")):
        run, more = tmp_path / f"{given}-{actions}", {"self_play.rehearse": given, "self_play.actions": actions}
        results = session.run_recipe(settings.load(recipe_file, small | short | more), run)
        phase = next(run.glob("phases/*-self-play"))
        tokenizer = models.load_tokenizer(phase.parent / "01-start")
        rows = pq.read_table(phase / "rows.parquet").to_pylist()
        asked = ["states" in tokenizer.decode(row["prompt"]) for row in rows]
        assert asked == ["<observation>" in tokenizer.decode(row["completion"]) for row in rows]
        assert any(asked)
        assert all(asked) == (given == "false")
        played = results["self_play"]["episodes"]
        assert played == (32 if given == "true" else 16)
        assert results["steps"]["self-play"] > played / 2
        plain[given, actions] = [row for row, states in zip(rows, asked, strict=True) if not states]
    # Whoever plays what is put right, the policy's own replies are what it must not forget.
    assert plain["true", "random"] == plain["true", "policy"]


def test_a_tiny_policy_is_not_taught_replies_that_it_could_not_end(recipe_file, small, tmp_path):
    with pytest.raises(
        InputError, match=r"play.reply = 12 would cut off replies in the form 'states', of up to \d+ tok"
    ):
        session.run_recipe(settings.load(recipe_file, small | {"play.reply": "12"}), tmp_path / "run")


LAKE = {
    "method": "spa",
    "play.world": "frozenlake",
    "play.options": "{size = 3, slippery = false}",
    "base.batch": "8",
    "rl.form": "states",
    "rl.groups": "2",
    "rl.size": "4",
    "rl.iterations": "6",
    "evaluation.seeds": "2",
    "evaluation.samples": "1",
}
"""A run of all stages."""
MOMENTS = [
    ("base", "step", 50, "kill"),
    ("self-play", "seal", 1, "kill"),
    ("tune", "step", 1, "kill"),
    ("rl", "state", 3, "kill"),
    ("rl", "replace", 2, "kill"),
    ("test", "seal", 1, "kill"),
]
"""One after another: in each stage; in the last, amid the second checkpoint, and before the third is whole."""


@pytest.mark.slow
def test_killed_in_every_stage_a_run_ends_as_one_that_was_not(swirl, recipe_file, small, tmp_path):
    overrides = [word for key, value in (small | LAKE).items() for word in (f"--{key}", value)]
    clean, killed = tmp_path / "clean", tmp_path / "killed"
    code, _, errors = swirl("agent", "train", recipe_file, "--out", clean, *overrides)
    assert code == 0, errors
    for moment in MOMENTS:
        code, _, errors = swirl("agent", "train", recipe_file, "--out", killed, *overrides, moment=moment)
        assert code == -9, f"{moment} did not come: {errors}"
    code, _, errors = swirl("agent", "train", recipe_file, "--out", killed, *overrides)
    assert code == 0, errors
    assert differing(clean, killed) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"play.told": "true"}, "follows no instructions"),
        ({"rl.size": "1"}, "expected at least 2"),
        ({"rl.keep": "0"}, "more than 0 and at most 1"),
        ({"play.penalty": "0.1"}, "expected 0 or less"),
        ({"rl.fomr": "plain"}, "did you mean rl.form"),
        ({"play.reply": "250"}, "raise it"),
        ({"play.reply": "256"}, "leaves no room for a prompt; lower the one"),
        ({"base.variants": "[]"}, "leaves a tiny model nothing to learn from"),
        ({"rl.algorithm": "grpo", "play.context": "turn"}, "reads whole episodes"),
        ({"model.lora_rank": "4"}, "trains all weights in float32"),
        ({"model.dtype": "bfloat16"}, "trains all weights in float32"),
        ({"rl.iterations": "9000"}, "there are 62,500 seeds"),
        ({"base.steps": "0"}, "expected at least 1"),
        ({"rl.algorithm": "grpo", "rl.iterations": "0"}, "expected at least 1"),
        ({"self_play.actions": "random", "self_play.states": "believed"}, "believes nothing"),
        ({"rl.model": "none"}, "rl.model = 'none' is not there"),
    ],
)
def test_a_recipe_that_no_run_could_use_is_refused(overrides, message, recipe_file, small, tmp_path):
    with pytest.raises(InputError, match=message):
        session.run_recipe(settings.load(recipe_file, small | overrides), tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["agent"], "the following arguments are required"),
        (["agent", "pray", "a.toml"], "invalid choice: 'pray'"),
        (
            ["agent", "eval", "RECIPE", "--play.told", "false", "--play.reply", "64"],
            "its model is 'tiny', which a run makes",
        ),
        (["agent", "play", "RECIPE", "--out", "x"], "--out is of agent train"),
        (["agent", "eval", "RECIPE", "--episode", "1"], "--episode is of agent play"),
        (["agent", "train", "none.toml"], "no recipe at none.toml"),
        (["agent", "train", "RECIPE", "--rl.fomr", "plain"], "did you mean rl.form"),
        (["agent", "train", "RECIPE", "--tune.epochs", "few"], "expected a whole number"),
        (["agent", "train", "RECIPE", "--ot", "x"], "did you mean --out"),
    ],
)
def test_what_the_command_refuses_is_one_line(words, message, recipe_file, capsys):
    assert main([str(recipe_file) if word == "RECIPE" else word for word in words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
