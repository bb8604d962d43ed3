"""One suite for all sampled methods: the declared forces are the gradient of the loss hooks, on the same pairs."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import torch

from tests.distributed.harness import run_script, run_scripts
from tests.helpers import problem_of, repeated, state_of
from torchdr_cne import UMAP, InfoTSNE, LargeVis, NCVis, NegTSNE
from torchdr_cne.affinity import AffinityGraph, graph_from_user
from torchdr_cne.forces import StepCoefficients, TileForces
from torchdr_cne.forces.compiled import CompiledForces
from torchdr_cne.matching import Pairs
from torchdr_cne.sampling import BLOCK_SIZE, draw_shifts

METHODS = {
    "NegTSNE": lambda **options: NegTSNE(nu=0.3, **options),
    "NegTSNE s=0": lambda **options: NegTSNE(s=0, n_negatives=1, **options),
    "UMAP": UMAP,
    "LargeVis": LargeVis,
    "NCVis": NCVis,
    "InfoTSNE": lambda **options: InfoTSNE(s=0.5, **options),
    "InfoTSNE m=5": lambda **options: InfoTSNE(n_negatives=5, **options),
}
REPULSION, EXAGGERATION = 0.7, 1.3


def random_problem(make, *, n, d, dtype, seed=0, **options):
    """An estimator with its state and embedding, on a graph with a hub, an isolated row and duplicates."""
    rng = np.random.default_rng(seed)
    matrix = scipy.sparse.random_array((n, n), density=6 / n, rng=rng).tolil()
    matrix[1, 2 : n // 3] = rng.uniform(0.1, 1, n // 3 - 2)
    matrix[0, :] = 0
    matrix[:, 0] = 0
    graph = graph_from_user((matrix + matrix.T).tocsr())
    z = torch.from_numpy(rng.normal(size=(n, d))).to(dtype) * 2
    z[5] = z[6]
    z[7] = z[8]
    estimator = make(n_components=d, repulsion_strength=REPULSION, **options)
    state = state_of(estimator, graph, z, 0, estimator._phases(n)[-1])
    state.learned = {name: value.detach() - 0.4 for name, value in state.learned.items()}
    return estimator, state, z


def reciprocal_pairs(estimator, state, problem, shifts, z_slots):
    """The blocks' pairs written out for the loss hooks: every slot's partners, masked to −inf."""
    layout, graph = problem.layout, problem.slot_graph()
    slots = torch.arange(layout.n_slots)
    blocks = slots // BLOCK_SIZE
    partners = torch.cat(
        [((shift - blocks) % layout.n_blocks * BLOCK_SIZE).unsqueeze(1) + torch.arange(BLOCK_SIZE) for shift in shifts],
        dim=1,
    )
    empty = ~layout.occupied[partners] | (partners == slots.unsqueeze(1)) | ~layout.occupied.unsqueeze(1)
    if problem.exclude_edges:
        adjacent = torch.from_numpy(graph.to_scipy().toarray() > 0)
        empty |= adjacent[slots.unsqueeze(1), partners]
    # Masked pairs are moved apart first, so that no gradient meets coinciding padding.
    log_q = estimator._similarity(z_slots.unsqueeze(1), z_slots[partners] + empty.unsqueeze(2).to(z_slots))
    return Pairs(
        log_q_edges=estimator._similarity(z_slots[graph.rows], z_slots[graph.indices.long()]),
        weights=graph.weights,
        rows=graph.rows,
        log_q_negatives=log_q.masked_fill(empty, -torch.inf),
        draw_weights=torch.where(layout.occupied, problem.draw_weights / len(shifts), 1.0),
        parameters=state.parameters,
    )


def autograd_gradient(estimator, state, problem, shifts, z_ds):
    """Gradient of the hooks' loss with respect to slots (d, slots) and the learned scalar."""
    z = z_ds.t().clone().requires_grad_(True)
    state.learned = {name: value.detach().requires_grad_(True) for name, value in state.learned.items()}
    pairs = reciprocal_pairs(estimator, state, problem, shifts, z)
    loss = estimator._loss_of_pairs(pairs, EXAGGERATION)
    gradients = torch.autograd.grad(loss, [z, *state.learned.values()])
    return gradients[0].t(), gradients[1] if len(gradients) > 1 else None


