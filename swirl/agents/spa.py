"""SPA: an agent that first learns how its world moves, from playing itself, and only then what is worth doing.

    episodes = play(policy)                       stage 1, the states that it told put right
    policy   = sft(policy, episodes)              stage 2
    policy   = rl(policy, reward of the task)     stage 3

`method = "rl"` is the third stage alone, from the same start; `method = "clone"` imitates demonstrations instead.

Source: Internalizing World Models via Self-Play Finetuning for Agentic RL, arXiv 2510.15047.

`swirl agent train recipes/spa-sokoban.toml`
"""

from pathlib import Path

from swirl.agents.stages import Stages


def spa(run: Stages, policy: Path) -> Path:
    """The three stages; the last alone, or imitation, where the recipe says so."""
    if run.recipe.method == "clone":
        return run.clone(policy)
    if run.recipe.method == "spa":
        policy = run.tune(policy, run.self_play(policy))
    return run.learn(policy)
