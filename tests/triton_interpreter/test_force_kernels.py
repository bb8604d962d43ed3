"""Triton kernels in Triton's interpreter, against torch tiles in float64 and against sums over all pairs."""

from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch

from tests.helpers import problem_of, repeated, state_of
from tests.triton_interpreter.counting import CountLaunches
from torchdr_cne import UMAP, InfoTSNE, LargeVis, NCVis, NegTSNE
from torchdr_cne.distributed import Share
from torchdr_cne.forces import PairForces, StepCoefficients, TileForces
from torchdr_cne.forces.all_pairs import TorchSums
from torchdr_cne.forces.triton import engine
from torchdr_cne.forces.triton.engine import TritonForces
from torchdr_cne.forces.triton.interpolation import DeviceInterpolatedSums
from torchdr_cne.kernels import CAUCHY, Kernel, student, student_attraction, student_slope

METHODS = [NegTSNE, UMAP, NCVis, InfoTSNE, partial(LargeVis, perplexity=10)]
N = 130
"""Three blocks, not full: with shift 0, 1 or 2 one of them meets itself."""


def prepared(method, d):
    """A problem of few points, its positions by slot, and a step in which all blocks meet all."""
    X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    estimator = method(random_state=0, n_components=d)
    z = torch.from_numpy(X[:, :d].copy())
    state = state_of(estimator, estimator._input_affinity()(X), z, 0, estimator._phases(N)[-1])
    problem, _ = problem_of(estimator, state, z)
    step = StepCoefficients(
        [0, 2], estimator._force_parameters(state.parameters), 1.3, 0.7, longest=estimator._max_row_gradient
    )
    return problem, problem.layout.scatter(z).t().contiguous(), step


def in_float64(problem):
    return replace(
        problem,
        graph=replace(problem.graph, weights=problem.graph.weights.double()),
        draw_weights=problem.draw_weights.double(),
    )


ON_A_GPU = engine._TILES["K"], engine._EDGES_AT_ONCE
"""Columns and edges that the kernels take at once."""


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    """The interpreter takes as long for a block of 4 columns as for one of 64."""
    monkeypatch.setitem(engine._TILES, "K", 64)
    monkeypatch.setattr(engine, "_EDGES_AT_ONCE", 32)
    monkeypatch.setattr("torchdr_cne.forces.triton.interpolation._BLOCK", 4096)


CASES = [
    *product(METHODS, [1, 3], [False], [(64, 32)]),
    *product(METHODS, [2], [True], [(64, 32)]),
    (InfoTSNE, 2, True, ON_A_GPU),
    *repeated(*product(METHODS, [1, 3], [True], [(64, 32)]), *product(METHODS, [2], [False], [(64, 32)])),
]


@pytest.mark.parametrize(("method", "d", "exclude", "at_once"), CASES)
def test_the_kernels_compute_the_gradient_of_the_tiles(method, d, exclude, at_once, monkeypatch):
    monkeypatch.setitem(engine._TILES, "K", at_once[0])
    monkeypatch.setattr(engine, "_EDGES_AT_ONCE", at_once[1])
    problem, z_ds, step = prepared(method, d)
    problem = replace(problem, exclude_edges=exclude)
    with torch.no_grad():
        expected, scalar = TileForces(in_float64(problem)).gradient(z_ds.double(), step)
        forces = TritonForces(problem)
        found, found_scalar = forces.gradient(z_ds, step)
        found = found.clone()
        again = forces.gradient(z_ds, step)[0]
    assert float((found - expected).norm() / expected.norm()) < (5e-6 if isinstance(method, partial) else 1e-6)
    assert torch.equal(found, again)
    assert torch.equal(found[:, ~problem.layout.occupied], torch.zeros_like(found[:, ~problem.layout.occupied]))
    if scalar is not None:
        assert float(found_scalar) == pytest.approx(float(scalar), rel=1e-6)


def coulomb(d2, p, power):
    """Infinite at distance 0."""
    strength = p[0]
    return -strength / (d2 * d2)


def spring(d2, p, power):
    """The same at every distance."""
    return 1.0 + 0.0 * d2


def test_an_own_force_that_is_infinite_at_0_does_not_meet_its_own_point():
    problem, z_ds, _ = prepared(NegTSNE, 2)
    problem, step = replace(problem, forces=PairForces(spring, coulomb)), StepCoefficients([0, 1, 2], (0.5,))
    expected = TileForces(in_float64(problem)).gradient(z_ds.double(), step)[0]
    with np.errstate(all="ignore"):
        found = TritonForces(problem).gradient(z_ds, step)[0]
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_edges_alone_are_summed_and_rows_are_shortened():
    problem, z_ds, step = prepared(UMAP, 2)
    problem = replace(problem, draw_weights=torch.zeros_like(problem.draw_weights))
    step = replace(step, shifts=[], longest=0.01)
    expected = TileForces(in_float64(problem)).gradient(z_ds.double(), step)[0]
    found = TritonForces(problem).gradient(z_ds, step)[0]
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-8)
    assert float(found.norm(dim=0).max()) <= 0.01 * (1 + 1e-5)


def test_a_gradient_that_is_not_finite_is_not_hidden():
    problem, z_ds, step = prepared(UMAP, 2)
    z_ds[:, problem.layout.slot_of[7]] = torch.nan
    assert bool(TritonForces(problem).gradient(z_ds, step)[0].isnan().any())


