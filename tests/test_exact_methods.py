"""The exact methods, as a user meets them: t-SNE, SNE, CO-SNE and t-SNEkhorn."""

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.special import logsumexp, xlogy
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from tests.helpers import loss_and_gradient, repeated
from tests.test_resume import fit_in_pieces
from torchdr_cne import COSNE, SNE, TSNE, TSNEkhorn, load
from torchdr_cne.affinity import EntropicAffinity
from torchdr_cne.optimization import poincare
from torchdr_cne.optimization.poincare import LARGEST_RADIUS, PoincareSGD
from torchdr_cne.similarities import hyperbolic_distance

METHODS = [TSNE, SNE, COSNE, TSNEkhorn]
each_method = pytest.mark.parametrize("method", METHODS)
DIGITS, LABELS = load_digits(return_X_y=True)
ORDER = np.random.default_rng(0).permutation(len(DIGITS))
X, Y = DIGITS[ORDER].astype(np.float32), LABELS[ORDER]
TRAIN, NEW = X[:1437], X[1437:]


def accuracy(embedding, classes):
    return cross_val_score(KNeighborsClassifier(15), embedding, classes, cv=5).mean()


def small(method, **options):
    return method(**{"max_iter": 20, "random_state": 0, "perplexity": 10, **options})


@pytest.fixture(scope="module")
def tsne():
    return TSNE(random_state=0).fit(TRAIN)


@pytest.fixture(scope="module")
def khorn():
    return TSNEkhorn(random_state=0, max_iter=500).fit(X[:800])


# ---- t-SNE ----------------------------------------------------------------------------------------------------------


def divergence(graph, embedding):
    """KL(P‖Q) over all pairs in float64, from nothing but the graph and the places."""
    p = graph.toarray().astype(np.float64)
    p /= p.sum()
    q = 1 / (1 + squareform(pdist(embedding.astype(np.float64), "sqeuclidean")))
    np.fill_diagonal(q, 0)
    return float(xlogy(p, p).sum() - (p * np.log(np.where(q > 0, q / q.sum(), 1))).sum())


def test_tsne_reaches_the_floor_on_digits():
    embedding = TSNE(random_state=0).fit_transform(DIGITS)
    assert accuracy(embedding, LABELS) >= 0.96
    assert trustworthiness(DIGITS, embedding, n_neighbors=15) >= 0.98


@pytest.mark.parametrize("max_iter", [500, *repeated(None)])
def test_tsne_by_interpolation_reaches_the_same_divergence(tsne, max_iter):
    exact = TSNE(random_state=0, max_iter=max_iter).fit(TRAIN, graph=tsne.graph_)
    other = TSNE(random_state=0, max_iter=max_iter, repulsion="fft").fit(TRAIN, graph=tsne.graph_)
    assert other.kl_divergence_ == pytest.approx(exact.kl_divergence_, rel=0.02)
    assert other.kl_divergence_ == pytest.approx(divergence(other.graph_, other.embedding_), rel=1e-4)


def test_the_divergence_is_that_of_the_graph_and_the_places(tsne):
    assert tsne.kl_divergence_ == pytest.approx(divergence(tsne.graph_, tsne.embedding_), rel=1e-5)
    q = 1 / (1 + cdist(tsne.embedding_, tsne.embedding_, "sqeuclidean"))
    assert tsne.log_z_ == pytest.approx(np.log(q.sum() - len(q)), rel=1e-5)


def test_optimisation_lowers_the_divergence(tsne):
    start = TSNE(random_state=0, max_iter=1, learning_rate=1e-12).fit(TRAIN, graph=tsne.graph_)
    assert tsne.kl_divergence_ < 0.4 * start.kl_divergence_


def test_without_the_normaliser_all_points_fall_together(tsne):
    fallen = TSNE(random_state=0, repulsion_strength=0.0).fit(TRAIN, graph=tsne.graph_)
    assert np.linalg.norm(fallen.embedding_.std(axis=0)) < 1e-2 * np.linalg.norm(tsne.embedding_.std(axis=0))
    assert accuracy(fallen.embedding_, Y[:1437]) < 0.9


