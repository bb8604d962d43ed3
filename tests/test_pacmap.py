"""PACMAP: which pairs it chooses, how they are weighted, and what each kind of pair is for."""

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from tests.helpers import interrupt_at, on_threads, repeated, state_of
from torchdr_cne import PACMAP, UMAP
from torchdr_cne.affinity.scaled import ScaledAffinity
from torchdr_cne.evaluation import knn_accuracy, trustworthiness
from torchdr_cne.forces import StepCoefficients
from torchdr_cne.forces.groups import GroupForces, PairGroup, listed_both_ways
from torchdr_cne.hashing import stream_key
from torchdr_cne.inputs import as_rows
from torchdr_cne.methods.pacmap import attractive, repulsive
from torchdr_cne.neighbors import NeighborGraph
from torchdr_cne.sampling import BlockLayout
from torchdr_cne.sampling.fixed import distinct_others, far_points, mid_near_points

X, Y = load_digits(return_X_y=True)
X = X.astype(np.float32)
SOME = X[:300]


def gaussian(n, d=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def fit(data=SOME, **options):
    return PACMAP(**{"random_state": 0, "max_iter": 45, **options}).fit(data)


def prepared(data=SOME, step=0, dtype=torch.float64, scale=3.0, **options):
    """An estimator with its state, rows included, and some embedding of ``data``."""
    estimator = PACMAP(random_state=0, **options)
    rows = as_rows(data)
    z = scale * torch.from_numpy(gaussian(len(data), estimator.n_components, seed=1)).to(dtype)
    state = state_of(estimator, estimator._default_affinity()(rows), z, 5, estimator._phases(len(data))[0])
    state.rows, state.step = rows, step
    return estimator, state, z


def chosen(state):
    """Return the mid-near and the far points (n, m) that a fit has chosen."""
    return state.fixed_pairs.attracting[1].pairs, state.fixed_pairs.repelling_nm


# ---- mid-near pairs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_mid_near_points_are_the_second_nearest_of_six_random_ones(metric):
    data, seed = gaussian(80), 11
    found = mid_near_points(torch.from_numpy(data), 5, metric=metric, seed=seed).numpy()
    D = cdist(data.astype(float), data.astype(float), {"manhattan": "cityblock"}.get(metric, metric))
    for pair in range(5):
        candidates = distinct_others(80, torch.arange(80), 6, stream_key(seed, pair, 3)).numpy()
        expected = [six[np.argsort(D[i, six])[1]] for i, six in enumerate(candidates)]
        np.testing.assert_array_equal(found[:, pair], expected)


def test_mid_near_ranks_are_distributed_as_the_second_smallest_of_six():
    """Of the n − 1 others' ranks the second smallest of six has expectation 2 n / 7."""
    n = 400
    data = gaussian(n)
    found = mid_near_points(torch.from_numpy(data), 20, metric="euclidean", seed=0).numpy()
    ranks = cdist(data, data).argsort(axis=1).argsort(axis=1)
    assert np.take_along_axis(ranks, found, axis=1).mean() == pytest.approx(2 * n / 7, rel=0.03)


def test_the_six_are_distinct_others_and_every_subset_is_as_likely():
    drawn = torch.cat([distinct_others(5, torch.arange(5), 2, key) for key in range(4000)])
    rows = torch.arange(5).repeat(4000)
    assert bool((drawn != rows.unsqueeze(1)).all())
    assert bool((drawn[:, 0] != drawn[:, 1]).all())
    assert int(drawn.min()) == 0
    assert int(drawn.max()) == 4
    of_first = np.sort(drawn[rows == 0].numpy(), axis=1)
    counts = np.unique(of_first, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    expected = 4000 / 6
    assert (np.square(counts - expected) / expected).sum() < 20.5  # χ² of 5 degrees of freedom, p = .001


@pytest.mark.parametrize("n", [2, 3, 6, 7])
def test_fewer_than_six_others_are_all_candidates(n):
    data = gaussian(n)
    found = mid_near_points(torch.from_numpy(data), 3, metric="euclidean", seed=0)
    nearest_first = np.argsort(cdist(data, data), axis=1)[:, 1:]
    np.testing.assert_array_equal(found, np.repeat(nearest_first[:, [min(1, n - 2)]], 3, axis=1))


def test_without_mid_near_pairs_the_global_layout_is_lost():
    """Twelve clusters along an arc, from a random start: their distances are kept only by mid-near pairs."""

    def agreement(seed, **options):
        rng = np.random.default_rng(seed)
        angle = np.linspace(0, np.pi, 12)
        centres = 40 * np.stack([np.cos(angle), np.sin(angle)], axis=1) @ rng.normal(size=(2, 10))
        data = np.repeat(centres, 40, axis=0) + rng.normal(size=(480, 10))
        with pytest.warns(UserWarning, match="connected components"):
            z = PACMAP(random_state=seed, init="random", **options).fit_transform(data)
        apart, apart_z = (cdist(v, v)[np.triu_indices(12, 1)] for v in (centres, z.reshape(12, 40, 2).mean(axis=1)))
        return scipy.stats.spearmanr(apart, apart_z)[0]

    assert min(agreement(seed) for seed in range(3)) > 0.6
    assert max(agreement(seed, MN_ratio=0.0) for seed in range(3)) < 0.3


# ---- neighbours ---------------------------------------------------------------------------------------


def neighbors_in_numpy(data, k):
    """The k of the k + 50 nearest with the least d²/(σ_i σ_j), as sets."""
    D = cdist(data.astype(float), data.astype(float))
    np.fill_diagonal(D, np.inf)
    candidates = np.argsort(D, axis=1)[:, : k + 50]
    distances = np.take_along_axis(D, candidates, axis=1)
    sigma = distances[:, 3:6].mean(axis=1)
    scaled = distances**2 / sigma[:, None] / sigma[candidates]
    return np.take_along_axis(candidates, np.argsort(scaled, axis=1)[:, :k], axis=1)


def test_neighbours_are_those_of_smallest_scaled_distance():
    data = gaussian(200) * np.exp(gaussian(200, 1, seed=1))  # of uneven density
    chosen = neighbors_in_numpy(data, 10)
    A = np.zeros((200, 200))
    np.put_along_axis(A, chosen, 1.0, axis=1)
    graph = fit(data, max_iter=1).graph_.toarray()
    np.testing.assert_array_equal(graph, (A + A.T) / 2)
    nearest = np.argsort(cdist(data, data), axis=1)[:, 1:11]
    assert not np.array_equal(np.sort(nearest), np.sort(chosen))  # scaling matters here


def test_duplicates_have_no_zero_scale_to_divide_by():
    data = np.concatenate([np.zeros((40, 3), dtype=np.float32), gaussian(40, 3)])
    graph = ScaledAffinity()(data)
    assert bool(torch.isfinite(graph.weights).all())
    assert float(graph.weights.sum()) == 80 * 10


def test_directed_weights_are_1_for_the_chosen_and_0_for_other_candidates():
    data = gaussian(300)
    D = torch.from_numpy(cdist(data, data)).fill_diagonal_(torch.inf)
    neighbors = NeighborGraph(D.argsort(dim=1)[:, :60].int(), D.sort(dim=1).values[:, :60])
    found = neighbors.indices[ScaledAffinity().directed_weights(neighbors) == 1].reshape(300, 10)
    np.testing.assert_array_equal(np.sort(found), np.sort(neighbors_in_numpy(data, 10)))


# ---- far pairs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [12, 60, 300])
def test_far_points_are_never_neighbours(n):
    # The neighbours of one point are few enough to leave others.
    graph = fit(gaussian(n), max_iter=1, n_neighbors=3).graph_
    far = far_points(
        n, 20, seed=0, neighbors=tuple(map(torch.from_numpy, (graph.indptr.astype(np.int64), graph.indices)))
    )
    assert far.shape == (n, 20)
    assert not (graph.toarray()[np.arange(n)[:, None], far] > 0).any()
    assert not (far == torch.arange(n).unsqueeze(1)).any()


def test_a_fit_of_rows_has_20_far_and_5_mid_near_points_each():
    estimator, state, z = prepared()
    estimator._make_objective(state, z)
    mid_near, far = chosen(state)
    assert far.shape == (300, 20)
    assert mid_near.shape == (300, 5)
    adjacent = state.graph.to_scipy().toarray() > 0
    assert not adjacent[np.arange(300)[:, None], far].any()


def test_points_that_neighbour_all_others_still_repel():
    star = scipy.sparse.lil_array((40, 40))
    star[0, 1:] = 1
    star[1:, 0] = 1
    embedding = PACMAP(random_state=0, max_iter=90).fit(SOME[:40], graph=star.tocsr()).embedding_
    assert np.isfinite(embedding).all()
    assert (embedding.std(axis=0) > 0.5).all()


def test_pairs_are_a_function_of_the_seed():
    def pairs(seed):
        estimator, state, z = prepared()
        state.seed = seed
        estimator._make_objective(state, z)
        return torch.cat(chosen(state), dim=1)

    assert torch.equal(pairs(3), pairs(3))
    assert float((pairs(3) == pairs(4)).double().mean()) < 0.1


# ---- the loss and its two ways to a gradient ----------------------------------------------------------


@pytest.mark.parametrize("n_iter", [450, 900, 90])
def test_the_weights_of_the_phases_are_the_papers_table(n_iter):
    trace = np.array([PACMAP()._group_weights(step, n_iter) for step in range(n_iter)])
    first, second = n_iter * 100 // 450, n_iter * 200 // 450
    t = np.arange(first) / first
    expected = np.concatenate(
        [
            np.stack([np.full(first, 2), 1000 * (1 - t) + 3 * t, np.ones(first)], axis=1),
            np.tile([3, 3, 1], (second - first, 1)),
            np.tile([1, 0, 1], (n_iter - second, 1)),
        ]
    )
    np.testing.assert_allclose(trace, expected)


@pytest.mark.parametrize("n_iter", range(1, 12))
def test_very_few_iterations_have_weights_too(n_iter):
    assert all(np.isfinite(PACMAP()._group_weights(step, n_iter)).all() for step in range(n_iter))


def test_the_phases_are_met_by_the_fit_itself(monkeypatch):
    seen = []
    gradient = GroupForces.gradient

    def spy(self, z_ds, step):
        seen.append(step.parameters)
        return gradient(self, z_ds, step)

    monkeypatch.setattr(GroupForces, "gradient", spy)
    fit(exaggeration=2.0, repulsion_strength=3.0, min_grad_norm=0.0)
    np.testing.assert_allclose(seen, [np.multiply(PACMAP()._group_weights(step, 45), (2, 2, 3)) for step in range(45)])


def loss_in_numpy(z, graph, mid_near, far, step):
    """The paper's sum over pairs, each counted once, divided by the number of neighbours of a point."""
    near, mid, away = PACMAP()._group_weights(step, 450)

    def d(i, j):
        return 1 + np.square(z[i] - z[j]).sum(axis=-1)

    rows = np.arange(len(z))[:, None]
    edges = d(graph.rows.numpy(), graph.indices.numpy())
    loss = near * (graph.to_scipy().data * 10 * edges / (10 + edges)).sum()
    loss += mid * (d(rows, mid_near) / (10_000 + d(rows, mid_near))).sum()
    return (loss + away * (1 / (1 + d(rows, far))).sum()) / 10


@pytest.mark.parametrize("step", [0, 60, 150, 400])
def test_the_loss_is_the_papers(step):
    estimator, state, z = prepared(step=step, gradient="autograd")
    estimator._make_objective(state, z)
    expected = loss_in_numpy(z.numpy(), state.graph, *(pairs.numpy() for pairs in chosen(state)), step)
    assert float(estimator._compute_loss(z, state)) == pytest.approx(expected, rel=1e-9)


def gradient_by(gradient, dtype, step, data=SOME, **options):
    estimator, state, z = prepared(data, step, dtype, gradient=gradient, **options)
    objective = estimator._make_objective(state, z)
    objective.compute_gradients(state)
    return objective.to_points(objective.parameter.grad).double()


@pytest.mark.parametrize("d", [2, *repeated(1, 3)])
@pytest.mark.parametrize("step", [0, 60, 150, 400])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["compiled", "tiles"])
def test_forces_are_autograd_of_the_hooks(dtype, step, d):
    options = {"n_components": d, "exaggeration": 1.3, "repulsion_strength": 0.7}
    expected = gradient_by("autograd", torch.float64, step, **options)
    found = gradient_by("pairwise", dtype, step, **options)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("n", [2, 3, 7, 11, 30])
def test_forces_of_few_points_are_autograd_of_the_hooks(n):
    with pytest.warns(UserWarning, match="n_neighbors=10 needs more than") if n <= 10 else _no_warning():
        expected = gradient_by("autograd", torch.float64, 60, SOME[:n])
    with pytest.warns(UserWarning, match="n_neighbors=10 needs more than") if n <= 10 else _no_warning():
        found = gradient_by("pairwise", torch.float32, 60, SOME[:n])
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def _no_warning():
    from contextlib import nullcontext

    return nullcontext()


def test_a_hook_of_a_subclass_is_what_the_fit_minimises():
    class Weaker(PACMAP):
        def _compute_repulsive_loss(self, pairs):
            return 0.1 * super()._compute_repulsive_loss(pairs)

    weaker = Weaker(random_state=0, max_iter=90).fit(SOME).embedding_
    np.testing.assert_allclose(
        weaker, fit(max_iter=90, repulsion_strength=0.1, gradient="autograd").embedding_, rtol=1e-3, atol=1e-2
    )


# ---- groups of pairs, whatever the method ---------------------------------------------------------------


def test_a_point_listed_twice_counts_twice_and_from_both_ends():
    graph = listed_both_ways(torch.tensor([[1, 1], [2, 0], [0, 1]]), 0.5, torch.float64)
    lists = np.array([[0, 2, 0], [1, 0, 1], [1, 1, 0]])
    np.testing.assert_array_equal(graph.to_scipy().toarray(), 0.5 * (lists + lists.T))


def group_problem():
    layout = BlockLayout.random(100, 0)
    groups = []
    for m, force in enumerate([(attractive, (10.0,)), (attractive, (1e4,)), (repulsive,)]):
        points = torch.randint(0, 100, (100, 4), generator=torch.Generator().manual_seed(m))
        groups.append(PairGroup(listed_both_ways(points, 1.0, torch.float32), *force))
    z_ds = layout.scatter(torch.from_numpy(gaussian(100, 2))).t().contiguous()
    return layout, groups, z_ds


def test_the_groups_gradients_add_up_with_their_weights():
    layout, groups, z_ds = group_problem()
    alone = [GroupForces(layout, [group], z_ds.t()).gradient(z_ds, StepCoefficients([], (1.0,)))[0] for group in groups]
    together = GroupForces(layout, groups, z_ds.t())
    for weights in ((2.0, 500.0, 1.0), (0.0, 3.0, 1.0), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0)):
        expected = sum(weight * part for weight, part in zip(weights, alone, strict=True))
        torch.testing.assert_close(together.gradient(z_ds, StepCoefficients([], weights))[0], expected)


