"""Affinities whose rows all have the same sum, by Sinkhorn scaling or by projection in the quadratic norm."""

import torch
from scipy.optimize import minimize
from torch import Tensor

from torchdr_cne.affinity.dense import AllPairsAffinity, relative_squares, without_diagonal
from torchdr_cne.sinkhorn import sinkhorn_scaling

_STEPS, _TOLERANCE = 10_000, 1e-7


def scaled_to_rows(log_kernel: Tensor, start: Tensor | None = None) -> Tensor:
    """Return e^{f_i + f_j} k_ij (n, n) with rows of sum 1, given log k, which is −inf where there is no pair."""
    start = -torch.logsumexp(log_kernel, dim=1) / 2 if start is None else start
    f = sinkhorn_scaling(lambda f: torch.logsumexp(log_kernel + f, dim=1), start, _STEPS, _TOLERANCE)
    return torch.exp(log_kernel + (f + f.unsqueeze(1)))  # the same bits on both sides of the diagonal


class SinkhornAffinity(AllPairsAffinity):
    """Gaussian weights exp(−d²/(ε m)), scaled so that every row sums to 1/n; m is the mean squared distance.

    Parameters
    ----------
    eps : float, default=0.05
        Entropic regularisation ε, in units of the mean squared distance.
    metric, backend
        See `Affinity`.
    """

    eps: float = 0.05

    _positive = ("eps",)

    def weights(self, distances: Tensor) -> Tensor:
        """Return the scaled weights."""
        return scaled_to_rows(without_diagonal(relative_squares(distances) / -self.eps))


class DoublyStochasticQuadraticAffinity(AllPairsAffinity):
    """The doubly stochastic matrix nearest to −d²/(ε m) in the quadratic norm; m is the mean squared distance.

    n P_ij = [f_i + f_j − d²_ij/(ε m)]₊ with f such that every row of P sums to 1/n; most entries are 0.

    Parameters
    ----------
    eps : float, default=1.0
        Regularisation ε; the larger it is, the more neighbours a point has.
    metric, backend
        See `Affinity`.
    """

    eps: float = 1.0

    _positive = ("eps",)

    def weights(self, distances: Tensor) -> Tensor:
        """Return the projection, whose rows sum to 1."""
        cost = without_diagonal(relative_squares(distances) / self.eps, torch.inf)

        def matrix(f: Tensor) -> Tensor:
            return (f + f.unsqueeze(1) - cost).clamp_min_(0)

        def dual(values):  # type: ignore[no-untyped-def]  # SciPy calls it
            f = torch.from_numpy(values)
            p = matrix(f)
            return float(p.square().sum() / 4 - f.sum()), ((p.sum(dim=1)) - 1).numpy()

        start = cost.amin(dim=1) / 2 + 1 / len(cost)
        options = {"maxiter": 5000, "maxfun": 10_000, "ftol": 0.0, "gtol": 1e-8, "maxcor": 20}
        found = minimize(dual, start.numpy(), jac=True, method="L-BFGS-B", options=options)
        return matrix(torch.from_numpy(found.x))
