"""Conversations from a cache, against the same computed anew."""

import pytest
import torch

from swirl import models, tiny
from swirl.agents.player import Player
from swirl.config import Model

SPEC = Model(hidden=48, layers=2, heads=4, max_length=256)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    tiny.build(["the cat sat on the mat", "Up Down Left Right"], folder, SPEC, seed=0)
    return models.load(folder, "cpu", "float32")


def naive(model, ids, limit, ends):
    """A greedy reply to one conversation, every token computed anew."""
    out = []
    with torch.inference_mode():
        while len(out) < limit and not (out and out[-1] in ends):
            out.append(int(model(torch.tensor([ids + out])).logits[0, -1].argmax()))
    return out


def test_greedy_replies_of_many_turns_are_those_computed_anew(policy):
    model, tokenizer = policy
    player = Player(model, tokenizer, limit=6, temperature=0.0)
    told = [[[5, 6, 7], [8]], [[9], [10, 11, 12, 13]], [[14, 15], [16, 17]]]
    rows, conversations = [0, 1, 2], [[], [], []]
    for turn in range(2):
        replies = player.reply([told[row][turn] for row in rows])
        for row, sampled in zip(rows, replies, strict=True):
            conversations[row] += told[row][turn]
            assert sampled.ids == naive(model, conversations[row], 6, player.ends)
            conversations[row] += sampled.ids
        if turn == 0:  # the rest goes on without the longest, in another order, and without what was padding for it
            rows = [2, 1]
            player.keep(rows)
            assert player._mask.any(0).all()


def test_what_was_read_is_forgotten_where_that_is_asked_for(policy):
    model, tokenizer = policy
    player = Player(model, tokenizer, limit=6, temperature=0.0)
    player.reply([[5, 6, 7], [9]])
    player.forget()
    replies = player.reply([[8, 7], [10, 11, 12, 13]])
    assert [reply.ids for reply in replies] == [naive(model, ids, 6, player.ends) for ids in ([8, 7], [10, 11, 12, 13])]


def test_a_reply_ends_with_its_end_token_or_at_the_limit(policy):
    model, tokenizer = policy
    player = Player(model, tokenizer, limit=40, temperature=3.0, seed=1)
    replies = player.reply([[5, 6]] * 64)
    assert {sampled.finished for sampled in replies} == {True, False}
    for sampled in replies:
        assert sampled.finished == (sampled.ids[-1] in player.ends)
        assert not set(sampled.ids[:-1]) & set(player.ends)
        assert sampled.finished or len(sampled.ids) == 40


def test_tokens_are_drawn_as_often_as_they_are_likely(policy):
    model, tokenizer = policy
    replies = Player(model, tokenizer, limit=1, temperature=2.0, seed=3).reply([[5, 6]] * 4000)
    counts = torch.bincount(torch.tensor([sampled.ids[0] for sampled in replies]), minlength=len(tokenizer))
    with torch.inference_mode():
        chances = torch.softmax(model(torch.tensor([[5, 6]])).logits[0, -1] / 2, -1)
    expected = 4000 * chances
    likely = expected > 20
    statistic = ((counts - expected) ** 2 / expected)[likely].sum().item()
    # Chi squared with n - 1 degrees of freedom has the mean n - 1 and the variance 2 (n - 1).
    freedom = int(likely.sum()) - 1
    assert freedom > 20
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5


def test_the_same_seed_draws_the_same(policy):
    model, tokenizer = policy
    one, two, three = (Player(model, tokenizer, 8, seed=seed).reply([[5]] * 4) for seed in (1, 1, 2))
    assert one == two != three
