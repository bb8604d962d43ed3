"""Whether the weights of a graph can be affinities, or look like distances."""

import warnings

import numpy as np
import scipy.sparse
from scipy.stats import spearmanr

_SAMPLE, _ENOUGH = 4000, 30
"""Number of edges that are looked at, and of triples of joined points below which nothing is said."""
_FEW_VALUES = 10
_ADVICE = (
    "Affinities are needed, which are large where points are near: pass the rows as X; or for distances D for instance "
    "np.exp(-(D**2) / (2 * s**2)); of scanpy's graphs obsp['connectivities']."
)


def check_not_distances(csr: scipy.sparse.csr_array) -> None:
    """Refuse, or warn of, weights of a symmetric graph that look like distances.

    Distances keep the triangle inequality, which affinities break: of three points two are near each other, and the
    largest of the three affinities is mostly more than the sum of the others. Edges between points with many common
    neighbours have large affinities, and small distances. Distances of neighbours that were symmetrised by their mean
    have halved edges, and may break the inequality, but not by more than a factor of 2.

    Raises
    ------
    ValueError
        If no triple breaks the inequality, and weights fall with the number of common neighbours or, where all points
        are joined, are of very unequal size.
    """
    if csr.nnz == 0:
        return
    rng, degrees = np.random.default_rng(0), np.diff(csr.indptr)
    edges = rng.integers(0, csr.nnz, _SAMPLE)
    i, j = np.repeat(np.arange(csr.shape[0]), degrees)[edges], csr.indices[edges]
    others = csr.indptr[i] + rng.integers(0, degrees[i])
    k = csr.indices[others]
    sides = np.sort(np.stack([csr.data[edges], csr.data[others], np.asarray(csr[j, k]).ravel()]), axis=0)
    sides = sides[:, (sides[0] > 0) & (j != k)]
    if sides.shape[1] < _ENOUGH or len(np.unique(csr.data[edges])) < _FEW_VALUES:
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


def _common_neighbors(csr: scipy.sparse.csr_array, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return which part of the neighbours of either end of an edge are neighbours of both."""
    joined = csr.astype(bool).astype(np.int32)
    joined.setdiag(1)
    degrees = np.diff(joined.indptr)
    common = np.asarray(joined[i].multiply(joined[j]).sum(axis=1)).ravel()
    return common / (degrees[i] + degrees[j] - common)
