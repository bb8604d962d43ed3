"""Class labels in the input graph, by UMAP's intersection with the simplicial set of the categories."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from torchdr_cne.affinity.graph import AffinityGraph, without_zeros
from torchdr_cne.distributed import Share
from torchdr_cne.inputs.labels import UNLABELLED

_UNKNOWN_DISTANCE = 1.0
_FAR = 2.5


def intersect_labels(
    graph: AffinityGraph, labels: Tensor, target_weight: float = 0.5, share: Share | None = None
) -> AffinityGraph:
    """Return the graph with weaker edges between classes and an edge of weight 1 in each row, as umap-learn does.

    Weights of edges between different classes are multiplied by exp(−2.5/(1 − ``target_weight``)), those of edges with
    an unlabelled end by exp(−1). Then each row is divided by its maximum, and A + Aᵀ − A∘Aᵀ is taken, the fuzzy union.

    Parameters
    ----------
    graph : AffinityGraph
        Symmetric affinities, or one rank's rows of them.
    labels : Tensor of shape (n,), int64
        Class of every point of all ranks, −1 where the class is unknown.
    target_weight : float, default=0.5
        Weight of the labels, from 0 (the graph as it is) to 1 (no edges between different classes).
    share : Share, default=None
        The rows of each rank; None is one rank with all rows.

    Raises
    ------
    ValueError
        If no edge is left.
    """
    if target_weight == 0:
        return graph
    share = Share.whole(graph.n_points) if share is None else share
    labels = labels.to(graph.indices.device)
    far = _FAR / (1 - target_weight) if target_weight < 1 else math.inf
    here, there = labels[graph.rows + share.start], labels[graph.indices.long()]
    factors = torch.ones_like(graph.weights)
    factors[here != there] = math.exp(-far)
    factors[(here == UNLABELLED) | (there == UNLABELLED)] = math.exp(-_UNKNOWN_DISTANCE)
    weakened = without_zeros(replace(graph, weights=graph.weights * factors))
    if not bool(share.ranks.all_gather_ints([weakened.n_edges], "the count of edges").any()):
        raise ValueError(
            f"target_weight={target_weight} leaves no edge: neighbours all have different labels; lower target_weight."
        )
    return locally_connected(weakened, share)


def locally_connected(graph: AffinityGraph, share: Share) -> AffinityGraph:
    """Return the fuzzy union A + Aᵀ − A∘Aᵀ of rows divided by their maxima: each row has an edge of weight 1."""
    own = torch.segment_reduce(graph.weights, "max", offsets=graph.indptr, initial=0, unsafe=True)
    largest = share.gather(own, "the exchange of row maxima")
    # The weights are symmetric, so that Aᵀ needs only the maximum of the other row.
    here, there = graph.weights / own[graph.rows], graph.weights / largest[graph.indices.long()]
    return without_zeros(replace(graph, weights=here + there - here * there))
