"""Same seed, same bits: across processes and numbers of threads, with global random state left alone."""

import hashlib
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tests.helpers import on_threads, repeated, torch_threads
from torchdr_cne import PACMAP, TSNE, UMAP, InfoTSNE, LargeVis, NCVis, NegTSNE
from torchdr_cne.forces import compiled

METHODS = [UMAP, NegTSNE, NCVis, InfoTSNE, LargeVis, PACMAP]
X = load_digits().data[:600]

SCRIPT = """
import hashlib, sys
from sklearn.datasets import load_digits
import torchdr_cne
X = load_digits().data[:600]
for gradient, names in {"pairwise": ["UMAP", "NegTSNE", "NCVis", "InfoTSNE"], "autograd": ["UMAP", "InfoTSNE"]}.items():
    for name in names:
        z = getattr(torchdr_cne, name)(random_state=7, max_iter=30, gradient=gradient).fit_transform(X)
        print(hashlib.sha256(z.tobytes()).hexdigest())
"""


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_two_processes_give_the_same_bits(capsys):
    fresh = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout.split()
    exec(SCRIPT, {})
    assert capsys.readouterr().out.split() == fresh
    assert len(set(fresh)) == 6


@pytest.mark.parametrize("threads", [(1, 2, 3), *repeated(((1, 4, 8),))], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"], ids=["compiled", "tiles"])
@pytest.mark.parametrize("method", METHODS)
def test_the_fast_path_gives_the_same_bits_for_any_number_of_threads(method, dtype, threads, monkeypatch):
    monkeypatch.setattr(compiled, "_BLOCKS_WORTH_A_THREAD", 1)
    rng = np.random.default_rng(0)
    start = rng.normal(size=(600, 2)).astype(np.float32)
    graph = method(max_iter=1, random_state=0).fit(X).graph_
    digests = {
        digest(
            method(init=start, random_state=0, max_iter=40, n_jobs=n_jobs, dtype=dtype).fit(X, graph=graph).embedding_
        )
        for n_jobs in threads
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    "make",
    [
        partial(UMAP, gradient="autograd", n_neighbors=45),
        partial(InfoTSNE, gradient="autograd", n_neighbors=45),
        partial(PACMAP, gradient="autograd", n_neighbors=45),
        partial(TSNE, repulsion="dense"),
    ],
    ids=["UMAP", "InfoTSNE", "PACMAP", "TSNE"],
)
def test_autograd_gives_the_same_bits_again_on_several_threads(make):
    # Above 32 768 numbers of 32 bits, torch adds up the gradient of an indexed tensor in whatever order threads come.
    digests = on_threads(lambda: digest(make(random_state=0, max_iter=20).fit(X).embedding_), counts=(2, 2, 2))
    assert len(set(digests)) == 1


@pytest.mark.parametrize("method", METHODS)
def test_another_seed_gives_another_map(method):
    maps = [method(random_state=seed, max_iter=30).fit_transform(X) for seed in (0, 1)]
    assert not np.array_equal(*maps)


@pytest.mark.parametrize("gradient", ["pairwise", "autograd"])
@pytest.mark.parametrize("random_state", [None, 3])
def test_global_random_state_and_thread_count_are_left_alone(random_state, gradient):
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    with torch_threads(2):
        InfoTSNE(random_state=random_state, max_iter=5, n_jobs=1, gradient=gradient).fit(X)
        assert torch.get_num_threads() == 2
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_before, torch.random.get_rng_state())


def test_the_random_start_follows_the_seed():
    maps = [NegTSNE(init="random", random_state=seed, max_iter=2).fit_transform(X) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_a_numpy_generator_serves_as_random_state():
    first = NegTSNE(random_state=np.random.default_rng(5), max_iter=5).fit_transform(X)
    second = NegTSNE(random_state=np.random.default_rng(5), max_iter=5).fit_transform(X)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("method", METHODS)
def test_pickling_keeps_the_fitted_estimator(method):
    import pickle

    estimator = method(random_state=0, max_iter=5).fit(X)
    copy = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(copy.embedding_, estimator.embedding_)
    assert copy.get_params().keys() == estimator.get_params().keys()
    assert (copy.graph_ != estimator.graph_).nnz == 0