def both_gradients(make, engine, *, n, d, dtype, seed=0, **options):
    estimator, state, z = random_problem(make, n=n, d=d, dtype=dtype, seed=seed, **options)
    problem, n_shifts = problem_of(estimator, state, z)
    shifts = draw_shifts(problem.layout.n_blocks, n_shifts, seed=seed, step=1)
    z_ds = problem.layout.scatter(z).t().contiguous()
    expected = autograd_gradient(estimator, state, problem, shifts, z_ds)
    state.learned = {name: value.detach() for name, value in state.learned.items()}
    step = StepCoefficients(shifts, estimator._force_parameters(state.parameters), EXAGGERATION, REPULSION)
    return engine(problem).gradient(z_ds, step), expected


def assert_close(found, expected, tolerance):
    assert float(expected[0].abs().max()) > 1e-3
    assert float((found[0] - expected[0]).abs().max()) <= tolerance * float(expected[0].abs().max())
    assert (found[1] is None) == (expected[1] is None)
    if expected[1] is not None:
        assert float(found[1]) == pytest.approx(float(expected[1]), rel=tolerance)


@pytest.mark.parametrize("exclude", [False, True], ids=["all pairs", "neighbours excluded"])
@pytest.mark.parametrize("n", [150, 257])
@pytest.mark.parametrize("name", METHODS)
def test_row_owned_forces_are_autograd_of_the_hooks_on_the_same_pairs(name, n, exclude):
    found, expected = both_gradients(
        METHODS[name], TileForces, n=n, d=2, dtype=torch.float64, discard_neighbors=exclude, negatives_per_row=128
    )
    assert_close(found, expected, 1e-10)


ONE_AND_THREE = [(name, d, seed) for name in METHODS for d in (1, 3) for seed in range(3)]
SHOWN = [("UMAP", 1, 0), ("InfoTSNE", 3, 0)]  # each component's kernels are compiled anew, from the same text


