"""The input graph of every method, in one symmetric CSR form."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from torchdr_cne.affinity import device_graph
from torchdr_cne.devices import on_cpu, to_host
from torchdr_cne.distributed import Share
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
    n_columns : int or None
        Number of points if the graph holds the rows of one rank only; None if it holds the rows of all points.
    """

    indptr: Tensor
    indices: Tensor
    weights: Tensor
    n_columns: int | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows that this graph holds."""
        return len(self.indptr) - 1

    @property
    def n_points(self) -> int:
        """Number of points."""
        return self.n_rows if self.n_columns is None else self.n_columns

    @property
    def n_edges(self) -> int:
        """Number of directed edges."""
        return len(self.indices)

    @cached_property
    def rows(self) -> Tensor:
        """Row of each directed edge, (E,) int64, counted from the first row of this graph."""
        ids = torch.arange(self.n_rows, device=self.indptr.device)
        return torch.repeat_interleave(ids, self.indptr.diff(), output_size=self.n_edges)

    @cached_property
    def row_weights(self) -> Tensor:
        """Sum of each row's weights, (n,), in the dtype of the weights."""
        return torch.segment_reduce(self.weights, "sum", offsets=self.indptr, initial=0, unsafe=True)

    def to(self, device: torch.device, dtype: torch.dtype) -> "AffinityGraph":
        """Return the graph on ``device`` with weights of ``dtype``."""
        return AffinityGraph(
            self.indptr.to(device), self.indices.to(device), self.weights.to(device=device, dtype=dtype), self.n_columns
        )

    def on_host(self) -> "AffinityGraph":
        """Return the graph in the memory of the CPU."""
        return AffinityGraph(to_host(self.indptr), to_host(self.indices), to_host(self.weights), self.n_columns)

    def select(self, rows: slice) -> "AffinityGraph":
        """Return consecutive rows of the graph."""
        indptr = self.indptr[rows.start : rows.stop + 1]
        edges = slice(int(indptr[0]), int(indptr[-1]))
        return AffinityGraph(indptr - indptr[0], self.indices[edges], self.weights[edges], self.n_points)

    def in_parts(self, n_edges: int = 1 << 24) -> Iterator[tuple[slice, slice]]:
        """Yield consecutive rows of about ``n_edges`` edges, more by less than a row, and where their edges are.

        What is computed for the edges of a part, such as 40 bytes each while they are arranged, needs little memory.
        """
        if self.n_edges <= n_edges:
            yield slice(0, self.n_rows), slice(0, self.n_edges)
            return
        ends = torch.arange(n_edges, self.n_edges + n_edges, n_edges, device=self.indptr.device)
        stops = torch.searchsorted(self.indptr, ends, right=True).sub_(1).clamp_(min=1, max=self.n_rows).unique()
        rows = [0, *stops.cpu().tolist()]
        edges = self.indptr[torch.tensor(rows, device=self.indptr.device)].cpu().tolist()
        for (start, stop), (first, last) in zip(pairwise(rows), pairwise(edges), strict=True):
            yield slice(start, stop), slice(first, last)

    def to_scipy(self) -> scipy.sparse.csr_array:
        """Return the graph as a SciPy CSR array (n, n), or (n_rows, n) if it holds the rows of one rank."""
        # SciPy gives both index arrays the wider dtype, and scikit-learn refuses 64-bit indices.
        pointers = to_host(self.indptr).numpy()
        pointers = pointers.astype(np.int32) if self.n_edges < 2**31 else pointers
        parts = (to_host(self.weights).numpy(), to_host(self.indices).numpy(), pointers)
        return scipy.sparse.csr_array(parts, shape=(self.n_rows, self.n_points))

    @classmethod
    def from_scipy(cls, matrix: scipy.sparse.csr_array) -> "AffinityGraph":
        """Return the graph of a symmetric CSR matrix; zeros are dropped and columns sorted."""
        if not matrix.has_canonical_format:
            matrix.sum_duplicates()
        matrix.eliminate_zeros()
        return cls(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int32)),
            torch.from_numpy(np.ascontiguousarray(matrix.data)),
            None if matrix.shape[0] == matrix.shape[1] else matrix.shape[1],
        )


def gathered(graph: AffinityGraph, share: Share) -> AffinityGraph | None:
    """Return on rank 0 the whole graph, of which each rank has its own rows, and None on the other ranks."""
    if share.ranks.size == 1:
        return graph
    parts = [
        share.ranks.exchange(part, [len(part)] + [0] * (share.ranks.size - 1), "the gathering of the graph")
        for part in (graph.indptr.diff(), graph.indices, graph.weights)
    ]
    if not share.ranks.is_first:
        return None
    degrees, indices, weights = parts
    return AffinityGraph(torch.cat([degrees.new_zeros(1), degrees.cumsum(0)]), indices, weights)


def directed_matrix(indices_nk: Tensor, weights_nk: Tensor, n_columns: int) -> scipy.sparse.csr_array:
    """Return the (n, n_columns) CSR matrix with ``weights_nk`` at the neighbours of each row."""
    n, k = indices_nk.shape
    indptr = np.arange(n + 1, dtype=np.int64) * k
    columns = indices_nk.cpu().numpy().ravel()
    values = weights_nk.cpu().numpy().ravel().copy()  # sorted in place
    matrix = scipy.sparse.csr_array((values, columns, indptr), shape=(n, n_columns))
    matrix.sort_indices()
    return matrix