def test_fewer_degrees_of_freedom_spread_the_layout():
    plain, heavy = (TSNE(random_state=0, dof=dof).fit(X[:500]).embedding_ for dof in (1.0, 0.5))
    assert heavy.std() > 1.3 * plain.std()
    assert accuracy(heavy, Y[:500]) >= 0.9


def test_tsne_starts_from_pca_of_standard_deviation_1e_4():
    start = TSNE(random_state=0, max_iter=1, learning_rate=1e-12).fit(X).embedding_
    assert start[:, 0].std() == pytest.approx(1e-4, rel=1e-3)
    pca = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)[0][:, :2]
    for axis in range(2):
        assert abs(np.corrcoef(start[:, axis], pca[:, axis])[0, 1]) > 0.999


# ---- defaults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1_000, 70_000, 10**6])
def test_tsne_has_the_learning_rate_and_exaggeration_of_belkina(n):
    early, late = TSNE()._phases(n)
    assert (early.exaggeration, early.start, early.stop) == (12, 0, 250)
    assert (late.exaggeration, late.start, late.stop) == (1, 250, 1000)
    for phase in (early, late):
        # The optimiser sees n times the gradient of the divergence, its factor 4 included.
        rate = TSNE()._auto_learning_rate(phase, n) * n
        assert rate == pytest.approx(n / phase.exaggeration / 4)


def test_a_fit_of_tsne_goes_through_both_phases():
    history = TSNE(random_state=0, check_interval=10, max_iter=400).fit(X[:600]).history_
    rates = dict(zip(history["step"], history["learning_rate"], strict=True))
    assert rates[50] * 600 == pytest.approx(12.5)
    assert rates[350] * 600 == pytest.approx(150)


@pytest.mark.parametrize(
    ("method", "perplexity", "n_iter", "exaggeration"),
    [(TSNE, 30, 1000, 12), (SNE, 30, 1000, 1), (TSNEkhorn, 30, 1000, 12), (COSNE, 30, 500, 1)],
)
def test_defaults_are_those_of_the_table(method, perplexity, n_iter, exaggeration):
    phases = method()._phases(1000)
    assert method().perplexity == perplexity
    assert phases[-1].stop == n_iter
    assert phases[0].exaggeration == exaggeration
    assert phases[-1].exaggeration == 1


def test_early_exaggeration_can_be_left_out():
    (only,) = TSNE(early_exaggeration=1)._phases(1000)
    assert (only.exaggeration, only.stop) == (1, 1000)


# ---- SNE ------------------------------------------------------------------------------------------------------------


def directed_probabilities(data, perplexity, k):
    """p_{j|i} (n, n) over k neighbours by bisection, in NumPy."""
    squares = squareform(pdist(data.astype(np.float64), "sqeuclidean"))
    p = np.zeros_like(squares)
    for i, row in enumerate(squares):
        others = np.argsort(np.where(np.arange(len(row)) == i, np.inf, row))[:k]
        low, high = 1e-12, 1e6
        for _ in range(80):
            beta = np.sqrt(low * high)
            log_p = -beta * (row[others] - row[others].min())
            log_p -= logsumexp(log_p)
            entropy = -(np.exp(log_p) * log_p).sum()
            low, high = (beta, high) if entropy > np.log(perplexity) else (low, beta)
        p[i, others] = np.exp(log_p)
    return p


def test_the_loss_of_sne_is_the_mean_over_rows_of_directed_divergences():
    """Every row counts the same, and P is not symmetrised."""
    data = X[:150].astype(np.float64)
    z = np.random.default_rng(0).normal(size=(150, 2))
    p = directed_probabilities(data, 10, 30)
    log_q = -squareform(pdist(z, "sqeuclidean"))
    off_diagonal = np.where(np.eye(150, dtype=bool), -np.inf, log_q)
    expected = (-(p * log_q).sum(axis=1) + logsumexp(off_diagonal, axis=1)).mean()
    graph = EntropicAffinity(perplexity=10)(X[:150])
    loss, _ = loss_and_gradient(SNE, "dense", graph, torch.from_numpy(z))
    assert loss / 150 == pytest.approx(expected, rel=1e-5)


