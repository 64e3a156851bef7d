import math

import pytest
import torch
import transformers
from conftest import randomise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from swirl import models
from swirl.scorer import Scorer, _groups

PER_TOKEN = 1e-5  # nats


@pytest.fixture(scope="module")
def scorers(tiny, qwen3, windowed):
    """Scorers by architecture, each with and without shared prefixes."""
    folders = {"llama": tiny, "qwen3": qwen3, "windowed": windowed}
    return {(name, share): Scorer(path, share=share) for name, path in folders.items() for share in (True, False)}


def naive(scorer, prompt, completion):
    """All logits of one row alone, then the sum over the completion's tokens; in float64 after the softmax."""
    ids = torch.tensor([[*prompt, *completion]])
    with torch.no_grad():
        logps = scorer.model(ids).logits[0].float().log_softmax(-1).double()
    start = len(prompt) - 1
    return sum(logps[start + i, token].item() for i, token in enumerate(completion))


def check(scorer, rows):
    sums, counts = scorer.log_likelihood([p for p, _ in rows], [c for _, c in rows])
    assert counts == [len(c) for _, c in rows]
    for (prompt, completion), value in zip(rows, sums, strict=True):
        assert value == pytest.approx(naive(scorer, prompt, completion), abs=PER_TOKEN * len(completion), rel=0)


TOKENS = st.integers(0, 250)
BEGINNINGS = [list(range(40, 70)), list(range(40, 55)), [7] * 12]


@st.composite
def wild_rows(draw):
    """Rows with common beginnings of any length, prompts that begin other prompts, duplicates, lengths from one."""
    rows = []
    for _ in range(draw(st.integers(1, 9))):
        beginning = draw(st.sampled_from([*BEGINNINGS, []]))
        prompt = beginning[: draw(st.integers(0, 30))] + draw(st.lists(TOKENS, max_size=3))
        rows.append((prompt or [draw(TOKENS)], draw(st.lists(TOKENS, min_size=1, max_size=7))))
    rows += draw(st.lists(st.sampled_from(rows), max_size=3))
    return draw(st.permutations(rows))


@pytest.mark.parametrize("name", ["llama", "qwen3", "windowed"])
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(rows=wild_rows(), batch_tokens=st.sampled_from([1, 40, 90, 16_384]), share=st.booleans())
def test_any_rows_in_any_batch_equal_full_logits_row_by_row(scorers, name, rows, batch_tokens, share):
    scorer = scorers[name, share]
    scorer.batch_tokens = batch_tokens
    check(scorer, rows)