@pytest.mark.parametrize(("method", "most"), [(NegTSNE, 6), (UMAP, 6), (InfoTSNE, 8)])
def test_a_step_is_a_few_launches_whatever_n(method, most):
    problem, z_ds, step = prepared(method, 2)
    forces = TritonForces(problem)
    forces.gradient(z_ds, step)
    with CountLaunches() as count:
        forces.gradient(z_ds, step)
    assert len(count.names) <= most, count.names


STUDENT = Kernel(student, student_slope, student_attraction, (0.5,))


WIDTHS = [(1, 1e-6), (1, 1e-3), (1, 0.3), (1, 3.0), (1, 30.0), (2, 1.5)]


@pytest.mark.parametrize(
    ("d", "width", "kernel"),
    [*((*case, kernel) for case in WIDTHS for kernel in (CAUCHY, STUDENT)), (2, 1e-6, CAUCHY)]
    + repeated((2, 1e-6, STUDENT)),
)
def test_sums_over_a_grid_are_those_over_all_pairs_at_every_width(d, width, kernel):
    forces, share = PairForces.of_kernel(kernel), Share.whole(256)
    generator = torch.Generator().manual_seed(0)
    z_ds = torch.rand(d, 256, generator=generator) * width
    charges = torch.rand(256, generator=generator).masked_fill_(torch.arange(256) > 250, 0.0)
    totals, slopes = TorchSums(forces, share).compute(z_ds.double(), charges.double(), kernel.parameters)
    sums = DeviceInterpolatedSums(forces, share, z_ds.device, 0.1)
    found = sums.compute(z_ds, charges, kernel.parameters)
    assert float((found[0] - totals).norm() / totals.norm()) < 1e-5
    assert float((found[1] - slopes).norm() / slopes.norm()) < 3e-3
    again = sums.compute(z_ds.flip(1), charges.flip(0), kernel.parameters)
    assert torch.equal(again[0].flip(0), found[0]), "the order of the points shows in the bits"


def transposed(x, **options):
    """A transform that leaves its result as CUDA's do, with the first axis innermost in memory."""
    return _rfftn(x, **options).transpose(0, -1).contiguous().transpose(0, -1)


_rfftn = torch.fft.rfftn


def test_transforms_may_leave_their_axes_in_another_order(monkeypatch):
    forces, share = PairForces.of_kernel(CAUCHY), Share.whole(256)
    z_ds = torch.rand(2, 256, generator=torch.Generator().manual_seed(0)) * torch.tensor([[2.0], [1.0]])
    expected = DeviceInterpolatedSums(forces, share, z_ds.device).compute(z_ds, torch.ones(256), ())
    monkeypatch.setattr(torch.fft, "rfftn", transposed)
    found = DeviceInterpolatedSums(forces, share, z_ds.device).compute(z_ds, torch.ones(256), ())
    assert not transposed(torch.ones(4, 6)).is_contiguous()
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-5


@pytest.mark.repetition  # each node's program takes the interpreter a millisecond, and there are thousands
def test_sums_over_a_grid_of_three_dimensions(monkeypatch):
    forces, share = PairForces.of_kernel(CAUCHY), Share.whole(64)
    z_ds = torch.rand(3, 64, generator=torch.Generator().manual_seed(0))
    totals, slopes = TorchSums(forces, share).compute(z_ds.double(), torch.ones(64).double(), ())
    monkeypatch.setattr(torch.fft, "rfftn", transposed)
    found = DeviceInterpolatedSums(forces, share, z_ds.device).compute(z_ds, torch.ones(64), ())
    assert float((found[0] - totals).norm() / totals.norm()) < 1e-5
    assert float((found[1] - slopes).norm() / slopes.norm()) < 3e-3


def test_points_that_are_not_finite_stay_on_the_grid():
    forces, share = PairForces.of_kernel(CAUCHY), Share.whole(64)
    z_ds = torch.rand(1, 64, generator=torch.Generator().manual_seed(0))
    sums = DeviceInterpolatedSums(forces, share, z_ds.device)
    sums.compute(z_ds, torch.ones(64), ())
    for value in (torch.nan, torch.inf):
        z_ds[0, 5] = value
        with np.errstate(invalid="ignore"):
            assert not bool(torch.isfinite(sums.compute(z_ds, torch.ones(64), ())[1]).all())


def test_the_grid_follows_a_layout_that_grows():
    forces, share = PairForces.of_kernel(CAUCHY), Share.whole(64)
    z_ds = 4 * torch.rand(1, 64, generator=torch.Generator().manual_seed(0))
    sums, sizes = DeviceInterpolatedSums(forces, share, z_ds.device), []
    for _ in range(36):
        sums.send(z_ds)
        found = sums.compute(z_ds, torch.ones(64), ())
        expected = TorchSums(forces, share).compute(z_ds.double(), torch.ones(64).double(), ())
        assert float((found[1] - expected[1]).norm() / expected[1].norm()) < 0.05
        sizes.append(sums._sizes[0])
        z_ds = z_ds * 1.04
    assert sizes[-1] > sizes[0]
    changed = [call for call in range(1, len(sizes)) if sizes[call] != sizes[call - 1]]
    assert all(call % 10 == 5 for call in changed), "the bounds are read every ten steps"
