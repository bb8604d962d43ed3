"""Affinities of all pairs of a few thousand points, normalised to sum 1."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from torchdr_cne.affinity.base import Affinity
from torchdr_cne.affinity.graph import AffinityGraph
from torchdr_cne.checks import POSITIVE
from torchdr_cne.neighbors import NeighborGraph

_MOST = 20_000
_TINY = 1e-300


class AllPairsAffinity(Affinity):
    """An affinity that relates every point to every other, so that memory and time grow as n².

    A subclass defines `weights`, from all distances to symmetric weights; these are scaled to sum 1, and zeros are not
    stored.
    """

    needs_all_rows = True
    _positive: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that have to be positive numbers."""

    def _n_neighbors_needed(self, n: int) -> int:
        if n > _MOST:
            raise ValueError(
                f"{type(self).__name__} of {n} points needs {24e-9 * n * n:.0f} GB or more; use a sparse affinity such "
                f"as EntropicAffinity, or at most {_MOST} points."
            )
        self.check()
        return n - 1

    def check(self) -> None:
        """Raise a ValueError if parameters are not valid."""
        for name in self._positive:
            if not POSITIVE.admits(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)!r} of {type(self).__name__} must be {POSITIVE}.")

    @abstractmethod
    def weights(self, distances: Tensor) -> Tensor:
        """Return symmetric weights (n, n) of distances (n, n), float64; the diagonal is ignored."""

    def from_neighbors(self, neighbors: NeighborGraph) -> AffinityGraph:
        """Return the graph of all pairs."""
        n, k = neighbors.distances.shape
        if neighbors.share.ranks.size > 1 or k < n - 1:
            raise ValueError(f"{type(self).__name__} needs the distances of all pairs, got {k} a row of {n} points.")
        distances = torch.zeros((n, n), dtype=torch.float64)
        distances.scatter_(1, neighbors.indices.long().cpu(), neighbors.distances.double().cpu())
        # Both distances of a pair are computed separately, and may differ in their last bits.
        weights = self.weights((distances + distances.T) / 2).fill_diagonal_(0)
        return graph_of(weights / weights.sum().clamp_min(_TINY))

    def directed_weights(self, neighbors: NeighborGraph) -> Tensor:
        """Return weights that fall with distance relative to the row's mean; new points start from them."""
        distances = neighbors.distances.double()
        unit = distances.mean(dim=1, keepdim=True)
        return torch.exp(-((distances / torch.where(unit > 0, unit, 1.0)) ** 2))


def graph_of(weights: Tensor) -> AffinityGraph:
    """Return the graph of a symmetric matrix (n, n) with a zero diagonal; no zero is an edge."""
    is_edge = weights > 0
    degrees = is_edge.sum(dim=1)
    indptr = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])
    return AffinityGraph(indptr, is_edge.nonzero()[:, 1].int(), weights[is_edge])


def relative_squares(distances: Tensor) -> Tensor:
    """Return squared distances (n, n) in units of their mean over all pairs, so that the scale has no effect."""
    largest = distances.max()
    squares = (distances / torch.where(largest > 0, largest, 1.0)).square()
    mean = squares.sum() / max(1, distances.numel() - len(distances))
    return squares / torch.where(mean > 0, mean, 1.0)


def without_diagonal(matrix: Tensor, value: float = -torch.inf) -> Tensor:
    """Return ``matrix`` with ``value`` on its diagonal, in place."""
    return matrix.fill_diagonal_(value)


class GaussianAffinity(AllPairsAffinity):
    """Gaussian weights exp(−d²/(2 h² m)) of all pairs, where m is the mean squared distance; ΣP = 1.

    Parameters
    ----------
    bandwidth : float, default=0.3
        Bandwidth h, in units of the root mean squared distance.
    metric, backend
        See `Affinity`.
    """

    bandwidth: float = 0.3

    _positive = ("bandwidth",)

    def weights(self, distances: Tensor) -> Tensor:
        """Return the Gaussian weights."""
        return torch.exp(relative_squares(distances) / (-2 * self.bandwidth**2))


class StudentAffinity(AllPairsAffinity):
    """Student weights (1 + d²/(α m))^{−(α+1)/2} of all pairs, where m is the mean squared distance; ΣP = 1.

    Parameters
    ----------
    dof : float, default=1.0
        Degrees of freedom α.
    metric, backend
        See `Affinity`.
    """

    dof: float = 1.0

    _positive = ("dof",)

    def weights(self, distances: Tensor) -> Tensor:
        """Return the Student weights."""
        return (1 + relative_squares(distances) / self.dof) ** (-(self.dof + 1) / 2)


class SelfTuningAffinity(AllPairsAffinity):
    """Gaussian weights exp(−d²_ij/(σ_i σ_j)) with a scale σ_i per point (Zelnik-Manor & Perona, 2004); ΣP = 1.

    Parameters
    ----------
    n_neighbors : int, default=7
        Rank of the neighbour whose distance is σ_i; if that is 0, σ_i is the smallest distance that is not 0.
    metric, backend
        See `Affinity`.
    """

    n_neighbors: int = 7

    def check(self) -> None:
        """Raise a ValueError unless ``n_neighbors`` is a positive integer."""
        if not (isinstance(self.n_neighbors, int) and self.n_neighbors >= 1):
            raise ValueError(f"n_neighbors={self.n_neighbors!r} of SelfTuningAffinity must be an integer >= 1.")

    def weights(self, distances: Tensor) -> Tensor:
        """Return the weights."""
        ordered = without_diagonal(distances.clone(), torch.inf).sort(dim=1).values
        scale = ordered[:, min(self.n_neighbors, len(distances) - 1) - 1]
        positive = ordered.masked_fill(ordered <= 0, torch.inf).amin(dim=1)
        scale = torch.where(scale > 0, scale, positive)
        scale = torch.where(torch.isfinite(scale), scale, 1.0)
        return torch.exp(-(distances / scale) * (distances / scale.unsqueeze(1)))