@pytest.fixture(scope="module")
def others(tmp_path_factory, tiny):
    """Scorers of models whose past is not a plain key-value cache, with wide random weights."""
    tokenizer = models.load_tokenizer(tiny)
    shape = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2}
    heads = {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    mamba = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
    alibi = {"d_model": 32, "n_heads": 4, "n_layers": 2, "vocab_size": len(tokenizer), "max_seq_len": 128}
    configs = {
        "mamba": transformers.MambaConfig(**shape, state_size=4),
        "falcon-h1": transformers.FalconH1Config(**shape, **heads, **mamba, mamba_chunk_size=8),
        "lfm2": transformers.Lfm2Config(**shape, **heads, layer_types=["conv", "full_attention"]),
        "rwkv": transformers.RwkvConfig(**shape, attention_hidden_size=32, context_length=64),
        "mpt": transformers.MptConfig(**alibi),
    }
    found = {}
    for name, config in configs.items():
        folder = tmp_path_factory.mktemp(name)
        models.save(transformers.AutoModelForCausalLM.from_config(config), tokenizer, folder)
        randomise(folder, std=0.15)
        found[name] = Scorer(folder)
    return found


@pytest.mark.filterwarnings("ignore")  # transformers: no fast kernels here; token ids of the default configuration
@pytest.mark.parametrize("name", ["mamba", "falcon-h1", "lfm2", "rwkv", "mpt"])
def test_recurrent_states_and_biases_of_distance_are_scored_without_shared_prefixes(others, name):
    assert not others[name].share
    check(others[name], many(4, 25))


def many(seed, count):
    """Rows whose prompts begin alike in families, as one state with several actions does."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    families = [[draw(0, 250) for _ in range(draw(9, 25))] for _ in range(4)]
    return [
        (families[draw(0, 4)] + [draw(0, 9) for _ in range(draw(0, 4))], [draw(0, 250) for _ in range(draw(1, 9))])
        for _ in range(count)
    ]


def test_the_order_of_rows_does_not_change_a_bit(scorers):
    scorer = scorers["qwen3", True]
    scorer.batch_tokens = 200
    rows = many(0, 40)
    forward, _ = scorer.log_likelihood([p for p, _ in rows], [c for _, c in rows])
    backward, _ = scorer.log_likelihood([p for p, _ in rows[::-1]], [c for _, c in rows[::-1]])
    assert forward == backward[::-1]


def test_prefixes_are_shared_where_attention_is_full_and_never_over_a_window(scorers):
    rows = many(1, 30)
    for (name, share), scorer in scorers.items():
        assert scorer.share == (share and name != "windowed")
        groups = [g for batch in scorer._batches(sorted({(tuple(p), tuple(c)) for p, c in rows})) for g in batch]
        assert any(group.shared for group in groups) == scorer.share


@pytest.mark.parametrize(
    ("shared", "private", "completion", "expected"),
    [
        (500, 500, 24, 500),  # 1,024 tokens: half of the prompt is enough
        (501, 499, 25, 0),  # longer: it is not
        (1639, 1, 409, 1639),  # 2,049 tokens, four fifths are 1,639
        (1638, 2, 409, 0),
        (1640, 1, 2000, 0),  # nearly the whole prompt, but what is private is longer still
    ],
)
def test_long_rows_share_only_most_of_themselves(shared, private, completion, expected):
    rows = [((*range(shared), *[last] * private), (3,) * completion) for last in (7, 8)]
    assert {group.shared for group in _groups(rows)} == {expected}


def seen(monkeypatch, scorer, rows, name):
    """What the model is given under a name in each pass over some rows."""
    given = []
    real = scorer.model.forward

    def forward(**kwargs):
        given.append(kwargs[name])
        return real(**kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(scorer.model, "forward", forward)
        scorer.log_likelihood([p for p, _ in rows], [c for _, c in rows])
    return given


def test_a_shared_prefix_is_computed_once_and_a_repeated_row_is_scored_once(scorers, monkeypatch):
    scorer = scorers["qwen3", True]
    scorer.batch_tokens = 16_384
    beginning = list(range(20))
    check_rows = [([*beginning, 1, 2], [5, 6]), ([*beginning, 3], [7]), ([*beginning, 3], [7])]
    # The first twenty tokens of one row; then two rows, two prompt tokens left at most, two completion tokens at most.
    assert [tuple(ids.shape) for ids in seen(monkeypatch, scorer, check_rows, "input_ids")] == [(1, 20), (2, 4)]


def test_passes_stay_within_their_tokens(scorers, monkeypatch):
    scorer = scorers["llama", True]
    scorer.batch_tokens = 120
    shapes = [mask.shape for mask in seen(monkeypatch, scorer, many(2, 60), "attention_mask")]
    assert len(shapes) > 10
    assert all(count == 1 or count * width <= 120 for count, width in shapes)


def test_a_prefix_of_more_rows_than_a_pass_takes_is_computed_once(scorers, monkeypatch):
    scorer = scorers["llama", True]
    scorer.batch_tokens = 50
    rows = [([*range(20), last], [3, 4, last]) for last in range(5)]  # 24 tokens each: two rows a pass
    shapes = [tuple(ids.shape) for ids in seen(monkeypatch, scorer, rows, "input_ids")]
    assert shapes == [(1, 20), (2, 4), (2, 4), (1, 4)]
    check(scorer, rows)


@pytest.mark.parametrize(("limit", "padded"), [(8, False), (20, True)])
def test_long_rows_are_not_padded(scorers, monkeypatch, limit, padded):
    scorer = scorers["llama", False]
    scorer.batch_tokens = 16_384
    monkeypatch.setattr("swirl.scorer.LONG", limit)
    rows = [([*range(length)], [3, 4]) for length in (7, 8, 9)]  # all longer than 8
    masks = seen(monkeypatch, scorer, rows, "attention_mask")
    assert any((mask == 0).any() for mask in masks) == padded
    assert len(masks) == (1 if padded else 3)
    check(scorer, rows)


def test_nothing_holds_gradients_and_the_weights_stay(scorers, tiny):
    scorer = scorers["llama", True]
    before = models.weights_hash(scorer.model)
    check(scorer, many(3, 10))
    assert models.weights_hash(scorer.model) == before == models.weights_hash(models.load(tiny)[0])
    assert not scorer.model.training
    assert all(not p.requires_grad and p.grad is None for p in scorer.model.parameters())


def test_half_precision_weights_are_summed_in_double_precision(qwen3):
    scorer = Scorer(qwen3, dtype="bfloat16")
    row = ([3] * 4, [5] * 40)
    (value,), _ = scorer.log_likelihood([row[0]], [row[1]])
    assert next(scorer.model.parameters()).dtype == torch.bfloat16
    assert value == pytest.approx(naive(scorer, *row), rel=1e-5)


def test_the_softmax_holds_a_bounded_piece_of_the_logits(qwen3, monkeypatch):
    scorer = Scorer(qwen3, dtype="bfloat16", share=False)
    rows = [([3, row], [5 + row] * (10 + row)) for row in range(20)]  # 390 tokens
    whole, _ = scorer.log_likelihood([p for p, _ in rows], [c for _, c in rows])
    vocabulary = scorer.model.config.vocab_size
    monkeypatch.setattr("swirl.scorer.PIECE", 7 * vocabulary + 1)
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.dtype == torch.float32 and out.shape[-1:] == (vocabulary,):
                sizes.append(out.numel())
            return out

    with torch.inference_mode(), Watch():
        logits = scorer.model(input_ids=torch.tensor([[1, 2]])).logits
    assert logits.dtype == torch.bfloat16 and not sizes  # the model itself makes no such tensor
    with Watch():
        pieces, _ = scorer.log_likelihood([p for p, _ in rows], [c for _, c in rows])
    assert pieces == whole
    assert max(sizes) == 7 * vocabulary
    assert sum(size == 5 * vocabulary for size in sizes) >= 1  # 390 = 55 x 7 + 5


@pytest.mark.parametrize(("prompt", "completion", "which"), [([], [1], "prompt"), ([1], [], "completion")])
def test_an_empty_prompt_or_completion_is_refused(scorers, prompt, completion, which):
    with pytest.raises(ValueError, match=f"row 1: got an empty {which}"):
        scorers["llama", True].log_likelihood([[1], prompt], [[1], completion])


def test_lists_of_different_lengths_are_refused(scorers):
    with pytest.raises(ValueError, match="zip"):
        scorers["llama", True].log_likelihood([[1], [2]], [[1]])


def test_no_rows_are_no_scores(scorers):
    assert scorers["llama", True].log_likelihood([], []) == ([], [])


def test_likelihoods_of_all_single_tokens_sum_to_one(scorers):
    scorer = scorers["llama", True]
    scorer.batch_tokens = 16_384
    vocabulary = scorer.model.config.vocab_size
    values, _ = scorer.log_likelihood([list(range(12))] * vocabulary, [[token] for token in range(vocabulary)])
    assert math.fsum(math.exp(value) for value in values) == pytest.approx(1, abs=1e-5)


def test_tokens_that_cannot_be_written_leave_their_probability_to_the_others(scorers):
    scorer = scorers["llama", True]
    scorer.batch_tokens = 16_384
    vocabulary, prompt = scorer.model.config.vocab_size, list(range(12))
    left_out = [0, 3, *range(10, vocabulary)]
    every, _ = scorer.log_likelihood([prompt] * vocabulary, [[token] for token in range(vocabulary)])
    rest = math.fsum(math.exp(every[token]) for token in range(vocabulary) if token not in left_out)
    values, _ = scorer.log_likelihood([prompt] * 3, [[1], [9], [3]], left_out)
    assert values == [pytest.approx(every[1] - math.log(rest)), pytest.approx(every[9] - math.log(rest)), -math.inf]
    assert scorer.log_likelihood([prompt], [[1]])[0] == [pytest.approx(every[1], abs=1e-6)]  # of this call alone
