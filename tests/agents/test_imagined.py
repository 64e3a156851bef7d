import json
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from counting import ACTIONS, ROWS, Counter, state_of, trained
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from swirl import api, models
from swirl.agents import head, imagined, simulators
from swirl.agents.imagined import ImaginedVector, ImaginedWorld
from swirl.errors import InputError

STARTS = [state_of(n) for n in (1, 2, 3)]
UP, DOWN = 0, 1


@pytest.fixture(scope="module")
def counting(tmp_path_factory, one_thread):
    return trained(tmp_path_factory.mktemp("counting"))


@pytest.fixture(scope="module")
def forward(counting):
    return api.load_forward(counting, "cpu")


@pytest.fixture
def settings(forward):
    return {"forward": forward, "starts": STARTS, "world": Counter()}


def test_gymnasiums_own_check_finds_nothing(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gymnasium.make("swirl/Imagined-v0", **settings)
        check_env(made.unwrapped)
        check_env(gymnasium.make("swirl/Imagined-v0", **settings, samples=3).unwrapped)
    made.close()


def test_a_path_and_names_are_enough(counting, tmp_path):
    """As in the module's example, in a process that has imported nothing of it."""
    second = [{**ROWS[2], "trajectory": "a", "step": 1}, {**ROWS[0], "trajectory": "b", "step": 1}]
    rows = [*second, {**ROWS[0], "trajectory": "a", "step": 0}, {**ROWS[5], "trajectory": "b", "step": 0}]
    recording = tmp_path / "counts.jsonl"
    recording.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "history"}) + "\n" for row in rows))
    code = (
        "import sys, swirl, gymnasium\n"
        "assert 'torch' not in sys.modules\n"
        f"env = gymnasium.make('swirl.agents.imagined:swirl/Imagined-v0', forward={str(counting)!r}, device='cpu',\n"
        f"    starts={str(recording)!r}, world='frozenlake')\n"
        "state, _ = env.reset(seed=0)\n"
        "print(state, env.action_space.n, env.unwrapped.actions, sorted(env.unwrapped.starts))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    starts = ["count 1", "count 3"]  # those of the trajectories' first steps alone
    assert done.stdout.strip().endswith(f"4 ('Left', 'Down', 'Right', 'Up') {starts}")


def test_importing_swirl_brings_neither_gymnasium_nor_torch():
    code = "import sys, swirl; assert not {'gymnasium', 'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_episode_follows_the_model_and_the_worlds_rules(settings):
    env = ImaginedWorld(**{**settings, "starts": [state_of(2)]})
    assert env.reset(seed=0) == ("count 2", {})
    assert env.step(np.int64(UP)) == ("count 3", 0.0, False, False, {"uncertainty": 0.0})
    assert env.step(UP) == ("count 4", 1.0, True, False, {"uncertainty": 0.0})
    with pytest.raises(InputError, match="call reset"):
        env.step(UP)
    env.reset()
    env.step(DOWN)
    assert env.step(DOWN)[:4] == ("count 0", 0.0, True, False)


def test_an_episode_is_truncated_after_its_steps(settings):
    env = ImaginedWorld(**{**settings, "starts": [state_of(2)]}, max_steps=3)
    env.reset(seed=0)
    assert [env.step(action)[2:4] for action in (UP, DOWN, DOWN)] == [(False, False), (False, False), (False, True)]
    with pytest.raises(InputError, match="call reset"):
        env.step(UP)
    env.reset()
    ends = [env.step(action)[2:4] for action in (UP, DOWN, UP)]
    assert ends[-1] == (False, True)
    env = ImaginedWorld(**{**settings, "starts": [state_of(3)]}, max_steps=1)
    env.reset(seed=0)
    assert env.step(UP)[2:4] == (True, False)  # the world's end goes before


def test_doubt_above_the_limit_truncates(settings, monkeypatch):
    monkeypatch.setattr(
        simulators, "predict", lambda forward, rows, n, seed: [["count 2", "count 1", "count 2"]] * len(rows)
    )
    for limit, truncated in ((None, False), (0.4, False), (0.3, True)):
        env = ImaginedWorld(**settings, samples=3, limit=limit)
        env.reset(seed=0)
        state, _, terminated, cut, info = env.step(UP)
        assert (state, terminated, cut) == ("count 2", False, truncated)
        assert info == {"uncertainty": pytest.approx(1 / 3)}


class Taxed(Counter):
    """Takes a reward for standing still."""

    def outcome(self, state, next_state):
        return (-0.25, False) if state == next_state else super().outcome(state, next_state)


@pytest.mark.parametrize("lost", ["", "count ∮"])
def test_what_cannot_be_read_changes_nothing_and_costs_what_that_costs(settings, monkeypatch, lost):
    """Or is in characters that neither a token nor a state has."""
    monkeypatch.setattr(simulators, "predict", lambda forward, rows, n, seed: [[lost]] * len(rows))
    for limit in (None, 0.5):
        env = ImaginedWorld(**settings | {"world": Taxed()}, limit=limit)
        start, _ = env.reset(seed=0)
        assert env.step(UP) == (start, -0.25, False, limit is not None, {"uncertainty": 1.0})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_steps": 0}, "max_steps = 0"),
        ({"limit": -1.0}, "limit = -1.0"),
        ({"actions": ["up", "up"]}, "up, up: one is given twice"),
    ],
)
def test_numbers_and_actions_that_cannot_be_are_refused(settings, changed, message):
    with pytest.raises(InputError, match=message):
        ImaginedWorld(**settings | changed)