def test_sne_keeps_digits_together():
    embedding = SNE(random_state=0).fit_transform(X[:800])
    assert accuracy(embedding, Y[:800]) >= 0.88
    assert trustworthiness(X[:800], embedding, n_neighbors=15) >= 0.95


# ---- t-SNEkhorn -----------------------------------------------------------------------------------------------------


def rows_of_q(estimator, log_scaling):
    """Σ_j Q_ij (n,) in float64, Q_ij = e^{f_i + f_j} / (n (1 + d²))."""
    q = 1 / (1 + cdist(estimator.embedding_.astype(np.float64), estimator.embedding_.astype(np.float64), "sqeuclidean"))
    np.fill_diagonal(q, 0)
    scale = np.exp(log_scaling.astype(np.float64))
    return scale * (q @ scale) / len(q)


def test_tsnekhorn_reaches_the_floor_on_digits(khorn):
    assert accuracy(khorn.embedding_, Y[:800]) >= 0.95
    assert trustworthiness(X[:800], khorn.embedding_, n_neighbors=15) >= 0.98


def test_every_row_of_q_and_of_p_sums_to_one_nth(khorn):
    assert khorn.marginal_error_ <= 1e-4
    np.testing.assert_allclose(rows_of_q(khorn, khorn.log_scaling_), 1 / 800, rtol=2e-4)
    np.testing.assert_allclose(khorn.graph_.sum(axis=1), 1 / 800, rtol=1e-4)


def test_the_scaling_of_each_step_is_nearly_that_of_its_layout(khorn):
    misses = []

    class Watched(TSNEkhorn):
        def _log_charges(self, state, log_row_sums):
            f = super()._log_charges(state, log_row_sums)
            misses.append(float((f + log_row_sums(f)).abs().max()))
            return f

    Watched(random_state=0, max_iter=200).fit(X[:800], graph=khorn.graph_)
    assert max(misses[150:]) < 0.02


def test_without_sinkhorn_the_rows_of_q_are_not_equal(khorn):
    class Frozen(TSNEkhorn):
        def _log_charges(self, state, log_row_sums):
            return torch.zeros(state.share.n)

    frozen = Frozen(random_state=0, max_iter=200).fit(X[:800], graph=khorn.graph_)
    rows = rows_of_q(frozen, np.zeros(800)) * 800
    assert np.abs(rows - 1).max() > 0.2
    assert not np.allclose(frozen.embedding_, TSNEkhorn(random_state=0, max_iter=200).fit(X[:800]).embedding_)


# ---- CO-SNE ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree():
    """A random walk that branches into three at each of five steps: rows (364, 50), depths, and path lengths."""
    rng = np.random.default_rng(0)
    rows, depth, parent = [np.zeros(50)], [0], [-1]
    for node in range(121):
        for _ in range(3):
            rows.append(rows[node] + rng.normal(size=50))
            depth.append(depth[node] + 1)
            parent.append(node)
    n = len(rows)
    edges = scipy.sparse.coo_array((np.ones(n - 1), (np.arange(1, n), parent[1:])), shape=(n, n))
    return np.array(rows, dtype=np.float32), np.array(depth), shortest_path(edges, directed=False)


@pytest.fixture(scope="module")
def cosne(tree):
    return COSNE(random_state=0, max_iter=300).fit(tree[0])


def hyperbolic_distances(embedding):
    z = torch.from_numpy(embedding.astype(np.float64))
    return hyperbolic_distance(z.unsqueeze(1), z).numpy()


def correlation(distances, expected):
    above = np.triu_indices(len(expected), 1)
    return np.corrcoef(distances[above], expected[above])[0, 1]


