"""Which tokens a reply may have where states are images, and that sampling keeps to them."""

import pytest
from conftest import TINY, randomise
from PIL import Image

from swirl import images, imagetokens, models, prompts, tiny, train
from swirl.config import Images, Swirl
from swirl.imagetokens import base, restriction, tile
from swirl.scorer import Scorer

TEXTS = ["go left", "go right", "key"] * 9  # nothing in them that a next state may have


class Codes:
    """All that a language model needs of an image tokenizer: three codes."""

    tokens, marks, pattern = base.own_tokens(3), (), base.OWN


@pytest.fixture(scope="module")
def folder(tmp_path_factory, one_thread):
    """A random model that knows image tokens; it would write anything."""
    folder = tmp_path_factory.mktemp("model")
    tiny.build(TEXTS, folder, TINY, seed=0, images=Codes())
    randomise(folder, std=0.2)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return models.load_tokenizer(folder)


def allowed(tokenizer, outside, role, changes=False):
    """The tokens that may be sampled, as texts."""
    left_out = restriction.suppressed(tokenizer, Codes(), outside, role, changes, [tokenizer.eos_token_id])
    assert left_out == sorted(set(left_out))
    return {tokenizer.decode([number]) for number in set(range(len(tokenizer))) - set(left_out)}


def test_whole_next_states_are_rows_of_image_tokens_and_an_end(tokenizer):
    assert allowed(tokenizer, "", "forward") == {*Codes.tokens, "\n", tokenizer.eos_token}
    assert allowed(tokenizer, "\n", "forward") == {*Codes.tokens, "\n", tokenizer.eos_token}


def test_changes_have_their_marks_and_the_numbers_of_lines(tokenizer):
    assert allowed(tokenizer, "\n", "forward", changes=True) == {
        *Codes.tokens,
        *"\n-+@=*0123456789",
        tokenizer.eos_token,
    }


def test_signs_between_images_may_be_written_and_others_not(tokenizer):
    assert allowed(tokenizer, "\n|", "forward") == {*Codes.tokens, "\n", "|", tokenizer.eos_token}


def test_whatever_ends_a_reply_may_be_written(tokenizer):
    other = tokenizer.encode("g", add_special_tokens=False)[0]
    left_out = restriction.suppressed(tokenizer, Codes(), "\n", "forward", False, [tokenizer.eos_token_id, other])
    assert {other, tokenizer.eos_token_id}.isdisjoint(left_out)


@pytest.mark.parametrize("changes", [False, True])
def test_states_with_words_are_not_restricted(tokenizer, changes):
    assert restriction.suppressed(tokenizer, Codes(), "\n|k", "forward", changes, [tokenizer.eos_token_id]) == []


@pytest.mark.parametrize("outside", ["", "\n|k"])
def test_actions_are_text(tokenizer, outside):
    found = restriction.suppressed(tokenizer, Codes(), outside, "inverse", False, [tokenizer.eos_token_id])
    assert [tokenizer.decode([number]) for number in found] == list(Codes.tokens)


def test_what_states_have_outside_their_images_is_kept_beside_the_tokenizer(tmp_path):
    assert imagetokens.outside(tmp_path) == ""
    imagetokens.note_outside(tmp_path, {"\n", "é", "a"})
    assert imagetokens.outside(tmp_path) == "\naé"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_reply_has_a_token_that_is_left_out(folder, temperature):
    model, tokenizer = models.load(folder)
    asked = [tokenizer.encode(f"{token}go", add_special_tokens=False) for token in Codes.tokens]
    written = {}
    for role in ("forward", "inverse", None):
        suppress = (
            restriction.suppressed(tokenizer, Codes(), "\n", role, False, [tokenizer.eos_token_id]) if role else ()
        )
        options = {"temperature": temperature, "max_new_tokens": 40, "suppress": suppress}
        groups = models.generate(model, tokenizer, asked, n=20 if temperature else 1, **options)
        written[role] = [reply.text for group in groups for reply in group]
    # What is not held back writes both, so these would differ if nothing were.
    letters = {role: set("".join(Codes.pattern.sub("", text) for text in texts)) for role, texts in written.items()}
    grids = {role: any(Codes.pattern.search(text) for text in texts) for role, texts in written.items()}
    assert letters["forward"] <= {"\n"}
    assert grids["forward"]
    assert not grids["inverse"]
    assert any(letter.isalnum() for letter in letters["inverse"])
    if temperature:
        assert grids[None]
        assert any(letter.isalnum() for letter in letters[None])


@pytest.mark.parametrize(("style", "marks"), [("terse", "\n"), ("terse-change", "\n-+@=*0123456789")])
def test_a_scorer_knows_what_its_role_may_write(folder, tmp_path, tokenizer, style, marks):
    frame = Image.new("RGB", (3, 1))
    for place, colour in enumerate(((0, 0, 0), (9, 0, 0), (0, 9, 0))):
        frame.putpixel((place, 0), colour)
    tile.learn([images.data_uri(frame)], Images(tile=1)).save(tmp_path)
    imagetokens.note_outside(tmp_path, "\n")
    scorer = Scorer(folder, images=tmp_path)
    left_out = set(scorer.suppressed("forward", style))
    assert {tokenizer.decode([number]) for number in set(range(len(tokenizer))) - left_out} == {
        *Codes.tokens,
        *marks,
        tokenizer.eos_token,
    }
    assert len(scorer.suppressed("inverse", style)) == 3
    # Embeddings that the tokenizer has no token for are no more sampled than its letters are.
    scorer.model.resize_token_embeddings(len(tokenizer) + 2, mean_resizing=False)
    assert set(scorer.suppressed("forward", style)) == left_out | {len(tokenizer), len(tokenizer) + 1}
    assert Scorer(folder).suppressed("forward", style) == []


def test_policy_optimisation_samples_no_other_token_and_saves_a_model_that_may_write_all(folder, tokenizer, tmp_path):
    suppress = restriction.suppressed(tokenizer, Codes(), "\n", "forward", False, [tokenizer.eos_token_id])
    sampled = []

    def reward(completion_ids, **_):
        sampled.extend(number for ids in completion_ids for number in ids)
        return [float(len(ids)) for ids in completion_ids]

    train.grpo(
        folder,
        [{"prompt": prompts.prompt("forward", "<|i0|><|i1|>", "go left")}],
        reward,
        tmp_path / "out",
        schedule=train.Schedule(steps=2, batch=2, learning_rate=1e-3, lr_warmup=0, seed=0, checkpoints=1),
        settings=Swirl(generations=8, beta=0.1),
        model=TINY,
        select=lambda checkpoints: checkpoints[-1],
        max_completion=6,
        suppress=suppress,
        device="cpu",
    )
    assert len(sampled) > 50
    assert not set(sampled) & set(suppress)
    model, _ = models.load(tmp_path / "out")
    assert model.generation_config.suppress_tokens is None
