"""Functions that check a graph that the user has computed, and make it the input graph."""

from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from torchdr_cne.affinity.graph import AffinityGraph
from torchdr_cne.affinity.plausibility import check_not_distances
from torchdr_cne.checks import check_unmasked
from torchdr_cne.distributed import Share
from torchdr_cne.hashing import digest_of

_SYMMETRY_TOLERANCE = 1e-5


def graph_from_user(matrix: Any, n_points: int | None = None) -> AffinityGraph:
    """Return the input graph of a square symmetric non-negative matrix, which is checked.

    Parameters
    ----------
    matrix : scipy sparse matrix, ndarray, dense or sparse Tensor, or AffinityGraph of shape (n, n)
        Affinities; the diagonal is ignored.
    n_points : int, default=None
        Number of rows that the graph must have.

    Raises
    ------
    ValueError
        If the matrix is not square, has the wrong size or no edges, or is not finite, non-negative and symmetric.
    """
    if isinstance(matrix, AffinityGraph):
        matrix = matrix.to_scipy()
    if isinstance(matrix, Tensor):
        matrix = _from_tensor(matrix.detach().cpu())
    check_unmasked(matrix, "the graph", "fill them with .filled(0)")
    if not scipy.sparse.issparse(matrix):
        matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a precomputed graph must be square (n, n), got shape {tuple(matrix.shape)}.")
    if matrix.dtype.kind == "c":
        raise ValueError("the graph has complex weights; affinities must be real numbers.")
    n = matrix.shape[0]
    if n_points is not None and n != n_points:
        raise ValueError(f"the graph has {n} points but X has {n_points} rows; pass the graph of these rows.")
    csr = _checked_weights(matrix)
    asymmetry = abs(csr - csr.T).max() if csr.nnz else 0.0
    if asymmetry > _SYMMETRY_TOLERANCE * csr.data.max(initial=0.0):
        raise ValueError(
            f"the graph is not symmetric (largest difference {asymmetry:.3g}); symmetrise affinities first, say "
            "with (A + A.T) / 2. If these are distances, such as scanpy's obsp['distances'], pass the rows as X, "
            "or affinities such as obsp['connectivities']."
        )
    csr = ((csr + csr.T) / 2).tocsr()
    csr.setdiag(0)
    csr.eliminate_zeros()
    check_not_distances(csr)
    graph = AffinityGraph.from_scipy(csr)
    if graph.n_edges == 0:
        raise ValueError("the graph has no edge between different points; there is nothing to embed.")
    return graph


def own_rows_from_user(matrix: Any, share: Share) -> AffinityGraph:
    """Return this rank's rows, such as another fit's ``graph_``, of a symmetric graph that the ranks hold together.

    Parameters
    ----------
    matrix : scipy sparse matrix of shape (len(share), n)
        Affinities; the diagonal is ignored.
    share : Share
        The rows of each rank.

    Raises
    ------
    ValueError
        On all ranks, if weights cannot be used or the graph is not symmetric to the last bit.
    """
    with share.ranks.all_or_none("reading the graph"):
        csr = _checked_weights(matrix)
        rows = np.repeat(np.arange(share.start, share.stop), np.diff(csr.indptr))
        csr.data[rows == csr.indices] = 0
        graph = AffinityGraph.from_scipy(csr)
    i, j = graph.rows + share.start, graph.indices.long()
    digests = torch.stack([digest_of(graph.weights, i, j), digest_of(graph.weights, j, i)])
    there, back = share.ranks.add_up(digests, "the check of the graph's symmetry").tolist()
    if there != back:
        raise ValueError(
            "the ranks' rows are not those of one symmetric graph; pass the graph_ of one fit on all ranks."
        )
    return graph


def _checked_weights(matrix: Any) -> scipy.sparse.csr_array:
    """Return a copy in double precision, after checking that the weights are finite and not negative."""
    csr = scipy.sparse.csr_array(matrix, dtype=np.float64, copy=True)
    if not np.isfinite(csr.data).all():
        raise ValueError("the graph contains NaN or infinite weights; drop or mend these edges.")
    if (csr.data < 0).any():
        raise ValueError(
            f"the graph has {int((csr.data < 0).sum())} negative weights; affinities must be >= 0 "
            "(a distance matrix is not an affinity)."
        )
    return csr


def _from_tensor(matrix: Tensor) -> np.ndarray | scipy.sparse.coo_array:
    """Return a dense or sparse tensor as a NumPy or SciPy array."""
    if matrix.layout == torch.strided:
        return (matrix if matrix.is_complex() else matrix.double()).numpy()
    coo = matrix.to_sparse_coo().coalesce()
    values, indices = coo.values(), tuple(coo.indices().numpy())
    values = values if values.is_complex() else values.double()
    return scipy.sparse.coo_array((values.numpy(), indices), shape=tuple(coo.shape))
