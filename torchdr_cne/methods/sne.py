"""Stochastic neighbour embedding."""

from typing import ClassVar

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.forces import PairForces
from torchdr_cne.matching import AllPairsNeighborEmbedding, EncodedNeighborEmbedding, RowSums
from torchdr_cne.optimization.delta_bar_delta import DeltaBarDelta
from torchdr_cne.similarities import Gaussian


class SNE(EncodedNeighborEmbedding, AllPairsNeighborEmbedding):
    """SNE: each point has its own distribution over the others, P and Q normalised by row (Hinton & Roweis, 2002).

    The loss is the mean over points of −Σ_j p_{j|i} log q_ij + log Σ_{j≠i} q_ij with q = exp(−d²). As q is symmetric,
    the symmetrised P in `graph_` gives the same attraction. All rows have the same weight in the repulsion.
    """

    init_scaling: float = 0.1
    scheduler: str | type[LRScheduler] | None = None

    _default_max_iter: ClassVar[int] = 1000
    _default_optimizer: ClassVar[str | type[Optimizer]] = DeltaBarDelta
    _base_learning_rate: ClassVar[float] = 0.05

    def _compute_repulsive_loss(self, pairs: RowSums) -> Tensor:
        return pairs.log_row_sums

    def _default_similarity(self) -> Gaussian:
        return Gaussian()

    def _pair_forces(self) -> PairForces:
        return PairForces.of_kernel(self._default_similarity().kernel)
