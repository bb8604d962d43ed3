"""All metrics of an embedding in one call."""

from typing import TYPE_CHECKING

from torchdr_cne.evaluation._exact import ExactSearch
from torchdr_cne.evaluation._inputs import (
    RandomState,
    as_class_codes,
    as_pair,
    check_n_neighbors,
    sample_rows,
)
from torchdr_cne.evaluation.distances import distance_correlation
from torchdr_cne.evaluation.neighborhoods import (
    accuracy_of_vote,
    check_trustworthiness_neighbors,
    recall_from_ranks,
    trust_from_ranks,
)

if TYPE_CHECKING:
    from torchdr_cne.evaluation._inputs import Data


def evaluate(
    X: "Data",
    embedding: "Data",
    labels: "Data | None" = None,
    *,
    n_neighbors: int = 15,
    n_voters: int = 10,
    n_samples: int | None = 3000,
    n_pairs: int | None = 100_000,
    random_state: RandomState = 0,
) -> dict[str, float]:
    """Return all metrics of an embedding; the data and the embedding are searched once each.

    Parameters
    ----------
    X : array or tensor of shape (n, features)
        The data, of any real dtype.
    embedding : array or tensor of shape (n, components)
        The embedding of the same rows in the same order.
    labels : array or tensor of shape (n,), optional
        Classes for `knn_accuracy`; without them that metric is left out.
    n_neighbors : int, default=15
        Number of neighbours for `knn_recall` and `trustworthiness`, less than n / 2.
    n_voters : int, default=10
        ``n_neighbors`` of `knn_accuracy`.
    n_samples : int or None, default=3000
        Number of rows that the neighbour metrics judge; None for all.
    n_pairs : int or None, default=100_000
        Number of pairs for `distance_correlation`; None for all.
    random_state : int, numpy.random.Generator or None, default=0
        Source of the samples.

    Returns
    -------
    dict of str to float
        ``knn_recall``, ``knn_accuracy`` (if there are labels), ``trustworthiness`` and ``distance_correlation``.
        With an integer ``random_state`` these are the results of the functions of the same names.

    Raises
    ------
    ValueError
        In the same cases as these functions.
    """
    points, embedded = as_pair(X, embedding)
    n = len(points)
    k = check_trustworthiness_neighbors(n_neighbors, n)
    voters = 0 if labels is None else check_n_neighbors(n_voters, n, "n_voters")
    codes = None if labels is None else as_class_codes(labels, n)
    rows = sample_rows(n, n_samples, random_state)

    neighbors = ExactSearch(embedded).neighbors(rows, max(k, voters))
    ranks = ExactSearch(points).ranks(rows, neighbors[:, :k])
    scores = {"knn_recall": recall_from_ranks(ranks)}
    if codes is not None:
        scores["knn_accuracy"] = accuracy_of_vote(codes[rows], codes[neighbors[:, :voters]])
    scores["trustworthiness"] = trust_from_ranks(ranks, n)
    scores["distance_correlation"] = distance_correlation(points, embedded, n_pairs=n_pairs, random_state=random_state)
    return scores
