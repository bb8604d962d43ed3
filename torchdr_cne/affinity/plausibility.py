"""Whether the weights of a graph can be affinities, or look like distances."""

import warnings

import numpy as np
import scipy.sparse
from scipy.stats import rankdata, spearmanr

_SAMPLE, _ENOUGH = 4000, 30
"""Number of edges that are looked at, and of triples of joined points below which nothing is said."""
_FEW_VALUES = 10
_DENSE, _COLUMNS, _OPPOSED = 0.9, 200, -0.3
"""Fraction of pairs that a dense graph joins, number of points that rows are compared by, and their correlation with
the weights below which these are distances: that of distances has been -0.5 to -1, and that of affinities 0.4 to 1."""
_ADVICE = (
    "Affinities are needed, which are large where points are near: pass the rows as X; or for distances D for instance "
    "np.exp(-(D**2) / (2 * s**2)); of scanpy's graphs obsp['connectivities']."
)


def check_not_distances(csr: scipy.sparse.csr_array) -> None:
    """Refuse, or warn of, weights of a symmetric graph that look like distances.

    Distances keep the triangle inequality, which affinities break: of three points two are near each other, and the
    largest of the three affinities is mostly more than the sum of the others. Edges between points with many common
    neighbours have large affinities, and small distances. Distances of neighbours that were symmetrised by their mean
    have halved edges, and may break the inequality, but not by more than a factor of 2. If all points are joined, near
    ones order the others alike: distances, also squared ones and those of cosines, are small where two rows are alike.

    Raises
    ------
    ValueError
        If all points are joined and rows agree where weights are small, or if no triple breaks the inequality, and
        weights fall with the number of common neighbours or, where all of a few points are joined, are very unequal.
    """
    if csr.nnz == 0:
        return
    n = csr.shape[0]
    if n >= _ENOUGH and csr.nnz > _DENSE * n * (n - 1):
        if not _rows_agree_where_small(csr.toarray()):
            return
        raise ValueError(
            "the graph's weights look like distances: points with small weights between them agree in their other "
            f"weights, as near points do. {_ADVICE}"
        )
    rng, degrees = np.random.default_rng(0), np.diff(csr.indptr)
    edges = rng.integers(0, csr.nnz, _SAMPLE)
    i, j = np.repeat(np.arange(csr.shape[0]), degrees)[edges], csr.indices[edges]
    others = csr.indptr[i] + rng.integers(0, degrees[i])
    k = csr.indices[others]
    sides = np.sort(np.stack([csr.data[edges], csr.data[others], np.asarray(csr[j, k]).ravel()]), axis=0)
    joined = (sides[0] > 0) & (j != k)
    sides, triples = sides[:, joined], np.sort(np.stack([i, j, k])[:, joined], axis=0)
    if np.unique(triples, axis=1).shape[1] < _ENOUGH or len(np.unique(csr.data[edges])) < _FEW_VALUES:
        return
    excess = float((sides[2] / (sides[0] + sides[1])).max())
    common = _common_neighbors(csr, i, j)
    if np.ptp(common) > 0:
        falls = float(spearmanr(csr.data[edges], common)[0])
        are_distances, may_be_halved = falls < 0, falls < 0.3
    else:
        are_distances, may_be_halved = float((sides[2] > 2 * sides[0]).mean()) > 0.1, False
    if excess <= 1 + 1e-6 and are_distances:
        raise ValueError(
            f"the graph's weights look like distances: of {sides.shape[1]} triples of points none breaks the triangle "
            f"inequality. {_ADVICE}"
        )
    if 1 + 1e-6 < excess <= 2 + 1e-6 and may_be_halved:
        warnings.warn(
            f"the graph's weights look like distances of neighbours that have been symmetrised. {_ADVICE}",
            UserWarning,
            stacklevel=2,
        )


def _rows_agree_where_small(weights: np.ndarray) -> bool:
    """Return whether two points order the others the more alike, the smaller the weight between them is."""
    rng, n = np.random.default_rng(0), len(weights)
    columns = rng.permutation(n)[:_COLUMNS]
    itself = np.arange(n)[:, None] == columns
    ranks = rankdata(np.where(itself, np.nan, weights[:, columns]), axis=1, nan_policy="omit")
    ranks = np.where(itself, 0.0, ranks - np.nanmean(ranks, axis=1, keepdims=True))
    lengths = np.linalg.norm(ranks, axis=1)
    i, j = rng.integers(0, n, (2, _SAMPLE))
    kept = (i != j) & (lengths[i] > 0) & (lengths[j] > 0)
    i, j = i[kept], j[kept]
    if len(np.unique(weights[i, j])) < _FEW_VALUES:
        return False
    alike = (ranks[i] * ranks[j]).sum(axis=1) / (lengths[i] * lengths[j])
    return bool(spearmanr(weights[i, j], alike)[0] < _OPPOSED)


def _common_neighbors(csr: scipy.sparse.csr_array, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return which part of the neighbours of either end of an edge are neighbours of both."""
    joined = csr.astype(bool).astype(np.int32)
    joined.setdiag(1)
    degrees = np.diff(joined.indptr)
    common = np.asarray(joined[i].multiply(joined[j]).sum(axis=1)).ravel()
    return common / (degrees[i] + degrees[j] - common)