def transposed(indices_nk: Tensor, weights_nk: Tensor, share: Share) -> scipy.sparse.csr_array:
    """Return this rank's rows of the transpose of all ranks' ``directed_matrix``: the rows that list each of its rows.

    Every edge is sent to the rank that owns its end, as two integers and the exact bits of its weight.
    """
    n_own, k = indices_nk.shape
    lister = torch.arange(share.start, share.start + n_own).to(indices_nk.dtype).repeat_interleave(k)
    listed, weights = indices_nk.cpu().reshape(-1), weights_nk.cpu().reshape(-1)
    rows, columns, weights = share.to_owners(listed, [listed, lister, weights], "the exchange of edges")
    places = (weights.numpy(), ((rows - share.start).numpy(), columns.numpy()))
    return scipy.sparse.coo_array(places, shape=(n_own, share.n)).tocsr()


def without_zeros(graph: AffinityGraph) -> AffinityGraph:
    """Return the graph without edges of weight 0."""
    kept = graph.weights > 0
    if bool(kept.all()):
        return graph
    degrees = torch.bincount(graph.rows[kept], minlength=graph.n_rows)
    indptr = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])
    return AffinityGraph(indptr, graph.indices[kept], graph.weights[kept], graph.n_columns)


def symmetric_mean(indices_nk: Tensor, weights_nk: Tensor, share: Share) -> AffinityGraph:
    """Return (A + Aᵀ)/2 for the matrix A of each row's weighted neighbours, in the dtype of the weights."""
    if share.ranks.size == 1 and not on_cpu(indices_nk):
        return AffinityGraph(*device_graph.mean_with_transpose(indices_nk, weights_nk))
    directed = directed_matrix(indices_nk, weights_nk, share.n)
    listed_by = directed.T.tocsr() if share.ranks.size == 1 else transposed(indices_nk, weights_nk, share)
    return AffinityGraph.from_scipy((directed + listed_by) * 0.5)


def symmetrized(
    indices_nk: Tensor, weights_nk: Tensor, set_op_mix_ratio: float = 1.0, share: Share | None = None
) -> "AffinityGraph":
    """Return the fuzzy union A + Aᵀ − A∘Aᵀ for the matrix A of each row's weighted neighbours.

    Parameters
    ----------
    indices_nk : Tensor of shape (n, k), int32
        Distinct neighbours of each row.
    weights_nk : Tensor of shape (n, k), float32
        Weights of the neighbours, in [0, 1].
    set_op_mix_ratio : float, default=1.0
        Mixture of the union (1) with the intersection A∘Aᵀ (0).
    share : Share, default=None
        The rows of each rank, if ``indices_nk`` belongs to one rank; None is one rank with all rows.
    """
    alone = share is None or share.ranks.size == 1
    if alone and not on_cpu(indices_nk):
        return AffinityGraph(*device_graph.union_with_transpose(indices_nk, weights_nk, set_op_mix_ratio))
    from torchdr_cne.affinity import kernels  # imports Numba

    ids = np.ascontiguousarray(indices_nk.cpu().numpy())
    weights = np.ascontiguousarray(weights_nk.cpu().numpy(), dtype=np.float32)
    n, k = ids.shape
    counts, indptr, mix = np.empty(n, dtype=np.int64), np.zeros(n + 1, dtype=np.int64), np.float32(set_op_mix_ratio)
    with Workers() as workers:
        if alone:
            starts, rows, row_weights = _listings(ids, weights, workers)
        else:
            assert share is not None
            listed_by = transposed(indices_nk, torch.from_numpy(weights), share)
            starts, rows = listed_by.indptr.astype(np.int64), listed_by.indices.astype(ids.dtype)
            row_weights = listed_by.data
        room = starts[-1] + n * k
        columns, values = np.empty(room, dtype=ids.dtype), np.empty(room, dtype=np.float32)
        workers.parallel_for(
            kernels.fuzzy_union, n, ids, weights, starts, rows, row_weights, mix, counts, columns, values
        )
    kernels.close_gaps(starts, k, counts, indptr, columns, values)
    for part in (columns, values):
        part.resize(indptr[-1], refcheck=False)  # gives the memory back
    n_columns = None if alone or share is None else share.n
    parts = torch.from_numpy(indptr), torch.from_numpy(columns), torch.from_numpy(values)
    return AffinityGraph(*parts, n_columns)


def _listings(ids: np.ndarray, weights: np.ndarray, workers: Workers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where the listings of each point begin, the rows that list it, and their weights."""
    from torchdr_cne.affinity import kernels

    n, k = ids.shape
    starts = np.zeros(n + 1, dtype=np.int64)
    kernels.count_listings(ids, starts)
    np.cumsum(starts, out=starts)
    # A row and its weight are adjacent in memory, as they are written together in random order.
    listings = np.empty((n * k, 2), dtype=np.int32)
    rows, row_weights = listings[:, 0], listings.view(np.float32)[:, 1]
    # Every range reads all rows, so there is only one range per thread.
    one_each = -(-n // workers.n_threads)
    workers.parallel_for(kernels.listings, n, ids, weights, starts, rows, row_weights, multiple_of=one_each)
    return starts, rows, row_weights
