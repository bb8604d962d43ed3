"""Defaults on 1 797 digits: the quality every method promises."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.helpers import repeated
from torchdr_cne import PACMAP, UMAP, InfoTSNE, LargeVis, NCVis, NegTSNE

METHODS = [UMAP, NegTSNE, NCVis, InfoTSNE]
EVERY_METHOD = [*METHODS, LargeVis, PACMAP]
X, Y = load_digits(return_X_y=True)
FEWER = 2000


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_accuracy_and_trustworthiness_reach_the_floor(method):
    embedding = method(random_state=0).fit_transform(X)
    assert cross_val_score(KNeighborsClassifier(15), embedding, Y, cv=5).mean() >= 0.96
    assert trustworthiness(X, embedding, n_neighbors=15) >= 0.977


# Fewer mini-batches reach the floors too; the default number, 3 500, and the other methods are tried as repetitions.
@pytest.mark.parametrize(
    ("method", "max_iter"),
    [
        (NegTSNE, FEWER),
        *repeated(*((method, FEWER) for method in METHODS if method is not NegTSNE)),
        *repeated(*((method, None) for method in METHODS)),
    ],
)
def test_encoders_reach_the_floor(method, max_iter):
    embedding = method(encoder="mlp", random_state=0, max_iter=max_iter).fit_transform(X)
    assert cross_val_score(KNeighborsClassifier(15), embedding, Y, cv=5).mean() >= 0.965
    assert trustworthiness(X, embedding, n_neighbors=15) >= 0.978


@pytest.mark.parametrize(("method", "max_iter"), [(UMAP, 750), *repeated(*((method, None) for method in METHODS))])
def test_encoders_place_digits_they_have_not_seen_among_their_class(method, max_iter):
    # One fifth has 360 digits: its accuracy moves by .01 with the split, and the mean of three by .006.
    scores = [held_out_accuracy(method(encoder="mlp", random_state=seed, max_iter=max_iter), seed) for seed in range(3)]
    assert np.mean(scores) >= 0.95


def held_out_accuracy(estimator, seed):
    train, test, classes, wanted = train_test_split(X, Y, test_size=0.2, random_state=seed, stratify=Y)
    fitted = estimator.fit(train)
    return KNeighborsClassifier(15).fit(fitted.embedding_, classes).score(fitted.transform(test), wanted)


@pytest.mark.parametrize("max_iter", [1000, *repeated(None)])
def test_a_decoder_beats_the_image_of_the_class_mean_by_a_quarter(max_iter):
    train, test, classes, wanted = train_test_split(X, Y, test_size=0.2, random_state=0, stratify=Y)
    fitted = UMAP(encoder="mlp", decoder="mlp", random_state=0, max_iter=max_iter).fit(train)
    error = np.square(fitted.inverse_transform(fitted.transform(test)) - test).mean()
    means = np.stack([train[classes == digit].mean(axis=0) for digit in range(10)])
    assert error <= 0.75 * np.square(means[wanted] - test).mean()


@pytest.mark.parametrize("method", [NegTSNE, PACMAP, *repeated(UMAP, NCVis, InfoTSNE, LargeVis)])
def test_a_pipeline_ends_with_an_embedding_in_named_columns(method):
    pipeline = make_pipeline(StandardScaler(), method(random_state=0, max_iter=20))
    pipeline.set_output(transform="pandas")
    frame = pipeline.fit_transform(X)
    name = method.__name__.lower()
    assert list(frame.columns) == [f"{name}0", f"{name}1"]
    np.testing.assert_array_equal(frame.to_numpy(), pipeline[-1].embedding_)


def test_a_sweep_over_the_spectrum_computes_neighbours_once_and_tightens():
    first = NegTSNE(random_state=0, nu=0.001).fit(X)
    spread = [NegTSNE(random_state=0, nu=nu).fit(X, graph=first.graph_).embedding_.std() for nu in (0.001, 0.03, 1, 10)]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] > 3 * spread[-1]
