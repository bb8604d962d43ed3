"""t-SNE."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.checks import POSITIVE, Bound
from torchdr_cne.forces import PairForces
from torchdr_cne.matching import AllPairsNeighborEmbedding, EncodedNeighborEmbedding, FitState, RowSums
from torchdr_cne.optimization.delta_bar_delta import DeltaBarDelta
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.similarities import StudentT


class TSNE(EncodedNeighborEmbedding, AllPairsNeighborEmbedding):
    """t-SNE: the divergence of P from Q, normalised over all pairs (van der Maaten & Hinton, 2008).

    The attraction is −Σ P_ij log q_ij and the repulsion log Σ_{i≠j} q_ij, with Student's kernel q = (1 + d²/α)^{−α}.

    Parameters
    ----------
    dof : float, default=1.0
        Degrees of freedom α as in openTSNE: 1 is t-SNE, smaller α spreads clusters further (Kobak et al., 2019).

    Attributes
    ----------
    kl_divergence_ : float
        KL(P‖Q) of the final embedding over all pairs, without exaggeration; not set under an encoder.
    log_z_ : float
        log Σ_{i≠j} q_ij of the final embedding; not set under an encoder.
    """

    dof: float = 1.0
    init_scaling: float = 1e-4
    scheduler: str | type[LRScheduler] | None = None

    _bounds: ClassVar[dict[str, Bound]] = {"dof": POSITIVE}
    _default_max_iter: ClassVar[int] = 1000
    # Belkina et al. (2019): n / exaggeration, without the factor 4 of the gradient; the loss here is times n.
    _base_learning_rate: ClassVar[float] = 0.25
    _default_optimizer: ClassVar[str | type[Optimizer]] = DeltaBarDelta
    _early_share: ClassVar[float] = 0.25
    _interpolates: ClassVar[bool] = True

    def _compute_repulsive_loss(self, pairs: RowSums) -> Tensor:
        return pairs.log_total

    def _default_similarity(self) -> StudentT:
        return StudentT(self.dof)

    @property
    def _width(self) -> float:
        return min(1.0, self.dof**0.5)

    def _pair_forces(self) -> PairForces:
        return PairForces.of_kernel(self._default_similarity().kernel)

    def _force_parameters(self, parameters: dict[str, Any]) -> tuple[float, ...]:
        return self._default_similarity().kernel.parameters

    def _conclude(self, objective: Objective, state: FitState) -> Mapping[str, float]:
        if self._by_network:
            return {}
        embedding_nd, sums = objective.embedding(), self._sums()
        log_z = float(torch.logsumexp(sums.final_log_row_sums(embedding_nd, state).double(), dim=0))
        return {"log_z": log_z, "kl_divergence": sums.divergence(embedding_nd, state) + log_z}

    def _early_exaggeration(self) -> float:
        early = super()._early_exaggeration()
        return 12.0 if early is None else early
