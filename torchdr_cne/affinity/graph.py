"""The input graph as every method sees it: one symmetric CSR."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from torchdr_cne.workers import Workers


@dataclass(frozen=True)
class AffinityGraph:
    """A symmetric weighted graph without self loops, in compressed rows.

    Attributes
    ----------
    indptr : Tensor of shape (n + 1,), int64
        Row pointers.
    indices : Tensor of shape (E,), int32
        Column ids, ascending within a row.
    weights : Tensor of shape (E,), float32 or float64
        Positive weights; every undirected edge is stored in both directions.
    """

    indptr: Tensor
    indices: Tensor
    weights: Tensor

    @property
    def n_points(self) -> int:
        """Number of points."""
        return len(self.indptr) - 1

    @property
    def n_edges(self) -> int:
        """Number of directed edges."""
        return len(self.indices)

    @cached_property
    def rows(self) -> Tensor:
        """Row id of each directed edge, (E,) int64."""
        ids = torch.arange(self.n_points, device=self.indptr.device)
        return torch.repeat_interleave(ids, self.indptr.diff(), output_size=self.n_edges)

    @cached_property
    def row_weights(self) -> Tensor:
        """Sum of each row's weights, (n,), in the dtype of the weights."""
        return torch.segment_reduce(self.weights, "sum", offsets=self.indptr, initial=0, unsafe=True)

    def to(self, device: torch.device, dtype: torch.dtype) -> "AffinityGraph":
        """Return the graph on ``device`` with weights of ``dtype``."""
        return AffinityGraph(
            self.indptr.to(device), self.indices.to(device), self.weights.to(device=device, dtype=dtype)
        )

    def to_scipy(self) -> scipy.sparse.csr_array:
        """Return the graph as a SciPy CSR array (n, n)."""
        n = self.n_points
        # SciPy widens both index arrays to the wider one, and scikit-learn refuses 64-bit ones.
        pointers = self.indptr.cpu().numpy()
        pointers = pointers.astype(np.int32) if self.n_edges < 2**31 else pointers
        parts = (self.weights.cpu().numpy(), self.indices.cpu().numpy(), pointers)
        return scipy.sparse.csr_array(parts, shape=(n, n))

    @classmethod
    def from_scipy(cls, matrix: scipy.sparse.csr_array) -> "AffinityGraph":
        """Take a symmetric CSR matrix; zeros are dropped and columns sorted."""
        if not matrix.has_canonical_format:
            matrix.sum_duplicates()
        matrix.eliminate_zeros()
        return cls(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int32)),
            torch.from_numpy(np.ascontiguousarray(matrix.data)),
        )


def directed_matrix(indices_nk: Tensor, weights_nk: Tensor) -> scipy.sparse.csr_array:
    """Return the (n, n) CSR matrix with ``weights_nk`` at the neighbours of each row."""
    n, k = indices_nk.shape
    indptr = np.arange(n + 1, dtype=np.int64) * k
    columns = indices_nk.cpu().numpy().ravel()
    values = weights_nk.cpu().numpy().ravel()
    matrix = scipy.sparse.csr_array((values, columns, indptr), shape=(n, n))
    matrix.sort_indices()
    return matrix


def symmetrized(indices_nk: Tensor, weights_nk: Tensor, set_op_mix_ratio: float = 1.0) -> "AffinityGraph":
    """Return the fuzzy union A + Aᵀ − A∘Aᵀ of each row's weighted neighbours with those that list it.

    Parameters
    ----------
    indices_nk : Tensor of shape (n, k), int32
        Distinct neighbours of each row.
    weights_nk : Tensor of shape (n, k), float32
        Their weights in [0, 1].
    set_op_mix_ratio : float, default=1.0
        1 is the union, 0 the intersection A∘Aᵀ; between lies their mixture.
    """
    from torchdr_cne.affinity import kernels  # imports Numba

    ids = np.ascontiguousarray(indices_nk.cpu().numpy(), dtype=np.int32)
    weights = np.ascontiguousarray(weights_nk.cpu().numpy(), dtype=np.float32)
    n, k = ids.shape
    starts, indptr = np.zeros(n + 1, dtype=np.int64), np.zeros(n + 1, dtype=np.int64)
    kernels.count_listings(ids, starts)
    np.cumsum(starts, out=starts)
    # A row and its weight lie beside each other: they are written in one go, in random order.
    listings = np.empty((n * k, 2), dtype=np.int32)
    rows, row_weights = listings[:, 0], listings.view(np.float32)[:, 1]
    columns, values = np.empty(2 * n * k, dtype=np.int32), np.empty(2 * n * k, dtype=np.float32)
    counts, mix = np.empty(n, dtype=np.int64), np.float32(set_op_mix_ratio)
    with Workers() as workers:
        # Every range reads all rows: one a thread.
        one_each = -(-n // workers.n_threads)
        parts = (ids, weights, starts, rows, row_weights)
        workers.share(kernels.listings, n, *parts, multiple_of=one_each)
        workers.share(kernels.fuzzy_union, n, *parts, mix, counts, columns, values)
    kernels.close_gaps(starts, k, counts, indptr, columns, values)
    for part in (columns, values):
        part.resize(indptr[-1], refcheck=False)  # gives the memory back
    return AffinityGraph(*map(torch.from_numpy, (indptr, columns, values)))
