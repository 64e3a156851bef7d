"""The suite's metrics move the right way: what is made worse never scores better, and scores worse where it must.

As `test_perturbations` does for the metrics of single predictions. The models here are stubs that say what they are
told to; only the values are looked at, so intervals are not drawn.
"""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from swirl import health, intervals, metrics
from swirl.config import Recipe
from swirl.data.origin import Origin
from swirl.errors import InputError
from swirl.eval import held_out, knowledge, planning, real, rollouts, trust

TINY = 1e-12
"""Rounding, which is no difference."""


@pytest.fixture(scope="module", autouse=True)
def no_intervals():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("bootstrap_interval", "bootstrap_statistic"):
            patch.setattr(intervals, name, lambda *_, bounds=None: (0.0, 1.0))
        yield


def row(trajectory, step, state, action, next_state):
    return {"state": state, "action": action, "next_state": next_state, "trajectory": trajectory, "step": step}


def found(results, model="m"):
    return {row["metric"]: row["value"] for row in results if row["model"] == model}


def replaced(items, place, item):
    return [*items[:place], item, *items[place + 1 :]]


def one_by_one(good, bad):
    """`good`, then with the first replaced by that of `bad`, then the first two, until all are."""
    return [[*bad[:n], *good[n:]] for n in range(len(good) + 1)]


# Rollouts: every step changes three facts, of which a prediction gets some wrong.


def facts(number, wrong=0):
    return "\n".join(
        [f"junk {i}" for i in range(wrong)] + [f"{name} {number}" for name in ("hall", "lamp", "door")[wrong:]]
    )


def rolled_out(wrong):
    """Metrics of rollouts whose predictions have so many facts wrong, by rollout and turn."""
    starts = [
        [row(f"t{i}", t, facts(t), "on", facts(t + 1)) for t in range(len(turns))] for i, turns in enumerate(wrong)
    ]
    return found(rollouts.by_turn("m", starts, [[facts(t + 1, k) for t, k in enumerate(turns)] for turns in wrong]))


def test_perfect_rollouts_score_one_at_every_turn():
    scores = rolled_out([[0, 0, 0], [0], [0, 0]])
    assert {name for name in scores if name.endswith("_t3")} == {
        f"rollout_{name}_t3" for name in (*rollouts.BY_TURN, "survivors", "consistency")
    }
    assert {value for name, value in scores.items() if "survivors" not in name} == {1}


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=4), st.data())
def test_a_rollout_that_is_wrong_at_a_turn_scores_worse_at_that_turn_alone(wrong, data):
    one = data.draw(st.integers(0, len(wrong) - 1))
    at = data.draw(st.integers(0, len(wrong[one]) - 1))
    assume(wrong[one][at] < 3)
    before = rolled_out(wrong)
    after = rolled_out(replaced(wrong, one, replaced(wrong[one], at, wrong[one][at] + 1)))
    survivors, was_right = before[f"rollout_survivors_t{at + 1}"], wrong[one][at] == 0
    changes = {name: before[name] - after[name] for name in before if name in after}
    for name in ("exact_match", "exact_match_changed"):
        assert changes[f"rollout_{name}_t{at + 1}"] == pytest.approx(was_right / survivors)
    for name in ("changed_facts_f1", "token_f1"):
        assert changes[f"rollout_{name}_t{at + 1}"] > TINY
    if at > 0 and (consistency := changes.get(f"rollout_consistency_t{at + 1}")) is not None:
        assert (consistency > TINY) if was_right else (consistency == 0)
    for name, change in changes.items():
        if not name.endswith(f"_t{at + 1}") and not (at == 0 and "consistency" in name):  # turn 1 is its denominator
            assert change == 0, name


# Ranking and following.


def ranking_of(groups):
    ranks = [knowledge.rank(group) for group in groups]
    return found(knowledge.ranked("m", ranks, [len(group) for group in groups], ["t"] * len(groups)))


nats = st.integers(-9, 0).map(float)  # few values, so that some are equal


