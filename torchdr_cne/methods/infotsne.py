"""InfoNC-t-SNE."""

from typing import ClassVar

import torch
from torch import Tensor

from torchdr_cne.checks import FINITE, Bound
from torchdr_cne.forces import PairForces
from torchdr_cne.kernels import CAUCHY
from torchdr_cne.losses import log_add_positive, log_normaliser
from torchdr_cne.matching import NegativeSamplingNeighborEmbedding, Pairs, Phase
from torchdr_cne.objectives.pairs import rows_at


class InfoTSNE(NegativeSamplingNeighborEmbedding):
    """InfoNC-t-SNE: each edge against the sum over its row's negatives (Damrich et al., 2023).

    The attraction is −log q_ij and the repulsion (1/ρ) · log(q_ij + Σ_k q_ik), on the union kNN graph with the Cauchy
    similarity. More negatives give a finer embedding, closer to t-SNE. By default the first fifth of the iterations
    runs at s = max(s, 1).

    Parameters
    ----------
    s : float or None, default=None
        Spectrum parameter, ρ = 4^s: 0 (the default) is t-SNE-like, 1 is UMAP-like. It is equivalent to
        ``exaggeration`` = ρ; at most one of the two may be given.

    """

    s: float | None = None
    n_negatives: int = 256

    _bounds: ClassVar[dict[str, Bound]] = {"s": FINITE}
    _default_max_iter: ClassVar[int] = 200
    _base_learning_rate: ClassVar[float] = 1.7
    _early_share_of_draws: ClassVar[float] = 0.125

    def _compute_attractive_loss(self, pairs: Pairs) -> Tensor:
        return -pairs.log_q_edges

    def _compute_repulsive_loss(self, pairs: Pairs) -> Tensor:
        log_totals = log_normaliser(pairs.log_q_negatives) + torch.log(pairs.draw_weights)
        return log_add_positive(pairs.log_q_edges, rows_at(log_totals, pairs.rows))

    def _pair_forces(self) -> PairForces:
        return PairForces.of_kernel(CAUCHY)

    @property
    def _default_negatives_per_row(self) -> int:  # type: ignore[override]  # follows n_negatives
        return self.n_negatives

    def _auto_learning_rate(self, phase: Phase, n: int) -> float:
        # More negatives mean less noise, and finer structure that has to be found.
        return super()._auto_learning_rate(phase, n) * (self.n_negatives / 256) ** (1 / 3)

    def _spectrum_parameters(self, s: float) -> dict[str, float | None]:
        return {"s": s, "exaggeration": None}

    def _main_exaggeration(self) -> float:
        if self.s is not None and self.exaggeration is not None:
            raise ValueError(f"s={self.s} and exaggeration={self.exaggeration} exclude each other; give one.")
        return super()._main_exaggeration() if self.s is None else 4.0**self.s

    def _early_exaggeration(self) -> float:
        early = super()._early_exaggeration()
        return max(self._main_exaggeration(), 4.0) if early is None else early
