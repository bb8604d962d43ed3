"""A fit is the same whatever the caller has set, and leaves settings, and the estimator of a failed fit, alone."""

import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_linnerud, load_wine

from tests.helpers import repeated
from torchdr_cne import COSNE, PACMAP, SNE, TSNE, UMAP, InfoTSNE, LargeVis, NCVis, NegTSNE, TSNEkhorn

X = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
OTHER = np.random.default_rng(1).normal(size=(90, 4))
METHODS = [NegTSNE, UMAP, NCVis, InfoTSNE, LargeVis, PACMAP, TSNE, SNE, COSNE, TSNEkhorn]
ESTIMATORS = {
    **{method.__name__: partial(method, max_iter=5, random_state=0) for method in METHODS},
    "autograd": partial(NCVis, max_iter=5, random_state=0, gradient="autograd"),
    "tiles": partial(UMAP, max_iter=5, random_state=0, dtype="float64"),
    "Adam": partial(InfoTSNE, max_iter=5, random_state=0, optimizer="Adam", init="spectral"),
    "grid": partial(TSNE, max_iter=5, random_state=0, repulsion="fft"),
    "network": partial(UMAP, max_iter=5, random_state=0, encoder="mlp", decoder="mlp"),
}


def results(make):
    estimator = make().fit(X)
    return estimator.embedding_.tobytes(), estimator.transform(X[:20] + 0.1).tobytes()


@pytest.fixture(params=["default dtype", "default device", "autocast", "inference mode", "no gradients"])
def setting(request):
    if request.param == "default dtype":
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)
    elif request.param == "default device":
        torch.set_default_device("meta")
        yield
        torch.set_default_device(None)
    else:
        modes = {
            "autocast": torch.autocast("cpu", torch.bfloat16),
            "inference mode": torch.inference_mode(),
            "no gradients": torch.no_grad(),
        }
        with modes[request.param]:
            yield


@pytest.fixture(scope="module")
def expected():
    return {name: results(make) for name, make in ESTIMATORS.items()}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_torch_s_modes_and_defaults_change_no_bit(name, expected, setting):
    assert results(ESTIMATORS[name]) == expected[name]


def test_networks_fitted_in_several_threads_have_the_bits_of_a_lone_fit():
    make = partial(NegTSNE, encoder="mlp", random_state=0, max_iter=30)
    lone, found = make().fit(X).embedding_, {}
    before = torch.get_rng_state()

    def work(number):
        found[number] = make().fit(X).embedding_

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        np.testing.assert_array_equal(found[number], lone)
    assert torch.equal(torch.get_rng_state(), before)


def fail_at(step):
    def callback(estimator, done):
        if done == step:
            raise ZeroDivisionError

    return callback


@pytest.mark.parametrize("options", [{}, {"encoder": "mlp"}], ids=["points", "network"])
def test_after_a_fit_that_fails_the_estimator_is_what_it_was(options):
    estimator = UMAP(random_state=0, max_iter=10, **options).fit(X)
    before = dict(vars(estimator))
    placed = estimator.transform(X[:5])
    estimator.set_params(callbacks=fail_at(3))
    with pytest.raises(ZeroDivisionError):
        estimator.fit(OTHER)
    estimator.set_params(callbacks=None)
    assert vars(estimator).keys() == before.keys()
    assert all(vars(estimator)[name] is before[name] for name in before if name.endswith("_"))
    np.testing.assert_array_equal(estimator.transform(X[:5]), placed)


def test_a_first_fit_that_fails_leaves_no_attribute():
    estimator = NegTSNE(max_iter=10, callbacks=fail_at(3))
    with pytest.raises(ZeroDivisionError):
        estimator.fit(X)
    assert not [name for name in vars(estimator) if name.endswith("_")]


@pytest.mark.parametrize("answer", [1, "yes", np.arange(3), torch.tensor(1), torch.tensor([True, True])])
def test_a_callback_stops_the_fit_by_true_and_by_nothing_else(answer):
    assert NegTSNE(max_iter=6, callbacks=lambda estimator, step: answer).fit(X).n_iter_ == 6
    for true in (True, np.True_):
        assert NegTSNE(max_iter=6, callbacks=lambda estimator, step, true=true: true).fit(X).n_iter_ == 1


def test_any_number_of_threads_may_be_asked_for():
    options = {"max_iter": 3, "random_state": 0}
    many = NegTSNE(n_jobs=100_000, **options).fit(X).embedding_
    np.testing.assert_array_equal(many, NegTSNE(n_jobs=1, **options).fit(X).embedding_)


@pytest.mark.parametrize("name", ["discard_neighbors", "verbose", "compile"])
def test_a_switch_is_true_or_false(name):
    for value in ("no", 2, None):
        with pytest.raises(ValueError, match=f"{name}={value!r} must be True or False"):
            NegTSNE(**{name: value}).fit(X)


def test_an_empty_name_is_no_folder_and_a_tilde_is_the_home(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="checkpoint_dir='' names no folder; give its path, or None"):
        NegTSNE(checkpoint_dir="").fit(X)
    monkeypatch.setenv("HOME", str(tmp_path))
    NegTSNE(checkpoint_dir="~/run", max_iter=3).fit(X)
    assert (Path(tmp_path) / "run" / "step-3").is_dir()


SMALL = {
    "iris": load_iris,
    "wine": load_wine,
    "linnerud": load_linnerud,
    "diabetes": load_diabetes,
    "breast_cancer": load_breast_cancer,
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("method", [TSNE, NCVis, UMAP, *repeated(*(set(METHODS) - {TSNE, NCVis, UMAP}))])
@pytest.mark.parametrize("data", SMALL)
def test_no_published_number_is_nan(method, data):
    fitted = method(random_state=0, max_iter=60).fit(SMALL[data]().data)
    for name, value in vars(fitted).items():
        if name.endswith("_") and isinstance(value, (float, np.ndarray)) and name != "feature_names_in_":
            assert np.isfinite(value).all(), name
    assert all(np.isfinite(values).all() for values in fitted.history_.values())


@pytest.mark.parametrize("perplexity", [20, 30, 35])
def test_the_divergence_of_iris_is_that_of_float64(perplexity):
    options = {"perplexity": perplexity, "random_state": 0, "max_iter": 300}
    single = TSNE(**options).fit(load_iris().data)
    double = TSNE(dtype="float64", init=single.embedding_, **{**options, "max_iter": 1, "learning_rate": 1e-12})
    assert single.kl_divergence_ == pytest.approx(double.fit(load_iris().data).kl_divergence_, rel=1e-4)
