"""The mathematics of PPO, against numbers worked out by hand."""

import math

import pytest
import torch

from swirl.agents import ppo

MASK = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]])
"""A prompt, two tokens of the agent's, one of the world's, and the agent's last."""


def test_with_gamma_and_lambda_1_an_advantage_is_the_score_less_the_value():
    rewards = torch.tensor([[0.0, 0.0, 0.0, 0.0, 2.0]])
    values = torch.tensor([[9.0, 0.5, 1.0, 7.0, 1.5]])
    advantage, returns = ppo.advantages(rewards, values, MASK, 1.0, 1.0)
    assert advantage.tolist() == [[0.0, 1.5, 1.0, 0.0, 0.5]]
    assert returns.tolist() == [[0.0, 2.0, 2.0, 0.0, 2.0]]


def test_advantages_pass_over_the_tokens_of_the_world():
    # delta: 2 - 1.5 = 0.5; 0.5 * 1.5 - 1 = -0.25; 0.5 * 1 - 0.5 = 0
    # A: 0.5; -0.25 + 0.25 * 0.5 = -0.125; 0 + 0.25 * -0.125 = -0.03125
    rewards = torch.tensor([[0.0, 0.0, 0.0, 0.0, 2.0]])
    values = torch.tensor([[9.0, 0.5, 1.0, 7.0, 1.5]])
    advantage, _ = ppo.advantages(rewards, values, MASK, 0.5, 0.5)
    assert advantage.tolist() == [[0.0, -0.03125, -0.125, 0.0, 0.5]]


def test_a_reward_on_the_way_counts_from_there_back():
    rewards = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]])
    advantage, _ = ppo.advantages(rewards, torch.zeros(1, 5), MASK, 1.0, 1.0)
    assert advantage.tolist() == [[0.0, 1.0, 0.0, 0.0, 0.0]]


def test_padding_behind_the_end_changes_nothing():
    rewards, values = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[0.0, 0.25, 5.0]])
    advantage, _ = ppo.advantages(rewards, values, torch.tensor([[0.0, 1.0, 0.0]]), 1.0, 1.0)
    assert advantage.tolist() == [[0.0, 0.75, 0.0]]


def test_whitening_is_over_the_mask_alone():
    values = torch.tensor([[100.0, 1.0, 3.0, 100.0, 5.0]])
    # mean 3, variance 8 / 3
    expected = [0.0, -2 / math.sqrt(8 / 3), 0.0, 0.0, 2 / math.sqrt(8 / 3)]
    assert ppo.whiten(values, MASK)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_clipped_loss():
    # Ratios 1.5, 0.5, 1.1 with advantages 1, -1, -2: max(-A r, -A clip(r, .8, 1.28)) = -1.28, 0.8, 2.2.
    log_probs = torch.tensor([[0.0, math.log(1.5), math.log(0.5), 0.0, math.log(1.1)]])
    advantage = torch.tensor([[9.0, 1.0, -1.0, 9.0, -2.0]])
    loss, facts = ppo.policy_loss(log_probs, torch.zeros(1, 5), advantage, MASK, 0.2, 0.28)
    assert loss.item() == pytest.approx((-1.28 + 0.8 + 2.2) / 3)
    assert facts["clipped"] == pytest.approx(2 / 3)
    kl = (0.5 - math.log(1.5) - 0.5 - math.log(0.5) + 0.1 - math.log(1.1)) / 3
    assert facts["kl"] == pytest.approx(kl, abs=1e-6)


def test_what_the_world_wrote_has_no_gradient():
    log_probs = torch.zeros(1, 5, requires_grad=True)
    loss, _ = ppo.policy_loss(log_probs, torch.zeros(1, 5), torch.ones(1, 5), MASK, 0.2, 0.28)
    loss.backward()
    assert (log_probs.grad[0] != 0).tolist() == [False, True, True, False, True]


def test_a_ratio_at_its_clip_has_no_gradient():
    log_probs = torch.tensor([[0.0, math.log(1.5), math.log(1.5), 0.0, 0.0]], requires_grad=True)
    advantage = torch.tensor([[0.0, 1.0, -1.0, 0.0, 1.0]])
    ppo.policy_loss(log_probs, torch.zeros(1, 5), advantage, MASK, 0.2, 0.28)[0].backward()
    # A good token that is much likelier already is left alone; a bad one is not.
    assert (log_probs.grad[0] != 0).tolist() == [False, False, True, False, True]


def test_the_value_loss():
    # Errors 1 and, clipped to 0 + 0.5, (0.5 - 2)^2 = 2.25 against (1.5 - 2)^2 = 0.25; the larger ones are halved.
    values, returns = torch.tensor([[1.0, 1.5]]), torch.tensor([[2.0, 2.0]])
    loss = ppo.value_loss(values, torch.tensor([[1.0, 0.0]]), returns, torch.ones(1, 2), 0.5)
    assert loss.item() == pytest.approx(0.5 * (1.0 + 2.25) / 2)


def test_entropy_of_a_fair_and_of_a_sure_choice():
    assert ppo.entropy(torch.log_softmax(torch.tensor([[[0.0, 0.0], [100.0, 0.0]]]), -1))[0].tolist() == pytest.approx(
        [math.log(2), 0.0]
    )


def test_groups_that_differ_most_are_kept():
    scores = [[1.0, 1.0], [0.0, 10.0], [3.0, 3.0], [0.0, 1.0]]
    assert ppo.most_spread(scores, 0.5) == [1, 3]
    assert ppo.most_spread(scores, 0.25) == [1]
    assert ppo.most_spread(scores, 1.0) == [1, 3], "the others say nothing"


def test_a_group_whose_episodes_fared_alike_is_never_kept():
    assert ppo.most_spread([[1.0, 1.0], [2.0, 2.0]], 0.5) == []
    # The mean of equal numbers, and equal sums, differ from them in their last digits.
    for score, size in ((-0.3, 6), (-0.7, 7), (-0.3, 12), (10.7, 6)):
        assert ppo.most_spread([[score] * size], 1.0) == []
    turns = (-0.2, -0.1, -0.1, -0.2, -0.1), (-0.1, -0.2, -0.1, -0.1, -0.2)
    assert sum(turns[0]) != sum(turns[1])
    assert ppo.most_spread([[sum(turn) for turn in turns]], 1.0) == []
