"""An episode of a recording, played again to any of its states."""

from functools import partial

import pytest

from swirl import data, worlds
from swirl.data.origin import Origin
from swirl.data.replay import replay
from swirl.errors import SkippedError


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("replay") / "in.parquet"
    data.collect(partial(worlds.make, "sokoban"), path, 60, {"random": 1}, max_steps=7, seed=5)
    return data.read(path).to_pylist()


def test_recorded_actions_lead_to_every_recorded_state(recorded):
    world = worlds.make("sokoban")
    taken: list[str] = []
    for row in recorded:
        taken = [] if row["step"] == 0 else taken
        seed = Origin("sokoban", {}, 5).reset_seed(row["trajectory"])
        assert replay(world, seed, taken) == row["state"]
        assert world.step(row["action"])[0] == row["next_state"]
        taken.append(row["action"])
    assert len({row["trajectory"] for row in recorded}) > 5


def test_another_collection_has_other_seeds_and_other_names_have_none():
    five, six = (Origin("sokoban", {}, seed) for seed in (5, 6))
    assert five.reset_seed("t000001") != six.reset_seed("t000001")
    assert five.reset_seed("t1234567") is not None
    for name in ("t1", "episode-1", "", "t000001 ", "t00000x"):
        assert five.reset_seed(name) is None


class Short:
    """A world whose episodes end after two steps."""

    def reset(self, seed):
        self.steps = 0
        return "start", {}

    def step(self, action):
        self.steps += 1
        return f"state {self.steps}", 0.0, self.steps == 2, False, {}


def test_an_episode_that_ends_too_early_is_said():
    assert replay(Short(), 0, []) == "start"
    assert replay(Short(), 0, ["a", "b"]) == "state 2"
    with pytest.raises(SkippedError, match="ended after 2 of 3 actions"):
        replay(Short(), 0, ["a", "b", "c"])