def test_a_group_of_weight_0_is_not_computed():
    layout, groups, z_ds = group_problem()
    engine = GroupForces(layout, groups, z_ds.t())
    expected = engine.gradient(z_ds, StepCoefficients([], (1.0, 1e-30, 1.0)))[0].clone()
    engine._engines[1].gradient = lambda *_: pytest.fail("computed")
    assert torch.equal(engine.gradient(z_ds, StepCoefficients([], (1.0, 0.0, 1.0)))[0], expected)


def test_rows_of_the_sum_are_shortened_and_not_those_of_a_group():
    layout, groups, z_ds = group_problem()
    engine = GroupForces(layout, groups, z_ds.t())
    free = engine.gradient(z_ds, StepCoefficients([], (1.0, 2.0, 3.0)))[0].clone()
    longest = float(free.norm(dim=0).median())
    short = engine.gradient(z_ds, StepCoefficients([], (1.0, 2.0, 3.0), longest=longest))[0]
    torch.testing.assert_close(short, free * (longest / free.norm(dim=0).clamp_min(longest)))


# ---- fits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, *repeated(0, 2)])
def test_quality_on_digits_reaches_the_floor_for_any_seed(seed):
    embedding = PACMAP(random_state=seed).fit_transform(X)
    assert knn_accuracy(embedding, Y, n_neighbors=15) >= 0.96
    assert trustworthiness(X, embedding, n_neighbors=15) >= 0.977


