"""The mathematics of PPO on the tokens of many-turn episodes.

Notation: B episodes, T tokens of an episode, `mask` (B, T) is 1 on tokens that the agent wrote and 0 on those of the
world and on padding. Nothing of the world's tokens enters any sum here: the agent did not choose them.

Source: Schulman et al., arXiv 1707.06347; generalised advantage estimation, arXiv 1506.02438; as used by SPA, arXiv
2510.15047, with the upper clip of DAPO, arXiv 2503.14476.
"""

from collections.abc import Sequence

import numpy as np
import torch


def advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantage estimates over the agent's tokens alone, as if the world's were not there.

        delta_t = r_t + gamma V_{t+1} - V_t        A_t = delta_t + gamma lambda A_{t+1}

    where t + 1 is the agent's next token, in whichever turn, and V = A = 0 behind its last one.

    Args:
        rewards: On the token that brought them (B, T).
        values: V before each token (B, T).
        mask: The agent's tokens (B, T).
        gamma: Discount of a token.
        lam: Lambda.

    Returns:
        Advantages and returns, A and A + V (B, T), 0 outside of the mask.
    """
    out = torch.zeros_like(values)
    following = torch.zeros_like(values[:, 0])
    advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        own = mask[:, t].bool()
        delta = rewards[:, t] + gamma * following - values[:, t]
        advantage = torch.where(own, delta + gamma * lam * advantage, advantage)
        following = torch.where(own, values[:, t], following)
        out[:, t] = torch.where(own, advantage, torch.zeros_like(advantage))
    return out, (out + values) * mask


def whiten(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Values with mean 0 and variance 1 over the mask, and 0 outside of it (B, T)."""
    mean = masked_mean(values, mask)
    spread = masked_mean((values - mean) ** 2, mask)
    return (values - mean) * torch.rsqrt(spread + 1e-8) * mask


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over a mask; 0 where the mask is empty."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def policy_loss(
    log_probs: torch.Tensor,
    old: torch.Tensor,
    advantage: torch.Tensor,
    mask: torch.Tensor,
    low: float,
    high: float,
) -> tuple[torch.Tensor, dict[str, float]]:
    """The clipped surrogate, the mean over the agent's tokens of max(-A r, -A clip(r, 1 - low, 1 + high)).

    Args:
        log_probs: Of the tokens under the policy (B, T).
        old: The same under the policy that wrote them (B, T).
        advantage: (B, T).
        mask: The agent's tokens (B, T).
        low: How far the ratio r may fall below 1.
        high: How far it may rise above.

    Returns:
        The loss; `clipped`, the share of tokens at the clip, and `kl`, the mean of r - 1 - log r, nats.
    """
    log_ratio = (log_probs - old) * mask
    ratio = log_ratio.exp()
    plain, clipped = -advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high)
    with torch.no_grad():
        facts = {
            "clipped": masked_mean((clipped > plain).float(), mask).item(),
            "kl": masked_mean(ratio - 1 - log_ratio, mask).item(),
        }
    return masked_mean(torch.maximum(plain, clipped), mask), facts


def value_loss(
    values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor, clip: float
) -> torch.Tensor:
    """Half the squared error of the values, the larger of that of V and of V kept within `clip` of the old one."""
    kept = old + (values - old).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (kept - returns) ** 2), mask)


def entropy(log_probs: torch.Tensor) -> torch.Tensor:
    """Entropy of a distribution, nats: (..., V) to (...)."""
    return -(log_probs.exp() * log_probs).sum(-1)


def most_spread(scores: Sequence[Sequence[float]], share: float) -> list[int]:
    """The groups whose scores differ most among themselves, by their standard deviation.

    A group whose episodes all fared alike says nothing about what to do, and is never among them.

    Args:
        scores: Of the episodes of each group.
        share: Of the groups to keep, more than 0; at least one is, if any tells something.

    Returns:
        Their indices, in order.
    """
    # Equal sums differ in their last digits, and so does the mean of equal numbers from each of them.
    telling = [i for i, group in enumerate(scores) if max(group) - min(group) > 1e-6]
    count = max(1, round(share * len(scores)))
    return sorted(sorted(telling, key=lambda i: -np.std(scores[i]))[:count])
