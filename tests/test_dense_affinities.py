"""Affinities of all pairs: what they promise of sums, perplexity and scale, held to small computations in NumPy."""

import numpy as np
import pytest
from scipy.optimize import linprog, minimize
from scipy.sparse import csr_array, hstack, vstack
from scipy.spatial.distance import cdist
from scipy.special import xlogy
from sklearn.datasets import load_digits

from torchdr_cne import TSNE
from torchdr_cne.affinity import (
    DoublyStochasticQuadraticAffinity,
    GaussianAffinity,
    SelfTuningAffinity,
    SinkhornAffinity,
    StudentAffinity,
    SymmetricEntropicAffinity,
)

DIGITS = load_digits().data.astype(np.float32)
X = DIGITS[:150]
EQUAL_ROWS = [
    SinkhornAffinity(),
    SinkhornAffinity(eps=0.5),
    DoublyStochasticQuadraticAffinity(),
    DoublyStochasticQuadraticAffinity(eps=0.1),
    SymmetricEntropicAffinity(perplexity=10),
]
EVERY = [
    GaussianAffinity(),
    GaussianAffinity(bandwidth=1.0),
    StudentAffinity(),
    StudentAffinity(dof=5.0),
    SelfTuningAffinity(),
    *EQUAL_ROWS,
]
each = pytest.mark.parametrize("affinity", EVERY, ids=repr)


def matrix(affinity, data):
    return affinity(data).to_scipy().toarray().astype(np.float64)


def squares(data):
    """Squared distances in units of their mean over all pairs."""
    found = cdist(data.astype(np.float64), data.astype(np.float64), "sqeuclidean")
    return found / (found.sum() / (len(data) * (len(data) - 1)))


def of_sum_one(weights):
    weights = weights.copy()
    np.fill_diagonal(weights, 0)
    return weights / weights.sum()


def perplexities(p):
    p = p / p.sum(axis=1, keepdims=True)
    return np.exp(-xlogy(p, p).sum(axis=1))


# ---- what all promise -----------------------------------------------------------------------------------------------


@each
def test_is_symmetric_and_sums_to_one_with_nothing_on_the_diagonal(affinity):
    p = matrix(affinity, X)
    np.testing.assert_array_equal(p, p.T)
    assert p.sum() == pytest.approx(1, abs=1e-6)
    assert (p.diagonal() == 0).all()
    assert (p >= 0).all()


@pytest.mark.parametrize("affinity", EQUAL_ROWS, ids=repr)
def test_every_row_sums_to_one_nth(affinity):
    np.testing.assert_allclose(matrix(affinity, X).sum(axis=1) * len(X), 1, atol=1e-6)


@each
@pytest.mark.parametrize("factor", [1 / 16, 1000])
def test_the_scale_of_the_data_does_not_matter(affinity, factor):
    p = matrix(affinity, X)
    scaled = matrix(affinity, X * np.float32(factor))
    np.testing.assert_allclose(scaled, p, rtol=0, atol=(5e-3 if hasattr(affinity, "perplexity") else 1e-4) * p.max())


@each
def test_where_the_data_lie_does_not_matter(affinity):
    p = matrix(affinity, X)
    moved = matrix(affinity, X + np.float32(64))
    np.testing.assert_allclose(moved, p, rtol=0, atol=(5e-3 if hasattr(affinity, "perplexity") else 1e-4) * p.max())


@each
@pytest.mark.filterwarnings("ignore:the symmetric entropic affinity is off by:UserWarning")
@pytest.mark.filterwarnings("ignore:perplexity=10 is too large:UserWarning")
def test_equal_rows_give_finite_affinities_of_the_same_sum(affinity):
    data = np.concatenate([X[:30], X[:30], np.tile(X[30], (6, 1))])
    p = matrix(affinity, data)
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1, abs=1e-6)
    p = matrix(affinity, np.tile(X[:1], (12, 1)))
    np.testing.assert_allclose(p[~np.eye(12, dtype=bool)], 1 / (12 * 11), rtol=1e-3)


