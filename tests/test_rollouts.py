import numpy as np
import pytest

from swirl import api, intervals
from swirl.eval import held_out, rollouts


def step(trajectory, number, before, action, after, **more):
    return {
        "state": before,
        "action": action,
        "next_state": after,
        "trajectory": trajectory,
        "step": number,
        **more,
    }


COUNT = [step("a", i, f"at {i}", "up", f"at {i + 1}") for i in range(5)]


def counting(wrong=(), lost=()):
    """Adds one to the number in the state; one more where the sum is in `wrong`, unreadable where it is in `lost`."""

    def predict(asked, title):
        sums = [int(row["state"].split()[1]) + 1 for row in asked]
        return ["" if n in lost else f"at {n + (n in wrong)}" for n in sums]

    return predict


def found(results, model="m"):
    return {row["metric"].removeprefix("rollout_"): row["value"] for row in results if row["model"] == model}


def test_stretches_share_no_step_and_end_where_the_recording_breaks():
    assert [len(s) for s in rollouts.stretches(COUNT, 2)] == [2, 2, 1]
    assert rollouts.stretches(COUNT[::-1], 6) == [COUNT]  # whatever the order of the rows
    assert [len(s) for s in rollouts.stretches([*COUNT[:2], *COUNT[3:]], 6)] == [2, 2]  # a step is missing
    other = [*COUNT[:2], {**COUNT[2], "state": "at 9"}, *COUNT[3:]]
    assert [len(s) for s in rollouts.stretches(other, 6)] == [2, 3]  # something happened in between
    hidden = [*COUNT[:2], {**COUNT[2], "action": None}, *COUNT[3:]]
    assert [len(s) for s in rollouts.stretches(hidden, 6)] == [2, 2]
    assert [len(s) for s in rollouts.stretches([*COUNT, step("b", 5, "at 5", "up", "at 6")], 6)] == [5, 1]


def test_a_rollout_goes_on_from_what_was_predicted():
    # Right, right, one too far at 3, and so one too far ever after.
    assert rollouts.roll(counting(wrong={3}), [COUNT]) == [["at 1", "at 2", "at 4", "at 5", "at 6"]]


def test_a_prediction_that_cannot_be_read_ends_a_rollout_but_not_the_others():
    lost = rollouts.roll(counting(lost={2}), [COUNT, COUNT[3:]])
    assert lost == [["at 1", "", "", "", ""], ["at 4", "at 5"]]


def test_histories_are_recorded_before_the_start_and_predicted_after_it():
    seen = []

    def predict(asked, title):
        seen.extend((row["state"], row["history"]) for row in asked)
        return counting(wrong={3})(asked, title)

    rollouts.roll(predict, [[{**COUNT[1], "history": ["at -1", "at 0"]}, *COUNT[2:4]]], history=2)
    assert seen == [
        ("at 1", ["at -1", "at 0"]),
        ("at 2", ["at 0", "at 1"]),
        ("at 4", ["at 1", "at 2"]),
    ]
    seen.clear()
    rollouts.roll(predict, [COUNT[:2]], history=0)
    assert [past for _, past in seen] == [[], []]


def test_scores_by_turn_by_hand():
    short = [step("b", 0, "at 7", "up", "at 8"), step("b", 1, "at 8", "down", "at 7")]
    starts = [COUNT[:3], short, [step("c", 0, "at 1", "wait", "at 1")]]
    rolled = [["at 1", "at 2", "at 9"], ["at 8", "at 9"], ["at 2"]]
    scores = found(rollouts.by_turn("m", starts, rolled))
    assert [scores[f"survivors_t{t}"] for t in (1, 2, 3)] == [3, 2, 1]
    assert scores["exact_match_t1"] == pytest.approx(2 / 3)
    assert scores["exact_match_t2"] == 1 / 2
    assert scores["exact_match_t3"] == 0
    # Against the state at the start: c changes nothing at turn 1, and b has come back at turn 2.
    assert scores["exact_match_changed_t1"] == 1
    assert scores["exact_match_changed_t2"] == 1
    # a at turn 3 is told "at 9", which shares no fact with "at 0" or "at 3".
    assert scores["changed_facts_f1_t3"] == 0
    assert scores["token_f1_t3"] == 1 / 2
    # Of the two survivors of turn 2 both were right at turn 1 and one is still.
    assert scores["consistency_t2"] == 1 / 2
    assert scores["consistency_t1"] == 1


