"""Symmetric entropic affinities (Van Assel, Vayer, Flamary & Courty, 2023)."""

import math
import warnings
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from torchdr_cne.affinity.dense import AllPairsAffinity, relative_squares, without_diagonal
from torchdr_cne.affinity.doubly_stochastic import scaled_to_rows
from torchdr_cne.affinity.entropic import conditional_probabilities, largest_perplexity

_TOLERANCE, _MOST_STEPS, _MOST_STARTS = 1e-3, 1000, 10
_LEAST_WIDTH = 1e-3
"""Least width of a row relative to that of its entropic affinity, which prevents a division by 0."""


class SymmetricEntropicAffinity(AllPairsAffinity):
    """The doubly stochastic P of least transport cost whose rows have at least the given perplexity; ΣP = 1.

    n P_ij = exp((λ_i + λ_j − 2 d²_ij)/(γ_i + γ_j)). Unlike the mean of a matrix of conditional probabilities and its
    transpose, P has rows of equal sum, 1/n, and of the given perplexity. A row has a higher perplexity only if the
    neighbours of its point give it more of their mass than it would take itself.

    Parameters
    ----------
    perplexity : float, default=30.0
        Effective number of neighbours, exp of the entropy of a row; from n − 1 on all pairs have equal weight.
    metric, backend
        See `Affinity`.
    """

    perplexity: float = 30.0

    size_parameter: ClassVar[str] = "perplexity"

    def check(self) -> None:
        """Raise a ValueError unless ``perplexity`` is greater than 1."""
        if not self.perplexity > 1:
            raise ValueError(f"perplexity={self.perplexity} must be greater than 1.")

    def weights(self, distances: Tensor) -> Tensor:
        """Return n P."""
        n = len(distances)
        if n < 4:
            return torch.ones_like(distances)
        dual = _Dual(relative_squares(distances), self._perplexity_among(n))
        log_kernel = dual.log_kernel(dual.solve())
        return scaled_to_rows(log_kernel, torch.zeros(n, dtype=torch.float64))

    def _perplexity_among(self, n: int) -> float:
        """Return the perplexity, or a smaller one with a warning."""
        most = largest_perplexity(n)
        if self.perplexity > most:
            warnings.warn(
                f"perplexity={self.perplexity} is too large for {n} samples: {most:.3g} is used, a third of the other "
                "points.",
                UserWarning,
                stacklevel=3,
            )
        return min(self.perplexity, most)


class _Dual:
    """The concave dual function of γ (n,) and λ (n,), in units of the widths of the rows' entropic affinities."""

    def __init__(self, cost: Tensor, perplexity: float) -> None:
        self._cost, self._target = cost, math.log(perplexity)
        n = len(cost)
        is_other = ~torch.eye(n, dtype=torch.bool)
        others = cost[is_other].view(n, n - 1)
        p = conditional_probabilities(others.sqrt(), perplexity)
        # p falls as exp(−d²/γ), so its width is measured where its mass is.
        nearest = others.argmin(dim=1, keepdim=True)
        rise = others - others.gather(1, nearest)
        fall = (p.gather(1, nearest) / p.clamp_min(1e-300)).log()
        width = (p * rise).sum(dim=1) / (p * fall).sum(dim=1).clamp_min(1e-12)
        self._width = torch.where(width > 0, width, width[width > 0].amin() if bool((width > 0).any()) else 1.0)
        log_total = torch.logsumexp(-others / self._width.unsqueeze(1), dim=1)
        self._start = torch.cat([torch.ones(n, dtype=torch.float64), -log_total])
        self.error = torch.inf

    def log_kernel(self, multipliers: Tensor) -> Tensor:
        """Return log n P (n, n), −inf on the diagonal."""
        gamma, lam = (self._width * part for part in multipliers.chunk(2))
        exponents = lam + lam.unsqueeze(1) - 2 * self._cost
        return without_diagonal(exponents / (gamma + gamma.unsqueeze(1)))

    def solve(self) -> Tensor:
        """Return γ and λ (2n,) at which rows sum to 1 and have the perplexity, or more at the bound of γ."""
        n = len(self._cost)
        bounds = [(_LEAST_WIDTH, None)] * n + [(None, None)] * n
        options = {"maxiter": _MOST_STEPS, "maxfun": 2 * _MOST_STEPS, "ftol": 0.0, "gtol": 0.0, "maxcor": 20}
        multipliers, n_steps = self._start.numpy(), 0
        for _ in range(_MOST_STARTS):  # a search that stalls is restarted without its memory
            found = minimize(
                self._negative, multipliers, jac=True, method="L-BFGS-B", bounds=bounds,
                callback=self._stop_if_solved, options=options,
            )  # fmt: skip
            multipliers, n_steps = found.x, n_steps + found.nit
            self._negative(multipliers)  # sets the error to that of these multipliers
            if self.error < _TOLERANCE or n_steps >= _MOST_STEPS or found.nit == 0:
                break
        if self.error > 0.05:
            warnings.warn(
                f"the symmetric entropic affinity is off by {self.error:.2g} in a row's sum or perplexity after "
                f"{n_steps} steps; many points may coincide.",
                UserWarning,
                stacklevel=2,
            )
        return torch.from_numpy(multipliers)

    def _negative(self, multipliers: np.ndarray) -> tuple[float, np.ndarray]:
        """Return minus the dual and its gradient."""
        found = torch.from_numpy(multipliers)
        log_p = self.log_kernel(found)
        p = log_p.exp()
        sums = p.sum(dim=1)
        entropy = -torch.where(p > 0, p * log_p, 0.0).sum(dim=1)
        gamma, lam = (self._width * part for part in found.chunk(2))
        value = (gamma * (self._target + 1 - sums)).sum() + lam.sum()
        lacking = self._target + 1 - entropy - sums
        at_bound = found.chunk(2)[0] <= _LEAST_WIDTH
        # A row at the bound may exceed the given perplexity, but not fall short of it.
        of_entropy = torch.where(at_bound, lacking.clamp_min(0), lacking.abs()).max()
        self.error = float(torch.maximum((sums - 1).abs().max(), of_entropy))
        return -float(value), -(torch.cat([self._width * lacking, self._width * (1 - sums)])).numpy()

    def _stop_if_solved(self, multipliers: np.ndarray) -> None:
        if self.error < _TOLERANCE:
            raise StopIteration
