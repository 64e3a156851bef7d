import pytest

from swirl import api
from swirl.eval import knowledge


def row(trajectory, step, before, action, after, layout=None):
    names = {"state": before, "action": action, "next_state": after}
    return {**names, "trajectory": trajectory, "step": step, "layout": layout}


LINE = [row("a", i, f"at {i}", "up", f"at {i + 1}", "one") for i in range(5)]


def found(results, model):
    return {r["metric"]: (r["value"], r["n"]) for r in results if r["model"] == model}


def test_distractors_are_the_state_then_the_nearest_and_never_the_truth():
    near = knowledge.Neighbours([*LINE, row("b", 0, "at 9", "up", "at 8", "one"), row("c", 0, "x", "up", "y", "two")])
    # The truth is "at 3"; steps 1 and 3 led to 2 (the state, which is there already) and 4, steps 0 and 4 to 1 and 5.
    assert near.distractors(LINE[2], 9) == ["at 2", "at 4", "at 1", "at 5", "at 8"]
    assert near.distractors(LINE[2], 2) == ["at 2", "at 4"]


def test_distractors_that_only_differ_in_blanks_from_the_truth_are_none():
    near = knowledge.Neighbours([LINE[0], row("a", 1, "at 1", "wait", " at 1 \n")])
    assert near.distractors(LINE[0]) == ["at 0"]


def test_without_a_layout_only_the_trajectory_is_near():
    rows = [{**r, "layout": None} for r in [*LINE[:2], row("b", 0, "at 9", "up", "at 8")]]
    assert knowledge.Neighbours(rows).distractors(rows[0]) == ["at 0", "at 2"]


def test_ranks_by_hand():
    assert knowledge.rank([-1.0, -2.0, -3.0]) == 1
    assert knowledge.rank([-2.5, -2.0, -3.0]) == 2
    assert knowledge.rank([-2.0, -2.0, -2.0]) == 3  # a model that cannot tell them apart earns the least


def test_mrr_and_chance_by_hand():
    results = knowledge.ranked("m", [1, 2, 4], [2, 2, 4], ["a", "b", "c"])
    assert found(results, "m")["ranking_mrr_changed"] == (pytest.approx((1 + 1 / 2 + 1 / 4) / 3), 3)
    assert found(results, "m")["ranking_hit1_changed"] == (pytest.approx(1 / 3), 3)
    # Of two, 1 and 1/2 are equally likely: 3/4. Of four, (1 + 1/2 + 1/3 + 1/4) / 4 = 25/48.
    assert found(results, "chance")["ranking_mrr_changed"][0] == pytest.approx((3 / 4 + 3 / 4 + 25 / 48) / 3)
    assert found(results, "chance")["ranking_hit1_changed"][0] == pytest.approx((1 / 2 + 1 / 2 + 1 / 4) / 3)
    assert knowledge.ranked("m", [], [], []) == []


def test_ranking_is_by_the_models_log_likelihood(run_folder):
    forward = api.load_forward(run_folder, "cpu")
    texts = ["door open", "door shut", "key", "key key", "go left"]
    rows = [{**row("a", i, texts[i], "go left", texts[i + 1]), "history": texts[max(0, i - 1) : i]} for i in range(4)]
    rows.append({**row("a", 4, "key", "wait", "key"), "history": ["door open"]})  # changes nothing: not ranked
    near, places = knowledge.Neighbours(rows), []
    for one in rows[:4]:
        group = [one["next_state"], *near.distractors(one)]
        scores = [forward.log_likelihood(one["state"], one["action"], text, one["history"]) for text in group]
        places.append(1 + sum(other >= scores[0] for other in scores[1:]))
    assert len(set(places)) > 1
    results = found(knowledge.ranking(forward, rows, rows), str(forward.checkpoint))
    assert results["ranking_mrr_changed"] == (pytest.approx(sum(1 / place for place in places) / 4), 4)


def test_a_distractor_that_the_model_cannot_read_is_left_out(run_folder):
    forward = api.load_forward(run_folder, "cpu")
    rows = [row("a", 0, "door open", "go left", "key"), row("a", 1, "key", "go left", "key " * 200)]
    results = found(knowledge.ranking(forward, rows[:1], rows), "chance")
    assert results["ranking_hit1_changed"] == (0.5, 1)  # the truth and the state


class Reader:
    """In place of `labelling.infer`: reads the action off the next state's last word; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, scorer, rows, **options):
        self.asked += [r["next_state"] for r in rows]
        return [[r["next_state"].split()[-1]] for r in rows]


def test_following_by_hand(monkeypatch, run_folder):
    forward, inverse = api.load_forward(run_folder, "cpu"), api.load_inverse(run_folder, "cpu")
    rows = [
        row("a", 0, "door", "left", "door left"),
        row("a", 1, "door", "right", "door right"),
        row("b", 0, "door", "left", "door open"),
        row("b", 1, "door", "left", "door left"),
        row("c", 0, "door", "left", "door"),  # changes nothing: not counted
    ]
    predictions = ["go left", "go left", "key left", "", "door"]  # followed, not, followed, unreadable
    reader = Reader()
    monkeypatch.setattr(knowledge.labelling, "infer", reader)
    inferred = ["left", "right", "open", "left", "left"]
    results = knowledge.following(forward, inverse, rows, predictions, inferred, (8, 8))
    assert found(results, str(forward.checkpoint)) == {"following_changed": (2 / 4, 4)}
    assert found(results, "recorded-next-state") == {"following_changed": (3 / 4, 4)}
    assert reader.asked == ["go left", "go left", "key left"]


def test_counterfactual_commands_are_others_and_count_where_something_changes(monkeypatch, run_folder):
    forward, inverse = api.load_forward(run_folder, "cpu"), api.load_inverse(run_folder, "cpu")
    rows = [row("abc"[i % 3], i, "door", "Left", "door left") for i in range(12)]
    commanded = []

    def predict(scorer, asked, actions, *rest):
        commanded.extend(actions)
        return ["door" if i % 2 else f"door {a}" if i % 4 else "door left" for i, a in enumerate(actions)]

    monkeypatch.setattr(knowledge.labelling, "infer", Reader())
    monkeypatch.setattr(knowledge.held_out, "predict", predict)
    results = knowledge.following(
        forward, inverse, rows, ["x"] * 12, ["x"] * 12, (8, 8), lambda state: ("left", "right", "up")
    )
    assert set(commanded) == {"right", "up"}
    # Of twelve predictions six change the state, and three of those betray the command.
    assert found(results, str(forward.checkpoint))["following_counterfactual"] == (3 / 6, 6)
    alone = knowledge.following(forward, inverse, rows, ["x"] * 12, ["x"] * 12, (8, 8), lambda state: ("left",))
    assert "following_counterfactual" not in found(alone, str(forward.checkpoint))


def test_a_prediction_that_the_inverse_model_cannot_read_is_not_followed(run_folder):
    inverse = api.load_inverse(run_folder, "cpu")
    assert knowledge._followed(inverse, [row("a", 0, "door", "left", "key " * 300)], 8) == [False]