@pytest.mark.parametrize("options", [{"dtype": "float64"}, {"gradient": "autograd"}])
def test_all_ways_to_a_gradient_lead_to_one_embedding(options):
    found, expected = fit(max_iter=9, **options).embedding_, fit(max_iter=9).embedding_
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("n", [2, 3, 5, 6, 7, 10])
def test_few_points_are_placed_apart_with_one_warning(n):
    with pytest.warns(UserWarning, match=f"n_neighbors=10 needs more than 10 samples, got {n}") as caught:
        embedding = fit(SOME[:n]).embedding_
    assert len(caught) == 1
    assert np.isfinite(embedding).all()
    assert (embedding.std(axis=0) > 0).all()


@pytest.mark.parametrize("n", [11, 30, 60, 61])
def test_candidates_may_be_fewer_than_60_without_a_warning(n):
    data = gaussian(n)
    fitted, chosen = fit(data), np.zeros((n, n))
    np.put_along_axis(chosen, neighbors_in_numpy(data, 10), 1.0, axis=1)
    np.testing.assert_array_equal(fitted.graph_.toarray(), (chosen + chosen.T) / 2)
    assert len(np.unique(fitted.embedding_.round(3), axis=0)) == n


@pytest.mark.parametrize("metric", ["cosine", "manhattan"])
def test_other_metrics_keep_the_classes_together(metric):
    assert knn_accuracy(fit(metric=metric, max_iter=200).embedding_, Y[:300]) > 0.85


