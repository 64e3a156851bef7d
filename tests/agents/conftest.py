"""A recipe of an agent that takes seconds."""

import pytest

SMALL = {
    "play.world": "frozenlake",
    "play.options": "{slippery = false}",
    "play.told": "false",
    "play.part": "facts",
    "play.reply": "64",
    "play.turns": "3",
    "model.hidden": "48",
    "model.layers": "2",
    "model.heads": "4",
    "model.tokens": "phrases",
    "model.max_length": "700",
    "base.episodes": "24",
    "base.slips": "0.3",
    "base.steps": "60",
    "base.learning_rate": "3e-3",
    "self_play.groups": "8",
    "self_play.size": "2",
    "tune.epochs": "2",
    "rl.iterations": "4",
    "rl.groups": "4",
    "rl.size": "4",
    "rl.keep": "0.5",
    "rl.minibatch": "4",
    "rl.micro": "4",
    "rl.learning_rate": "1e-3",
    "rl.critic_learning_rate": "1e-3",
    "rl.form": "states",
    "rl.save_every": "2",
    "evaluation.seeds": "8",
    "evaluation.samples": "2",
}
"""Overrides of the defaults."""


@pytest.fixture
def recipe_file(tmp_path):
    """An empty recipe: everything is an override."""
    path = tmp_path / "agent.toml"
    path.write_text("")
    return path


@pytest.fixture
def small():
    """Overrides that make a run take seconds."""
    return dict(SMALL)
