"""Connected components of an input graph, whose rows may lie on several ranks."""

import numpy as np
import scipy.sparse
import torch

from torchdr_cne.affinity.device_graph import component_labels
from torchdr_cne.affinity.graph import AffinityGraph
from torchdr_cne.devices import on_cpu
from torchdr_cne.distributed import Share


def component_sizes(graph: AffinityGraph, share: Share) -> np.ndarray:
    """Return the number of points in each connected component, one number per component."""
    if share.ranks.size == 1 and not on_cpu(graph.indices):
        counts = torch.bincount(component_labels(graph.rows, graph.indices.long(), graph.n_points))
        return counts[counts > 0].cpu().numpy()
    matrix = graph.to_scipy()
    if share.ranks.size == 1:
        # The strong components of a symmetric graph are its components, and finding them needs no transpose.
        _, labels = scipy.sparse.csgraph.connected_components(matrix, directed=True, connection="strong")
        return np.bincount(labels)
    return np.unique(_labels_over_ranks(matrix, share), return_counts=True)[1]


def _labels_over_ranks(own_rows: scipy.sparse.csr_array, share: Share) -> np.ndarray:
    """Return the lowest point in the component of each point; ranks join the ends of their edges until all agree."""
    n = share.n
    indptr = np.zeros(n + 1, dtype=own_rows.indptr.dtype)
    indptr[share.start : share.stop + 1] = own_rows.indptr
    indptr[share.stop + 1 :] = own_rows.indptr[-1]
    whole = scipy.sparse.csr_array((own_rows.data, own_rows.indices, indptr), shape=(n, n))
    _, joined = scipy.sparse.csgraph.connected_components(whole, directed=False)
    labels = torch.arange(n)
    while True:
        lowest = torch.full((int(joined.max()) + 1,), n)
        lowest.scatter_reduce_(0, torch.from_numpy(joined).long(), labels, "amin")
        spread = share.ranks.smallest(lowest[joined], "the search for components")
        if torch.equal(spread, labels):
            return labels.numpy()
        labels = spread


def rows_without_edges(graph: AffinityGraph, share: Share) -> tuple[int, int]:
    """Return how many points of all ranks have no edge, and the first of them."""
    alone = torch.nonzero(graph.indptr.diff() == 0).flatten() + share.start
    first = int(alone[0]) if len(alone) else share.n
    everyone = share.ranks.all_gather_ints([len(alone), first], "the search for components")
    return int(everyone[:, 0].sum()), int(everyone[:, 1].min())