def test_distances_in_the_ball_follow_those_in_the_tree_better_than_in_tsne_s_plane(tree, cosne):
    rows, _, lengths = tree
    flat = TSNE(random_state=0).fit_transform(rows)
    in_ball = correlation(hyperbolic_distances(cosne.embedding_), lengths)
    assert in_ball > correlation(squareform(pdist(flat)), lengths)
    assert in_ball > 0.6


def test_radii_grow_with_the_depth_in_the_tree(tree, cosne):
    radii = np.linalg.norm(cosne.embedding_, axis=1)
    assert radii.max() < 0.98
    means = [radii[tree[1] == depth].mean() for depth in range(6)]
    assert means == sorted(means)
    assert spearmanr(radii, tree[1])[0] > 0.4


def test_points_driven_outwards_stay_within_the_largest_radius(tree, monkeypatch):
    """And only the projection holds them back."""
    driven = COSNE(random_state=0, max_iter=60, radius_strength=0, learning_rate=30.0, repulsion_strength=20.0)
    radii = np.linalg.norm(driven.fit_transform(tree[0]).astype(np.float64), axis=1)
    assert LARGEST_RADIUS - 1e-3 < radii.max() <= LARGEST_RADIUS + 1e-6
    monkeypatch.setattr(poincare, "inside_ball", lambda z: z)
    try:
        beyond = np.linalg.norm(driven.fit_transform(tree[0]).astype(np.float64), axis=1).max()
    except FloatingPointError:
        return
    assert beyond > 0.98


def test_the_largest_norm_asks_for_a_hyperbolic_radius_of_four(tree):
    rows = tree[0]
    norms = np.linalg.norm(rows - rows.mean(axis=0), axis=1)

    def miss(strength):
        fitted = COSNE(random_state=0, max_iter=300, radius_strength=strength).fit(rows)
        from_centre = hyperbolic_distances(np.concatenate([fitted.embedding_, np.zeros((1, 2))]))[-1, :-1]
        return np.abs(from_centre - 4 * norms / norms.max()).mean()

    assert miss(0.1) < 0.5 * miss(0.0)


def test_a_riemannian_step_goes_along_the_geodesic_as_far_as_the_metric_says():
    z = torch.tensor([[0.5, 0.0]], dtype=torch.float64, requires_grad=True)
    before = z.detach().clone()
    z.grad = torch.tensor([[0.0, 1e-3]], dtype=torch.float64)
    PoincareSGD([z], lr=1.0).step()
    # Gradient times ((1 − r²)/2)²; the length of a tangent is 2/(1 − r²) of its Euclidean one.
    room = 1 - 0.25
    expected = 1e-3 * (room / 2) ** 2 * 2 / room
    assert float(hyperbolic_distance(before, z.detach())) == pytest.approx(expected, rel=1e-3, abs=3e-6)
    z.grad = torch.tensor([[1e9, 0.0]], dtype=torch.float64)
    before = z.detach().clone()
    PoincareSGD([z], lr=1.0).step()
    assert float(hyperbolic_distance(before, z.detach())) == pytest.approx(0.5, rel=1e-3)


def test_new_points_are_placed_inside_the_ball(tree):
    rows = tree[0]
    fitted = COSNE(random_state=0, max_iter=50).fit(rows[:300])
    placed = fitted.transform(rows)
    np.testing.assert_array_equal(placed[:300], fitted.embedding_)
    assert np.linalg.norm(placed, axis=1).max() < 0.98


# ---- new points, encoders -------------------------------------------------------------------------------------------


def test_held_out_digits_fall_among_their_own_kind_and_training_rows_stay(tsne):
    classifier = KNeighborsClassifier(10).fit(tsne.embedding_, Y[:1437])
    assert classifier.score(tsne.transform(NEW), Y[1437:]) >= 0.95
    np.testing.assert_array_equal(tsne.transform(TRAIN), tsne.embedding_)