@given(st.lists(st.lists(nats, min_size=2, max_size=5), min_size=1, max_size=4), st.data(), st.integers(1, 9))
def test_a_truth_that_is_less_likely_ranks_no_higher(groups, data, nats_more):
    which = data.draw(st.integers(0, len(groups) - 1))
    of = data.draw(st.integers(0, len(groups[which]) - 1))  # the truth falls, or a distractor rises
    group = groups[which]
    worse = replaced(group, of, group[of] + (nats_more if of else -nats_more))
    before, after = ranking_of(groups), ranking_of(replaced(groups, which, worse))
    overtaken = sum(a < group[0] for a in group[1:]) - sum(a < worse[0] for a in worse[1:])
    mrr, hit1 = (before[name] - after[name] for name in ("ranking_mrr_changed", "ranking_hit1_changed"))
    assert (mrr > TINY) if overtaken else (mrr == 0)
    assert hit1 * len(groups) == pytest.approx(int(overtaken > 0 and all(a < group[0] for a in group[1:])))


@given(st.lists(st.lists(nats, min_size=1, max_size=5), min_size=1, max_size=4))
def test_truths_that_are_likeliest_and_least_likely_score_best_and_worst(distractors):
    assert set(ranking_of([[1.0, *group] for group in distractors]).values()) == {1}
    last = ranking_of([[-10.0, *group] for group in distractors])
    assert last["ranking_mrr_changed"] == pytest.approx(np.mean([1 / (1 + len(group)) for group in distractors]))
    assert last["ranking_hit1_changed"] == 0


def model(name="m", **more):
    """In place of a `ForwardModel` or an `InverseModel` whose scorer is never asked."""
    spec = SimpleNamespace(prompt="terse", chat_template_kwargs={})
    return SimpleNamespace(
        checkpoint=name, scorer=None, spec=spec, recipe=Recipe(), reads=lambda row: bool(row["next_state"]), **more
    )


LINE = [row("t0", i, f"at {i}", f"go {i + 1}", f"at {i + 1}") for i in range(4)]


def test_a_model_that_takes_more_transitions_for_others_ranks_worse(monkeypatch):
    monkeypatch.setattr(knowledge, "_short", lambda forward, row, texts: texts)
    scores = []
    for errs in range(5):

        def score(scorer, role, asked, *rest, errs=errs):
            assert role == "forward"
            # Each transition as likely as its next state is near to where the command leads; the other way if it errs.
            far = [(int(a["target"].removeprefix("at ")) - int(a["given"].removeprefix("go "))) ** 2 for a in asked]
            signs = [1 if int(a["state"].split()[1]) < errs else -1 for a in asked]
            return [float(sign * nats) for sign, nats in zip(signs, far, strict=True)], [1] * len(asked)

        monkeypatch.setattr(knowledge, "score", score)
        scores.append(found(knowledge.ranking(model(), LINE, LINE)))
    assert [values["ranking_hit1_changed"] for values in scores] == [1, 3 / 4, 2 / 4, 1 / 4, 0]
    assert scores[0]["ranking_mrr_changed"] == 1
    assert all(a["ranking_mrr_changed"] > b["ranking_mrr_changed"] for a, b in itertools.pairwise(scores))


@pytest.fixture
def reader(monkeypatch):
    """An inverse model that reads the action off the number in the next state."""
    infer = lambda scorer, rows, **options: [["go " + r["next_state"].split()[1]] for r in rows]  # noqa: E731
    monkeypatch.setattr(knowledge.labelling, "infer", infer)


@pytest.mark.parametrize("bad", ["at 9", "", "copy"])
def test_the_fewer_commands_are_followed_the_worse(reader, bad):
    truths = [r["next_state"] for r in LINE]
    wrong = [r["state"] if bad == "copy" else bad for r in LINE]
    inferred = [r["action"] for r in LINE]
    scores = [
        knowledge.following(model(), model("inverse"), LINE, predictions, inferred, (8, 8))
        for predictions in one_by_one(truths, wrong)
    ]
    assert [found(r)["following_changed"] for r in scores] == [1, 3 / 4, 2 / 4, 1 / 4, 0]
    assert {found(r, "recorded-next-state")["following_changed"] for r in scores} == {1}  # that is not the model's


def test_the_fewer_commands_are_recovered_from_the_truth_the_lower_the_reference(reader):
    truths, inferred = [r["next_state"] for r in LINE], [r["action"] for r in LINE]
    scores = [
        found(knowledge.following(model(), model(), LINE, truths, told, (8, 8)), "recorded-next-state")
        for told in one_by_one(inferred, ["go 9"] * 4)
    ]
    assert [r["following_changed"] for r in scores] == [1, 3 / 4, 2 / 4, 1 / 4, 0]


