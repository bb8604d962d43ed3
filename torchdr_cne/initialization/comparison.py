"""Which of two first embeddings shows the shape of the data better.

Principal components keep large distances, and fold a curved surface; eigenvectors of the graph unroll the surface, and
place clusters as far apart as the few edges between them say. Path lengths in the graph follow the surface and cross
from cluster to cluster by the shortest way, so they can judge both (Tenenbaum, de Silva & Langford, 2000).
"""

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.stats import spearmanr
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.distributed import Share
from torchdr_cne.inputs import Rows

_MOST_COMPARED = 20_000
"""Number of points up to which the two starts are compared: above it, eigenvectors would take longer than the fit."""
_N_LANDMARKS = 20
"""Number of points from which path lengths are measured."""
_MARGIN = 0.1
"""How much better the spectral start has to agree with path lengths, since it tears small clusters more often."""
_EDGES_AT_ONCE = 1 << 16


def is_comparable(graph: AffinityGraph, rows: Rows, share: Share) -> bool:
    """Return whether the graph is small, whole and connected, so that path lengths exist between all points."""
    if share.ranks.size > 1 or not 2 < share.n <= _MOST_COMPARED or not rows.in_memory:
        return False
    return bool(connected_components(graph.to_scipy(), directed=False, return_labels=False) == 1)


def better_start(graph: AffinityGraph, rows: Rows, plain: Tensor, spectral: Tensor) -> Tensor:
    """Return the spectral start if its distances agree clearly better with path lengths than those of the plain one.

    The agreement is a rank correlation.

    Parameters
    ----------
    graph : AffinityGraph
        A connected graph of n points.
    rows : Rows
        The features of the points; an edge is as long as the distance of its rows.
    plain, spectral : Tensor of shape (n, d)
        The embeddings, on the CPU.
    """
    landmarks = np.random.default_rng(0).choice(len(plain), min(len(plain), _N_LANDMARKS), replace=False)
    paths_ln = dijkstra(_edge_lengths(graph, rows.values), directed=False, indices=landmarks)
    agreements = [_agreement(paths_ln, layout, landmarks) for layout in (plain, spectral)]
    return spectral if agreements[1] > agreements[0] + _MARGIN else plain


def _edge_lengths(graph: AffinityGraph, values: Tensor) -> scipy.sparse.csr_array:
    """Return the graph with the lengths of its edges instead of their weights; rows stay on their device."""
    matrix, tails, heads = graph.to_scipy(), graph.rows.to(values.device), graph.indices.to(values.device).long()
    pieces = zip(tails.split(_EDGES_AT_ONCE), heads.split(_EDGES_AT_ONCE), strict=True)
    lengths = torch.cat([(values[i] - values[j]).norm(dim=1).double() for i, j in pieces]).cpu()
    # Between equal rows a stored zero would not be an edge.
    shortest = torch.finfo(torch.float32).tiny
    return scipy.sparse.csr_array((lengths.clamp_min(shortest).numpy(), matrix.indices, matrix.indptr), matrix.shape)


def _agreement(paths_ln: np.ndarray, layout: Tensor, landmarks: np.ndarray) -> float:
    """Return the rank correlation of path lengths from some points with distances in an embedding."""
    distances_ln = torch.cdist(layout[landmarks].double(), layout.double()).numpy()
    return float(spearmanr(paths_ln.ravel(), distances_ln.ravel()).statistic)