def test_observations_may_hold_what_states_and_tokens_hold(settings, forward):
    env = ImaginedWorld(**{**settings, "starts": ["count 1", "∮"]})
    assert "∮ count 3\n" in env.observation_space
    assert "√" not in env.observation_space
    assert "a" * 64 in env.observation_space
    assert env.observation_space.max_length >= 2 * forward.max_length


def test_starts_are_drawn_evenly_by_the_seed(settings):
    env = ImaginedWorld(**settings)
    drawn = [env.reset(seed=seed)[0] for seed in range(60)]
    assert drawn == [env.reset(seed=seed)[0] for seed in range(60)]
    assert all(10 <= drawn.count(state) <= 30 for state in STARTS)
    env.reset(seed=0)
    assert len({env.reset()[0] for _ in range(20)}) == 3


def test_actions_may_be_given(settings):
    env = ImaginedWorld(**settings, actions=["down", "up"])
    env.reset(seed=0)
    assert env.action_space.n == 2
    assert env.actions == ("down", "up")
    for wrong in (2, -1, 0.5):
        with pytest.raises(InputError, match=r"action .*, expected a number from 0 to 1"):
            env.step(wrong)


def test_a_learned_head_goes_before_the_rules(settings, forward, tmp_path):
    rows = [{**row, "reward": 5.0, "terminated": False, "trajectory": str(i)} for i, row in enumerate(ROWS)]
    learned = head.fit(forward, rows)
    head.save(learned, tmp_path / "head")
    for given in (learned, tmp_path / "head", str(tmp_path / "head")):
        env = ImaginedWorld(**{**settings, "starts": [state_of(3)]}, head=given)
        env.reset(seed=0)
        assert env.step(UP)[1:4] == (pytest.approx(5.0, abs=1e-3), False, False)


def test_an_ensemble_doubts_where_its_models_differ(settings, forward, qwen3):
    env = ImaginedWorld(**{**settings, "forward": [forward, qwen3, forward]}, device="cpu")
    env.reset(seed=0)
    state, *_, info = env.step(UP)
    assert state in [row["next_state"] for row in ROWS]
    assert info == {"uncertainty": pytest.approx(1 / 3)}  # random weights do not count


class Paid:
    """Rules alone."""

    def outcome(self, state, next_state):
        return 7.0, False


def test_rules_alone_do_where_actions_are_given(settings):
    env = ImaginedWorld(**settings | {"world": Paid()}, actions=ACTIONS)
    env.reset(seed=0)
    assert env.step(UP)[1:4] == (7.0, False, False)