def test_the_fewer_counterfactual_commands_are_followed_the_worse(monkeypatch, reader):
    scores = []
    for ignored in range(5):

        def predict(scorer, asked, actions, *rest, ignored=ignored):
            obeyed = [action.replace("go", "at") for action in actions]
            return [*[r["next_state"] for r in asked[:ignored]], *obeyed[ignored:]]

        monkeypatch.setattr(knowledge.held_out, "predict", predict)
        listed = lambda state: [f"go {n}" for n in (1, 2, 3, 4, 7, 8)]  # noqa: E731
        results = knowledge.following(model(), model(), LINE, [""] * 4, [""] * 4, (8, 8), listed, seed=1)
        scores.append(found(results)["following_counterfactual"])
    assert scores == [1, 3 / 4, 2 / 4, 1 / 4, 0]


# Trust.

GROUP = 8
"""Equally sure rows."""


@given(st.dictionaries(st.integers(1, GROUP - 1), st.integers(-6, 6), min_size=1), st.data())
def test_confidence_that_leaves_the_accuracy_has_a_greater_calibration_error(offsets, data):
    """Groups of rows with so many right each are as sure as they are accurate, but for an offset of so many 128ths."""

    def error(offsets):
        sure = np.array([n / GROUP + offset / 128 for n, offset in offsets.items()])
        right = np.array([[i < n for i in range(GROUP)] for n in offsets], float)
        return trust.ece(sure.repeat(GROUP), right.ravel())

    moved = data.draw(st.sampled_from(sorted(offsets)))
    further = offsets[moved] + data.draw(
        st.sampled_from([-1, 1]) if not offsets[moved] else st.just(np.sign(offsets[moved]))
    )
    assert error(dict.fromkeys(offsets, 0)) == 0
    assert error(offsets) == pytest.approx(np.mean(np.abs(list(offsets.values()))) / 128)
    assert error({**offsets, moved: further}) == pytest.approx(error(offsets) + 1 / 128 / len(offsets))


rows_of = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=12)


def trusted(sure, right, kept):
    """(selective accuracy of so many rows, less the area under the risk-coverage curve)."""
    sure, right = np.array(sure) / 8, np.array(right, float)
    return trust.selective_accuracy(sure, right, kept / len(sure)), -trust.aurc(sure, right)


@given(rows_of, st.data())
def test_to_be_surer_of_the_wrong_than_of_the_right_has_less_selective_accuracy_and_more_area(rows, data):
    sure, right = map(list, zip(*rows, strict=True))
    pairs = [
        (i, j)
        for i, j in itertools.permutations(range(len(rows)), 2)
        if right[i] and not right[j] and sure[i] > sure[j]
    ]
    assume(pairs)
    i, j = data.draw(st.sampled_from(pairs))
    kept = data.draw(st.integers(1, len(rows)))
    swapped = replaced(replaced(sure, i, sure[j]), j, sure[i])
    before, after = trusted(sure, right, kept), trusted(swapped, right, kept)
    assert before[1] - after[1] > TINY
    if sum(c > sure[i] for c in sure) < kept < sum(c >= sure[j] for c in sure):  # the boundary lies between them
        assert before[0] - after[0] > TINY
    else:
        assert before[0] == pytest.approx(after[0])


@given(rows_of, st.data())
def test_a_prediction_that_becomes_wrong_has_less_selective_accuracy_and_more_area(rows, data):
    sure, right = map(list, zip(*rows, strict=True))
    assume(any(right))
    i = data.draw(st.sampled_from(np.flatnonzero(right).tolist()))
    kept = data.draw(st.integers(1, len(rows)))
    before, after = trusted(sure, right, kept), trusted(sure, replaced(right, i, False), kept)
    assert before[1] - after[1] > TINY
    assert (before[0] - after[0] > TINY) if sum(c > sure[i] for c in sure) < kept else (before[0] == after[0])


@given(rows_of, st.integers(1, 12))
def test_no_order_beats_the_one_that_has_the_right_before_the_wrong(rows, kept):
    assume(kept <= len(rows))
    sure, right = map(list, zip(*rows, strict=True))
    best, given = trusted(right, right, kept), trusted(sure, right, kept)
    assert best[0] == pytest.approx(min(1, sum(right) / kept))
    assert given[0] <= best[0] + TINY
    assert given[1] <= best[1] + TINY
    assert trusted(sure, [True] * len(rows), kept) == pytest.approx((1, 0))


