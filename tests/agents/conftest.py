"""A recipe of an agent that takes seconds, in a world of one step."""

import pytest

from swirl import worlds

SMALL = {
    "method": "rl",
    "play.world": "choice",
    "play.told": "false",
    "play.part": "facts",
    "play.reply": "64",
    "play.turns": "1",
    "play.per_turn": "1",
    "play.actions": "1",
    "model.hidden": "48",
    "model.layers": "2",
    "model.heads": "4",
    "model.tokens": "phrases",
    "model.max_length": "256",
    "base.episodes": "60",
    "base.steps": "120",
    "base.learning_rate": "3e-3",
    "self_play.groups": "8",
    "self_play.size": "2",
    "tune.epochs": "2",
    "rl.iterations": "4",
    "rl.groups": "8",
    "rl.size": "8",
    "rl.keep": "1.0",
    "rl.minibatch": "32",
    "rl.micro": "32",
    "rl.learning_rate": "1e-3",
    "rl.critic_learning_rate": "3e-3",
    "rl.save_every": "2",
    "evaluation.seeds": "8",
    "evaluation.samples": "4",
}
"""Overrides of the defaults."""


@pytest.fixture
def recipe_file(tmp_path):
    """An empty recipe: everything is an override."""
    path = tmp_path / "agent.toml"
    path.write_text("")
    return path


@pytest.fixture
def small(monkeypatch):
    """Overrides that make a run take seconds, and their world."""
    monkeypatch.setitem(worlds.WORLDS, "choice", "choice:Choice")
    return dict(SMALL)
