"""PaCMAP."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from torchdr_cne.affinity import Affinity, ScaledAffinity
from torchdr_cne.checks import NOT_NEGATIVE, POSITIVE, Bound
from torchdr_cne.forces import PairForces
from torchdr_cne.matching import FitState, FixedPairsNeighborEmbedding, Pairs
from torchdr_cne.objectives.fixed_pairs import AttractingGroup, FixedPairs
from torchdr_cne.sampling import far_points, mid_near_points

NEAR, MID_NEAR = 10.0, 10_000.0  # c of d̃/(c + d̃), of neighbours and of mid-near pairs


class PACMAP(FixedPairsNeighborEmbedding):
    """PaCMAP: neighbours and mid-near pairs attract, far pairs repel (Wang, Huang, Rudin & Shaposhnik, 2021).

    With d̃ = 1 + d² = 1/q the loss is w_NB Σ d̃/(10 + d̃) + w_MN Σ d̃/(10⁴ + d̃) + w_FP Σ 1/(1 + d̃), over fixed pairs.
    Neighbours are those of `torchdr_cne.affinity.ScaledAffinity`; a mid-near point is the second nearest of six random
    points; far points are random points that are not neighbours. The weights (w_NB, w_MN, w_FP) are (2, 1 000 falling
    to 3, 1) in the first 2/9 of the iterations (100 of 450), (3, 3, 1) up to 4/9 and (1, 0, 1) after that.

    Parameters
    ----------
    n_neighbors : int, default=10
        Number of neighbours that attract a point, not counting the point itself.
    MN_ratio : float, default=0.5
        Mid-near pairs of a point, divided by ``n_neighbors``. They shape the global structure and need rows of ``X``.
    FP_ratio : float, default=2.0
        Far pairs of a point, divided by ``n_neighbors``.
    """

    n_neighbors: int = 10
    MN_ratio: float = 0.5
    FP_ratio: float = 2.0
    init_scaling: float = 0.01

    _bounds: ClassVar[dict[str, Bound]] = {"MN_ratio": NOT_NEGATIVE, "FP_ratio": POSITIVE}
    _default_max_iter: ClassVar[int] = 450
    _constant: ClassVar[float] = NEAR

    def _compute_attractive_loss(self, pairs: Pairs) -> Tensor:
        return 1 / (1 + pairs.parameters["constant"] * torch.exp(pairs.log_q_edges))

    def _compute_repulsive_loss(self, pairs: Pairs) -> Tensor:
        q = torch.exp(pairs.log_q_negatives)
        return q / (1 + q)

    def _pair_forces(self) -> PairForces:
        return PairForces(attractive=attractive, repulsive=repulsive)

    def _default_affinity(self) -> Affinity:
        return ScaledAffinity(n_neighbors=self.n_neighbors, metric=self.metric, backend=self.backend)

    def _choose_pairs(self, state: FitState) -> FixedPairs:
        graph, seed, k = state.graph, state.seed, min(self.n_neighbors, state.graph.n_points - 1)
        neighbors, n_far = (graph.indptr, graph.indices), max(1, round(self.FP_ratio * k))
        far = far_points(graph.n_points, n_far, seed=seed, neighbors=neighbors)
        middle = far[:, :0]
        if self.MN_ratio > 0:
            rows, metric = state.whole_rows("mid-near pairs", "set MN_ratio=0"), self._input_affinity().metric
            middle = mid_near_points(rows, max(1, round(self.MN_ratio * k)), metric=metric, seed=seed).to(far.device)
        groups = AttractingGroup(graph, 1.0, NEAR), AttractingGroup(middle, self.MN_ratio, MID_NEAR)
        return FixedPairs(groups, far, self.FP_ratio)

    @property
    def _repelling_weight(self) -> float:
        return self.FP_ratio

    def _group_weights(self, step: int, n_iter: int) -> tuple[float, float, float]:
        first, second = round(n_iter * 2 / 9), round(n_iter * 4 / 9)
        if step < first:
            return 2.0, 1000.0 + (3.0 - 1000.0) * step / first, 1.0
        return (3.0, 3.0, 1.0) if step < second else (1.0, 0.0, 1.0)


def attractive(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of d̃/(c + d̃): c/(c + d̃)²."""
    c = p[0]
    whole = c + 1.0 + d2
    return c / (whole * whole)


def repulsive(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of 1/(1 + d̃): −1/(1 + d̃)²."""
    return -1.0 / ((2.0 + d2) * (2.0 + d2))