@pytest.mark.parametrize("role", ["forward", "inverse"])
def test_confidence_given_to_the_wrong_rows_is_trusted_less(role):
    rows = [row("t0", i, f"at {i}", f"go {i + 1}", f"at {i + 1}") for i in range(8)]
    truths = [r["next_state" if role == "forward" else "action"] for r in rows]
    predictions, right = [text if i % 2 else "x" for i, text in enumerate(truths)], np.arange(8) % 2
    scores = [
        found(trust.results("m", role, "trust", rows, predictions, np.array(sure, float)))
        for sure in one_by_one(list(right), list(1 - right))
    ]
    for suffix in ("", "_changed"):
        assert [s[f"trust_ece{suffix}"] for s in scores] == pytest.approx([n / 8 for n in range(9)])
        assert all(b[f"trust_aurc{suffix}"] - a[f"trust_aurc{suffix}"] > TINY for a, b in itertools.pairwise(scores))
        for name in (f"trust_selective_50{suffix}", f"trust_selective_80{suffix}"):
            assert all(b[name] <= a[name] + TINY for a, b in itertools.pairwise(scores))
        best, worst = ([s[f"trust_selective_{share}{suffix}"] for share in (50, 80)] for s in (scores[0], scores[-1]))
        assert (best, worst) == (pytest.approx([1, 4 / 7]), pytest.approx([0, 3 / 7]))  # of the surest 4 and 7


# The real world: a corridor where two words mean the same, and one does nothing.


class Corridor:
    def reset(self, seed):
        self.place = seed % 1000
        return f"at {self.place}", {}

    def step(self, action):
        if action not in self.actions(""):
            raise InputError("no such action")
        self.place += {"up": 1, "north": 1, "down": -1}.get(action, 0)
        return f"at {self.place}", 0.0, False, False, {}

    def actions(self, state):
        return "down", "north", "up", "wait"


@pytest.fixture
def replay():
    return real.Replay(Corridor(), Origin("corridor", {}, 0))


@pytest.fixture
def recording(replay):
    """Four episodes of three steps up."""
    paths = {f"t{i:06}": [replay.after(f"t{i:06}", ["up"] * n) for n in range(4)] for i in range(4)}
    return [row(t, i, path[i], "up", path[i + 1]) for t, path in paths.items() for i in range(3)]


@pytest.mark.parametrize("bad", ["down", "wait", "jump", ""])
def test_the_more_actions_lead_elsewhere_the_fewer_are_equivalent(replay, recording, bad):
    pasts = replay.pasts(recording)
    told = one_by_one(["north"] * 12, [bad] * 12)  # as good as the recorded word
    scores = [found(real.equivalence(replay, pasts, recording, {"m": actions})) for actions in told]
    assert [s["action_equivalent_changed"] for s in scores] == pytest.approx([1 - n / 12 for n in range(13)])


def test_the_earlier_a_recording_leaves_the_world_the_less_is_replayed(replay, recording):
    shares = []
    for left in (3, 2, 1, 0):  # steps of the first episode before what it says is no longer so
        other = [
            {**r, "state": "elsewhere"} if (r["trajectory"], r["step"]) == ("t000000", left) else r for r in recording
        ]
        results = real.equivalence(replay, replay.pasts(other), recording, {})
        shares.append(found(results, "recording")["real_replayed"])
    assert shares == pytest.approx([1, 11 / 12, 10 / 12, 9 / 12])


PLANS = {"reaches": (["up"], True), "fails": (["down"], False), "none": (None, False)}


def planned(outcomes):
    """Results of goals whose plans in the model and in the real world fare so."""
    goals = [planning.Goal({"state": "", "trajectory": f"t{i}"}, "", []) for i in range(len(outcomes))]
    plans, reached = zip(*(PLANS[fate] for fate, _ in outcomes), strict=True)
    return found(planning.planned("m", goals, plans, reached, [["up"] if way else None for _, way in outcomes]))


@given(st.lists(st.tuples(st.sampled_from(list(PLANS)), st.booleans()), min_size=1, max_size=6), st.data())
def test_a_plan_that_fares_worse_lowers_the_metrics_that_are_about_it(outcomes, data):
    which = data.draw(st.integers(0, len(outcomes) - 1))
    fate, way = outcomes[which]
    assume(fate != "none")
    to = data.draw(st.sampled_from(["fails", "none"] if fate == "reaches" else ["none"]))
    before, after = planned(outcomes), planned(replaced(outcomes, which, (to, way)))
    lower = {name: before[name] - after[name] for name in before if name in after}
    assert lower["wm2real_plans"] == pytest.approx((to == "none") / len(outcomes))
    assert lower["wm2real_reached"] == pytest.approx((fate == "reaches") / len(outcomes))
    if "consistency_ratio" in lower:
        assert (lower["consistency_ratio"] > TINY) if fate == "reaches" else (lower["consistency_ratio"] == 0)
    if "wm2real_ratio" in lower and fate == "reaches":
        others_fail = any(one == "fails" for one, _ in outcomes)
        assert (lower["wm2real_ratio"] > TINY) if to == "fails" or others_fail else (lower["wm2real_ratio"] == 0)


