"""Image tokens in a language model's vocabulary."""

import pytest
import torch
from tokenizers import AddedToken

from swirl import models
from swirl.errors import InputError
from swirl.imagetokens import base, vocabulary

TOKENS = base.own_tokens(40)


def embeddings(model):
    return model.get_input_embeddings().weight.detach()


@pytest.mark.parametrize("folder", ["tiny", "qwen3"])
def test_a_model_is_extended(folder, request, tmp_path):
    model, tokenizer = models.load(request.getfixturevalue(folder))
    size, before = len(tokenizer), embeddings(model).clone()
    found = vocabulary.extend(model, tokenizer, TOKENS)
    assert found == list(range(size, size + 40))
    assert embeddings(model).shape == (size + 40, before.shape[1])
    assert model.config.vocab_size == model.lm_head.out_features == size + 40
    assert torch.equal(embeddings(model)[:size], before)
    # Read in any surroundings, and written as they are where special tokens are left out.
    text = "door<|i39|><|i0|> \n<|i7|>\nopen"
    some = tokenizer.encode(text, add_special_tokens=False)
    assert [number - size for number in some if number >= size] == [39, 0, 7]
    assert tokenizer.decode(some, skip_special_tokens=True) == text
    models.save(model, tokenizer, tmp_path)
    model, tokenizer = models.load(tmp_path)
    assert vocabulary.ids(tokenizer, TOKENS) == found
    assert tokenizer.encode(text, add_special_tokens=False) == some
    again = embeddings(model).clone()
    assert vocabulary.extend(model, tokenizer, TOKENS, seed=1) == found  # nothing is missing
    assert torch.equal(embeddings(model), again)


def test_new_embeddings_are_like_the_others_and_drawn_from_the_seed(qwen3):
    rows = []
    for seed in (0, 0, 1):
        model, tokenizer = models.load(qwen3)
        size = len(tokenizer)
        vocabulary.extend(model, tokenizer, TOKENS, seed=seed)
        rows.append(embeddings(model)[size:])
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    assert len(rows[0].unique(dim=0)) == 40
    others = embeddings(model)[:size]
    assert (rows[0].mean(0) - others.mean(0)).abs().max() < 0.1 * others.std()
    assert (rows[0].std(0) / others.std(0)).mean() == pytest.approx(vocabulary.NOISE, rel=0.2)


def test_an_output_layer_of_its_own_grows_as_well(tmp_path):
    from conftest import save_qwen3

    save_qwen3(tmp_path, tie_word_embeddings=False)
    model, tokenizer = models.load(tmp_path)
    size, before = len(tokenizer), model.lm_head.weight.detach().clone()
    vocabulary.extend(model, tokenizer, TOKENS)
    after = model.lm_head.weight.detach()
    assert torch.equal(after[:size], before)
    assert (after[size:].std(0) / before.std(0)).mean() == pytest.approx(vocabulary.NOISE, rel=0.2)


def test_rows_that_a_model_has_to_spare_are_initialised(qwen3):
    """Many checkpoints have more embeddings than tokens, and the spare ones were never trained."""
    model, tokenizer = models.load(qwen3)
    size = len(tokenizer)
    model.resize_token_embeddings(size + 64, mean_resizing=False)
    embeddings(model)[size:] = 1000.0
    assert vocabulary.extend(model, tokenizer, TOKENS)[0] == size
    assert embeddings(model).shape[0] == size + 64
    assert embeddings(model)[size : size + 40].abs().max() < 10
    assert (embeddings(model)[size + 40 :] == 1000).all()


def test_tokens_that_were_trained_without_names_are_named_only(qwen3):
    model, tokenizer = models.load(qwen3)
    size = len(tokenizer)
    model.resize_token_embeddings(size + 40, mean_resizing=False)
    before = embeddings(model).clone()
    assert vocabulary.extend(model, tokenizer, TOKENS, first=size) == list(range(size, size + 40))
    assert torch.equal(embeddings(model), before)


@pytest.mark.parametrize(("spare", "first"), [(40, 1), (39, 0)])
def test_tokens_that_are_not_where_they_should_be(qwen3, spare, first):
    model, tokenizer = models.load(qwen3)
    size = len(tokenizer)
    model.resize_token_embeddings(size + spare, mean_resizing=False)
    with pytest.raises(InputError, match=rf"image tokens {size + first} to .* gives {size} to {size + 39}"):
        vocabulary.extend(model, tokenizer, TOKENS, first=size + first)


def test_tokens_of_the_vocabulary_that_are_not_added_ones(qwen3):
    """As Chameleon's may be: they keep their ids, and are found in any text."""
    model, tokenizer = models.load(qwen3)
    known = tokenizer.get_vocab()
    tokens = ("A", "B")
    assert vocabulary.extend(model, tokenizer, tokens) == [known["A"], known["B"]]
    assert embeddings(model).shape[0] == len(known)


def test_a_checkpoint_that_does_not_match(tiny):
    _, tokenizer = models.load(tiny)
    with pytest.raises(InputError, match=r"does not match the checkpoint: 40 of its 40 tokens, <\|i0\|> for example"):
        vocabulary.ids(tokenizer, TOKENS)
    tokenizer.add_tokens(list(TOKENS[:39]))
    with pytest.raises(InputError, match=r"1 of its 40 tokens, <\|i39\|> for example"):
        vocabulary.ids(tokenizer, TOKENS)
    tokenizer.add_tokens([AddedToken(TOKENS[39], special=True)], special_tokens=True)
    with pytest.raises(InputError, match="ordinary added tokens, not special ones"):
        vocabulary.ids(tokenizer, TOKENS)


def test_tokens_that_are_not_read_as_one(qwen3):
    """Two added tokens, one the beginning of the other: the longer one is read."""
    _, tokenizer = models.load(qwen3)
    tokenizer.add_tokens(["<x", "<xx", "x<"])
    with pytest.raises(InputError, match="does not read each image token as one"):
        vocabulary.ids(tokenizer, ("<x", "x<"))


def test_tokens_that_were_special_become_ordinary_where_they_are(qwen3, tmp_path):
    """As Emu3's tokenizer has it: image tokens and the marks around them are special, one with a part to play."""
    model, tokenizer = models.load(qwen3)
    marks = ["<|start|>", "<|stop|>"]
    added = [AddedToken(token, special=True) for token in (*TOKENS[:3], *marks, "<|other|>")]
    tokenizer.add_tokens(added, special_tokens=True)
    tokenizer.add_special_tokens({"cls_token": "<|start|>"})
    text = "go<|start|><|i0|><|i2|><|stop|>"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "go"
    found = vocabulary.ordinary(tokenizer, (*TOKENS[:3], *marks, "*"))
    assert found.encode(text, add_special_tokens=False) == ids
    assert found.decode(ids, skip_special_tokens=True) == text
    assert vocabulary.ids(found, TOKENS[:3]) == tokenizer.convert_tokens_to_ids(list(TOKENS[:3]))
    assert found.cls_token is None
    assert found.decode(found.encode("go<|other|>"), skip_special_tokens=True) == "go"
    assert found.chat_template == tokenizer.chat_template and found.eos_token == tokenizer.eos_token
    models.save(model, found, tmp_path)
    assert models.load_tokenizer(tmp_path).decode(ids, skip_special_tokens=True) == text
    assert len(found) == len(tokenizer)  # nothing that it did not know was added