class Unlisted(Counter):
    def actions(self, state):
        return ACTIONS if state == state_of(1) else ("up",)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"world": None}, "nothing says what a step gives: no world is given; give a world with"),
        ({"world": "minigrid"}, "the states of minigrid do not tell it"),
        ({"world": Unlisted()}, "counter does not list the same actions in every episode; give actions="),
        ({"world": "sudoku"}, "sudoku does not list the same"),
        ({"world": Paid()}, "no world is given that lists actions"),
        ({"starts": []}, "starts is empty"),
        ({"starts": "gone.parquet"}, "gone.parquet: no such file"),
        ({"forward": []}, "no forward model"),
        ({"forward": "/gone"}, "no such folder"),
        ({"head": "/gone"}, "holds no head"),
        ({"world": "lake"}, "unknown world 'lake'"),
    ],
)
def test_settings_that_cannot_be(settings, changed, message):
    with pytest.raises(InputError, match=message):
        ImaginedWorld(**settings | changed)


def test_a_world_is_closed_where_it_was_made(settings, monkeypatch):
    closed = []
    monkeypatch.setattr("swirl.worlds.puzzle.Puzzle.close", lambda self: closed.append(self.name))
    ImaginedWorld(**settings | {"world": "sokoban"}).close()
    ImaginedWorld(**settings).close()
    assert closed == ["sokoban"]


def same(one, other):
    """Whether two results of a vector environment are equal, types of arrays included."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return one == other


@pytest.mark.parametrize("seed", [7, [3, None, 5, 3], None])
def test_many_step_as_each_does_alone(settings, monkeypatch, seed):
    calls, generate = [], models.generate
    many = gymnasium.make_vec("swirl/Imagined-v0", num_envs=4, **settings, max_steps=5)
    single = SyncVectorEnv([lambda: ImaginedWorld(**settings, max_steps=5)] * 4)
    assert many.metadata["autoreset_mode"] == single.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert (many.single_observation_space, many.observation_space) == (
        single.single_observation_space,
        single.observation_space,
    )
    assert (many.single_action_space, many.action_space) == (single.single_action_space, single.action_space)
    first, again = many.reset(seed=seed), single.reset(seed=seed)
    if seed is not None and None not in np.atleast_1d(seed):
        assert same(first, again)
    for envs in (many, single):  # from here on with known seeds in any case
        envs.reset(seed=11)
    monkeypatch.setattr(models, "generate", lambda *a, **b: calls.append(len(a[2])) or generate(*a, **b))
    monkeypatch.setattr(simulators, "KEPT", 0)  # nothing is remembered: every step is asked
    rng, ended = np.random.default_rng(0), 0
    for step in range(30):
        if step == 20:
            assert same(many.reset(), single.reset())  # the generators go on
        actions = rng.integers(2, size=4)
        calls.clear()
        one = many.step(actions)
        assert len(calls) <= 1
        assert same(one, single.step(actions)), step
        assert one[0] in many.observation_space
        ended += int(one[2].sum() + one[3].sum())
    assert ended > 5
    many.close()


def test_an_episode_that_ended_begins_anew_and_its_action_is_not_looked_at(settings):
    many = ImaginedVector(2, **{**settings, "starts": [state_of(3)]})
    with pytest.raises(InputError, match="call reset"):
        many.step(np.array([UP, UP]))
    many.reset(seed=0)
    states, rewards, ended, *_ = many.step(np.array([UP, DOWN]))
    assert (states, rewards.tolist(), ended.tolist()) == (("count 4", "count 2"), [1.0, 0.0], [True, False])
    states, rewards, ended, cut, infos = many.step(np.array([99, DOWN]))
    assert (states, rewards.tolist(), ended.tolist(), cut.tolist()) == (
        ("count 3", "count 1"),
        [0, 0],
        [False] * 2,
        [False] * 2,
    )
    assert infos["_uncertainty"].tolist() == [False, True]
    with pytest.raises(InputError, match="action 99"):
        many.step(np.array([99, DOWN]))
    with pytest.raises(InputError, match="3 seeds for 2 environments"):
        many.reset(seed=[1, 2, 3])


def test_it_is_registered_with_both_its_entry_points():
    spec = gymnasium.spec("swirl/Imagined-v0")
    for entry, made in ((spec.entry_point, ImaginedWorld), (spec.vector_entry_point, ImaginedVector)):
        module, _, name = entry.partition(":")
        assert (module, getattr(imagined, name)) == ("swirl.agents.imagined", made)
