"""Affinities of the embedding as whole matrices, and losses that compare them with those of the data."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchdr_cne.checks import check_choice
from torchdr_cne.similarities import Cauchy, Similarity
from torchdr_cne.sinkhorn import sinkhorn_scaling

LOSSES = ("cross_entropy", "square")
_NORMALISERS = ("total", "rows", "sinkhorn", "nothing")
_SINKHORN_STEPS, _TOLERANCE = 1000, 1e-4


class OutputAffinity(ABC):
    """A differentiable function from an embedding (n, d) to Q (n, n)."""

    @abstractmethod
    def __call__(self, z_nd: Tensor) -> Tensor:
        """Return Q (n, n)."""

    def log(self, z_nd: Tensor) -> Tensor:
        """Return log Q (n, n), −inf where Q is 0."""
        return self(z_nd).log()

    def total(self, log_q: Tensor) -> Tensor | float:
        """Return the term Σ Q of a cross-entropy of matrices whose sums may differ; 0 if their sums are equal."""
        return 0.0


@dataclass(frozen=True)
class ScalarProduct(OutputAffinity):
    """The matrix Q = Z Zᵀ including its diagonal; with the square loss on a Gram matrix this is PCA."""

    def __call__(self, z_nd: Tensor) -> Tensor:
        """Return Q (n, n)."""
        return z_nd @ z_nd.T

    def log(self, z_nd: Tensor) -> Tensor:
        """Raise a ValueError, as scalar products may be negative."""
        raise ValueError("scalar products have no logarithm, which loss='cross_entropy' needs; use loss='square'.")


@dataclass(frozen=True)
class Normalized(OutputAffinity):
    """The scaled similarities of embedded points; the diagonal is 0.

    Parameters
    ----------
    similarity : Similarity, default=Cauchy()
        Similarity q of two points.
    over : {"total", "rows", "sinkhorn", "nothing"}, default="total"
        "total": ΣQ = 1, as in t-SNE. "rows": each row sums to 1/n, as in SNE. "sinkhorn": Q is symmetric and each row
        sums to 1/n, as in t-SNEkhorn. "nothing": Q = q.
    """

    similarity: Similarity = Cauchy()
    over: str = "total"

    def __post_init__(self) -> None:
        check_choice("over", self.over, _NORMALISERS)
        if not isinstance(self.similarity, Similarity):
            raise ValueError(f"similarity={self.similarity!r} must be a Similarity such as Cauchy() or Gaussian().")

    def __call__(self, z_nd: Tensor) -> Tensor:
        """Return Q (n, n)."""
        return self.log(z_nd).exp()

    def log(self, z_nd: Tensor) -> Tensor:
        """Return log Q (n, n), −inf on the diagonal."""
        log_q = self.similarity.table(z_nd, z_nd)
        log_q = log_q.masked_fill(torch.eye(len(z_nd), dtype=torch.bool, device=z_nd.device), -torch.inf)
        log_n = torch.log(torch.tensor(float(len(z_nd)), dtype=z_nd.dtype))
        if self.over == "total":
            return log_q - torch.logsumexp(log_q.flatten(), dim=0)
        if self.over == "rows":
            return log_q - torch.logsumexp(log_q, dim=1, keepdim=True) - log_n
        if self.over == "sinkhorn":
            with torch.no_grad():
                start = -torch.logsumexp(log_q, dim=1) / 2
                f = sinkhorn_scaling(lambda f: torch.logsumexp(log_q + f, dim=1), start, _SINKHORN_STEPS, _TOLERANCE)
            return log_q + f + f.unsqueeze(1) - log_n
        return log_q

    def total(self, log_q: Tensor) -> Tensor | float:
        """Return Σ Q if the loss has to limit it, else 0."""
        return log_q.exp().sum() if self.over in ("sinkhorn", "nothing") else 0.0


def matching_loss(
    loss: str | Callable[[Tensor, Tensor], Tensor], p: Tensor, affinity_out: OutputAffinity, z_nd: Tensor
) -> Tensor:
    """Return how far Q of the embedding is from P (n, n), a scalar."""
    if loss == "cross_entropy":
        log_q = affinity_out.log(z_nd)
        return -(p * torch.where(p > 0, log_q, 0.0)).sum() + affinity_out.total(log_q)
    if loss == "square":
        return (p - affinity_out(z_nd)).square().sum() / p.square().sum()
    assert callable(loss)
    found = loss(p, affinity_out(z_nd))
    if not isinstance(found, Tensor) or found.shape != ():
        given = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"the function given as loss must return a scalar tensor, got {given}.")
    return found


def check_matching(affinity_out: Any, loss: Any) -> None:
    """Raise a ValueError if ``affinity_out`` is no output affinity, or ``loss`` no loss."""
    if not (affinity_out is None or isinstance(affinity_out, OutputAffinity)):
        raise ValueError(
            f"affinity_out={affinity_out!r} must be an OutputAffinity such as Normalized() or ScalarProduct(), or None."
        )
    if not (callable(loss) or (isinstance(loss, str) and loss in LOSSES)):
        raise ValueError(f"loss={loss!r} is unknown; choose one of {LOSSES}, or pass a function of P and Q.")
    if loss == "cross_entropy" and isinstance(affinity_out, ScalarProduct):
        raise ValueError("scalar products have no logarithm, which loss='cross_entropy' needs; use loss='square'.")


def input_matrix(affinity_in: Any, state: Any, like: Tensor) -> Tensor:
    """Return P (n, n): the weights of the graph, scaled to sum 1, or the unchanged result of a function of the rows."""
    n = len(like)
    if state.graph is not None:
        p = like.new_zeros((n, n))
        p[state.graph.rows, state.graph.indices.long()] = state.graph.weights / n
        return p
    rows = state.rows
    found = torch.as_tensor(affinity_in(rows.values.double() / rows.scale + rows.centre))
    if found.shape != (n, n) or not bool(torch.isfinite(found).all()):
        raise ValueError(
            f"the function given as affinity_in must return a finite matrix of shape {(n, n)}, got one of shape "
            f"{tuple(found.shape)}."
        )
    return found.detach().to(like)
