"""From rows to weighted graphs: published numbers, definitions, degenerate data, graphs of the user's own."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.utils.validation import check_array

from tests.helpers import on_threads
from torchdr_cne.affinity import (
    AffinityGraph,
    Connectivity,
    EntropicAffinity,
    UMAPAffinity,
    UnionAffinity,
    graph_from_user,
    kernels,
)
from torchdr_cne.affinity.entropic import conditional_probabilities
from torchdr_cne.neighbors import kneighbors
from torchdr_cne.similarities import fit_umap_curve

DATA = Path(__file__).parent / "data"
AFFINITIES = [UMAPAffinity(), EntropicAffinity(perplexity=5), UnionAffinity()]
each_affinity = pytest.mark.parametrize("affinity", AFFINITIES, ids=lambda a: type(a).__name__)


def oracle(name):
    """Rows of the digits and the graph another package computed for them."""
    with np.load(DATA / name) as file:
        values = dict(file)
    n = len(values["rows"])
    graph = scipy.sparse.csr_array((values["data"], values["indices"], values["indptr"]), shape=(n, n))
    return load_digits().data[values["rows"]].astype(np.float32), graph.toarray(), values


def without_ties(X, k):
    """Pairs (n, n) of rows whose k nearest others are unique; elsewhere packages may choose differently."""
    squares = ((X[:, None].astype(int) - X[None].astype(int)) ** 2).sum(axis=2)
    ordered = np.sort(squares, axis=1)  # column 0 is the row itself
    unique = ordered[:, k] < ordered[:, k + 1]
    assert unique.mean() > 0.8
    return np.ix_(unique, unique)


def gaussian(n=80, dim=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def dense(graph):
    return graph.to_scipy().toarray()


def assert_valid(graph, n):
    """Finite, positive, exactly symmetric, no self loop, in canonical CSR."""
    matrix = graph.to_scipy()
    assert matrix.shape == (n, n)
    assert np.isfinite(matrix.data).all()
    assert (matrix.data > 0).all()
    assert matrix.has_canonical_format
    assert abs(matrix - matrix.T).max() == 0
    assert (matrix.diagonal() == 0).all()
    assert graph.indptr.dtype == torch.int64
    assert graph.indices.dtype == torch.int32


class TestUMAPAffinity:
    def test_graph_equals_umap_learns(self):
        X, expected, values = oracle("umap_digits.npz")
        k = int(values["n_neighbors"])
        found = dense(UMAPAffinity(n_neighbors=k)(X))
        same = without_ties(X, k - 1)
        np.testing.assert_array_equal(found[same] > 0, expected[same] > 0)
        np.testing.assert_allclose(found[same], expected[same], atol=1e-5)

    def test_ties_change_neither_the_number_of_edges_nor_the_total_weight_much(self):
        X, expected, _ = oracle("umap_digits.npz")
        found = dense(UMAPAffinity()(X))
        assert abs((found > 0).sum() - (expected > 0).sum()) <= 20
        assert found.sum() == pytest.approx(expected.sum(), rel=1e-3)

    def test_curve_equals_umap_learns(self):
        *_, values = oracle("umap_digits.npz")
        for min_dist, spread, a, b in values["min_dist_spread_a_b"]:
            np.testing.assert_allclose(fit_umap_curve(min_dist, spread), (a, b), atol=1e-5)

    # umap_options.npz: umap.umap_.fuzzy_simplicial_set (umap-learn 0.5.12) with n_neighbors=10, given the
    # exact neighbours of X (60, 4), itself first; one dense graph for each key.
    @pytest.mark.parametrize(
        "options",
        [
            {"local_connectivity": 0.0},
            {"local_connectivity": 0.5},
            {"local_connectivity": 1.5},
            {"local_connectivity": 2.0},
            {"set_op_mix_ratio": 0.5},
            {"set_op_mix_ratio": 0.0},
            {"local_connectivity": 3.0, "set_op_mix_ratio": 0.25},
        ],
        ids=str,
    )
    def test_options_equal_umap_learns(self, options):
        with np.load(DATA / "umap_options.npz") as file:
            X, expected = file["X"], file[", ".join(f"{name}={value}" for name, value in options.items())]
        found = dense(UMAPAffinity(n_neighbors=10, **options)(X))
        np.testing.assert_array_equal(found > 0, expected > 0)
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_the_nearest_neighbor_has_weight_1(self):
        np.testing.assert_allclose(dense(UMAPAffinity()(gaussian())).max(axis=1), 1.0)

    @pytest.mark.parametrize("size", [2.0**-100, 2.0**-20, 2.0**10, 2.0**100])
    def test_weights_do_not_depend_on_the_unit_of_the_data(self, size):
        X = gaussian()
        found, expected = dense(UMAPAffinity()(X * np.float32(size))), dense(UMAPAffinity()(X))
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_blobs_of_very_different_width_each_get_graded_weights(self):
        X = np.concatenate([gaussian(40), 1e-20 * gaussian(40, seed=1)])
        weights = dense(UMAPAffinity(n_neighbors=10)(X))
        for blob in (weights[:40, :40], weights[40:, 40:]):
            inner = blob[(blob > 0) & (blob < 1)]
            assert len(inner) > 200
            assert inner.std() > 0.1

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"n_neighbors": 1}, "n_neighbors=1 counts the point itself, as in umap-learn; use at least 2"),
            ({"set_op_mix_ratio": 1.5}, r"set_op_mix_ratio=1.5 must lie in \[0, 1\]"),
            ({"set_op_mix_ratio": -0.1}, r"set_op_mix_ratio=-0.1 must lie in \[0, 1\]"),
            ({"local_connectivity": -1.0}, "local_connectivity=-1.0 must be at least 0"),
        ],
    )
    def test_impossible_options_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            UMAPAffinity(**options)(gaussian())

    def test_15_neighbors_count_the_point_itself(self):
        directed = kneighbors(gaussian(), 14).indices
        weights = dense(UMAPAffinity(n_neighbors=15)(gaussian())) > 0
        expected = np.zeros_like(weights)
        np.put_along_axis(expected, directed.numpy().astype(int), True, axis=1)
        np.testing.assert_array_equal(weights, expected | expected.T)

    def test_memberships_of_every_row_sum_to_log2_of_the_neighborhood(self):
        neighbors = kneighbors(gaussian(500) * np.geomspace(1e-6, 1e6, 500, dtype=np.float32)[:, None], 14)
        distances = neighbors.distances.double()
        weights = torch.empty(500, 14)
        kernels.memberships(0, 500, distances.numpy(), 1.0, np.log2(15), 1.0, weights.numpy())
        assert (weights[:, 0] == 1).all()
        np.testing.assert_allclose(weights.double().sum(dim=1), np.log2(15), atol=1e-5)


class TestEntropicAffinity:
    def test_graph_equals_the_published_one(self):
        X, expected, values = oracle("entropic_digits.npz")
        perplexity = int(values["perplexity"])
        found = dense(EntropicAffinity(perplexity=perplexity)(X))
        same = without_ties(X, 3 * perplexity)
        np.testing.assert_array_equal(found[same] > 0, expected[same] > 0)
        np.testing.assert_allclose(found[same], expected[same], rtol=1e-3)

    def test_affinities_sum_to_1(self):
        assert dense(EntropicAffinity(perplexity=7)(gaussian())).sum() == pytest.approx(1, abs=1e-12)

    @pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e3, 1e30])
    @pytest.mark.parametrize("perplexity", [2.0, 10.0, 30.0])
    def test_every_row_has_the_perplexity_at_any_scale_of_the_data(self, size, perplexity):
        X = gaussian(200) * np.float32(size)
        p = conditional_probabilities(kneighbors(X, 90).distances, perplexity)
        np.testing.assert_allclose(p.sum(dim=1), 1)
        np.testing.assert_allclose(torch.special.entr(p).sum(dim=1).exp(), perplexity, rtol=1e-4)

    def test_a_far_outlier_among_the_neighbors_does_not_spoil_the_perplexity(self):
        distances = kneighbors(np.concatenate([gaussian(60), np.full((1, 4), 1e6)]), 60).distances
        p = conditional_probabilities(distances, 10.0)
        np.testing.assert_allclose(torch.special.entr(p).sum(dim=1).exp(), 10, rtol=1e-4)

    def test_no_row_exceeds_the_perplexity_of_equal_weights(self):
        p = conditional_probabilities(kneighbors(gaussian(), 9).distances, 50.0)
        np.testing.assert_allclose(p, 1 / 9, rtol=1e-2)

    def test_equidistant_neighbors_get_equal_weights(self):
        np.testing.assert_allclose(conditional_probabilities(torch.ones(4, 20), 5.0), 1 / 20)

    @pytest.mark.parametrize("perplexity", [1.0, 0.0, -5.0, np.nan])
    def test_perplexity_must_exceed_1(self, perplexity):
        with pytest.raises(ValueError, match=f"perplexity={perplexity} must be greater than 1"):
            EntropicAffinity(perplexity=perplexity)(gaussian())


class TestUnionAffinity:
    def test_rows_are_joined_if_either_is_among_the_others_neighbors(self):
        X = gaussian()
        neighbors = [set(row) for row in kneighbors(X, 6).indices.tolist()]
        expected = [[float(j in neighbors[i] or i in neighbors[j]) for j in range(80)] for i in range(80)]
        np.testing.assert_array_equal(dense(UnionAffinity(n_neighbors=6)(X)), expected)

    def test_a_hub_is_joined_to_all_its_admirers(self):
        angles = np.linspace(0, 2 * np.pi, 9)[:-1]
        X = np.concatenate([np.zeros((1, 2)), np.stack([np.cos(angles), np.sin(angles)], axis=1) * 0.9])
        X[1:] *= 1 + 0.01 * np.arange(8)[:, None]
        X[1:] *= 3
        weights = dense(UnionAffinity(n_neighbors=3)(X))
        assert weights[0].sum() == 8


@each_affinity
class TestEveryAffinity:
    @pytest.mark.parametrize(
        "X",
        [
            gaussian(),
            np.concatenate([np.ones((40, 4)), gaussian(20)]),
            np.full((60, 3), 0.1),
            np.concatenate([gaussian(60), np.full((1, 4), 1e9)]),
            np.concatenate([gaussian(30), 1e4 + gaussian(30)]),
            gaussian(60) * np.float32(1e-30),
            gaussian(60) * np.float32(1e30),
            gaussian(60).astype(np.float64) * 1e200,
        ],
        ids=["plain", "duplicates", "all-equal", "outlier", "blobs", "tiny", "huge", "beyond-float32"],
    )
    def test_the_graph_is_finite_positive_and_symmetric_for_any_data(self, affinity, X):
        graph = affinity(X)
        assert_valid(graph, len(X))
        assert (graph.indptr.diff() >= 5).all(), "every point keeps its own neighbours"

    def test_few_rows_are_clamped_with_one_warning_naming_the_users_parameter(self, affinity):
        is_entropic = isinstance(affinity, EntropicAffinity)
        name, used = ("perplexity=5", "2.67 is used") if is_entropic else ("n_neighbors=15", "2 neighbours are used")
        with pytest.warns(UserWarning, match=f"{name} needs more than .* samples, got 9; {used}, a third") as caught:
            graph = affinity(gaussian(9))
        assert len(caught) == 1
        assert_valid(graph, 9)

    def test_a_few_rows_in_groups_have_most_of_their_weight_within_the_groups(self, affinity):
        groups = np.arange(12) // 4
        with pytest.warns(UserWarning, match="a third of the other points"):
            weights = dense(affinity(gaussian(12) + 8 * groups[:, None]))
        assert weights[groups[:, None] == groups].sum() > 0.9 * weights.sum()

    def test_two_rows_are_joined(self, affinity):
        with pytest.warns(UserWarning, match="got 2; 1"):
            graph = affinity(gaussian(2))
        assert graph.to_scipy().nnz == 2

    def test_it_is_pure(self, affinity):
        X = gaussian()
        before, parameters = X.copy(), affinity.get_params()
        neighbors = kneighbors(X, affinity._n_neighbors_needed(len(X)))
        distances = neighbors.distances.clone()
        first, second = affinity.from_neighbors(neighbors), affinity.from_neighbors(neighbors)
        np.testing.assert_array_equal(dense(first), dense(second))
        np.testing.assert_array_equal(dense(first), dense(affinity(X)))
        np.testing.assert_array_equal(X, before)
        assert torch.equal(neighbors.distances, distances)
        assert vars(affinity) == parameters

    def test_any_number_of_threads_gives_the_same_bits(self, affinity):
        neighbors = kneighbors(gaussian(1000), affinity._n_neighbors_needed(1000))
        graphs = on_threads(lambda: affinity.from_neighbors(neighbors))
        for graph in graphs[1:]:
            assert torch.equal(graph.indices, graphs[0].indices)
            assert torch.equal(graph.weights, graphs[0].weights)

    def test_clone_and_parameters_work_as_in_scikit_learn(self, affinity):
        copy = clone(affinity)
        assert copy is not affinity
        assert copy.get_params() == affinity.get_params()
        copy.set_params(metric="cosine")
        assert affinity.metric == "euclidean"
        assert abs(dense(copy(gaussian())) - dense(affinity(gaussian()))).max() > 0
        with pytest.raises(ValueError, match="Invalid parameter 'metrik'"):
            copy.set_params(metrik="cosine")
        with pytest.raises(TypeError, match="unexpected keyword argument 'metrik'"):
            type(affinity)(metrik="cosine")

    @pytest.mark.parametrize("metric", ["cosine", "manhattan"])
    def test_metric_is_that_of_the_neighbors(self, affinity, metric):
        X = gaussian() + 1
        chosen = clone(affinity).set_params(metric=metric)
        neighbors = kneighbors(X, affinity._n_neighbors_needed(len(X)), metric=metric)
        np.testing.assert_array_equal(dense(chosen(X)), dense(affinity.from_neighbors(neighbors)))

    @pytest.mark.parametrize(
        ("X", "message"),
        [
            (np.zeros(7), "Expected 2D array, got 1D"),
            (np.zeros((2, 3, 4)), "dim 3"),
            (np.zeros((1, 3)), "minimum of 2"),
            (np.array([[1.0, np.nan]] * 30), r"30 value\(s\), first in row 0"),
            (np.zeros((30, 2), dtype=complex), "Complex data not supported"),
        ],
        ids=["1d", "3d", "one-row", "nan", "complex"],
    )
    def test_only_finite_tables_are_taken(self, affinity, X, message):
        with pytest.raises(ValueError, match=message):
            affinity(X)

    def test_a_sparse_table_is_refused_with_the_remedy(self, affinity):
        with pytest.raises(TypeError, match="toarray"):
            affinity(scipy.sparse.csr_array(gaussian()))


class TestGraphFromUser:
    @pytest.fixture
    def matrix(self):
        weights = np.zeros((5, 5))
        weights[[0, 1, 2, 3], [1, 2, 3, 4]] = [0.5, 2.0, 0.25, 1.0]
        return weights + weights.T

    @pytest.mark.parametrize(
        "form",
        [
            np.asarray,
            np.asfortranarray,
            np.ndarray.tolist,
            np.float32,
            scipy.sparse.csr_array,
            scipy.sparse.csc_matrix,
            scipy.sparse.coo_array,
            scipy.sparse.lil_array,
            torch.from_numpy,
            lambda m: torch.from_numpy(m).requires_grad_(True),
            lambda m: torch.from_numpy(m).to(torch.bfloat16),
            lambda m: torch.from_numpy(m).to_sparse_coo(),
            lambda m: torch.from_numpy(m).to_sparse_coo().to_sparse_csr(),
            graph_from_user,
        ],
        ids=("numpy fortran list float32 csr csc coo lil tensor grad bfloat16 tensor-coo tensor-csr graph").split(),
    )
    @pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
    @pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
    def test_every_form_of_a_matrix_is_the_same_graph(self, matrix, form):
        graph = graph_from_user(form(matrix), 5)
        assert_valid(graph, 5)
        np.testing.assert_array_equal(dense(graph), matrix)

    def test_the_diagonal_is_ignored(self, matrix):
        np.testing.assert_array_equal(dense(graph_from_user(matrix + 7 * np.eye(5))), matrix)

    def test_stored_zeros_are_no_edges_and_repeated_entries_add_up(self):
        rows, columns, weights = [0, 0, 1, 0, 2, 2], [1, 1, 0, 2, 0, 1], [1.0, 2.0, 3.0, 0.0, 0.0, 0.0]
        graph = graph_from_user(scipy.sparse.coo_array((weights, (rows, columns)), shape=(3, 3)))
        assert graph.n_edges == 2
        np.testing.assert_array_equal(graph.weights, 3.0)

    def test_the_input_is_not_changed(self, matrix):
        unsorted = scipy.sparse.csr_array(matrix + np.eye(5))
        for row in range(5):
            part = slice(unsorted.indptr[row], unsorted.indptr[row + 1])
            unsorted.indices[part] = unsorted.indices[part][::-1].copy()
            unsorted.data[part] = unsorted.data[part][::-1].copy()
        unsorted.has_sorted_indices = False
        parts = [unsorted.data.copy(), unsorted.indices.copy(), unsorted.indptr.copy()]
        graph = graph_from_user(unsorted)
        graph.weights.zero_()
        for now, before in zip([unsorted.data, unsorted.indices, unsorted.indptr], parts, strict=True):
            np.testing.assert_array_equal(now, before)

    def test_another_estimators_graph_comes_back_as_it_was(self):
        for affinity in AFFINITIES:
            graph = affinity(gaussian())
            np.testing.assert_array_equal(dense(graph_from_user(graph.to_scipy(), 80)), dense(graph))

    def test_rounding_differences_are_evened_out(self, matrix):
        matrix[0, 1] += 1e-7
        assert_valid(graph_from_user(matrix), 5)

    def test_a_point_without_edges_is_allowed(self, matrix):
        matrix[4] = matrix[:, 4] = 0
        assert graph_from_user(matrix).indptr.diff()[4] == 0

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda m: m[:4], r"must be square \(n, n\), got shape \(4, 5\)"),
            (lambda m: m[0], r"must be square \(n, n\), got shape \(5,\)"),
            (lambda m: scipy.sparse.csr_array(m[:, :4]), r"must be square \(n, n\), got shape \(5, 4\)"),
            (lambda m: m[:4, :4], "the graph has 4 points but X has 5 rows"),
            (lambda m: -m, "8 negative weights"),
            (lambda m: m * np.where(m > 1, np.nan, 1), "NaN or infinite weights"),
            (lambda m: m * np.where(m > 1, np.inf, 1), "NaN or infinite weights"),
            (np.triu, r"not symmetric \(largest difference 2\).*\(A \+ A.T\) / 2"),
            (lambda m: m * 0, "no edge between different points"),
            (lambda m: m * 0 + np.eye(5), "no edge between different points"),
            (lambda m: scipy.sparse.csr_array((5, 5)), "no edge between different points"),
            (lambda m: m + 0j, "complex weights"),
            (lambda m: torch.from_numpy(m + 0j), "complex weights"),
        ],
        ids=[
            *["not-square", "1d", "sparse-not-square", "wrong-n", "negative", "nan", "infinite"],
            *["asymmetric", "zero", "loops-only", "empty", "complex", "complex-tensor"],
        ],
    )
    @pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
    def test_what_is_no_affinity_matrix_is_refused(self, matrix, spoil, message):
        with pytest.raises(ValueError, match=message):
            graph_from_user(spoil(matrix), 5)


class TestAffinityGraph:
    def test_the_scipy_graph_has_indices_that_scikit_learn_takes(self):
        matrix = UMAPAffinity()(gaussian()).to_scipy()
        assert isinstance(matrix, scipy.sparse.csr_array)
        assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
        check_array(matrix, accept_sparse="csr", accept_large_sparse=False)

    def test_rows_and_row_weights_agree_with_the_matrix(self):
        graph = UMAPAffinity()(gaussian())
        matrix = graph.to_scipy()
        np.testing.assert_array_equal(graph.rows, matrix.tocoo().row)
        np.testing.assert_allclose(graph.row_weights, matrix.sum(axis=1), rtol=1e-6)

    def test_columns_are_sorted_and_zeros_dropped(self):
        matrix = scipy.sparse.csr_array(([3.0, 0.0, 3.0], [1, 0, 0], [0, 2, 3]), shape=(2, 2))
        graph = AffinityGraph.from_scipy(matrix)
        assert graph.indices.tolist() == [1, 0]
        assert graph.weights.tolist() == [3.0, 3.0]


def test_newtons_steps_that_alternate_still_reach_the_perplexity():
    distances = torch.tensor([[1.1631, 1.3653, 1.8159, 1.9009, 2.0106, 2.0335, 2.0619, 2.1729, 2.2652, 2.3032]])
    p = conditional_probabilities(distances, 4.0)
    assert float(torch.exp(-(p * p.log()).sum())) == pytest.approx(4.0, abs=1e-5)


def test_more_connected_neighbours_than_memberships_sum_to_are_all_members():
    # A step from here leaves exp(−excess/σ) so small that 1/σ overflows in the next.
    distances = torch.tensor([[1.0] * 8 + [1.23923480870217553] + [3.0] * 21], dtype=torch.float64)
    weights = Connectivity(local_connectivity=8.0)._memberships(distances, math.nan)
    assert weights[0, :8].tolist() == [1.0] * 8
    assert float(weights[0, 8:].max()) < 1e-6


@pytest.mark.parametrize("n_edges", [1, 7, 64, 10**9])
def test_parts_of_a_graph_are_all_of_its_rows_and_edges_in_order(n_edges):
    graph = UnionAffinity(n_neighbors=5)(gaussian(50))
    parts = list(graph.in_parts(n_edges))
    assert [row for rows, _ in parts for row in range(50)[rows]] == list(range(50))
    assert [edge for _, edges in parts for edge in range(graph.n_edges)[edges]] == list(range(graph.n_edges))
    longest = int(graph.indptr.diff().max())
    assert all(edges.stop - edges.start < n_edges + longest for _, edges in parts)
