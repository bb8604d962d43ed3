"""Input of the loss hooks of a sampled method: log-similarities of edges and of negatives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def weighted_edges(loss: Tensor, pairs: Any) -> Tensor:
    """Return the weighted sum of an attractive loss per edge (E,) of `Pairs` or `RowSums`."""
    if loss.shape != pairs.log_q_edges.shape:
        raise ValueError(
            f"_compute_attractive_loss must return one value per edge, shape "
            f"{tuple(pairs.log_q_edges.shape)}, got {tuple(loss.shape)}; do not reduce it."
        )
    return (pairs.weights * loss).sum()


def rows_at(values: Tensor, ids: Tensor) -> Tensor:
    """Return ``values[ids]`` with a gradient that has the same bits each time.

    Atomic additions by several threads sum the gradient of an indexed tensor on a CPU, and that of `index_select` on a
    GPU. Each of the two is deterministic, and no slower, on the other device.
    """
    if values.is_cpu:
        return values.index_select(0, ids.reshape(-1)).reshape(*ids.shape, *values.shape[1:])
    return values[ids]


@dataclass(frozen=True)
class Pairs:
    """The positive and negative pairs of one step, in one form for full data, a mini-batch or one rank's rows.

    Attributes
    ----------
    log_q_edges : Tensor of shape (E,)
        Log-similarities of the ends of the graph's edges.
    weights : Tensor of shape (E,)
        Weights of the edges.
    rows : Tensor of shape (E,), int64
        The row of each edge among the R rows, in ascending order.
    log_q_negatives : Tensor of shape (R, M)
        Log-similarities of the drawn negatives; −inf marks an empty entry.
    draw_weights : Tensor of shape (R,)
        How many of the ``n_negatives`` of a row one drawn negative stands for.
    parameters : mapping of str to float or Tensor
        The method's constants and learned scalars.
    """

    log_q_edges: Tensor
    weights: Tensor
    rows: Tensor
    log_q_negatives: Tensor
    draw_weights: Tensor
    parameters: Mapping[str, Tensor | float]

    @property
    def row_weights(self) -> Tensor:
        """Return the sum of the edge weights of each row, (R,)."""
        return torch.zeros_like(self.draw_weights).index_add(0, self.rows, self.weights)

    def reduce_attraction(self, loss: Tensor) -> Tensor:
        """Return the weighted sum of an attractive loss per edge (E,)."""
        return weighted_edges(loss, self)

    def reduce_repulsion(self, loss: Tensor) -> Tensor:
        """Return the weighted sum of a repulsive loss per negative (R, M), per row (R,) or per edge (E,)."""
        if loss.shape == self.log_q_negatives.shape:
            return ((self.row_weights * self.draw_weights).unsqueeze(1) * loss).sum()
        if loss.shape == self.draw_weights.shape:
            return (self.row_weights * loss).sum()
        if loss.shape == self.log_q_edges.shape:
            return (self.weights * loss).sum()
        raise ValueError(
            f"_compute_repulsive_loss must return shape (R, M) = {tuple(self.log_q_negatives.shape)}, "
            f"(R,) or (E,) = {tuple(self.log_q_edges.shape)}, got {tuple(loss.shape)}; do not reduce it."
        )