@pytest.mark.parametrize(
    ("name", "d", "seed"),
    [
        *((name, 2, seed) for name in METHODS for seed in range(3)),
        *SHOWN,
        *repeated(*(case for case in ONE_AND_THREE if case not in SHOWN)),
    ],
)
def test_compiled_forces_are_autograd_of_the_hooks_to_1e_5(name, d, seed):
    found, expected = both_gradients(
        METHODS[name], CompiledForces, n=230 + 31 * seed, d=d, dtype=torch.float32, seed=seed, negatives_per_row=128
    )
    assert_close(found, expected, 1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_compiled_forces_leave_out_excluded_neighbours(name):
    found, expected = both_gradients(
        METHODS[name], CompiledForces, n=300, d=2, dtype=torch.float32, discard_neighbors=True, negatives_per_row=128
    )
    assert_close(found, expected, 1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_padding_slots_stay_where_they_are(name):
    estimator, state, z = random_problem(METHODS[name], n=150, d=2, dtype=torch.float32)
    problem, _ = problem_of(estimator, state, z)
    step = StepCoefficients([0, 1], estimator._force_parameters(state.parameters))
    z_ds = problem.layout.scatter(z).t().contiguous()
    for engine in (TileForces, CompiledForces):
        gradient = engine(problem).gradient(z_ds, step)[0]
        assert torch.count_nonzero(gradient[:, ~problem.layout.occupied]) == 0


@pytest.mark.parametrize("name", [name for name in METHODS if "InfoTSNE" not in name])
def test_the_blocks_gradient_is_unbiased_over_all_shifts(name):
    """The mean over all shifts equals the gradient of the loss with all pairs as negatives.

    A normalised loss is not linear in its negatives: its mean over samples is another function.
    """
    estimator, state, z = random_problem(METHODS[name], n=200, d=2, dtype=torch.float64, negatives_per_row=64)
    problem, n_shifts = problem_of(estimator, state, z)
    assert n_shifts == 1
    z_ds = problem.layout.scatter(z).t().contiguous()
    forces = TileForces(problem)
    parameters = estimator._force_parameters(state.parameters)
    n_blocks = problem.layout.n_blocks
    mean = sum(forces.gradient(z_ds, StepCoefficients([s], parameters))[0] for s in range(n_blocks)) / n_blocks

    z_all = z.clone().requires_grad_(True)
    n = len(z)
    self_pair = torch.eye(n, dtype=torch.bool)
    log_q = estimator._similarity(z_all.unsqueeze(1), z_all.unsqueeze(0) + self_pair.unsqueeze(2))
    graph = state.graph
    pairs = Pairs(
        log_q_edges=estimator._similarity(z_all[graph.rows], z_all[graph.indices.long()]),
        weights=graph.weights,
        rows=graph.rows,
        log_q_negatives=log_q.masked_fill(self_pair, -torch.inf),
        draw_weights=torch.full((n,), estimator.n_negatives / (n - 1), dtype=torch.float64),
        parameters=state.parameters,
    )
    estimator.set_params(repulsion_strength=1.0)
    expected = torch.autograd.grad(estimator._loss_of_pairs(pairs, 1.0), z_all)[0]
    torch.testing.assert_close(problem.layout.gather(mean.t()), expected, rtol=1e-9, atol=1e-12)


def test_the_learned_log_z_converges_to_the_solved_optimum_with_the_embedding_frozen():
    estimator, state, z = random_problem(NCVis, n=400, d=2, dtype=torch.float64, negatives_per_row=64)
    problem, n_shifts = problem_of(estimator, state, z)
    assert n_shifts == 1
    forces, z_ds = TileForces(problem), problem.layout.scatter(z).t().contiguous()

    def derivative(log_z, shifts):
        parameters = {"log_z": torch.tensor(log_z, dtype=torch.float64), "n_negatives": 5.0}
        step = StepCoefficients(shifts, estimator._force_parameters(parameters))
        return float(forces.gradient(z_ds, step)[1]) / len(z)

    from scipy.optimize import brentq

    n_blocks = problem.layout.n_blocks
    solved = brentq(lambda log_z: sum(derivative(log_z, [s]) for s in range(n_blocks)), -12, 4)
    log_z, momentum, n_iter = 0.0, 0.0, 400
    for step in range(n_iter):
        shifts = draw_shifts(n_blocks, n_shifts, seed=0, step=step)
        momentum = 0.8 * momentum + derivative(log_z, shifts)
        log_z -= NCVis._learned_learning_rate * (1 - step / n_iter) * momentum
    assert np.exp(log_z) == pytest.approx(np.exp(solved), rel=0.05)


def test_the_power_used_by_umap_has_the_stated_error_in_scalars_and_vectors():
    from numba import njit

    from torchdr_cne.forces.numerics import power
    from torchdr_cne.forces.vectors import load, store

    @njit
    def powers(base, exponent, scalars, vectors):
        for k in range(0, len(base), 16):
            store(vectors, k, power(load(base, k), exponent))
            for v in range(k, k + 16):
                scalars[v] = power(base[v], exponent)

    base = np.exp(np.random.default_rng(0).uniform(np.log(1e-6), np.log(1e6), 20_000)).astype(np.float32)
    for exponent in (0.3, 0.5, 0.7915, 0.895, 1.0, 1.5):
        found = np.empty((2, len(base)), dtype=np.float32)
        powers(base, np.float32(exponent), *found)
        expected = base.astype(np.float64) ** np.float64(np.float32(exponent))
        assert np.abs(found / expected - 1).max() < 4e-6


def machine_code_of(name, monkeypatch):
    """Return the assembly of a kernel for two components, compiled anew unless this process has compiled it already."""
    from torchdr_cne.forces import compiled, kernels
    from torchdr_cne.forces.numerics import kernel_jit

    forces = METHODS[name]()._pair_forces()
    step = kernels.compiled_kernels(forces, 2, True, True).step
    if step.stats.cache_hits or not step.signatures:  # code from the cache cannot be looked at
        monkeypatch.setattr(kernels, "cached_kernel", lambda function, name: kernel_jit(function))
        fresh = kernels.compiled_kernels.__wrapped__(forces, 2)
        monkeypatch.setattr(compiled, "compiled_kernels", lambda *_: fresh)
        both_gradients(METHODS[name], CompiledForces, n=150, d=2, dtype=torch.float32)
        step = fresh.step
    return "".join(step.inspect_asm().values())


@pytest.mark.parametrize("name", ["InfoTSNE", "UMAP", *repeated("NegTSNE", "NCVis")])
def test_the_kernels_are_vectorised(name, monkeypatch):
    """Look at the machine code: packed single-precision arithmetic and no call of pow."""
    import platform

    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("reads x86 instructions")
    lines = machine_code_of(name, monkeypatch).splitlines()
    operations = ("fmadd", "fnmadd", "mul", "div", "rcp")
    packed = [
        line for line in lines if any(f"\tv{op}" in line for op in operations) and ("ymm" in line or "zmm" in line)
    ]
    assert len(packed) >= 40
    assert not any("pd\t" in line for line in packed)
    assert not any("pow" in line for line in lines if "call" in line)


@pytest.mark.parametrize("d", [2, 3])
def test_long_row_gradients_are_shortened_alike_by_both_engines(d):
    estimator, state, z = random_problem(UMAP, n=200, d=d, dtype=torch.float32)
    problem, n_shifts = problem_of(estimator, state, z)
    z_ds = problem.layout.scatter(z).t().contiguous()
    parameters = estimator._force_parameters(state.parameters)
    step = StepCoefficients(list(range(n_shifts)), parameters)
    free = TileForces(problem).gradient(z_ds, step)[0]
    lengths = free.norm(dim=0)
    longest = float(lengths.median())
    expected = free * (longest / lengths.clamp_min(longest))
    for engine in (TileForces, CompiledForces):
        found = engine(problem).gradient(z_ds, replace(step, longest=longest))[0]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * longest)


def test_kernels_cached_by_several_processes_are_each_its_method_s_and_give_the_bits_of_fresh_ones(tmp_path):
    """Compiled in two processes, loaded in one; the graph is given, so that each compiles its own kernels only."""
    script = """
import os, sys, numpy as np, scipy.sparse, torchdr_cne
X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
graph = scipy.sparse.random_array((300, 300), density=0.03, rng=np.random.default_rng(1))
graph = (graph + graph.T).tocsr()
for name in sys.argv[2:] if sys.argv[1] == 'together' else [sys.argv[2 + int(os.environ['NUMBER'])]]:
    method, d = name.split("-")
    start = X[:, : int(d)]
    estimator = getattr(torchdr_cne, method)(n_components=int(d), random_state=0, max_iter=40, init=start)
    print(estimator.fit(X, graph=graph).embedding_.tobytes().hex())
"""

    names = ("NegTSNE-2", "SNE-3")
    apart = run_scripts(2, script, "apart", *names, NUMBA_CACHE_DIR=str(tmp_path))
    together = run_script(script, "together", *names, NUMBA_CACHE_DIR=str(tmp_path))
    assert all(apart)
    assert apart[0] != apart[1]
    assert "".join(apart) == together


WEIGHTED = ("UMAP", "LargeVis")  # by default, and then nothing else needs their kernels for equal weights


@pytest.mark.parametrize("exclude", [False, True], ids=["all pairs", "neighbours excluded"])
@pytest.mark.parametrize("name", [*(name for name in METHODS if name not in WEIGHTED), *repeated(*WEIGHTED)])
def test_a_graph_of_equal_weights_gives_the_same_forces(name, exclude):
    """Its kernels know the weight without reading it an edge."""
    estimator, state, z = random_problem(METHODS[name], n=300, d=2, dtype=torch.float32, discard_neighbors=exclude)
    weights = state.graph.weights
    state.graph = AffinityGraph(
        state.graph.indptr, state.graph.indices, torch.full_like(weights, float(weights.mean()))
    )
    problem, n_shifts = problem_of(estimator, state, z)
    z_ds = problem.layout.scatter(z).t().contiguous()
    step = StepCoefficients(list(range(n_shifts)), estimator._force_parameters(state.parameters), EXAGGERATION)
    expected = TileForces(problem).gradient(z_ds, step)
    assert_close(CompiledForces(problem).gradient(z_ds, step), expected, 1e-5)


@pytest.mark.parametrize("name", ["InfoTSNE", *repeated("NegTSNE")])
def test_compiled_forces_serve_any_number_of_components(name):
    found, expected = both_gradients(METHODS[name], CompiledForces, n=200, d=5, dtype=torch.float32)
    assert_close(found, expected, 1e-5)


def test_infotsne_meets_few_negatives_first_and_all_of_them_in_the_end():
    estimator, state, z = random_problem(InfoTSNE, n=700, d=2, dtype=torch.float32)
    objective = estimator._make_objective(state, z)
    met = []
    for step in range(state.phase.total):
        state.step = step
        met.append(objective._n_shifts(state))
    assert sorted(set(met)) == [1, 4]
    assert met == sorted(met)
    assert met.count(4) == round(0.3 * state.phase.total)