@pytest.mark.parametrize("affinity", EQUAL_ROWS, ids=repr)
@pytest.mark.filterwarnings("ignore:the symmetric entropic affinity is off by:UserWarning")
def test_rows_of_equal_points_sum_to_one_nth_too(affinity):
    data = np.concatenate([X[:30], X[:30], np.tile(X[30], (6, 1))])
    np.testing.assert_allclose(matrix(affinity, data).sum(axis=1) * len(data), 1, atol=1e-5)


@each
@pytest.mark.filterwarnings("ignore:perplexity=10 is too large:UserWarning")
@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_handful_of_points_will_do(affinity, n):
    p = matrix(affinity, X[:n])
    assert p.shape == (n, n)
    assert p.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(p, p.T)


@each
def test_more_points_than_memory_could_hold_are_refused_before_any_work(affinity):
    message = rf"{type(affinity).__name__} of 20001 points needs 10 GB or more; use a sparse .*at most 20000 points"
    with pytest.raises(ValueError, match=message):
        affinity(np.zeros((20_001, 1), dtype=np.float32))


@each
@pytest.mark.filterwarnings("ignore:the input graph has .* connected components:UserWarning")
def test_serves_tsne(affinity):
    fitted = TSNE(affinity_in=affinity, max_iter=30, random_state=0).fit(X)
    assert np.isfinite(fitted.embedding_).all()
    np.testing.assert_allclose(fitted.graph_.toarray(), matrix(affinity, X), rtol=1e-5)
    assert fitted.transform(DIGITS[150:160]).shape == (10, 2)


@pytest.mark.parametrize(
    ("affinity", "message"),
    [
        (GaussianAffinity(bandwidth=0), "bandwidth=0 of GaussianAffinity must be a number > 0"),
        (StudentAffinity(dof=-1.0), r"dof=-1\.0 of StudentAffinity must be a number > 0"),
        (SelfTuningAffinity(n_neighbors=0), "n_neighbors=0 of SelfTuningAffinity must be an integer >= 1"),
        (SinkhornAffinity(eps="small"), "eps='small' of SinkhornAffinity must be a number > 0"),
        (DoublyStochasticQuadraticAffinity(eps=np.inf), "eps=inf of DoublyStochasticQuadraticAffinity must be"),
        (SymmetricEntropicAffinity(perplexity=1), "perplexity=1 must be greater than 1"),
    ],
    ids=repr,
)
def test_impossible_parameters_are_refused(affinity, message):
    with pytest.raises(ValueError, match=message):
        affinity(X)


# ---- against NumPy and SciPy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bandwidth", [0.3, 1.0])
def test_gaussian_weights_are_those_of_the_formula(bandwidth):
    expected = of_sum_one(np.exp(-squares(X) / (2 * bandwidth**2)))
    np.testing.assert_allclose(matrix(GaussianAffinity(bandwidth=bandwidth), X), expected, rtol=1e-4)


@pytest.mark.parametrize("dof", [1.0, 5.0])
def test_student_weights_are_those_of_the_formula(dof):
    expected = of_sum_one((1 + squares(X) / dof) ** (-(dof + 1) / 2))
    np.testing.assert_allclose(matrix(StudentAffinity(dof=dof), X), expected, rtol=1e-4)


@pytest.mark.parametrize("k", [1, 7, 1000])
def test_self_tuning_weights_have_each_point_s_own_scale(k):
    distances = cdist(X.astype(np.float64), X.astype(np.float64))
    scale = np.sort(distances, axis=1)[:, min(k, len(X) - 1)]  # the point itself comes first
    expected = of_sum_one(np.exp(-(distances**2) / np.outer(scale, scale)))
    np.testing.assert_allclose(matrix(SelfTuningAffinity(n_neighbors=k), X), expected, rtol=1e-4)


