"""t-SNEkhorn."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.affinity import Affinity, SymmetricEntropicAffinity
from torchdr_cne.forces import PairForces
from torchdr_cne.kernels import CAUCHY
from torchdr_cne.matching import AllPairsNeighborEmbedding, FitState, RowSums
from torchdr_cne.optimization.delta_bar_delta import DeltaBarDelta
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.sinkhorn import sinkhorn_scaling

_STEPS, _LAST_STEPS, _TOLERANCE = 3, 1000, 1e-5


class TSNEkhorn(AllPairsNeighborEmbedding):
    """t-SNEkhorn: symmetric entropic P against a doubly stochastic Q (Van Assel et al., 2023).

    Q_ij = e^{f_i + f_j} / (1 + d²_ij), with f such that each row of Q sums to 1/n, as the rows of P do. The loss is
    −Σ P log Q + Σ Q. All points have the same mass in Q, so that outliers are not pushed farther away than they are.
    f is solved for in every iteration and not differentiated, as the loss does not depend on f to first order there.
    The method's own P is dense: memory and time grow as n².

    Attributes
    ----------
    log_scaling_ : ndarray of shape (n,)
        f of the final embedding, with n Q in place of Q.
    marginal_error_ : float
        Largest |n Σ_j Q_ij − 1| of the final embedding.
    """

    scheduler: str | type[LRScheduler] | None = None
    init_scaling: float = 1e-4

    _default_max_iter: ClassVar[int] = 1000
    _base_learning_rate: ClassVar[float] = 0.25
    _default_optimizer: ClassVar[str | type[Optimizer]] = DeltaBarDelta
    _early_share: ClassVar[float] = 0.25

    def _compute_repulsive_loss(self, pairs: RowSums) -> Tensor:
        """Return n Σ_j Q_ij − 2 f_i of each row; −2 f_i is the part of −Σ P log Q that the attraction lacks."""
        assert pairs.log_charges is not None
        return torch.exp(pairs.log_charges + pairs.log_row_sums) - 2 * pairs.log_charges

    def _log_charges(self, state: FitState, log_row_sums: Callable[[Tensor | None], Tensor]) -> Tensor:
        before = state.carried.get("log_scaling")
        if before is None:
            before = -log_row_sums(None) / 2
        state.carried["log_scaling"] = sinkhorn_scaling(log_row_sums, before, _STEPS)
        return state.carried["log_scaling"]

    def _pair_forces(self) -> PairForces:
        return PairForces.of_kernel(CAUCHY)

    def _default_affinity(self) -> Affinity:
        return SymmetricEntropicAffinity(perplexity=self.perplexity, metric=self.metric, backend=self.backend)

    def _early_exaggeration(self) -> float:
        early = super()._early_exaggeration()
        return 12.0 if early is None else early

    def _conclude(self, objective: Objective, state: FitState) -> Mapping[str, Any]:
        log_sums = partial(self._sums().final_log_row_sums, objective.embedding(), state)
        f = sinkhorn_scaling(log_sums, -log_sums(None) / 2, _LAST_STEPS, _TOLERANCE)
        return {
            "log_scaling": f.cpu().numpy(),
            "marginal_error": float(torch.expm1(f + log_sums(f)).abs().max()),
        }