@each_method
def test_training_rows_have_exactly_their_own_places(method):
    fitted = small(method).fit(X[:200])
    placed = fitted.transform(np.concatenate([X[200:230], X[:200]]))
    np.testing.assert_array_equal(placed[30:], fitted.embedding_)
    assert np.isfinite(placed).all()


@pytest.mark.parametrize("method", [TSNE, *repeated(SNE)])
def test_a_network_learns_the_embedding_and_places_digits_it_has_not_seen(method):
    fitted = method(encoder="mlp", random_state=0, max_iter=600).fit(X[:1000])
    classifier = KNeighborsClassifier(10).fit(fitted.embedding_, Y[:1000])
    assert classifier.score(fitted.transform(X[1000:1300]), Y[1000:1300]) >= 0.8


@pytest.mark.parametrize("method", [COSNE, TSNEkhorn])
def test_a_network_is_no_parameter_where_the_loss_has_no_mini_batches(method):
    with pytest.raises(TypeError, match="unexpected keyword argument 'encoder'"):
        small(method, encoder="mlp")


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (SNE(repulsion="fft"), "SNE cannot interpolate its sums; use repulsion='fused' or 'keops'"),
        (COSNE(repulsion="fft"), "repulsion='fft' is not possible: COSNE declares no _pair_forces; use 'dense' or"),
        (COSNE(repulsion="fused"), "repulsion='fused' is not possible: COSNE declares no _pair_forces; use 'dense' or"),
        (TSNE(repulsion="fft", n_components=4), r"n_components=4: a grid has at most 3 dimensions; use .*'fused'"),
        (TSNEkhorn(repulsion="fft"), "TSNEkhorn cannot interpolate its sums; use repulsion='fused' or 'keops'"),
        (TSNE(repulsion="barnes-hut"), "repulsion='barnes-hut' is unknown; choose one of 'auto', 'dense', 'keops'"),
        (SNE(repulsion=None), "repulsion=None is unknown; choose one of 'auto'"),
        (TSNE(metric="hamming"), "metric='hamming' is unknown"),
        (TSNE(optimizer="Newton"), "optimizer='Newton' is unknown"),
        (TSNE(perplexity=1), "perplexity=1 must be greater than 1"),
        (TSNEkhorn(perplexity=0.5), "perplexity=0.5 must be greater than 1"),
        (TSNE(dof=0), "dof=0 must be a number > 0"),
        (COSNE(gamma=-1.0), "gamma=-1.0 must be a number > 0"),
        (COSNE(radius_strength=-1.0), "radius_strength=-1.0 must be a number >= 0"),
        (TSNE(early_exaggeration=0), "early_exaggeration=0 must be a number > 0"),
        (
            COSNE(perplexity=10, init=np.linspace((0.1, 0.2), (0.8, 0.8), 60)),
            r"init has a point of norm 1\.13, and the Poincaré ball ends at 1; scale",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_is_refused_with_the_remedy(estimator, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(X[:60])


def test_cosne_of_a_graph_alone_asks_for_the_rows_whose_norms_it_needs():
    graph = EntropicAffinity(perplexity=10)(X[:100]).to_scipy()
    with pytest.raises(ValueError, match=r"radius_strength=0\.01 asks for the norms of rows, and a graph alone was gi"):
        small(COSNE, affinity_in="precomputed").fit(graph)
    without = small(COSNE, affinity_in="precomputed", radius_strength=0).fit(graph)
    assert np.isfinite(without.embedding_).all()


@each_method
def test_equal_rows_and_few_rows_give_finite_places(method):
    twice = np.concatenate([X[:40], X[:40], np.tile(X[40], (20, 1))])
    assert np.isfinite(small(method).fit(twice).embedding_).all()
    few = small(method, perplexity=1.2).fit(X[:5])
    assert np.isfinite(few.embedding_).all()


@pytest.mark.parametrize(
    ("method", "d"),
    [*((method, d) for method in (TSNE, COSNE, TSNEkhorn) for d in (1, 3)), (SNE, 3), *repeated((SNE, 1))],
)
def test_any_number_of_components_will_do(method, d):
    embedding = small(method, n_components=d).fit_transform(X[:100])
    assert embedding.shape == (100, d)
    assert np.isfinite(embedding).all()
    assert (embedding.std(axis=0) > 0).all()


# ---- again and again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options"),
    [(TSNE, {"repulsion": "fused"}), (TSNE, {"repulsion": "fft"}), (SNE, {}), (COSNE, {}), (TSNEkhorn, {}),
     (TSNEkhorn, {"repulsion": "dense"})],
    ids=lambda value: getattr(value, "__name__", str(value)),
)  # fmt: skip
def test_a_resumed_fit_has_the_bits_of_an_uninterrupted_one(method, options, tmp_path):
    def make(**more):
        return small(method, max_iter=40, check_interval=7, checkpoint_every=5, **options, **more)

    expected = make().fit(X[:200])
    resumed = fit_in_pieces(make, X[:200], tmp_path, pieces=[3, 9, 10, 33, 39])
    np.testing.assert_array_equal(resumed.embedding_, expected.embedding_)
    for name in ("kl_divergence_", "log_z_", "marginal_error_", "n_iter_"):
        assert getattr(resumed, name, None) == getattr(expected, name, None), name
    for name in ("step", "learning_rate", "grad_norm"):
        assert resumed.history_[name] == expected.history_[name], name
    np.testing.assert_array_equal(getattr(resumed, "log_scaling_", 0), getattr(expected, "log_scaling_", 0))


@each_method
def test_a_saved_estimator_is_the_same_when_loaded(method, tmp_path):
    fitted = small(method).fit(X[:200])
    fitted.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.embedding_, fitted.embedding_)
    assert repr(loaded.get_params()) == repr(fitted.get_params())
    for name in ("kl_divergence_", "log_z_", "marginal_error_"):
        assert getattr(loaded, name, None) == getattr(fitted, name, None)
    np.testing.assert_array_equal(getattr(loaded, "log_scaling_", 0), getattr(fitted, "log_scaling_", 0))
    np.testing.assert_array_equal(loaded.transform(X[200:260]), fitted.transform(X[200:260]))