def test_plans_that_all_arrive_score_one():
    assert set(planned([("reaches", True)] * 3).values()) == {1}


@pytest.mark.parametrize("error", ["mirrored", "copied", "unreadable"])
def test_the_more_episodes_a_model_is_wrong_of_the_fewer_of_its_plans_arrive(monkeypatch, replay, recording, error):
    starts = sorted({int(r["state"].split()[1]) for r in recording if r["step"] == 0})
    assert all(b - a > 10 for a, b in itertools.pairwise(starts))  # far apart: a place tells its episode
    goals = planning.goals_of(recording, replay.pasts(recording), 3, 9, seed=0)
    scores = []
    for wrong in range(5):

        def predict(asked, title, wrong=wrong):
            out = []
            for one in asked:
                place = int(one["state"].split()[1])
                move = {"up": 1, "north": 1, "down": -1}.get(one["action"], 0)
                mistaken = any(abs(place - start) < 5 for start in starts[:wrong])
                move *= {"mirrored": -1, "copied": 0, "unreadable": 1}[error] if mistaken else 1
                out.append("" if mistaken and error == "unreadable" else f"at {place + move}")
            return out

        monkeypatch.setattr(planning.rollouts, "predictor", lambda *_, predict=predict: predict)
        scores.append(planning.wm2real(model(), replay, goals, 8, 3))
    falls = [1, 3 / 4, 2 / 4, 1 / 4, 0]
    by_name = {name: [found(s).get(name) for s in scores] for name in found(scores[0])}
    assert by_name["wm2real_reached"] == by_name["consistency_ratio"] == falls
    assert by_name["wm2real_plans"] == ([1] * 5 if error == "mirrored" else falls)  # where up is down there is a plan
    assert by_name["wm2real_ratio"] == (falls if error == "mirrored" else [1, 1, 1, 1, None])
    assert {found(s, "real-search")["wm2real_plans"] for s in scores} == {1}  # that is not the model's


# Cycle consistency.


def cycled(monkeypatch, rows, inferred, wrong=()):
    """Cycle consistency of a forward model that follows actions, but those of states in `wrong`."""

    def predict(scorer, asked, actions, *rest):
        return ["x" if r["state"] in wrong else a.replace("go", "at") for r, a in zip(asked, actions, strict=True)]

    monkeypatch.setattr(held_out, "predict", predict)
    [only] = held_out.cycle(None, rows, inferred, Recipe(), 8)
    return only


def test_a_cycle_is_the_worse_the_more_of_either_model_is_wrong(monkeypatch):
    rows = [row("t1", 0, "at 5", "go 5", "at 5"), *LINE, row("t1", 1, "at 6", "go 6", "at 6")]  # two change nothing
    inferred = [r["action"] for r in rows]
    told = [["x", *actions, ""] for actions in one_by_one(inferred[1:-1], ["go 9", "", "go 1", "up"])]
    by_actions = [cycled(monkeypatch, rows, actions) for actions in told]
    states = [r["state"] for r in LINE]
    by_states = [cycled(monkeypatch, rows, inferred, states[:n]) for n in range(5)]
    for results in (by_actions, by_states):
        assert [r["value"] for r in results] == [1, 3 / 4, 2 / 4, 1 / 4, 0]
        assert {(r["metric"], r["n"]) for r in results} == {("cycle_exact_match_changed", 4)}


def test_another_action_that_leads_to_the_recorded_state_closes_the_cycle(monkeypatch):
    assert cycled(monkeypatch, LINE, [r["next_state"] for r in LINE])["value"] == 1  # no recorded action among them


