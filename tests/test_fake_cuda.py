"""A training step on CUDA tensors that hold no data: no host synchronisation, no mixed devices.

FakeTensorMode raises on ``.item()``, on boolean masks and on mixed devices in arithmetic; a dispatch mode raises
where a CPU tensor meets a CUDA tensor unnoticed, or where data travel between them.
"""

import copy
from dataclasses import replace
from enum import Enum

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from tests.helpers import problem_of, state_of
from torchdr_cne import COSNE, SNE, TSNE, UMAP, InfoTSNE, LargeVis, NCVis, NegTSNE, TSNEkhorn
from torchdr_cne.affinity import UnionAffinity
from torchdr_cne.distributed import Share
from torchdr_cne.fitting.running import threads_of_rank
from torchdr_cne.forces import StepCoefficients, TileForces
from torchdr_cne.forces.all_pairs import TorchSums
from torchdr_cne.images import ImageNetwork
from torchdr_cne.parametric import InfoNCE, LabelContrast
from torchdr_cne.sampling import NegativeSampler
from torchdr_cne.similarities import Cauchy, CosineExp

METHODS = [UMAP, NegTSNE, NCVis, InfoTSNE, LargeVis]
N = 200


class OneDevice(TorchDispatchMode):
    """Raise when an operation's tensors live on two devices."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_flatten((args, kwargs, result))[0] if isinstance(x, torch.Tensor)]
        kinds = {x.device.type for x in tensors}
        if len(kinds) > 1:
            raise AssertionError(f"{func} mixes {kinds}")
        return result


def on_cuda(mode, thing):
    """Return a copy of a tensor, or of an object of ours with all its tensors, that is on CUDA and holds no data."""
    if isinstance(thing, torch.Tensor):
        return mode.from_tensor(thing.detach()).to("cuda")
    if isinstance(thing, dict):
        return {key: on_cuda(mode, value) for key, value in thing.items()}
    if isinstance(thing, Enum | type) or not type(thing).__module__.startswith("torchdr_cne."):
        return thing
    moved = copy.copy(thing)
    vars(moved).update(on_cuda(mode, vars(thing)))
    return moved


def prepared(method):
    """A real problem on the CPU: estimator, state, embedding, force problem and number of shifts."""
    X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    estimator = method(random_state=0)
    z = torch.from_numpy(X[:, :2].copy())
    state = state_of(estimator, UnionAffinity()(X), z, 0, estimator._phases(N)[-1])
    problem, n_shifts = problem_of(estimator, state, z)
    return estimator, state, z, problem, n_shifts


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_fast_step_traces_on_cuda(method, exclude):
    estimator, state, z, problem, n_shifts = prepared(method)
    problem = replace(problem, exclude_edges=exclude)
    assert len(problem.row_weights) == problem.layout.n_slots  # known before the first step, as in a fit
    engine, z_ds = TileForces(problem), problem.layout.scatter(z).t().contiguous()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        engine, z_ds, learned = on_cuda(mode, engine), on_cuda(mode, z_ds), on_cuda(mode, state.learned)
        with OneDevice(), torch.no_grad():
            parameters = estimator._force_parameters({**state.phase.parameters, **learned})
            gradient, scalar = engine.gradient(z_ds, StepCoefficients(list(range(n_shifts)), parameters))
    assert gradient.device.type == "cuda"
    assert gradient.shape == z_ds.shape
    assert (scalar is None) == (not learned)


@pytest.mark.parametrize("method", METHODS)
def test_the_definitions_loss_traces_on_cuda(method):
    estimator, state, z, _, _ = prepared(method)
    state.sampler = NegativeSampler(N, torch.arange(N), 16)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        state, embedding = on_cuda(mode, state), on_cuda(mode, z)
        with OneDevice(), torch.no_grad():
            loss = estimator._compute_loss(embedding, state)
    assert loss.device.type == "cuda"
    assert loss.shape == ()


@pytest.mark.parametrize("method", [TSNE, SNE, TSNEkhorn])
def test_sums_over_all_pairs_trace_on_cuda(method):
    forces = method()._pair_forces()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        z_ds, charges = on_cuda(mode, torch.zeros(2, N)), on_cuda(mode, torch.ones(N))
        with OneDevice(), torch.no_grad():
            totals, found = TorchSums(forces, Share.whole(N)).compute(z_ds, charges, (1.0,))
    assert totals.device.type == found.device.type == "cuda"
    assert found.shape == z_ds.shape


@pytest.mark.parametrize("method", [TSNE, SNE, COSNE, TSNEkhorn])
def test_the_loss_of_an_exact_method_traces_on_cuda(method):
    X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    estimator, z = method(random_state=0, repulsion="dense"), torch.from_numpy(X[:, :2] / 10)
    state = state_of(estimator, UnionAffinity()(X), z, 0, estimator._phases(N)[-1])
    state.carried["target_radii"] = torch.ones(N)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        state, embedding = on_cuda(mode, state), on_cuda(mode, z)
        with OneDevice(), torch.no_grad():
            loss = estimator._compute_loss(embedding, state)
    assert loss.device.type == "cuda"
    assert loss.shape == ()


def test_the_traps_are_caught():
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(4, device="cuda")
        with pytest.raises(Exception, match="data-dependent|DataDependent|data_dependent|_local_scalar_dense|item"):
            float(x.sum())
        with OneDevice(), pytest.raises(AssertionError, match="mixes"):
            x.cpu()


@pytest.mark.parametrize("d", [2, 32])
@pytest.mark.parametrize("similarity", [Cauchy(), CosineExp(0.5)])
def test_the_contrast_of_views_traces_on_cuda(similarity, d):
    places = torch.arange(10)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        heads, tails = (on_cuda(mode, torch.cat(ends)) for ends in ((places, places + 10), (places + 10, places)))
        z, weights = on_cuda(mode, torch.zeros(20, d)), on_cuda(mode, torch.ones(20))
        with OneDevice(), torch.no_grad():
            loss = InfoNCE(similarity).of_rows(z, heads, tails, weights)
    assert (loss.device.type, loss.shape) == ("cuda", ())


@pytest.mark.parametrize("kind", ["decoupled", "info_nce"])
def test_the_contrast_of_labels_traces_on_cuda(kind):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        z, labels = on_cuda(mode, torch.zeros(20, 8)), on_cuda(mode, torch.arange(20) % 3 - 1)
        with OneDevice(), torch.no_grad():
            loss = LabelContrast(kind).of_rows(z, labels)
    assert (loss.device.type, loss.shape) == ("cuda", ())


@pytest.mark.parametrize("plan", [ImageNetwork("small", pretrain_dim=16), ImageNetwork("resnet18_simclr")])
def test_networks_of_images_trace_on_cuda(plan):
    encoder = plan.build((3, 16, 16), 2)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in encoder.modules():
            for values in (module._parameters, module._buffers):
                for name, value in values.items():
                    values[name] = value if value is None else on_cuda(mode, value.detach())
        images = on_cuda(mode, torch.zeros(4, 3, 16, 16))
        with OneDevice(), torch.no_grad():
            places = encoder(images)
    assert (places.device.type, places.shape, places.dtype) == ("cuda", (4, 2), torch.float32)


@pytest.mark.parametrize(
    ("n_jobs", "device", "n_ranks", "expected"),
    [(None, "cuda", 4, 4), (None, "cuda", 32, 1), (3, "cuda", 4, 3), (None, "cpu", 4, None), (None, "cuda", 1, None)],
)
def test_ranks_on_gpus_share_the_cores(n_jobs, device, n_ranks, expected, monkeypatch):
    monkeypatch.setattr("torchdr_cne.fitting.running.ranks_of_this_machine", lambda: n_ranks)
    monkeypatch.setattr("joblib.cpu_count", lambda: 16)
    assert threads_of_rank(n_jobs, torch.device(device)) == expected
