"""Similarity of the directions of features within classes and between them."""

from typing import TYPE_CHECKING

import numpy as np

from torchdr_cne.evaluation._inputs import as_classes, as_points

if TYPE_CHECKING:
    from torchdr_cne.evaluation._inputs import Data

_BLOCK_VALUES = 2**22


def class_similarity_matrix(features: "Data", labels: "Data") -> tuple[np.ndarray, np.ndarray]:
    """Return the mean cosine between the points of any two classes.

    Parameters
    ----------
    features : array or tensor of shape (n, f)
        Features of any real dtype; cosines are computed in float64. The features are not centred: subtract their
        mean first if it is not to count.
    labels : array or tensor of shape (n,)
        Classes: integers, strings, booleans or whole floats, none missing.

    Returns
    -------
    matrix : numpy.ndarray of shape (c, c)
        Symmetric, with values between −1 and 1. An entry is the mean over all pairs of a point of one class and
        a point of the other; on the diagonal it is the mean over all pairs of different points, or NaN for a
        class of one point.
    classes : numpy.ndarray of shape (c,)
        The classes of the rows and columns, in sorted order.

    Raises
    ------
    ValueError
        If there are no rows, a row is zero, values are not finite, the lengths do not match, or labels are missing
        or fractions.

    Notes
    -----
    The sum of all products of two sets of unit vectors is the product of their sums, so that the cost is
    O(n f + c² f) and no n × n matrix is made.

    Examples
    --------
    >>> from torchdr_cne.evaluation import class_similarity_matrix
    >>> matrix, classes = class_similarity_matrix([[1, 0], [2, 0], [0, 1]], ["a", "a", "b"])
    >>> matrix.tolist(), classes.tolist()
    ([[1.0, 0.0], [0.0, nan]], ['a', 'b'])
    """
    points = as_points(features, "features")
    if len(points) == 0:
        raise ValueError(f"features has shape {points.shape}; pass at least one row")
    classes, codes = as_classes(labels, len(points), "labels", "features")
    sums_cf = _sums_of_unit_vectors(points, codes, len(classes))
    counts_c = np.bincount(codes).astype(np.float64)
    products_cc = sums_cf @ sums_cf.T
    pairs_cc = np.outer(counts_c, counts_c)
    np.fill_diagonal(products_cc, products_cc.diagonal() - counts_c)  # a point's cosine with itself is 1
    np.fill_diagonal(pairs_cc, np.where(counts_c > 1, counts_c * (counts_c - 1), np.nan))
    return np.clip(products_cc / pairs_cc, -1.0, 1.0), classes


def _sums_of_unit_vectors(points: np.ndarray, codes: np.ndarray, n_classes: int) -> np.ndarray:
    from scipy.sparse import csr_array

    n, f = points.shape
    sums = np.zeros((n_classes, f))
    size = max(1, _BLOCK_VALUES // f)
    for start in range(0, n, size):
        units = _unit_rows(points[start : start + size], start)
        rows = np.arange(len(units))
        members = csr_array((np.ones(len(units)), (codes[start : start + size], rows)), (n_classes, len(units)))
        sums += members @ units
    return sums


def _unit_rows(block: np.ndarray, first_row: int) -> np.ndarray:
    """Return rows scaled to length 1, first by their largest value so that no square over- or underflows."""
    rows = block.astype(np.float64)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    zero_rows = np.flatnonzero(largest == 0)
    if len(zero_rows):
        raise ValueError(
            f"row {first_row + zero_rows[0]} of features is zero and has no direction; "
            "drop such rows from features and labels"
        )
    rows /= largest
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows
