"""Neg-t-SNE."""

import math
import warnings
from typing import Any, ClassVar

from torch import Tensor

from torchdr_cne.checks import FINITE, POSITIVE, Bound
from torchdr_cne.forces import PairForces
from torchdr_cne.losses import classified_as_data, classified_as_noise
from torchdr_cne.matching import NegativeSamplingNeighborEmbedding, Pairs, Phase


class NegTSNE(NegativeSamplingNeighborEmbedding):
    """Neg-t-SNE: each edge against uniform noise of fixed odds ν (Damrich et al., 2023).

    The attraction is −log(q/(q + ν)) and the repulsion −log(ν/(q + ν)) per negative, on the union kNN graph with the
    Cauchy similarity. ν moves the embedding along the attraction–repulsion spectrum: ν = 1 is close to UMAP, smaller
    ν is closer to t-SNE. By default the first fifth of the iterations runs at s = max(s, 1).

    Parameters
    ----------
    s : float or None, default=None
        Spectrum parameter: 0 is t-SNE-like, 1 is UMAP-like, and other values inter- or extrapolate. Its normalisation
        is Z̄(s) = Z̄₀^{1−s} Z̄₁^s with Z̄₁ = n²/m (ν = 1) and Z̄₀ = min(100 n, Z̄₁).
    Z_bar : float or None, default=None
        Fixed normalisation Z̄, which sets ν = m Z̄ / n².
    nu : float or None, default=None
        Noise odds ν. At most one of ``s``, ``Z_bar`` and ``nu`` may be given; without any of them ν = 1.
    """

    s: float | None = None
    Z_bar: float | None = None
    nu: float | None = None

    _bounds: ClassVar[dict[str, Bound]] = {
        "s": FINITE,
        "Z_bar": POSITIVE,
        "nu": POSITIVE,
    }
    _default_max_iter: ClassVar[int] = 300
    _base_learning_rate: ClassVar[float] = 2.0
    _default_negatives_per_row: ClassVar[int] = 128
    _early_share_of_draws: ClassVar[float] = 0.5

    def _compute_attractive_loss(self, pairs: Pairs) -> Tensor:
        return classified_as_data(pairs.log_q_edges, pairs.parameters["log_nu"])

    def _compute_repulsive_loss(self, pairs: Pairs) -> Tensor:
        return classified_as_noise(pairs.log_q_negatives, pairs.parameters["log_nu"])

    def _pair_forces(self) -> PairForces:
        return PairForces(attractive=attractive, repulsive=repulsive)

    def _force_parameters(self, parameters: dict[str, Any]) -> tuple[float]:
        return (math.exp(parameters["log_nu"]),)

    def _phase_parameters(self, n: int, early: bool) -> dict[str, float]:
        log_nu = self._log_nu(n)
        return {"log_nu": max(log_nu, 0.0) if early and self.early_exaggeration is None else log_nu}

    def _auto_learning_rate(self, phase: Phase, n: int) -> float:
        # Forces along edges shrink with ν; a power of .55 follows them without amplifying the noise of few draws.
        return super()._auto_learning_rate(phase, n) * math.exp(-0.55 * phase.parameters["log_nu"])

    def _attraction(self, phase: Phase) -> float:
        return super()._attraction(phase) * math.exp(phase.parameters["log_nu"])

    def _spectrum_parameters(self, s: float) -> dict[str, float | None]:
        return {"s": s, "Z_bar": None, "nu": None}

    def _log_nu(self, n: int) -> float:
        """Return log ν of the main phase."""
        given = {name: getattr(self, name) for name in ("s", "Z_bar", "nu") if getattr(self, name) is not None}
        if len(given) > 1:
            raise ValueError(f"{given} exclude each other; give at most one of s, Z_bar and nu.")
        if self.s is not None:
            return _log_nu_of_s(self.s, n, self.n_negatives)
        nu = self.nu if self.nu is not None else 1.0
        if self.Z_bar is not None:
            nu = self.n_negatives * self.Z_bar / n**2
        return math.log(nu)


def _log_nu_of_s(s: float, n: int, n_negatives: int) -> float:
    """Return log ν at spectrum parameter ``s``: linear from log(100 m/n), or 0 for small n, to 0 at s = 1."""
    log_nu_0 = min(0.0, math.log(100 * n_negatives / n))
    if log_nu_0 == 0:
        warnings.warn(
            f"{s=} has no effect for n={n} <= 100 · n_negatives={100 * n_negatives}: "
            "both ends of the spectrum are ν = 1.",
            UserWarning,
            stacklevel=2,
        )
    return (1 - s) * log_nu_0


def attractive(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of log(1 + ν(1 + d²)): ν/(q + ν) · q."""
    nu = p[0]
    return nu / (1.0 + nu * (1.0 + d2))


def repulsive(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of log(1 + q/ν): −q/(q + ν) · q."""
    nu = p[0]
    return -1.0 / ((1.0 + d2) * (1.0 + nu * (1.0 + d2)))