def test_consistency_is_over_survivors_alone_and_undefined_where_none_was_right():
    # The rollout that is wrong at turn 1 has no turn 2: over all of turn 1 the ratio would be 1 / 0.5.
    scores = found(rollouts.by_turn("m", [COUNT[:2], COUNT[2:3]], [["at 1", "at 2"], ["at 0"]]))
    assert scores["consistency_t2"] == 1
    scores = found(rollouts.by_turn("m", [COUNT[:2]], [["at 9", "at 2"]]))
    assert "consistency_t1" not in scores
    assert scores["exact_match_t2"] == 1


def test_intervals_are_over_trajectories():
    starts = [[{**COUNT[0], "trajectory": f"t{i // 4}"}] for i in range(16)]
    rolled = [[("at 1", "at 2")[i // 4 % 2]] for i in range(16)]  # whole trajectories right, whole ones wrong
    [row] = [r for r in rollouts.by_turn("m", starts, rolled) if r["metric"] == "rollout_exact_match_t1"]
    assert (row["value"], row["low"], row["high"], row["n"]) == (0.5, 0.0, 1.0, 16)


def test_intervals_are_over_layouts_where_there_are_enough():
    starts = [[{**COUNT[0], "trajectory": f"t{i}", "layout": f"l{i // 4}"}] for i in range(20)]
    rolled = [[("at 1", "at 2")[i // 4 % 2]] for i in range(20)]  # whole layouts right, whole ones wrong
    [row] = [r for r in rollouts.by_turn("m", starts, rolled) if r["metric"] == "rollout_exact_match_t1"]
    right = [float(texts == ["at 1"]) for texts in rolled]
    assert (row["low"], row["high"]) == intervals.bootstrap_interval(right, [s["layout"] for (s,) in starts])


def test_what_a_model_has_in_every_rollout_is_uncertain_and_what_a_copy_has_is_not():
    starts = [[{**COUNT[0], "trajectory": f"t{i}"}] for i in range(20)]

    def ends(model, text):
        found = rollouts.by_turn(model, starts, [[text]] * 20)
        return next((row["low"], row["high"]) for row in found if row["metric"] == "rollout_exact_match_changed_t1")

    assert ends("m", "at 1") == pytest.approx((0.8316, 1), abs=5e-5)  # 20 of 20
    assert ends("copy-input", "at 0") == (0, 0)


def test_turn_one_is_the_one_step_metric_of_the_same_rows(run_folder):
    forward = api.load_forward(run_folder, "cpu")
    rows = [
        step(t, i, f"door {w}", f"go {a}", f"door {a}", history=["key"] * (i > 0))
        for t, i, w, a in (("a", 0, "key", "left"), ("a", 1, "left", "right"), ("b", 0, "open", "left"))
    ]
    scores = rollouts.measure(forward, rows, max_new_tokens=8, turns=2)
    one, _ = held_out.measure("forward", forward.scorer, [rows[0], rows[2]], forward.recipe, 8, "t")
    wanted = {row["metric"]: row["value"] for row in one}
    got = found(scores, str(forward.checkpoint))
    for name in ("exact_match", "token_f1", "changed_facts_f1"):
        assert got[f"{name}_t1"] == wanted[name]
    assert found(scores, "copy-input")["exact_match_changed_t1"] == 0


def test_a_part_is_drawn_by_whole_stretches(run_folder):
    forward = api.load_forward(run_folder, "cpu")
    rows = [{**row, "trajectory": f"t{i}", "history": []} for i in range(6) for row in COUNT[:3]]
    first, again = (rollouts.measure(forward, rows, 4, turns=3, most=4, seed=1) for _ in range(2))
    assert first == again
    survivors = [row["value"] for row in first if row["metric"].startswith("rollout_survivors")]
    assert survivors == [2] * 6  # two whole stretches of three steps, for the baseline and for the model


def test_a_state_that_outgrows_the_model_is_lost_not_an_error(run_folder):
    predict = rollouts.predictor(api.load_forward(run_folder, "cpu"), 4)
    asked = [{"state": text, "action": "go left", "history": []} for text in ("key", "key " * 200)]
    texts = predict(asked, "t")
    assert texts[1] == ""
    assert texts[0] == predict(asked[:1], "t")[0]


def test_the_statistic_of_no_draw_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        intervals.bootstrap_statistic(lambda index: 1.0, [])
    with pytest.raises(ValueError, match="not defined"):
        intervals.bootstrap_statistic(lambda index: np.nan, ["a", "b"])
