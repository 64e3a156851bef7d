import json
from pathlib import Path

import pytest

from swirl.config import Model, Recipe
from swirl.eval import held_out
from swirl.methods import selection
from swirl.methods.phases import Pair, Phases
from swirl.methods.runner import Runner
from swirl.metrics import HEADLINE
from swirl.train import Schedule

PATHS = [Path(name) for name in ("start", "first", "second")]
OTHER = (0.25, 1)
"""Headline and NLL of the role that a phase does not train."""


def metrics_of(role, value, nll):
    return [
        {"role": role, "metric": HEADLINE[role], "value": value, "n": 400},
        *([{"role": role, "metric": "changed_facts_f1", "value": value, "n": 400}] if role == "forward" else []),
        {"role": role, "metric": "nll_changed", "value": nll, "n": 400},
        {"role": role, "metric": "nll", "value": 0.0, "n": 800},
    ]


@pytest.fixture
def measured(monkeypatch):
    """Fakes what models would be asked; notes (role, checkpoint) of each measurement, and (forward, actions) of cycles.

    `scores` says (headline, NLL) by role and checkpoint; a role that it lacks has `OTHER`.
    """
    found = {"scores": {}, "measured": [], "cycles": []}

    def measure(role, scorer, rows, recipe, max_new_tokens, title):
        found["measured"].append((role, scorer.name))
        scores = found["scores"].get(role)
        pair = scores[PATHS.index(scorer)] if scores and scorer in PATHS else OTHER
        return metrics_of(role, *pair), [f"{role} of {scorer.name}"]

    def cycle(forward, rows, inferred, recipe, max_new_tokens):
        found["cycles"].append((forward.name, inferred))
        return [{"role": "both", "metric": "cycle_exact_match_changed", "value": 0.125, "n": 400}]

    monkeypatch.setattr(Phases, "scorer", lambda self, checkpoint: checkpoint)
    monkeypatch.setattr(Phases, "max_new_tokens", {"forward": 1, "inverse": 1})
    monkeypatch.setattr(held_out, "measure", measure)
    monkeypatch.setattr(held_out, "cycle", cycle)
    return found


@pytest.fixture
def choose(tmp_path, measured):
    """Choose among three checkpoints with the given (headline, NLL) per role; returns the choice and `phase.json`."""

    def run(scores, select="best", rewards=(), phases=None):
        (tmp_path / "log.jsonl").write_text("".join(json.dumps({"reward": reward}) + "\n" for reward in rewards))
        phases = phases or Phases(None, Recipe(), tmp_path)
        phases.validation = [{"state": "x", "action": "wait", "next_state": "x"}]
        measured["scores"] = scores
        pair = Pair(*(PATHS[0] if role in scores else Path(f"other-{role}") for role in Pair._fields))
        chosen = selection.choose(
            phases, "phase", list(scores), pair, dict(zip((0, 2, 3), PATHS, strict=True)), tmp_path, select
        )
        return chosen.name, json.loads((tmp_path / "phase.json").read_text())

    return run


def test_the_best_checkpoint_is_kept_its_start_included(choose):
    assert choose({"forward": [(0.2, 1), (0.6, 9), (0.4, 1)]})[0] == "first"
    assert choose({"inverse": [(0.7, 1), (0.6, 1), (0.4, 1)]})[0] == "start"


def test_equal_ones_are_told_apart_by_likelihood_on_what_changed(choose):
    assert choose({"inverse": [(0.5, 1.0), (0.5, 0.8), (0.5, 0.9)]})[0] == "first"


def test_a_forward_model_is_worth_its_facts_less_its_false_changes():
    rows = {
        "exact_match_changed": 0.0,
        "changed_facts_f1": 0.75,
        "false_change_rate": 0.5,
        "nll_changed": 3.0,
        "nll": 1.0,
    }
    found = [{"role": "forward", "metric": metric, "value": value} for metric, value in rows.items()]
    assert held_out.worth("forward", found) == (0.25, -3.0)
    assert held_out.worth("forward", [row for row in found if row["metric"] in ("nll", "changed_facts_f1")]) == (
        0.75,
        -1.0,
    )
    assert held_out.worth("inverse", [{"metric": "action_exact_match_changed", "value": 0.5}, *found[3:]]) == (
        0.5,
        -3.0,
    )


