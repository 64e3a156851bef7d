"""Which recipe each method of a comparison runs, and what it shares with the others."""

from dataclasses import replace
from pathlib import Path

import pytest

from swirl.compare.variants import OF_RWML, TUNED_AS, VARIANTS, own, shared_part, variant, with_rate
from swirl.errors import InputError
from swirl.methods import METHODS
from swirl.recipe import load_recipe

RECIPE = load_recipe(Path(__file__).parents[2] / "recipes" / "minigrid.toml")


def test_the_recipes_own_method_is_the_recipe_itself_tested_after_every_phase():
    assert own(RECIPE) == "verified"
    changed = variant(RECIPE, "verified")
    assert changed.evaluation.test_phases
    others = {name: getattr(RECIPE, name) for name in ("inferred", "experience", "swirl")}
    assert replace(changed, evaluation=RECIPE.evaluation, **others) == RECIPE


@pytest.mark.parametrize("name", ["rlvr", "rwml", "inverse-reward", "shuffled-reward"])
def test_other_rewards_have_what_the_published_method_has(name):
    changed = variant(RECIPE, name)
    own = {key: getattr(RECIPE.swirl, key) for key in OF_RWML} if name == "rwml" else {}
    if name != "shuffled-reward":  # one phase instead of two has the steps of both
        own["steps"] = 2 * RECIPE.swirl.steps
    assert (changed.methods[-1], changed.swirl) == (name, replace(variant(RECIPE, "swirl").swirl, **own))
    assert changed.swirl.select == "last"


def test_labels_for_every_pair_come_of_an_inverse_model_that_was_taught_every_pair():
    changed = variant(RECIPE, "bootstrap-all")
    assert (changed.methods[-1], changed.data.inverse_unchanged) == ("bootstrap", True)
    assert replace(changed, data=RECIPE.data) == variant(RECIPE, "bootstrap")


def test_methods_that_train_the_forward_model_alone_read_as_many_rows():
    early, bootstrap = variant(RECIPE, "early-experience").experience, variant(RECIPE, "bootstrap").inferred
    assert early.steps * early.batch == bootstrap.rounds * bootstrap.steps * bootstrap.batch
    assert (early.transitions, early.learning_rate) == (bootstrap.pairs, bootstrap.learning_rate)


def test_the_worlds_list_of_actions_can_be_kept_from_the_method_that_reads_it():
    changed = variant(RECIPE, "verified-sampled")
    assert (changed.methods[-1], RECIPE.verified.listed, changed.verified.listed) == ("verified", True, False)
    assert replace(changed, verified=RECIPE.verified) == variant(RECIPE, "verified")
    assert TUNED_AS["verified-sampled"] == "verified"


@pytest.mark.parametrize("name", ["bootstrap", "sft-merge", "random-label"])
def test_a_method_follows_the_warm_up_with_the_recipes_settings(name):
    changed, section = variant(RECIPE, name), METHODS[name]
    assert changed.methods == ("pretrain", "warmup", name)
    assert getattr(changed, section) == getattr(RECIPE, section)
    assert (changed.data, changed.model, changed.warmup, changed.trainer) == (
        RECIPE.data,
        RECIPE.model,
        RECIPE.warmup,
        RECIPE.trainer,
    )


def test_what_a_method_does_not_read_makes_no_difference_to_it():
    other = replace(RECIPE, verified=replace(RECIPE.verified, steps=1))
    assert variant(other, "bootstrap") == variant(RECIPE, "bootstrap")
    assert variant(other, "oracle") != variant(RECIPE, "oracle")  # it trains with these settings
    other = replace(RECIPE, swirl=replace(RECIPE.swirl, distance=0.5))
    assert variant(other, "swirl") == variant(RECIPE, "swirl")
    assert variant(other, "rwml") != variant(RECIPE, "rwml")


def test_all_begin_from_one_warm_up_but_those_with_other_weights_or_other_labels():
    names = {*VARIANTS, "bootstrap", "verified", "rlvr"}
    common = shared_part(variant(RECIPE, "bootstrap"))
    assert common.methods == ("pretrain", "warmup")
    assert {name for name in names if shared_part(variant(RECIPE, name)) != common} == {
        "swirl-shared",
        "oracle",
        "bootstrap-all",
    }


def test_a_recipe_with_other_settings_does_not_take_a_vetted_name():
    folder = Path(__file__).parents[2] / "recipes"
    anchored, published = (load_recipe(folder / f"minigrid-{stem}.toml") for stem in ("anchored", "published"))
    assert (own(anchored), own(published)) == ("recipe", "swirl")
    assert variant(anchored, "recipe").swirl == anchored.swirl
    assert variant(anchored, "swirl").swirl.replay == 0


def test_a_changed_warm_up_is_another_warm_up():
    other = replace(RECIPE, warmup=replace(RECIPE.warmup, steps=1))
    assert shared_part(variant(other, "bootstrap")) != shared_part(variant(RECIPE, "bootstrap"))


def test_published_means_no_anchor_and_no_choice_whatever_the_recipe_says():
    anchored = replace(RECIPE, swirl=replace(RECIPE.swirl, replay=1.0, fidelity=2.0, min_spread=0.3, setting="elbo"))
    found = variant(anchored, "swirl").swirl
    assert (found.setting, found.replay, found.fidelity, found.min_spread, found.select) == (
        "published",
        0,
        0,
        0,
        "last",
    )


@pytest.mark.parametrize(("name", "rounds", "steps"), [("swirl", 1, 120), ("swirl-iterative", 3, 40)])
def test_rounds_share_the_same_steps(name, rounds, steps):
    recipe = replace(RECIPE, swirl=replace(RECIPE.swirl, rounds=2, steps=60))
    assert (variant(recipe, name).swirl.rounds, variant(recipe, name).swirl.steps) == (rounds, steps)


def test_the_oracle_knows_every_label():
    found = variant(RECIPE, "oracle")
    assert found.data.labels == 0
    assert found.methods == ("pretrain", "warmup", "oracle")


@pytest.mark.parametrize("name", sorted({*VARIANTS, *METHODS} - {"warmup", "best-of-n", "pretrain"}))
def test_a_learning_rate_is_that_of_the_last_method_and_of_no_warm_up(name):
    recipe = with_rate(variant(RECIPE, name), 0.125)
    assert getattr(recipe, METHODS[recipe.methods[-1]]).learning_rate == 0.125
    assert shared_part(recipe) == shared_part(variant(RECIPE, name))


def test_unknown_names_and_a_recipe_without_a_warm_up_are_refused():
    with pytest.raises(InputError, match=r"unknown method 'boostrap' in --methods; known: .*bootstrap"):
        variant(RECIPE, "boostrap")
    with pytest.raises(InputError, match="has no warmup, from which methods are compared"):
        variant(replace(RECIPE, methods=("verified",)), "bootstrap")
