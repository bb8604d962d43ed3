"""Entropic affinities of fixed perplexity (van der Maaten & Hinton, 2008)."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from torchdr_cne.affinity.base import Affinity
from torchdr_cne.affinity.graph import AffinityGraph, directed_matrix, transposed
from torchdr_cne.neighbors import NeighborGraph


class EntropicAffinity(Affinity):
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
        if not self.perplexity > 1:
            raise ValueError(f"perplexity={self.perplexity} must be greater than 1.")
        return int(3 * self.perplexity)

    def from_neighbors(self, neighbors: NeighborGraph) -> AffinityGraph:
        """Solve each row's perplexity and symmetrise."""
        conditional = self.directed_weights(neighbors)
        share = neighbors.share
        directed = directed_matrix(neighbors.indices, conditional, share.n)
        listed_by = directed.T.tocsr() if share.ranks.size == 1 else transposed(neighbors.indices, conditional, share)
        return AffinityGraph.from_scipy((directed + listed_by) / (2 * share.n))

    def directed_weights(self, neighbors: NeighborGraph) -> Tensor:
        """Return p_{j|i} (q, k), float64."""
        return conditional_probabilities(neighbors.distances, self.perplexity)


def conditional_probabilities(distances_nk: Tensor, perplexity: float) -> Tensor:
    """Return p_{j|i} (n, k), float64, with rows of the given perplexity (to 1e-6, where one exists).

    A row of k neighbours cannot exceed perplexity k; it then is uniform.
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
    for _ in range(60):
        log_beta = (low + high) / 2
        p = torch.softmax(-log_beta.exp() * squares, dim=1)
        entropy = torch.special.entr(p).sum(dim=1, keepdim=True)
        too_flat = entropy > target
        low = torch.where(too_flat, log_beta, low)
        high = torch.where(too_flat, high, log_beta)
        if bool(((entropy - target).abs() < 1e-6).all()):
            break
    return p
