"""t-SNE."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.checks import POSITIVE, Bound
from torchdr_cne.forces import PairForces
from torchdr_cne.matching import AllPairsNeighborEmbedding, Phase, RowSums
from torchdr_cne.objectives.points import Objective
from torchdr_cne.optimization.delta_bar_delta import DeltaBarDelta
from torchdr_cne.optimization.state import FitState
from torchdr_cne.similarities import Similarity, StudentT

_LEAST_RATE = 50.0


class TSNE(AllPairsNeighborEmbedding):
    """t-SNE: the divergence of P from Q, normalised over all pairs (van der Maaten & Hinton, 2008).

    Attraction −Σ P_ij log q_ij, repulsion log Σ_{i≠j} q_ij, with Student's kernel q = (1 + d²/α)^{−α}.

    Parameters
    ----------
    dof : float, default=1.0
        Degrees of freedom α, openTSNE's convention: 1 is t-SNE, less spreads clusters further (Kobak et al., 2019).

    Other parameters are those of `AllPairsNeighborEmbedding`.

    Attributes
    ----------
    kl_divergence_ : float
        KL(P‖Q) of the final layout over all pairs, without exaggeration; not under an encoder.
    log_z_ : float
        log Σ_{i≠j} q_ij of the final layout.
    """

    dof: float = 1.0
    init_scaling: float = 1e-4
    scheduler: str | type[LRScheduler] | None = None

    _bounds: ClassVar[dict[str, Bound]] = {**AllPairsNeighborEmbedding._bounds, "dof": POSITIVE}
    _default_max_iter: ClassVar[int] = 1000
    _default_optimizer: ClassVar[type[Optimizer]] = DeltaBarDelta
    _early_share: ClassVar[float] = 0.25
    _interpolates: ClassVar[bool] = True

    def _compute_repulsive_loss(self, pairs: RowSums) -> Tensor:
        return pairs.log_total

    def _default_similarity(self) -> Similarity:
        return StudentT(self.dof)

    @property
    def _width(self) -> float:
        return min(1.0, self.dof**0.5)

    def _pair_forces(self) -> PairForces:
        if self.dof == 1:
            return PairForces(attractive=cauchy, repulsive=cauchy_slope, normaliser=cauchy)
        return PairForces(attractive=attractive, repulsive=student_slope, normaliser=student)

    def _force_parameters(self, parameters: dict[str, Any]) -> tuple[float, ...]:
        return (self.dof,)

    def _conclude(self, objective: Objective, state: FitState) -> None:
        if self.encoder is not None:
            for name in ("log_z_", "kl_divergence_"):  # of an earlier fit
                self.__dict__.pop(name, None)
            return
        embedding_nd = objective.embedding()
        self.log_z_ = float(torch.logsumexp(self._final_log_row_sums(embedding_nd, state).double(), dim=0))
        self.kl_divergence_ = self._divergence(embedding_nd, state) + self.log_z_

    def _early_exaggeration(self) -> float:
        early = super()._early_exaggeration()
        return 12.0 if early is None else early

    def _auto_learning_rate(self, phase: Phase, n: int) -> float:
        # n / exaggeration for the gradient without its factor 4, and at least 50, of the loss times n (Belkina, 2019).
        return max(n / phase.exaggeration / 4, _LEAST_RATE) / n


def cauchy(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """q = 1/(1 + d²), which is also the derivative of −log q."""
    return 1.0 / (1.0 + d2)


def cauchy_slope(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of q: −q²."""
    return -1.0 / ((1.0 + d2) * (1.0 + d2))


def student(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """q = (1 + d²/α)^{−α}."""
    return power(1.0 + d2 / p[0], -p[0])


def student_slope(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of q: −(1 + d²/α)^{−α−1}."""
    return -1.0 * power(1.0 + d2 / p[0], -p[0] - 1.0)


def attractive(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of α log(1 + d²/α)."""
    return 1.0 / (1.0 + d2 / p[0])
