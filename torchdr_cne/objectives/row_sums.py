"""Input of the loss hooks of an exact method: log-similarities of edges, and sums of q over all other points."""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from torchdr_cne._optional import import_optional
from torchdr_cne.losses import log_normaliser
from torchdr_cne.objectives.pairs import Pairs, weighted_edges
from torchdr_cne.similarities import Similarity

_PAIRS_AT_ONCE = 1 << 21
_NEVER = 1e30
"""Number subtracted from the log-similarity of a point with itself, which removes it from the sums."""


@dataclass(frozen=True)
class RowSums:
    """The edges and row sums of one step.

    Attributes
    ----------
    log_q_edges : Tensor of shape (E,)
        Log-similarities of the ends of the graph's edges, on this rank.
    weights : Tensor of shape (E,)
        Weights of the edges; their sum per row is 1 on average.
    log_row_sums : Tensor of shape (R,)
        log Σ_{j≠i} e^{c_j} q_ij of every point, or of those of a mini-batch.
    row_weights : Tensor of shape (R,)
        Weight of each row sum.
    log_charges : Tensor of shape (R,) or None
        The charges c; None means that all are 0.
    parameters : mapping of str to float or Tensor
        The method's constants.
    """

    log_q_edges: Tensor
    weights: Tensor
    log_row_sums: Tensor
    row_weights: Tensor
    log_charges: Tensor | None
    parameters: Mapping[str, Tensor | float]

    @classmethod
    def of_sample(cls, pairs: Pairs) -> "RowSums":
        """Return row sums that are estimated from drawn negatives."""
        log_sums = log_normaliser(pairs.log_q_negatives) + pairs.draw_weights.log()
        return cls(pairs.log_q_edges, pairs.weights, log_sums, pairs.row_weights, None, pairs.parameters)

    @property
    def log_total(self) -> Tensor:
        """Return log Σ_ij q_ij over all pairs, ().

        For new points among those of a fit, whose total is among the parameters, return what each adds to it, (R,).
        """
        if "log_mean_row_sum" not in self.parameters:
            return torch.logsumexp(self.log_row_sums, dim=0)
        return torch.exp(self.log_row_sums - self.parameters["log_mean_row_sum"])

    def reduce_attraction(self, loss: Tensor) -> Tensor:
        """Return the weighted sum of an attractive loss per edge (E,)."""
        return weighted_edges(loss, self)

    def reduce_repulsion(self, loss: Tensor) -> Tensor:
        """Return the weighted sum of a repulsive loss of each row (R,); one of the total () counts for all rows."""
        if loss.shape == self.row_weights.shape:
            return (self.row_weights * loss).sum()
        if loss.ndim == 0:
            return self.row_weights.sum() * loss
        raise ValueError(
            f"_compute_repulsive_loss must return one value per row, shape {tuple(self.row_weights.shape)}, or one of "
            f"the total, shape (), got {tuple(loss.shape)}."
        )


def dense_log_row_sums(
    similarity: Similarity, own_rd: Tensor, z_nd: Tensor, first: int, log_charges: Tensor | None = None
) -> Tensor:
    """Return log Σ_{j≠i} e^{c_j} q_ij (r,) of the points from ``first`` on, differentiable; few rows are in memory."""

    def of_block(block_bd: Tensor, all_nd: Tensor, begin: int) -> Tensor:
        log_q = similarity.table(block_bd, all_nd)
        if log_charges is not None:
            log_q = log_q + log_charges
        ids = torch.arange(begin, begin + len(block_bd), device=log_q.device).unsqueeze(1)
        return torch.logsumexp(log_q.scatter(1, ids, -torch.inf), dim=1)

    step = max(1, _PAIRS_AT_ONCE // len(z_nd))
    if len(own_rd) <= step:
        return of_block(own_rd, z_nd, first)
    blocks = [
        checkpoint(of_block, own_rd[begin : begin + step], z_nd, first + begin, use_reentrant=False)
        for begin in range(0, len(own_rd), step)
    ]
    return torch.cat(blocks)


def keops_log_row_sums(
    similarity: Similarity, own_rd: Tensor, z_nd: Tensor, first: int, log_charges: Tensor | None = None
) -> Tensor:
    """Return the result of `dense_log_row_sums` by a symbolic reduction that stores nothing of size n²."""
    with contextlib.redirect_stdout(io.StringIO()):  # KeOps announces a missing GPU on import, and every compilation
        lazy_tensor = import_optional("pykeops.torch", "repulsion='keops'").LazyTensor
        ids = torch.arange(len(z_nd), dtype=z_nd.dtype, device=z_nd.device)
        of_rows, of_all = lazy_tensor(own_rd[:, None, :].contiguous()), lazy_tensor(z_nd[None, :, :].contiguous())
        log_q = similarity(of_rows, of_all)
        own = lazy_tensor(ids[first : first + len(own_rd), None, None].contiguous())
        is_other = (own - lazy_tensor(ids[None, :, None].contiguous())).abs().sign()
        log_q = log_q - _NEVER * (1 - is_other)
        if log_charges is not None:
            log_q = log_q + lazy_tensor(log_charges[None, :, None].contiguous())
        return log_q.logsumexp(dim=1).squeeze(-1)
