"""Entropic affinities of fixed perplexity (van der Maaten & Hinton, 2008)."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from torchdr_cne.affinity.composed import DISTANCES, WEIGHTS, Transform, TransformedAffinity
from torchdr_cne.affinity.graph import AffinityGraph
from torchdr_cne.affinity.transforms import Symmetrize
from torchdr_cne.neighbors import NeighborGraph


@dataclass(frozen=True)
class Perplexity(Transform):
    """Gaussian weights p_{j|i} ∝ exp(−β_i d²_ij) that sum to 1 in each row and have the same perplexity in all.

    Parameters
    ----------
    perplexity : float, default=30.0
        Effective number of neighbours, exp of the entropy of p_{·|i}; take about three times as many `Neighbors`.
    """

    perplexity: float = 30.0

    turns = {DISTANCES: WEIGHTS}

    def __post_init__(self) -> None:
        if not self.perplexity > 1:
            raise ValueError(f"perplexity={self.perplexity} must be greater than 1.")

    def apply(self, values: Tensor, neighbors: NeighborGraph) -> Tensor:
        """Return p_{j|i} (q, k), float64."""
        return conditional_probabilities(values, self.perplexity)


class EntropicAffinity(TransformedAffinity):
    """Gaussian affinities whose widths give every row the same perplexity, symmetrised, ΣP = 1.

    p_{j|i} ∝ exp(−β_i d²_ij) over the 3·perplexity nearest neighbours; P = (p + pᵀ) / 2n.

    Parameters
    ----------
    perplexity : float, default=30.0
        Effective number of neighbours, exp of the entropy of p_{·|i}.
    metric, backend
        See `Affinity`.
    """

    perplexity: float = 30.0

    _size_parameter: ClassVar[str] = "perplexity"

    def _n_neighbors_needed(self, n: int) -> int:
        self._transforms()
        return int(3 * self.perplexity)

    def _transforms(self) -> tuple[Transform, ...]:
        return Perplexity(self.perplexity), Symmetrize("mean")

    def from_neighbors(self, neighbors: NeighborGraph) -> AffinityGraph:
        """Solve each row's perplexity, symmetrise, and divide by the number of rows, each of which sums to 1."""
        graph = super().from_neighbors(neighbors)
        return replace(graph, weights=graph.weights * (1 / neighbors.share.n))


def conditional_probabilities(distances_nk: Tensor, perplexity: float) -> Tensor:
    """Return p_{j|i} (n, k), float64, with rows of the given perplexity (to 1e-6, where one exists).

    A row of k neighbours cannot exceed perplexity k; it then is uniform. No row looks at another.
    """
    distances = distances_nk.double()
    farthest = distances.amax(dim=1, keepdim=True)
    squares = (distances / torch.where(farthest > 0, farthest, 1.0)).square()
    squares = squares - squares.amin(dim=1, keepdim=True)
    unit = squares.mean(dim=1, keepdim=True)
    squares = squares / torch.where(unit > 0, unit, 1.0)
    target = math.log(min(perplexity, distances_nk.shape[1]))
    low = torch.full((len(squares), 1), -40.0, dtype=squares.dtype, device=squares.device)
    high = -low
    log_beta, reached = (low + high) / 2, torch.zeros_like(low, dtype=torch.bool)
    for _ in range(60):
        p = torch.softmax(-log_beta.exp() * squares, dim=1)
        entropy = torch.special.entr(p).sum(dim=1, keepdim=True)
        reached = reached | ((entropy - target).abs() < 1e-6)
        if bool(reached.all()):
            break
        too_flat = entropy > target
        low = torch.where(too_flat, log_beta, low)
        high = torch.where(too_flat, high, log_beta)
        log_beta = torch.where(reached, log_beta, (low + high) / 2)
    return p