def test_shared_weights_are_chosen_for_both_roles_together(choose):
    scores = {"forward": [(0.2, 1), (0.6, 1), (0.5, 1)], "inverse": [(0.5, 1), (0.1, 1), (0.4, 1)]}
    assert choose(scores)[0] == "second"


def test_the_published_choice_is_the_last_however_bad(choose):
    chosen, facts = choose({"forward": [(0.9, 1), (0.6, 1), (0.1, 9)]}, select="last")
    assert chosen == "second"
    assert (facts["chosen"], facts["validation"][0]["value"]) == (2, 0.1)


def test_a_phase_notes_both_roles_and_the_cycle_of_what_is_there_after_it(choose, measured):
    chosen, facts = choose({"forward": [(0.2, 1), (0.6, 9), (0.4, 1)]})
    assert chosen == "first"
    kept = [*metrics_of("forward", 0.6, 9), *metrics_of("inverse", *OTHER)]
    assert facts["validation"][:-1] == kept
    assert facts["validation"][-1]["metric"] == "cycle_exact_match_changed"
    assert measured["cycles"] == [("first", ["inverse of other-inverse"])]
    assert facts["predictions"] == {"forward": ["forward of first"]}

    choose({"inverse": [(0.2, 1), (0.3, 1), (0.4, 1)]})
    assert measured["cycles"][1:] == [("other-forward", ["inverse of second"])]


def test_the_curve_has_every_checkpoint_by_step(choose):
    _, facts = choose({"inverse": [(0.2, 3), (0.6, 2), (0.4, 1)]})
    headline = [row for row in facts["curve"] if row["metric"] == "action_exact_match_changed"]
    assert [(row["checkpoint"], row["step"], row["value"]) for row in headline] == [
        (0, 0, 0.2),
        (1, 2, 0.6),
        (2, 3, 0.4),
    ]
    assert [row["value"] for row in facts["curve"] if row["metric"] == "nll_changed"] == [3, 2, 1]
    assert {row["role"] for row in facts["curve"]} == {"inverse"}


def test_no_checkpoint_is_measured_twice(choose, measured, tmp_path):
    phases = Phases(None, Recipe(), tmp_path)
    choose({"forward": [(0.2, 1), (0.6, 9), (0.4, 1)]}, phases=phases)
    choose({"forward": [(0.2, 1), (0.6, 9), (0.4, 1)]}, phases=phases)
    assert measured["measured"] == [
        *(("forward", path.name) for path in PATHS),
        ("inverse", "other-inverse"),
    ]


def test_a_committed_phase_is_measured_in_what_it_trained_and_in_nothing_else(choose, measured, tmp_path):
    _, facts = choose({"forward": [(0.2, 1), (0.6, 9), (0.4, 1)]})
    folder = tmp_path / "phases" / "02-x"
    folder.mkdir(parents=True)
    (folder / "phase.json").write_text(json.dumps(facts))
    phases = Phases(None, Recipe(), tmp_path)
    phases.validation = [{}]
    phases._remember("x", folder)
    before = len(measured["measured"])
    assert selection.measure(phases, "forward", folder) == (metrics_of("forward", 0.6, 9), ["forward of first"])
    assert len(measured["measured"]) == before
    # The inverse rows in that file are those of another checkpoint.
    assert selection.measure(phases, "inverse", folder)[1] == ["inverse of 02-x"]
    assert phases._best == {"forward": [0.6]}


def test_pre_training_is_measured_but_is_no_round_that_stalled(choose, tmp_path):
    choose({"forward": [(0.2, 1), (0.6, 9), (0.4, 1)]})
    phases = Phases(None, Recipe(), tmp_path)
    phases._remember("pretrain-forward-sft", tmp_path)
    assert ("forward", tmp_path) in phases.measured
    assert phases._best == {}


