"""Weights and components of a graph in torch operations, for tensors that compiled code of the CPU cannot read.

They agree with the functions of `torchdr_cne.affinity.kernels`, row by row. Rows are solved together, and whether all
are solved is asked every few steps only, as the answer has to wait for the device.
"""

import math

import torch
from torch import Tensor

from torchdr_cne.affinity.tolerances import (
    ENTROPY_TOLERANCE,
    MIN_RELATIVE_SCALE,
    MOST_STEPS,
    NARROWEST_BRACKET,
    SUM_TOLERANCE,
    WIDEST,
)
from torchdr_cne.devices import block_elements

_BLOCK_ELEMENTS = 1 << 20, 1 << 24
"""Number of distances whose rows are solved together on the CPU, and on other devices."""
_STEPS_BETWEEN_LOOKS = 4


def conditional_probabilities(distances_nk: Tensor, target: float) -> Tensor:
    """Return Gaussian weights (n, k), float64, with the entropy ``target`` in each row."""
    return torch.cat([_with_entropy(block.double(), target) for block in _row_blocks(distances_nk)])


def memberships(distances_nk: Tensor, local_connectivity: float, target: float, mean_distance: float) -> Tensor:
    """Return fuzzy memberships (n, k), float32, that sum to ``target`` in each row."""
    arguments = local_connectivity, target, mean_distance
    return torch.cat([_with_sum(block.double(), *arguments).float() for block in _row_blocks(distances_nk)])


def _row_blocks(distances_nk: Tensor) -> tuple[Tensor, ...]:
    return distances_nk.split(max(1, block_elements(distances_nk.device, *_BLOCK_ELEMENTS) // distances_nk.shape[1]))


# ---- Gaussian weights of given entropy --------------------------------------------------------------------


def _with_entropy(distances: Tensor, target: float) -> Tensor:
    """Return the weights of some rows, by Newton's steps on log β.

    The bracket of log β is halved instead where a step would leave it, or is more than half as long as the one before.
    """
    squares = _in_own_unit(distances)
    x = torch.zeros_like(squares[:, 0])
    low, high = torch.full_like(x, -WIDEST), torch.full_like(x, WIDEST)
    moved = high - low
    for step in range(MOST_STEPS):
        excess, slope = _entropy_above(squares, x, target)
        solved = (excess.abs() < ENTROPY_TOLERANCE) | (high - low < NARROWEST_BRACKET)
        if step % _STEPS_BETWEEN_LOOKS == 0 and bool(solved.all()):
            break
        low, high = torch.where(excess > 0, x, low), torch.where(excess > 0, high, x)
        move = torch.where(slope < 0, -excess / slope, torch.inf)
        inside = (low < x + move) & (x + move < high) & (2 * move.abs() < moved)
        move = torch.where(inside, move, (low + high) / 2 - x)
        x, moved = torch.where(solved, x, x + move), move.abs()
    return torch.softmax(squares * -x.exp().unsqueeze(1), dim=1)


def _in_own_unit(distances: Tensor) -> Tensor:
    """Return squared distances less the smallest of the row, in units of their mean."""
    farthest = distances.amax(dim=1, keepdim=True)
    squares = (distances / torch.where(farthest > 0, farthest, 1.0)).square()
    squares = squares - squares.amin(dim=1, keepdim=True)
    mean = squares.mean(dim=1, keepdim=True)
    return squares / torch.where(mean > 0, mean, 1.0)


def _entropy_above(squares: Tensor, x: Tensor, target: float) -> tuple[Tensor, Tensor]:
    """Return by how much the entropy of rows with log β = x exceeds ``target``, and its derivative."""
    beta = x.exp()
    weights = torch.exp(squares * -beta.unsqueeze(1))
    total = weights.sum(dim=1)
    weighted = weights.mul_(squares)
    mean = weighted.sum(dim=1) / total
    second = weighted.mul_(squares).sum(dim=1) / total
    return total.log() + beta * mean - target, -beta.square() * (second - mean.square())


# ---- fuzzy memberships ------------------------------------------------------------------------------------


def _with_sum(distances: Tensor, local_connectivity: float, target: float, mean_distance: float) -> Tensor:
    """Return the memberships of some rows; see `torchdr_cne.affinity.kernels.memberships` for the bound of σ."""
    rho = _nearest_distances(distances, local_connectivity)
    excess = (distances - rho.unsqueeze(1)).clamp_min_(0)
    smallest = distances.sum(dim=1) / (distances.shape[1] + 1)  # the point itself counts, at distance 0
    if not math.isnan(mean_distance):
        smallest = torch.where(rho > 0, smallest, mean_distance)
    bound = 1 / (MIN_RELATIVE_SCALE * smallest)  # infinite where all distances are 0
    beta = torch.minimum(_inverse_scales(excess, target), bound)
    return torch.where(excess > 0, torch.exp(-beta.unsqueeze(1) * excess), 1.0)


def _nearest_distances(distances: Tensor, local_connectivity: float) -> Tensor:
    """Return each row's ``local_connectivity``-th non-zero distance (n,), interpolated, or else its last."""
    k = distances.shape[1]
    n_zero = (distances <= 0).sum(dim=1)
    whole = math.floor(local_connectivity)
    fraction = local_connectivity - whole

    def ranked(rank: int) -> Tensor:
        place = (n_zero + rank - 1).clamp(0, k - 1)
        return distances.gather(1, place.unsqueeze(1)).squeeze(1)

    rho = ranked(whole) if whole > 0 else torch.zeros_like(distances[:, 0])
    if fraction > 1e-5:
        rho = rho + fraction * (ranked(whole + 1) - rho)
    return torch.where(k - n_zero < local_connectivity, distances[:, -1], rho)


def _inverse_scales(excess: Tensor, target: float) -> Tensor:
    """Return 1/σ (n,) at which each row's Σ exp(−excess/σ) is ``target``, by Newton's steps from 0."""
    beta = torch.zeros_like(excess[:, 0])
    for step in range(MOST_STEPS):
        weights = torch.exp(excess * -beta.unsqueeze(1))  # NaN where 1/σ is infinite, which ends the steps of the row
        lacking = weights.sum(dim=1) - target
        unsolved = lacking >= SUM_TOLERANCE
        if step % _STEPS_BETWEEN_LOOKS == 0 and not bool(unsolved.any()):
            break
        beta = torch.where(unsolved, beta + lacking / weights.mul_(excess).sum(dim=1), beta)
    return beta
