from functools import partial

import pyarrow.parquet as pq
import pytest

from swirl import api, data, worlds
from swirl.data.origin import Origin, origin_of
from swirl.errors import InputError
from swirl.eval import planning, real, suite
from swirl.metrics import changed

LAKE = ("frozenlake", {"size": 3, "coordinates": False})


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A recording of FrozenLake that says where it comes from."""
    path = tmp_path_factory.mktemp("lake") / "lake.parquet"
    data.collect(partial(worlds.make, LAKE[0], **LAKE[1]), path, 80, None, 12, seed=5, origin=LAKE)
    return path


@pytest.fixture
def replay(lake):
    found = real.replay_of(lake)
    yield found
    found.world.close()


def labelled(path):
    return data.read(path).to_pylist()


def test_a_recording_says_where_it_comes_from_and_keeps_its_bytes(lake, tmp_path):
    assert origin_of(lake) == Origin(*LAKE, 5)
    data.collect(partial(worlds.make, LAKE[0], **LAKE[1]), tmp_path / "b.parquet", 80, None, 12, seed=5, origin=LAKE)
    assert (tmp_path / "b.parquet").read_bytes() == lake.read_bytes()
    pq.write_table(pq.read_table(lake).replace_schema_metadata(None), tmp_path / "c.parquet")
    assert origin_of(tmp_path / "c.parquet") is None
    assert origin_of("c.jsonl") is None


def test_only_the_test_part_of_a_run_says_so(lake, tmp_path):
    sizes = {"validation": 0.3, "test": 0.3, "labels": None, "validation_labels": 0, "seed": 0, "data_seed": 0}
    data.split(data.read(lake), tmp_path, **sizes, origin=origin_of(lake))
    noted = {part.stem: origin_of(part) for part in tmp_path.glob("*.parquet")}
    assert noted == {"labelled": None, "state_only": None, "validation": None, "test": Origin(*LAKE, 5)}


def test_episodes_are_played_again(lake, replay):
    rows = labelled(lake)
    pasts = replay.pasts(rows)
    assert len(pasts) == len(rows)
    for row in rows[:30]:
        past = pasts[row["trajectory"], row["step"]]
        assert len(past) == row["step"]
        assert replay.after(row["trajectory"], past) == row["state"]
        assert replay.after(row["trajectory"], [*past, row["action"].upper()]) == row["next_state"]
    assert replay.after(rows[0]["trajectory"], ["Jump"]) == ""
    assert replay.after("session 7", []) == ""


def test_steps_from_where_the_world_differs_are_left_out(lake, replay):
    rows = [row for row in labelled(lake) if row["trajectory"] == "t000000"]
    assert len(rows) > 4
    other = [*rows[:2], {**rows[2], "state": "elsewhere"}, *rows[3:]]
    assert set(replay.pasts(other)) == {("t000000", 0), ("t000000", 1)}
    assert set(replay.pasts([*rows[:2], *rows[3:]])) == {("t000000", 0), ("t000000", 1)}
    hidden = [*rows[:2], {**rows[2], "action": None}, *rows[3:]]
    assert set(replay.pasts(hidden)) == {("t000000", step) for step in range(3)}


def test_an_action_is_right_where_it_leads_to_the_recorded_state(lake, replay):
    rows = labelled(lake)
    pasts, moved = replay.pasts(rows), [row for row in rows if changed(row["state"], row["next_state"])]
    opposite = {"Left": "Right", "Right": "Left", "Up": "Down", "Down": "Up"}
    named = {
        "true": [row["action"] for row in moved],
        "wrong": [opposite[row["action"]] for row in moved],
        "none": ["Jump"] * len(moved),
    }
    found = {(r["model"], r["metric"]): r["value"] for r in real.equivalence(replay, pasts, moved, named)}
    assert [found[name, "action_equivalent_changed"] for name in named] == [1, 0, 0]
    assert found["recording", "real_replayed"] == 1


def test_what_cannot_be_played_again_is_counted(lake, replay):
    rows = labelled(lake)
    moved = [row for row in rows if changed(row["state"], row["next_state"])]
    named = {"true": [row["action"] for row in moved]}
    [only] = real.equivalence(replay, {}, moved, named)
    assert (only["metric"], only["value"], only["n"]) == ("real_replayed", 0, len(moved))


@pytest.mark.parametrize(
    ("origin", "message"),
    [(None, "does not say which world"), (("frozenlake", {"slippery": True}), "cannot be played again")],
)
def test_recordings_that_do_not_allow_it_are_refused(origin, message, tmp_path):
    path = tmp_path / "a.parquet"
    options = origin[1] if origin else {}
    data.collect(partial(worlds.make, "frozenlake", **options), path, 10, None, 5, origin=origin)
    with pytest.raises(InputError, match=message):
        real.replay_of(path)
    with pytest.raises(InputError, match=message), suite.replaying(path, ["real"], optional=False):
        pass
    with suite.replaying(path, ["real", "trust"], optional=True) as replay:
        assert replay is None


def line(start, goal):
    """A goal on a line of numbers; the world lists -1 and +1."""
    return planning.Goal({"state": f"at {start}", "trajectory": f"t{start}", "action": "+1"}, f"at {goal}", [])


def moves(tried):
    return [f"at {int(states[-1].split()[1]) + int(taken[-1])}" for _, states, taken in tried]


def test_search_finds_the_shortest_plan_within_its_depth():
    goals, actions = [line(0, 2), line(5, 4), line(0, 4)], [("-1", "+1")] * 3
    assert planning.search(goals, moves, actions, 3) == [["+1", "+1"], ["-1"], None]
    assert planning.search(goals, moves, actions, 4)[2] == ["+1"] * 4
    assert planning.search(goals[:1], lambda tried: [""] * len(tried), actions, 3) == [None]


def test_search_goes_on_from_the_states_most_like_the_goal(monkeypatch):
    monkeypatch.setattr(planning, "BEAM", 1)
    goal = planning.Goal({"state": "x y", "trajectory": "t"}, "a b", [])
    graph = {("x y", "l"): "x z", ("x y", "r"): "a y", ("a y", "l"): "a b", ("x z", "l"): "q q", ("x z", "r"): "a b"}
    asked = []

    def steps(tried):
        asked.extend((states[-1], taken[-1]) for _, states, taken in tried)
        return [graph.get((states[-1], taken[-1]), "") for _, states, taken in tried]

    assert planning.search([goal], steps, [("l", "r")], 2) == [["r", "l"]]
    assert asked == [("x y", "l"), ("x y", "r"), ("a y", "l"), ("a y", "r")]


def test_wm2real_by_hand():
    goals = [line(i, i + 1) for i in range(4)]
    plans, reached, ways = [["+1"], ["+1"], None, ["-1"]], [True, True, False, False], [["+1"], ["+1"], ["+1"], None]
    results = planning.planned("m", goals, plans, reached, ways)
    found = {(r["model"], r["metric"]): r["value"] for r in results}
    assert found == {
        ("real-search", "wm2real_plans"): 3 / 4,
        ("m", "wm2real_plans"): 3 / 4,
        ("m", "wm2real_reached"): 2 / 4,
        ("m", "wm2real_ratio"): pytest.approx(2 / 3),
        ("m", "consistency_ratio"): pytest.approx(2 / 3),
    }
    rows = {r["metric"]: r["n"] for r in results if r["model"] == "m"}  # of three plans two; the rest is of goals
    assert rows == {"wm2real_plans": 4, "wm2real_reached": 4, "wm2real_ratio": 3, "consistency_ratio": 4}
    none = {r["metric"] for r in planning.planned("m", goals[:1], [None], [False], [None])}
    assert none == {"wm2real_plans", "wm2real_reached"}  # no ratio to nothing


def test_goals_are_recorded_some_steps_ahead_and_differ(lake, replay):
    rows = labelled(lake)
    pasts, known = replay.pasts(rows), {(row["trajectory"], row["step"]): row for row in rows}
    goals = planning.goals_of(rows, pasts, 3, 5, seed=0)
    assert 0 < len(goals) <= 5
    for goal in goals:
        assert goal.text == known[goal.row["trajectory"], goal.row["step"] + 2]["next_state"] != goal.row["state"]
        assert len(goal.past) == goal.row["step"]


def test_a_perfect_model_reaches_every_goal_and_a_copier_none(lake, replay, monkeypatch, run_folder):
    rows = labelled(lake)
    pasts = replay.pasts(rows)
    goals, forward = planning.goals_of(rows, pasts, 2, 6, seed=0), api.load_forward(run_folder, "cpu")
    graph = {(row["state"], row["action"]): row["next_state"] for row in rows}
    perfect = lambda asked, title: [graph.get((row["state"], row["action"]), "") for row in asked]  # noqa: E731
    monkeypatch.setattr(planning.rollouts, "predictor", lambda *_: perfect)
    found = {(r["model"], r["metric"]): r["value"] for r in planning.wm2real(forward, replay, goals, 8, 2)}
    model = str(forward.checkpoint)
    for name in ("wm2real_plans", "wm2real_reached", "wm2real_ratio", "consistency_ratio"):
        assert found[model, name] == 1
    assert found["real-search", "wm2real_plans"] == 1
    copier = lambda asked, title: [row["state"] for row in asked]  # noqa: E731
    monkeypatch.setattr(planning.rollouts, "predictor", lambda *_: copier)
    found = {(r["model"], r["metric"]): r["value"] for r in planning.wm2real(forward, replay, goals, 8, 2)}
    assert (found[model, "wm2real_plans"], found[model, "consistency_ratio"]) == (0, 0)
