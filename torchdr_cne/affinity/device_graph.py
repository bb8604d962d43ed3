"""Symmetric graphs and their components in torch operations, for tensors that are not on the CPU."""

import torch
from torch import Tensor
from torch.nn.functional import pad

Parts = tuple[Tensor, Tensor, Tensor]
"""Row pointers, columns and weights of an `AffinityGraph`."""


def mean_with_transpose(indices_nk: Tensor, weights_nk: Tensor) -> Parts:
    """Return (A + Aᵀ)/2 for the matrix A of each row's weighted neighbours, in the dtype of the weights."""
    edges, forth, back = _both_ways(indices_nk, weights_nk)
    return _graph_of(edges, (forth + back) * 0.5, indices_nk)


def union_with_transpose(indices_nk: Tensor, weights_nk: Tensor, set_op_mix_ratio: float) -> Parts:
    """Return the fuzzy union A + Aᵀ − A∘Aᵀ, mixed with the intersection A∘Aᵀ, float32."""
    edges, forth, back = _both_ways(indices_nk, weights_nk.float())
    both = forth * back
    return _graph_of(edges, set_op_mix_ratio * (forth + back - both) + (1 - set_op_mix_ratio) * both, indices_nk)


def _both_ways(indices_nk: Tensor, weights_nk: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the edges of A and Aᵀ, each once and as i · n + j in ascending order, and their two weights.

    An edge of both matrices occurs twice in the sorted list; which of its weights comes first has no meaning.
    """
    n = len(indices_nk)
    rows, columns = torch.arange(n, device=indices_nk.device).unsqueeze(1), indices_nk.long()
    edges = torch.cat([(rows * n + columns).view(-1), (columns * n + rows).view(-1)])
    edges, order = edges.sort()
    weights = weights_nk.reshape(-1).repeat(2)[order]
    again = pad(edges[1:] == edges[:-1], (0, 1))
    following = torch.where(again, pad(weights[1:], (0, 1)), 0)
    is_first = ~pad(again, (1, 0))[:-1]
    return edges[is_first], weights[is_first], following[is_first]


def _graph_of(edges: Tensor, weights: Tensor, indices_nk: Tensor) -> Parts:
    """Return the parts of the graph of sorted edges i · n + j, without those of weight 0."""
    n, kept = len(indices_nk), weights > 0
    edges, weights = edges[kept], weights[kept]
    indptr = torch.searchsorted(edges, torch.arange(n + 1, device=edges.device) * n)
    return indptr, (edges % n).to(indices_nk.dtype), weights


def component_labels(rows: Tensor, columns: Tensor, n: int) -> Tensor:
    """Return the lowest point in the component of each of n points, int64, by FastSV (Zhang, Azad & Hu, 2020).

    Each point has a parent in its component, at first itself. The lowest grandparent among a point's neighbours becomes
    the parent of the point and of its old parent, and paths are halved, until nothing changes.
    """
    parents = torch.arange(n, device=rows.device)
    grandparents = parents
    while True:
        lowest = grandparents.scatter_reduce(0, rows, grandparents[columns], "amin")
        hooked = parents.scatter_reduce(0, parents, lowest, "amin")
        parents = torch.minimum(hooked, lowest)
        before, grandparents = grandparents, parents[parents]
        if torch.equal(before, grandparents):
            return grandparents
