"""Metrics of neighbourhoods: recall, accuracy of a vote, and trustworthiness."""

from typing import TYPE_CHECKING

import numpy as np

from torchdr_cne.evaluation._exact import ExactSearch
from torchdr_cne.evaluation._inputs import (
    RandomState,
    as_class_codes,
    as_pair,
    as_points,
    check_n_neighbors,
    sample_rows,
)

if TYPE_CHECKING:
    from torchdr_cne.evaluation._inputs import Data


def knn_recall(
    X: "Data",
    embedding: "Data",
    *,
    n_neighbors: int = 15,
    n_samples: int | None = 3000,
    random_state: RandomState = 0,
) -> float:
    """Return the mean fraction of nearest neighbours in ``X`` that are also nearest neighbours in the embedding.

    Parameters
    ----------
    X : array or tensor of shape (n, features)
        The data, of any real dtype; tensors may be on any device.
    embedding : array or tensor of shape (n, components)
        The embedding of the same rows in the same order.
    n_neighbors : int, default=15
        Number k of neighbours of a row, not counting the row itself. 15 is the default of the methods.
    n_samples : int or None, default=3000
        Number of rows to judge, drawn without repetition by ``default_rng(random_state).choice``; all rows if
        there are no more, or with None. Their neighbours are searched for among all n rows. With 3000 rows the
        score varies by about 0.003 between samples.
    random_state : int, numpy.random.Generator or None, default=0
        Source of the sample. The default is fixed, so that the scores of several embeddings use the same rows.

    Returns
    -------
    float
        Between 0 and 1; about k / n for a random embedding.

    Raises
    ------
    ValueError
        If the rows do not match, values are not finite, or 1 ≤ n_neighbors < n does not hold.

    Notes
    -----
    Neighbours are exact, by Euclidean distance and then by row number. A row is excluded from its own
    neighbours by its number and not by its distance of 0, so that a duplicate is a neighbour.

    References
    ----------
    Lee and Verleysen, Quality assessment of dimensionality reduction: rank-based criteria,
    Neurocomputing 72 (2009).
    """
    points, embedded = as_pair(X, embedding)
    k = check_n_neighbors(n_neighbors, len(points))
    rows = sample_rows(len(points), n_samples, random_state)
    return recall_from_ranks(ranks_of_embedding_neighbors(points, embedded, rows, k))


def knn_accuracy(
    embedding: "Data",
    labels: "Data",
    *,
    n_neighbors: int = 10,
    n_samples: int | None = 3000,
    random_state: RandomState = 0,
) -> float:
    """Return the fraction of rows whose label wins the vote of their nearest neighbours in the embedding.

    Parameters
    ----------
    embedding : array or tensor of shape (n, components)
        The embedding, of any real dtype.
    labels : array or tensor of shape (n,)
        Classes: integers, strings, booleans or whole floats, none missing.
    n_neighbors : int, default=10
        Number of neighbours that vote on a row, not counting the row itself (leave-one-out).
    n_samples, random_state
        As in `knn_recall`.

    Returns
    -------
    float
        Between 0 and 1. If classes have equally many votes, the one that sorts first wins.

    Raises
    ------
    ValueError
        If the lengths do not match, labels are missing or fractions, values are not finite, or
        1 ≤ n_neighbors < n does not hold.
    """
    embedded = as_points(embedding, "embedding")
    codes = as_class_codes(labels, len(embedded))
    k = check_n_neighbors(n_neighbors, len(embedded))
    rows = sample_rows(len(embedded), n_samples, random_state)
    return accuracy_of_vote(codes[rows], codes[ExactSearch(embedded).neighbors(rows, k)])


def trustworthiness(
    X: "Data",
    embedding: "Data",
    *,
    n_neighbors: int = 15,
    n_samples: int | None = 3000,
    random_state: RandomState = 0,
) -> float:
    """Return one minus a penalty on neighbours in the embedding that have high ranks in ``X``.

    The score is ``1 − 2 / (r k (2n − 3k − 1)) ∑ max(0, rank(i, j) − k)``, summed over the r rows i that are judged and
    the k neighbours j of each in the embedding, where rank(i, j) is the rank of j among the neighbours of i in
    ``X``. With all rows this is `sklearn.manifold.trustworthiness`.

    Parameters
    ----------
    X : array or tensor of shape (n, features)
        The data, of any real dtype.
    embedding : array or tensor of shape (n, components)
        The embedding of the same rows in the same order.
    n_neighbors : int, default=15
        Number k of neighbours of a row, less than n / 2, as the score is defined only there.
    n_samples, random_state
        As in `knn_recall`; ranks are those among all n rows.

    Returns
    -------
    float
        At most 1; about 0.5 for a random embedding.

    Raises
    ------
    ValueError
        If the rows do not match, values are not finite, or 1 ≤ n_neighbors < n / 2 does not hold.

    References
    ----------
    Venna and Kaski, Neighborhood preservation in nonlinear projection methods: an experimental study,
    ICANN 2001.
    """
    points, embedded = as_pair(X, embedding)
    k = check_trustworthiness_neighbors(n_neighbors, len(points))
    rows = sample_rows(len(points), n_samples, random_state)
    return trust_from_ranks(ranks_of_embedding_neighbors(points, embedded, rows, k), len(points))


def check_trustworthiness_neighbors(n_neighbors: int, n: int) -> int:
    """Return ``n_neighbors`` as an int; raise ValueError unless 1 ≤ n_neighbors < n / 2."""
    k = check_n_neighbors(n_neighbors, n)
    if 2 * k >= n:
        raise ValueError(
            f"trustworthiness with n_neighbors={k} needs more than {2 * k} samples (n_neighbors < n / 2), "
            f"got {n}; lower n_neighbors or pass more rows"
        )
    return k


def ranks_of_embedding_neighbors(points: np.ndarray, embedded: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """Return the ranks (r, k) in ``points`` of each row's k nearest neighbours in ``embedded``."""
    return ExactSearch(points).ranks(rows, ExactSearch(embedded).neighbors(rows, k))


def recall_from_ranks(ranks_rk: np.ndarray) -> float:
    """Return the fraction of ranks up to k: these neighbours are also among the k nearest in the data."""
    return float(np.mean(ranks_rk <= ranks_rk.shape[1]))


def trust_from_ranks(ranks_rk: np.ndarray, n: int) -> float:
    """Return Venna and Kaski's score from the ranks beyond k, averaged over the rows."""
    r, k = ranks_rk.shape
    return float(1.0 - np.maximum(ranks_rk - k, 0).sum() * (2.0 / (r * k * (2.0 * n - 3.0 * k - 1.0))))


def accuracy_of_vote(codes_r: np.ndarray, votes_rk: np.ndarray) -> float:
    """Return the fraction of rows whose code has the most votes; in a tie the smallest code wins."""
    counts_rk = (votes_rk[:, :, None] == votes_rk[:, None, :]).sum(axis=2)
    is_most = counts_rk == counts_rk.max(axis=1, keepdims=True)
    winners_r = np.where(is_most, votes_rk, np.iinfo(votes_rk.dtype).max).min(axis=1)
    return float(np.mean(winners_r == codes_r))