@pytest.mark.parametrize(
    ("shared", "keep", "trained", "expected"),
    [
        (False, "best", ("forward",), "first"),
        (False, "last", ("forward",), "second"),
        # What Phase I does to the inverse role counts where the weights are the same.
        (True, "best", ("forward",), "start"),
    ],
)
def test_a_phase_keeps_by_what_it_is_told_and_what_its_weights_do(measured, tmp_path, shared, keep, trained, expected):
    measured["scores"] = {"forward": [(0.2, 1), (0.6, 1), (0.4, 1)], "inverse": [(0.9, 1), (0.1, 1), (0.2, 1)]}
    rewards = [{"reward": 0.1 * step} for step in range(20)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rewards))
    runner = Runner(None, Recipe(model=Model(shared=shared)), tmp_path)
    runner.validation = [{"state": "x", "action": "wait", "next_state": "x"}]
    pair = Pair(PATHS[0], PATHS[0])
    select = runner._select("phase", trained, pair, Schedule(3, 1, 1e-3, 0, 0, 2), tmp_path, keep)
    assert select(PATHS).name == expected
    facts = json.loads((tmp_path / "phase.json").read_text())
    assert [row["step"] for row in facts["curve"] if row["metric"] == HEADLINE["forward"]] == [0, 2, 3]
    # Only shared weights can have lost what the other role knew.
    assert len(facts["alarms"]) == int(shared)
    assert all("action_exact_match_changed fell from 0.900 to 0.200" in alarm for alarm in facts["alarms"])


def test_a_reward_that_rises_while_validation_falls_is_an_alarm(choose):
    rising, falling = [0.1 * step for step in range(20)], [(0.9, 1), (0.7, 1), (0.4, 1)]
    _, facts = choose({"forward": falling}, "last", rising)
    assert len(facts["alarms"]) == 1
    assert "exact_match_changed" in facts["alarms"][0]
    assert choose({"forward": falling}, "last", rising[::-1])[1]["alarms"] == []
    assert choose({"forward": falling[::-1]}, "last", rising)[1]["alarms"] == []
    assert choose({"forward": falling}, "last")[1]["alarms"] == []


def test_a_reward_that_rises_while_what_stands_still_is_changed_is_an_alarm(tmp_path):
    (tmp_path / "log.jsonl").write_text("".join(json.dumps({"reward": 0.1 * step}) + "\n" for step in range(20)))

    def scored(false_changes):
        rows = [*metrics_of("forward", 0.5, 1), {"metric": "false_change_rate", "value": false_changes, "n": 400}]
        return {"forward": (rows, [])}

    [alarm] = selection._alarms("swirl1-forward-grpo", ["forward"], [scored(0.05), scored(0.25)], tmp_path, [])
    assert "1 - false_change_rate fell from 0.950 to 0.750" in alarm
    assert selection._alarms("swirl1-forward-grpo", ["forward"], [scored(0.25), scored(0.05)], tmp_path, []) == []


def test_actions_that_collapse_are_an_alarm_where_something_changed():
    rows = [
        {"state": "x", "action": action, "next_state": after} for action, after in zip("abcda", "yyyyx", strict=True)
    ]
    ratio = [{"metric": "action_perplexity_ratio", "value": 0.05}]
    [alarm] = selection._collapse(rows, ratio, ["a", "b", "c", "d", "z"])
    assert "perplexity_ratio 0.05 (n = 4)" in alarm
    assert selection._collapse(rows, [], ["a", "b", "", "d", "z"]) == []  # what cannot be read is not compared
    assert len(selection._collapse(rows, [], ["q"] * 5)) == 2  # few different ones, and they say nothing


def test_collapse_is_looked_for_wherever_the_inverse_model_is_trained_after_its_warm_up(tmp_path):
    rows = [{"state": "x", "action": action, "next_state": "y"} for action in "abcd"]
    scored = [{"inverse": ([], ["q"] * 4)}]
    (tmp_path / "log.jsonl").write_text('{"loss": 1.0}\n')  # no reward: supervised
    for name, alarms in {
        "pretrain-inverse-sft": 0,
        "warmup-inverse-sft": 0,
        "verified1-inverse-sft": 2,
        "swirl1-inverse-grpo": 2,
    }.items():
        assert len(selection._alarms(name, ["inverse"], scored, tmp_path, rows)) == alarms
    assert selection._alarms("verified1-forward-sft", ["forward"], [{"forward": ([], [])}], tmp_path, rows) == []


def test_patience_counts_rounds_in_which_neither_role_improved(tmp_path):
    phases = Phases(None, Recipe(), tmp_path)
    phases._best = {"forward": [0.5, 0.6, 0.6], "inverse": [0.5, 0.7, 0.6]}
    assert phases.stalled(1, 9)
    assert not phases.stalled(1, 0)  # nothing that came before the method stalls it
    assert not phases.stalled(2, 9)
    assert not phases.stalled(0, 9)
    phases._best["inverse"][-1] = 0.8
    assert not phases.stalled(1, 9)
    phases._best = {"forward": [0.5], "inverse": [0.5]}
    assert not phases.stalled(1, 9)
