"""Entropic affinities of fixed perplexity (van der Maaten & Hinton, 2008)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.affinity import device
from torchdr_cne.affinity.composed import DISTANCES, WEIGHTS, Transform, TransformedAffinity
from torchdr_cne.affinity.graph import AffinityGraph
from torchdr_cne.affinity.transforms import Symmetrize
from torchdr_cne.checks import Bound
from torchdr_cne.devices import on_cpu
from torchdr_cne.neighbors import NeighborGraph
from torchdr_cne.workers import Workers

_ABOVE_ONE = Bound(1, strict=True)


@dataclass(frozen=True)
class Perplexity(Transform):
    """Gaussian weights p_{j|i} ∝ exp(−β_i d²_ij) that have sum 1 and the same perplexity in each row.

    Parameters
    ----------
    perplexity : float or tuple of float, default=30.0
        Effective number of neighbours, exp of the entropy of p_{·|i}; use about three times as many `Neighbors`. If
        several are given, the weights are the mean.
    """

    perplexity: float | tuple[float, ...] = 30.0

    turns = {DISTANCES: WEIGHTS}

    def __post_init__(self) -> None:
        if not (several(self.perplexity) and all(map(_ABOVE_ONE.admits, several(self.perplexity)))):
            raise ValueError(f"perplexity={self.perplexity!r} must be greater than 1, or several such numbers.")

    def apply(self, values: Tensor, neighbors: NeighborGraph) -> Tensor:
        """Return p_{j|i} (q, k), float64."""
        first, *others = (conditional_probabilities(values, perplexity) for perplexity in several(self.perplexity))
        return sum(others, first) / (1 + len(others))


@dataclass(frozen=True)
class _ThirdOfNeighbors(Perplexity):
    """Weights whose perplexity is at most a third of the neighbours, if there are too few rows for as many."""

    def apply(self, values: Tensor, neighbors: NeighborGraph) -> Tensor:
        """Return p_{j|i} (q, k), float64."""
        n_neighbors, wanted = values.shape[1], several(self.perplexity)
        if n_neighbors >= int(3 * max(wanted)):
            return super().apply(values, neighbors)
        most = largest_perplexity(n_neighbors + 1)
        return Perplexity(tuple(min(perplexity, most) for perplexity in wanted)).apply(values, neighbors)


class EntropicAffinity(TransformedAffinity):
    """Symmetrised Gaussian affinities whose widths give every row the same perplexity; ΣP = 1.

    p_{j|i} ∝ exp(−β_i d²_ij) over the 3·perplexity nearest neighbours; P = (p + pᵀ) / 2n.

    Parameters
    ----------
    perplexity : float or sequence of float, default=30.0
        Effective number of neighbours, exp of the entropy of p_{·|i}. If several are given, p is their mean over three
        times as many neighbours as the largest, which captures near and far structure (Kobak & Berens, 2019). Above
        a third of the other points, that third is used, with a warning.
    metric, backend
        See `Affinity`.
    """

    perplexity: float | Sequence[float] = 30.0

    size_parameter: ClassVar[str] = "perplexity"

    def _n_neighbors_needed(self, n: int) -> int:
        self._transforms()
        return int(3 * max(several(self.perplexity)))

    def _lowered(self, n: int) -> tuple[int, str]:
        return n - 1, f"{largest_perplexity(n):.3g} is used, a third of the other points"

    def _transforms(self) -> tuple[Transform, ...]:
        one_or_more = several(self.perplexity)
        return _ThirdOfNeighbors(one_or_more[0] if len(one_or_more) == 1 else one_or_more), Symmetrize("mean")

    def from_neighbors(self, neighbors: NeighborGraph) -> AffinityGraph:
        """Return the symmetrised graph, divided by the number of rows, as each of these sums to 1."""
        graph = super().from_neighbors(neighbors)
        return replace(graph, weights=graph.weights * (1 / neighbors.share.n))


def largest_perplexity(n: int) -> float:
    """Return the largest perplexity that tells near from far among ``n`` points: a third of the others."""
    return max((n - 1) / 3, 1.5)


def several(perplexity: float | Sequence[float]) -> tuple[float, ...]:
    """Return one or more perplexities as a tuple."""
    is_one = isinstance(perplexity, str) or not isinstance(perplexity, (Sequence, np.ndarray))
    return (perplexity,) if is_one else tuple(perplexity)  # type: ignore[arg-type,return-value]  # is_one tells which


def conditional_probabilities(distances_nk: Tensor, perplexity: float) -> Tensor:
    """Return p_{j|i} (n, k), float64, with rows of the given perplexity (to 1e-6, where one exists).

    A row of k neighbours cannot exceed perplexity k and is then uniform. No row depends on another.
    """
    target = math.log(min(perplexity, distances_nk.shape[1]))
    if not on_cpu(distances_nk):
        return device.conditional_probabilities(distances_nk, target)
    from torchdr_cne.affinity import kernels  # imports Numba

    distances = np.ascontiguousarray(distances_nk.numpy())
    p = np.empty(distances.shape)
    with Workers() as workers:
        workers.parallel_for(kernels.conditional_probabilities, len(distances), distances, target, p)
    return torch.from_numpy(p)