@pytest.mark.parametrize("eps", [0.05, 0.5])
def test_sinkhorn_weights_are_those_of_naive_iteration(eps):
    kernel = np.exp(-squares(X) / eps)
    np.fill_diagonal(kernel, 0)
    u = np.ones(len(X))
    for _ in range(5000):
        u = np.sqrt(u / (kernel @ u))
    expected = u[:, None] * kernel * u / len(X)
    np.testing.assert_allclose(matrix(SinkhornAffinity(eps=eps), X), expected, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("eps", [0.1, 1.0])
def test_the_quadratic_projection_satisfies_the_conditions_of_its_optimum(eps):
    """n P = [f_i + f_j − c_ij]₊ for some f: equal where it is positive, no larger than 0 elsewhere."""
    n = len(X)
    p, cost = n * matrix(DoublyStochasticQuadraticAffinity(eps=eps), X), squares(X) / eps
    i, j = np.triu_indices(n, 1)
    ends = csr_array((np.ones(2 * len(i)), np.stack([i, j], axis=1).ravel(), 2 * np.arange(len(i) + 1)), (len(i), n))
    of_pairs, is_positive = p[i, j] + cost[i, j], p[i, j] > 0
    # The least t with f_i + f_j − c ≤ n P + t for all pairs, and ≥ n P − t for those of positive P.
    ones = np.ones((len(i), 1))
    bounds = vstack([hstack([ends, -ones]), hstack([-ends, -ones]).tocsr()[is_positive]])
    limits = np.concatenate([of_pairs, -of_pairs[is_positive]])
    least = linprog(np.r_[np.zeros(n), 1], A_ub=bounds, b_ub=limits, bounds=(None, None))
    assert least.success
    assert least.x[-1] <= 1e-5
    assert (p > 0).mean() < 0.9


@pytest.mark.parametrize("perplexity", [5, 10, 30])
def test_rows_of_the_symmetric_entropic_affinity_have_the_perplexity_or_more(perplexity):
    found = perplexities(matrix(SymmetricEntropicAffinity(perplexity=perplexity), X))
    assert found.min() >= 0.99 * perplexity
    assert np.median(found) == pytest.approx(perplexity, rel=0.01)
    assert (found > 1.01 * perplexity).mean() < 0.1


def test_the_symmetric_entropic_affinity_is_the_least_costly_one_that_scipy_finds():
    n, perplexity = 9, 2.5
    data = X[:n]
    cost, above = squares(data), np.triu_indices(n, 1)

    def whole(values):
        p = np.zeros((n, n))
        p[above] = values
        return p + p.T

    def entropy(values):
        p = whole(values)
        return -xlogy(p, p).sum(axis=1) - np.log(perplexity)

    conditions = [
        {"type": "eq", "fun": lambda values: whole(values).sum(axis=1) - 1},
        {"type": "ineq", "fun": entropy},
    ]
    start = np.full(len(above[0]), 1 / (n - 1))
    best = minimize(
        lambda values: values @ cost[above],
        start,
        jac=lambda values: cost[above],
        bounds=[(1e-9, 1)] * len(start),
        constraints=conditions,
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-10},
    )
    assert best.success
    p = n * matrix(SymmetricEntropicAffinity(perplexity=perplexity), data)
    assert p[above] @ cost[above] == pytest.approx(best.fun, rel=5e-3)
    assert np.abs(p[above] - best.x).max() < 0.05


def test_a_perplexity_above_a_third_of_the_others_is_that_third():
    with pytest.warns(UserWarning, match="perplexity=30 is too large for 22 samples: 7 is used, a third of the other"):
        p = matrix(SymmetricEntropicAffinity(perplexity=30), X[:22])
    np.testing.assert_array_equal(p, matrix(SymmetricEntropicAffinity(perplexity=7), X[:22]))


@pytest.mark.parametrize("affinity", EQUAL_ROWS, ids=repr)
@pytest.mark.parametrize("shift", [2, 20, 200])
def test_an_outlier_has_as_much_weight_as_any_other_point_where_rows_are_equal(affinity, shift):
    data = X.copy()
    data[0] += shift
    assert matrix(affinity, data)[0].sum() * len(data) == pytest.approx(1, abs=1e-5)


def test_an_outlier_has_little_weight_elsewhere():
    data = X.copy()
    data[0] += 20
    assert matrix(GaussianAffinity(), data)[0].sum() * len(data) < 0.1
