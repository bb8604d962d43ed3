"""Equal rows: of more copies than neighbours none is a hub, whatever searches, and other graphs stay as they are."""

import numpy as np
import pytest
import torch

from torchdr_cne import NegTSNE
from torchdr_cne.affinity import UnionAffinity
from torchdr_cne.inputs import as_rows
from torchdr_cne.neighbors import FaissConfig, kneighbors
from torchdr_cne.neighbors.copies import spread_over_copies

K = 15


def with_copies(n_copies=500, n=1200, seed=0):
    """Return rows, of which some at random places are equal, and which these are."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6)).astype(np.float32)
    copies = np.sort(rng.permutation(n)[:n_copies])
    X[copies] = X[copies[0]]
    return X, copies


def degrees(X, **options):
    return np.diff(UnionAffinity(n_neighbors=K, **options)(X).to_scipy().indptr)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
@pytest.mark.parametrize("backend", ["torch", "keops", "faiss", FaissConfig(n_lists=8, n_probes=8)])
def test_no_copy_is_a_hub_and_backends_agree(backend, metric):
    X, copies = with_copies()
    graph = UnionAffinity(n_neighbors=K, metric=metric, backend=backend)(X).to_scipy()
    assert np.diff(graph.indptr).max() < 6 * K
    reference = UnionAffinity(n_neighbors=K, metric=metric, backend="torch")(X).to_scipy()
    assert abs(graph - reference).nnz == 0
    assert graph[copies][:, copies].nnz >= 2 * K * len(copies)  # each lists copies only


def test_distances_are_those_of_the_search_and_no_row_lists_itself_or_another_twice():
    X, _ = with_copies()
    rows, found = as_rows(X), kneighbors(X, K)
    spread = spread_over_copies(found, rows)
    assert torch.equal(spread.distances, found.distances)
    for i, ids in enumerate(spread.indices.tolist()):
        assert i not in ids
        assert len(set(ids)) == K
    exact = (torch.from_numpy(X)[spread.indices.long()] - torch.from_numpy(X).unsqueeze(1)).norm(dim=2)
    torch.testing.assert_close(exact, spread.distances)


def test_all_rows_that_are_near_copies_share_them():
    X, copies = with_copies(200, 1000)
    others = np.setdiff1d(np.arange(1000), copies)
    X[others] = X[copies[0]] + 1 + 0.01 * X[others]  # nearer to each other
    X[others[:300]] = (
        X[copies[0]] + np.linspace(0.1, 0.2, 300, dtype=np.float32)[:, None] * np.eye(6)[np.arange(300) % 6]
    )
    assert degrees(X.astype(np.float32)).max() < 8 * K


@pytest.mark.parametrize("n_copies", [2, K, K + 1])
def test_a_graph_without_so_many_copies_stays_as_it_is(n_copies):
    X, _ = with_copies(n_copies)
    found = kneighbors(X, K)
    assert torch.equal(spread_over_copies(found, as_rows(X)).indices, found.indices)


def test_copies_lie_together_in_the_map():
    X, copies = with_copies(300, 900)
    embedding = NegTSNE(random_state=0, max_iter=200).fit_transform(X)
    own = embedding[copies]
    spread, whole = np.median(np.abs(own - np.median(own, axis=0))), np.median(np.abs(embedding))
    assert spread < whole