@pytest.mark.parametrize("d", [3, *repeated(1)])
def test_other_dimensions_are_used(d):
    embedding = fit(n_components=d).embedding_
    assert embedding.shape == (300, d)
    assert (embedding.std(axis=0) > 0.1).all()


def test_a_given_graph_has_the_neighbours_and_rows_the_mid_near_pairs():
    graph = UMAP(random_state=0, max_iter=1).fit(SOME).graph_
    found = PACMAP(random_state=0, max_iter=200).fit(SOME, graph=graph)
    np.testing.assert_allclose(found.graph_.toarray(), graph.toarray(), rtol=1e-6)
    assert knn_accuracy(found.embedding_, Y[:300]) > 0.85
    by_weights = PACMAP(random_state=0, max_iter=200).fit(SOME, graph=graph * 100)
    np.testing.assert_allclose(by_weights.embedding_, found.embedding_, atol=0.5)


def test_a_graph_without_rows_does_without_mid_near_pairs_if_told_so():
    graph = fit(max_iter=1).graph_
    with pytest.raises(ValueError, match="mid-near pairs need rows, and a graph alone was given; .* or set MN_ratio=0"):
        PACMAP(affinity_in="precomputed").fit(graph)
    found = PACMAP(affinity_in="precomputed", MN_ratio=0, random_state=0, max_iter=200).fit(graph)
    assert knn_accuracy(found.embedding_, Y[:300]) > 0.85


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"MN_ratio": -0.5}, "MN_ratio=-0.5 must be a number >= 0"),
        ({"FP_ratio": 0.0}, "FP_ratio=0.0 must be a number > 0"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(options, message):
    with pytest.raises(ValueError, match=message):
        PACMAP(**options).fit("never looked at")


@pytest.mark.parametrize(
    "name", ["encoder", "n_negatives", "negatives_per_row", "early_exaggeration", "early_exaggeration_iter"]
)
def test_what_has_no_meaning_is_no_parameter(name):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        PACMAP(**{name: 4})
    assert f"\n{name} : " not in PACMAP.__doc__


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    monkeypatch.setattr("torchdr_cne.forces.compiled._BLOCKS_WORTH_A_THREAD", 1)
    first, *others = on_threads(lambda: fit(X[:600]).embedding_.tobytes())
    assert all(other == first for other in others)


@pytest.mark.parametrize("gradient", ["pairwise", "autograd"])
def test_a_resumed_fit_has_the_bits_of_an_uninterrupted_one(gradient, tmp_path):
    expected = fit(gradient=gradient).embedding_
    for step in (6, 15, 30):
        with pytest.warns(UserWarning, match="interrupted after"):
            fit(gradient=gradient, checkpoint_dir=tmp_path, checkpoint_every=4, callbacks=interrupt_at(step))
    np.testing.assert_array_equal(fit(gradient=gradient, checkpoint_dir=tmp_path).embedding_, expected)


def test_new_digits_are_placed_among_those_of_their_class():
    fitted = PACMAP(random_state=0).fit(X[:1400])
    places = fitted.transform(X[1400:])
    assert KNeighborsClassifier(15).fit(fitted.embedding_, Y[:1400]).score(places, Y[1400:]) >= 0.92
    np.testing.assert_array_equal(fitted.transform(X[:9]), fitted.embedding_[:9])


def test_ranks_are_told_why_they_do_not_share_the_fit():
    assert PACMAP()._why_not_split() == "the pairs of PACMAP are chosen among all rows"