@each_method
def test_two_fits_with_one_seed_are_equal(method):
    first, second = (small(method, init="random").fit_transform(X[:200]) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_an_optimiser_that_would_leave_the_ball_is_refused():
    with pytest.raises(ValueError, match="optimizer='Adam' would move points out of the Poincaré ball; leave it"):
        COSNE(optimizer="Adam").fit(X[:60])


def test_the_divergence_of_an_earlier_fit_does_not_outlive_it():
    fitted = TSNE(max_iter=5, random_state=0).fit(X[:300])
    assert fitted.kl_divergence_ > 0
    fitted.set_params(encoder=(8,)).fit(X[:300])
    assert not hasattr(fitted, "kl_divergence_")
    assert not hasattr(fitted, "log_z_")


@pytest.mark.parametrize("perplexity", [0.5, "a", [], [5, 1], float("nan")])
def test_a_perplexity_that_cannot_be_is_refused_in_one_sentence(perplexity):
    with pytest.raises(ValueError, match="must be greater than 1, or several such numbers"):
        TSNE(perplexity=perplexity).fit(X[:300])


def test_several_perplexities_may_be_a_list_or_an_array():
    of_list = TSNE(perplexity=[5, 30], max_iter=5, random_state=0).fit(X[:300])
    of_array = TSNE(perplexity=np.array([5, 30]), max_iter=5, random_state=0).fit(X[:300])
    np.testing.assert_array_equal(of_list.embedding_, of_array.embedding_)
    one_by_one = [TSNE(perplexity=p, max_iter=1).fit(X[:300]).graph_.toarray() for p in (5, 30)]
    assert (of_list.graph_.toarray() > 0).sum() >= max((p > 0).sum() for p in one_by_one)
