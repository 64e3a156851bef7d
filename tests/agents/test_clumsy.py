"""The clumsy player: what it says is what it does."""

import pytest

from swirl import models, tiny
from swirl.agents.arena import WorldArena
from swirl.agents.clumsy import cast
from swirl.agents.episodes import Terms, play
from swirl.config import Model

ROOMS = WorldArena("sokoban", validation=24)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    tiny.build(["<think></think><answer>Up || Down</answer>"], folder, Model(hidden=48, layers=1, heads=4), seed=0)
    return models.load_tokenizer(folder)


def played(tokenizer, slips, terms):
    scenes = [ROOMS.scenes(seed, 1)[0] for seed in ROOMS.tested()]
    return play(cast(tokenizer, slips, terms)(scenes, 0), tokenizer, ROOMS, scenes, terms)


def test_every_action_that_it_says_is_taken_and_ends_where_it_says(tokenizer):
    terms = Terms(form="states", reply=400, max_length=4000, actions=7)
    episodes = played(tokenizer, 1.0, terms)
    assert max(episode.steps for episode in episodes) == 7
    for episode in episodes:
        for turn in episode.turns:
            assert list(turn.read.actions) == turn.actions
            assert turn.right("whole") == (1, 1)


def test_without_slips_it_plays_as_the_worlds_solver_and_acts_as_often_as_it_may(tokenizer):
    terms = Terms(reply=400, max_length=4000, actions=10)
    episodes = played(tokenizer, 0.0, terms)
    shortest = [len(ROOMS.scenes(episode.seed, 1)[0].handle.solve()) for episode in episodes]
    assert [episode.success for episode in episodes] == [steps <= 10 for steps in shortest]
    assert {True, False} == {episode.success for episode in episodes}
    for episode, steps in zip(episodes, shortest, strict=True):
        assert [len(turn.actions) for turn in episode.turns[:-1]] == [5] * (len(episode.turns) - 1)
        assert episode.steps == min(steps, 10)
