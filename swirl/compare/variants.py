"""What can be compared: a method by its name, or a vetted setting of one; each is a recipe that differs only in that.

Every one of them goes on from the recipe's own warm-up, but where its own must be another: shared weights, all labels.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from swirl.config import Recipe
from swirl.errors import InputError
from swirl.methods import METHODS

Change = Callable[[Recipe], Recipe]

# SWIRL as its authors run it: no anchors, and no choice among checkpoints.
PUBLISHED: dict[str, Any] = {
    "setting": "published",
    "replay": 0.0,
    "fidelity": 0.0,
    "min_spread": 0.0,
    "select": "last",
}
ITERATIONS = 3
OF_RWML = ("encoder", "distance", "easy")
"""Settings of `swirl` that `rwml` alone reads."""


def _as_it_is(recipe: Recipe) -> Recipe:
    return recipe


def _published(rounds: int = 1, phases: int = 2, **anchors: Any) -> Change:
    """The published settings with some changed; as many steps in all as the recipe has, however they are divided."""

    def change(recipe: Recipe) -> Recipe:
        steps = max(1, 2 * recipe.swirl.steps * recipe.swirl.rounds // (rounds * phases))
        return replace(recipe, swirl=replace(recipe.swirl, rounds=rounds, steps=steps, **PUBLISHED | anchors))

    return change


VARIANTS: dict[str, tuple[tuple[str, ...], Change]] = {
    # name in the table: the methods after the warm-up, and what changes in the recipe
    "warmup": ((), _as_it_is),
    "best-of-n": ((), lambda recipe: replace(recipe, evaluation=replace(recipe.evaluation, best_of=(2, 4, 8)))),
    "swirl": (("swirl",), _published()),
    "swirl-iterative": (("swirl",), _published(ITERATIONS)),
    "swirl-shared": (
        ("swirl",),
        lambda recipe: replace(_published()(recipe), model=replace(recipe.model, shared=True)),
    ),
    "swirl-elbo": (("swirl",), _published(setting="elbo", beta=1.0)),
    "swirl-replay": (("swirl",), _published(replay=1.0)),
    "swirl-fidelity": (("swirl",), _published(fidelity=1.0)),
    "swirl-spread": (("swirl",), _published(min_spread=0.1)),
    "swirl-select": (("swirl",), _published(select="best")),
    "swirl-anchored": (
        ("swirl",),
        _published(ITERATIONS, replay=1.0, fidelity=1.0, min_spread=0.1, select="best"),
    ),
    # Other rewards, of the forward model alone: the optimiser, its settings and the last checkpoint of `swirl`, and as
    # many steps as that has for both roles.
    **{name: ((name,), _published(phases=1)) for name in ("rlvr", "rwml", "inverse-reward")},
    # A control without a reward.
    "shuffled-reward": (("shuffled-reward",), _published()),
    # Labels for every pair, as its paper has them: an inverse model that was taught all pairs labels all pairs.
    "bootstrap-all": (
        ("bootstrap",),
        lambda recipe: replace(recipe, data=replace(recipe.data, inverse_unchanged=True)),
    ),
    # Without the world's list of actions, which no other method reads.
    "verified-sampled": (
        ("verified",),
        lambda recipe: replace(recipe, verified=replace(recipe.verified, listed=False)),
    ),
    "oracle": (
        ("oracle",),
        lambda recipe: replace(recipe, data=replace(recipe.data, labels=0, validation_labels=0)),
    ),
}
"""All others of `METHODS` stand for themselves, with the recipe's settings."""
UNTUNED = ("warmup", "best-of-n")
"""They train nothing of their own."""
TUNED_AS = {
    **dict.fromkeys((name for name in VARIANTS if name.startswith("swirl-")), "swirl"),
    "shuffled-reward": "swirl",
    **dict.fromkeys(("verified-sampled", "random-label"), "verified"),
    "bootstrap-all": "bootstrap",
    "sft-merge": "sft-continue",
}
"""Settings, ablations and controls of one method: they take the learning rate that it has tried."""
UNLIMITED = ("oracle",)
"""Read at their end, whatever they cost: bounds."""


def variant(recipe: Recipe, name: str) -> Recipe:
    """The recipe of a method in a comparison.

    Args:
        recipe: What all of them have in common; its methods up to the warm-up are run first.
        name: A key of `VARIANTS`, or a method.

    Raises:
        InputError: There is no such method, or the recipe has no warm-up.
    """
    beginning = prefix(recipe)
    known = [*VARIANTS, *(method for method in METHODS if method not in (*VARIANTS, *beginning, "pretrain"))]
    if name != own(recipe) and name not in known:
        raise InputError(f"unknown method {name!r} in --methods; known: {', '.join(known)}")
    if name == own(recipe):
        methods, change = recipe.methods[len(beginning) :], _as_it_is
    else:
        methods, change = VARIANTS.get(name, ((name,), _as_it_is))
    changed = change(recipe)
    evaluation = replace(changed.evaluation, test_phases=True)
    return _without_unread(replace(changed, methods=(*beginning, *methods), evaluation=evaluation))


def own(recipe: Recipe) -> str:
    """What the recipe itself does after its warm-up; "" where that is nothing.

    "recipe" where it has the name of a vetted setting, and other settings.
    """
    name = "+".join(recipe.methods[len(prefix(recipe)) :])
    return "recipe" if name in VARIANTS and VARIANTS[name][1](recipe) != recipe else name


def prefix(recipe: Recipe) -> tuple[str, ...]:
    """The methods of a recipe up to its warm-up, which all compared methods share."""
    if "warmup" not in recipe.methods:
        raise InputError(f"methods = {list(recipe.methods)} has no warmup, from which methods are compared")
    return recipe.methods[: recipe.methods.index("warmup") + 1]


def shared_part(recipe: Recipe) -> Recipe:
    """The run that a compared one begins from: the warm-up alone, without what only later methods read."""
    evaluation = replace(recipe.evaluation, best_of=())
    return _without_unread(replace(recipe, methods=prefix(recipe), evaluation=evaluation))


def _without_unread(recipe: Recipe) -> Recipe:
    """The recipe without the settings of methods that it does not run: they make no difference to it."""
    plain, read = Recipe(), {METHODS[name] for name in recipe.methods}
    if "rwml" not in recipe.methods:
        keys = {key: getattr(plain.swirl, key) for key in OF_RWML}
        recipe = replace(recipe, swirl=replace(recipe.swirl, **keys))
    return replace(recipe, **{section: getattr(plain, section) for section in set(METHODS.values()) - read})


def with_rate(recipe: Recipe, rate: float) -> Recipe:
    """The recipe with another learning rate of its last method."""
    section = METHODS[recipe.methods[-1]]
    return replace(recipe, **{section: replace(getattr(recipe, section), learning_rate=rate)})
