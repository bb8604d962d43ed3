"""AffinityMatcher by itself: whole matrices of the data and of the embedding, matched under a loss."""

import importlib.util
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits

import torchdr_cne
from tests.helpers import repeated, state_of
from torchdr_cne import UMAP, AffinityMatcher, LearnedMap, NegTSNE
from torchdr_cne.affinity import EntropicAffinity, SinkhornAffinity, UnionAffinity
from torchdr_cne.distributed import Share
from torchdr_cne.evaluation import knn_accuracy
from torchdr_cne.objectives.matrices import Normalized, ScalarProduct
from torchdr_cne.similarities import Cauchy, Gaussian

X, Y = load_digits(return_X_y=True)
X, Y = X[:300], Y[:300]


def example():
    path = Path(__file__).parents[1] / "examples" / "affinity_matching.py"
    spec = importlib.util.spec_from_file_location("affinity_matching", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scalar_products_and_the_square_loss_are_pca():
    assert example().pca() < 1e-6


def test_the_normalised_adjacency_gives_laplacian_eigenmaps():
    assert example().laplacian_eigenmaps() < 1e-3


@pytest.mark.parametrize("over", ["total", "rows", "sinkhorn"])
def test_q_is_normalised_as_asked(over):
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 2)))
    q = Normalized(Cauchy(), over)(z)
    assert float(q.sum()) == pytest.approx(1, abs=1e-3)
    assert float(q.diagonal().abs().max()) == 0
    if over != "total":
        np.testing.assert_allclose(q.sum(dim=1), np.full(40, 1 / 40), rtol=1e-3)
    if over != "rows":
        torch.testing.assert_close(q, q.T)


GIVEN = [None, EntropicAffinity(perplexity=10), SinkhornAffinity()]
FOUND = [None, Normalized(Gaussian(), "rows"), Normalized(over="sinkhorn")]
PAIRS = [*zip(GIVEN, FOUND, strict=True)]  # each affinity once


@pytest.mark.parametrize(
    ("affinity", "out"), [*PAIRS, *repeated(*(pair for pair in product(GIVEN, FOUND) if pair not in PAIRS))]
)
def test_digits_are_told_apart_under_any_pair_of_affinities(affinity, out):
    z = AffinityMatcher(affinity_in=affinity, affinity_out=out, max_iter=200, random_state=0).fit_transform(X)
    assert knn_accuracy(z, Y) > 0.85


def test_the_cross_entropy_is_that_of_the_formula():
    matcher = AffinityMatcher(affinity_in=EntropicAffinity(perplexity=10), dtype="float64", max_iter=20, random_state=0)
    z = matcher.fit_transform(X)
    p = matcher.graph_.toarray()
    p /= p.sum()
    d2 = np.square(z[:, None] - z).sum(axis=-1)
    q = 1 / (1 + d2)
    np.fill_diagonal(q, 0)
    expected = -(p[p > 0] * np.log((q / q.sum())[p > 0])).sum()
    state = state_of(matcher, None, torch.from_numpy(z), 0, matcher._phases(len(z))[0], Share.whole(len(z)))
    state.target = torch.from_numpy(p)
    assert float(matcher._compute_loss(torch.from_numpy(z), state)) / len(z) == pytest.approx(expected, rel=1e-9)


def test_a_function_as_loss_gets_p_and_q():
    seen = []

    def loss(p, q):
        seen.append((p, q))
        return (p - q).abs().sum()

    AffinityMatcher(loss=loss, affinity_in=EntropicAffinity(perplexity=10), max_iter=2, random_state=0).fit(X)
    p, q = seen[0]
    assert p.shape == q.shape == (300, 300)
    assert float(p.sum()) == pytest.approx(1, rel=1e-5)
    assert float(q.detach().sum()) == pytest.approx(1, rel=1e-5)


def test_a_function_as_affinity_sees_the_rows_as_they_were_given():
    seen = []

    def gram(rows):
        seen.append(rows)
        return rows @ rows.T

    AffinityMatcher(affinity_in=gram, affinity_out=ScalarProduct(), loss="square", max_iter=2, random_state=0).fit(X)
    np.testing.assert_allclose(seen[0], X, atol=1e-4)


@pytest.mark.parametrize("method", [UMAP, NegTSNE, torchdr_cne.TSNE, torchdr_cne.PACMAP, LearnedMap])
def test_methods_with_a_loss_of_their_own_have_no_such_parameters(method):
    assert not {"affinity_out", "loss"} & set(method().get_params())
    with pytest.raises(TypeError, match="affinity_out"):
        method(affinity_out=ScalarProduct())


def test_parameters_survive_cloning():
    matcher = AffinityMatcher(affinity_out=Normalized(Gaussian(), "rows"), loss="square")
    assert clone(matcher).get_params() == matcher.get_params()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"loss": "kl"}, "loss='kl' is unknown; choose one of"),
        ({"affinity_out": Cauchy()}, "must be an OutputAffinity such as Normalized"),
        ({"affinity_out": ScalarProduct()}, "no logarithm, which loss='cross_entropy' needs"),
        ({"affinity_in": lambda rows: rows}, r"must return a finite matrix of shape \(300, 300\)"),
        ({"loss": lambda p, q: p}, "must return a scalar tensor, got shape"),
        ({"affinity_in": 3}, "affinity_in=3 is unknown"),
    ],
)
def test_what_cannot_be_matched_is_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        AffinityMatcher(max_iter=2, **parameters).fit(X)


def test_a_function_as_affinity_is_for_whole_matrices_only():
    with pytest.raises(ValueError, match="is unknown; pass an Affinity"):
        NegTSNE(affinity_in=lambda rows: rows @ rows.T).fit(X)


def test_a_sparse_affinity_is_matched_as_a_matrix_with_zeros():
    matcher = AffinityMatcher(affinity_in=UnionAffinity(n_neighbors=12), max_iter=100, random_state=0).fit(X)
    assert knn_accuracy(matcher.embedding_, Y) > 0.7
