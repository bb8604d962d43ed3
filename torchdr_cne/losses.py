"""The contrastive losses as plain functions of log-similarities.

The hooks of the methods use the elementary functions, which have one formula each. The four losses after them
combine these formulas for a batch of positive pairs with their negatives. Everything stays in log space: ``log_q``
may be −inf for a pair that is infinitely far apart, which adds nothing.
"""

import math

import torch
from torch import Tensor

from torchdr_cne.stable_math import softplus


def log_one_minus(log_q: Tensor) -> Tensor:
    """Return log(1 − q) from log q, accurate at both ends."""
    return torch.log(-torch.expm1(log_q))


def classified_as_data(log_q: Tensor, log_odds: Tensor | float) -> Tensor:
    """Return −log(q/(q + ν)), the cost of classifying a pair as data against noise of odds ν = e^log_odds."""
    return softplus(log_odds - log_q)


def classified_as_noise(log_q: Tensor, log_odds: Tensor | float) -> Tensor:
    """Return −log(ν/(q + ν)), the cost of classifying a pair as noise of odds ν = e^log_odds."""
    return softplus(log_q - log_odds)


def log_normaliser(log_q_negative: Tensor) -> Tensor:
    """Return log Σ_k q_ik over the last axis; −inf, with zero gradient, for a row without negatives."""
    largest = log_q_negative.detach().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(log_q_negative.dtype).min)
    total = torch.exp(log_q_negative - largest).sum(dim=-1)
    empty = total == 0
    log_total = torch.log(torch.where(empty, 1.0, total)) + largest.squeeze(-1)
    return torch.where(empty, -torch.inf, log_total)


def log_add_positive(log_q_positive: Tensor, log_total: Tensor) -> Tensor:
    """Return log(q⁺ + Σ) from the logarithms of both."""
    return torch.logaddexp(log_q_positive, log_total)


def umap(log_q_positive: Tensor, log_q_negative: Tensor) -> tuple[Tensor, Tensor]:
    """Return UMAP's cross-entropy, −log q⁺ and Σ_k −log(1 − q_k).

    Parameters
    ----------
    log_q_positive : Tensor of shape (B,)
        Log-similarity of each positive pair.
    log_q_negative : Tensor of shape (B, m)
        Log-similarities of each pair to its m negatives, below 0.

    Returns
    -------
    attraction, repulsion : Tensor of shape (B,)
        Unreduced losses; the total loss is their sum.
    """
    return -log_q_positive, -log_one_minus(log_q_negative).sum(dim=-1)


def negative_sampling(
    log_q_positive: Tensor, log_q_negative: Tensor, *, nu: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return Neg-t-SNE's logistic loss with fixed noise odds ν (Damrich et al., 2023).

    Parameters and results are those of `umap`; ``nu`` > 0 multiplies the noise.
    """
    log_nu = torch.as_tensor(nu, dtype=log_q_positive.dtype, device=log_q_positive.device).log()
    attraction = classified_as_data(log_q_positive, log_nu)
    return attraction, classified_as_noise(log_q_negative, log_nu).sum(dim=-1)


def noise_contrastive(
    log_q_positive: Tensor, log_q_negative: Tensor, *, log_z: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return NCVis's noise-contrastive loss with a learnable log Z (Artemenkov & Panov, 2020).

    Parameters and results are those of `umap`; the noise odds are m·Z.
    """
    log_odds = log_z + math.log(log_q_negative.shape[-1])
    attraction = classified_as_data(log_q_positive, log_odds)
    return attraction, classified_as_noise(log_q_negative, log_odds).sum(dim=-1)


def info_nce(
    log_q_positive: Tensor,
    log_q_negative: Tensor,
    *,
    exaggeration: float = 1.0,
    include_positive: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the InfoNCE loss, −log q⁺ and (1/ρ) log(q⁺ + Σ_k q_k) (Damrich et al., 2023).

    Parameters and results are those of `umap`.

    Other Parameters
    ----------------
    exaggeration : float, default=1.0
        Weight ρ of attraction against repulsion.
    include_positive : bool, default=True
        Whether the normaliser includes q⁺; without it this is the decoupled loss of Yeh et al. (2022).
    """
    total = log_normaliser(log_q_negative)
    if include_positive:
        total = log_add_positive(log_q_positive, total)
    return -log_q_positive, total / exaggeration