def test_an_action_that_cannot_be_read_closes_no_cycle(monkeypatch):
    right = {r["state"]: r["next_state"] for r in LINE}  # of a model that does not read the action
    monkeypatch.setattr(held_out, "predict", lambda scorer, asked, *rest: [right[r["state"]] for r in asked])
    inferred = [r["action"] for r in LINE]
    cycles = [held_out.cycle(None, LINE, told, Recipe(), 8) for told in (inferred, ["", *inferred[1:]], [""] * 4)]
    assert [(row["value"], row["n"]) for [row] in cycles] == [(1, 4), (3 / 4, 4), (0, 4)]


# Mutual information.

labels = st.lists(st.sampled_from("abcd"), min_size=2, max_size=12)


@given(labels, st.permutations("wxyz"))
def test_a_renaming_tells_all(recorded, names):
    named = [dict(zip("abcd", names, strict=True))[action] for action in recorded]
    assert health.action_nmi(named, recorded) == pytest.approx(1)


@given(labels, labels)
def test_only_a_renaming_tells_all(inferred, recorded):
    rows = min(len(inferred), len(recorded))
    inferred, recorded = inferred[:rows], recorded[:rows]
    one_to_one = len(set(zip(inferred, recorded, strict=True))) == len(set(inferred)) == len(set(recorded))
    assert (health.action_nmi(inferred, recorded) > 1 - 1e-9) == one_to_one


@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=20))
def test_the_more_actions_are_told_as_one_the_less_they_say(recorded):
    kinds = sorted(set(recorded))
    assume(len(kinds) > 1)
    merged = [[kinds[0] if action in kinds[: n + 1] else action for action in recorded] for n in range(len(kinds))]
    values = [health.action_nmi(inferred, recorded) for inferred in merged]
    assert values[0] == pytest.approx(1)
    assert all(a - b > TINY for a, b in itertools.pairwise(values))
    assert values[-1] == 0


def test_actions_told_by_chance_in_more_rows_say_less():
    """Of four actions, four rows each: in n - 1 of the four rows another action is told, each another one."""
    recorded = [f"go {i}" for i in range(4) for _ in range(4)]
    told = [[f"go {(i + (j if j < n else 0)) % 4}" for i in range(4) for j in range(4)] for n in range(1, 5)]
    values = [health.action_nmi(inferred, recorded) for inferred in told]
    assert values[0] == pytest.approx(1)
    assert all(a - b > TINY for a, b in itertools.pairwise(values))
    assert values[-1] == pytest.approx(0)  # every action is told as often for every recorded one


# What is relative to the model itself can rise where the model gets worse; what it is read beside falls.


def test_consistency_rises_where_a_rollout_is_lost_from_the_start():
    late, early = rolled_out([[0, 0], [0, 1]]), rolled_out([[0, 0], [1, 1]])
    assert (late["rollout_consistency_t2"], early["rollout_consistency_t2"]) == (1 / 2, 1)
    assert (late["rollout_exact_match_t1"], early["rollout_exact_match_t1"]) == (1, 1 / 2)


def test_the_ratio_of_plans_rises_where_one_that_fails_is_not_found():
    failing, none = planned([("reaches", True), ("fails", True)]), planned([("reaches", True), ("none", True)])
    assert (failing["wm2real_ratio"], none["wm2real_ratio"]) == (1 / 2, 1)
    assert (failing["wm2real_plans"], none["wm2real_plans"]) == (1, 1 / 2)
    assert failing["consistency_ratio"] == none["consistency_ratio"] == 1 / 2


def test_counterfactual_following_rises_where_a_command_betrayed_is_a_copy(monkeypatch, reader):
    scores = []
    for betrayed in ("at 9", "at 3"):
        monkeypatch.setattr(knowledge.held_out, "predict", lambda *_, last=betrayed: ["at 7", "at 7", "at 7", last])
        results = knowledge.following(model(), model(), LINE, [""] * 4, [""] * 4, (8, 8), lambda state: ["go 7"])
        scores += [(r["value"], r["n"]) for r in results if r["metric"] == "following_counterfactual"]
    assert scores == [(3 / 4, 4), (1, 3)]


def test_mutual_information_rises_where_a_private_code_loses_its_one_right_action():
    recorded, code = ["up", "up", "down", "down"], ["down", "down", "up", "up"]
    some_right = ["up", "down", "up", "up"]
    right, none = (
        metrics.inverse_values(["a"] * 4, ["b"] * 4, recorded, told)["action_exact_match_changed"][0].mean()
        for told in (some_right, code)
    )
    assert (right, none) == (1 / 4, 0)
    assert health.action_nmi(some_right, recorded) < health.action_nmi(code, recorded) == 1
