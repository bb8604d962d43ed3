"""LargeVis: its affinities, what γ does, and the forces of points that nearly coincide."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tests.helpers import repeated
from torchdr_cne import LargeVis
from torchdr_cne.affinity import EntropicAffinity
from torchdr_cne.evaluation import knn_accuracy, trustworthiness

X, Y = load_digits(return_X_y=True)
SOME = X[:400].astype(np.float32)


def fit(**options):
    return LargeVis(**{"random_state": 0, "max_iter": 60, "perplexity": 20, **options}).fit(SOME)


def test_the_graph_is_t_snes_of_the_given_perplexity():
    expected = EntropicAffinity(perplexity=12)(SOME).to_scipy()
    np.testing.assert_allclose(fit(perplexity=12, max_iter=1).graph_.toarray(), expected.toarray(), rtol=1e-6)


def test_the_perplexity_and_not_n_neighbors_sets_the_graph():
    with pytest.raises(TypeError, match="unexpected keyword argument 'n_neighbors'"):
        LargeVis(n_neighbors=3)
    assert fit(perplexity=40, max_iter=1).graph_.nnz > fit(max_iter=1).graph_.nnz


def test_the_loss_is_the_papers():
    """−log q + Σ −γ log(1 − q), q = 1/(1 + d² + 0.1), written out in NumPy."""
    estimator = LargeVis(gamma=3.0)
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 2)))
    log_q = estimator._similarity(z[:4], z[1:])
    q = 1 / (1.1 + np.square(z[:4].numpy() - z[1:].numpy()).sum(axis=1))

    class Both:
        log_q_edges = log_q_negatives = log_q

    np.testing.assert_allclose(estimator._compute_attractive_loss(Both), -np.log(q), rtol=1e-12)
    np.testing.assert_allclose(estimator._compute_repulsive_loss(Both), -3 * np.log(1 - q), rtol=1e-12)


def test_a_larger_gamma_spreads_the_clusters_out():
    spread = [
        fit(gamma=gamma, init_scaling=1.0, learning_rate=0.5, max_iter=200).embedding_.std()
        for gamma in (0.5, 2.0, 7.0, 20.0)
    ]
    assert spread == sorted(spread)
    assert spread[-1] > 1.5 * spread[0]


def test_attraction_outweighs_gamma_twice_in_the_first_fifth():
    phases = LargeVis(max_iter=100)._phases(1000)
    assert [(phase.start, phase.stop, phase.exaggeration) for phase in phases] == [(0, 20, 14.0), (20, 100, 1.0)]
    assert len(LargeVis(early_exaggeration=1.0)._phases(1000)) == 1
    assert len(LargeVis(gamma=0.5)._phases(1000)) == 1


@pytest.mark.parametrize("gradient", ["pairwise", "autograd"])
def test_points_that_coincide_at_first_are_not_flung_away(gradient):
    start = np.zeros((400, 2), dtype=np.float32)
    start[0] = 1
    estimator = fit(init=start, gradient=gradient)
    assert np.isfinite(estimator.embedding_).all()
    assert np.abs(estimator.embedding_).max() < 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perplexity": 1.0}, "perplexity=1.0 must be a number > 1"),
        ({"perplexity": "large"}, "perplexity='large' must be a number > 1"),
        ({"gamma": -1.0}, "gamma=-1.0 must be a number >= 0"),
    ],
)
def test_values_that_cannot_work_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        fit(**options)


def test_a_perplexity_too_large_for_the_data_is_told_by_its_name():
    with pytest.warns(UserWarning, match="perplexity=50.0 needs more than 150 samples, got 80"):
        LargeVis(max_iter=2, random_state=0).fit(SOME[:80])


def test_new_digits_are_placed_among_those_of_their_class():
    fitted = LargeVis(random_state=0).fit(X[:1400])
    from sklearn.neighbors import KNeighborsClassifier

    places = fitted.transform(X[1400:])
    assert KNeighborsClassifier(15).fit(fitted.embedding_, Y[:1400]).score(places, Y[1400:]) >= 0.92


@pytest.mark.parametrize("seed", [1, *repeated(0, 2)])
def test_quality_on_digits_reaches_the_floor_for_any_seed(seed):
    embedding = LargeVis(random_state=seed).fit_transform(X)
    assert knn_accuracy(embedding, Y, n_neighbors=15) >= 0.96
    assert trustworthiness(X, embedding, n_neighbors=15) >= 0.977
