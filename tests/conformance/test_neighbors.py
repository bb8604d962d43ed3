"""One specification for all neighbour backends, held against all differences in float64."""

import warnings

import numpy as np
import pytest
import torch

from tests.helpers import torch_threads
from torchdr_cne.neighbors import FaissConfig, faiss_index, kneighbors

K, DIM = 7, 5
# KeOps compiles each (metric, dimension, k) on first use: its tests keep to K neighbours in DIM dimensions.
BACKENDS = {
    "torch": "torch",
    "keops": "keops",
    "faiss-flat": FaissConfig(n_lists=0),
    "faiss-lists": FaissConfig(n_lists=4, n_probes=4),
}
METRICS = ["euclidean", "cosine", "manhattan"]

each_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS.keys())
each_metric = pytest.mark.parametrize("metric", METRICS)


def all_distances(X, metric):
    """Distances (n, n) in float64 by the definition; the diagonal is infinite."""
    X = np.asarray(X, dtype=np.float64)
    if metric == "cosine":
        norms = np.linalg.norm(X, axis=1, keepdims=True)
        unit = X / np.where(norms > 0, norms, 1)
        # As half squared chords: 1 − u·v itself loses the digits of small angles.
        chords = ((unit[:, None] - unit[None]) ** 2).sum(axis=2)
        some = (norms > 0).astype(float)
        distances = np.where(some * some.T == 1, chords / 2, 1.0)
    else:
        difference = X[:, None] - X[None]
        scale = np.abs(difference).max()
        scale = scale if scale > 0 else 1.0
        power = 2 if metric == "euclidean" else 1
        distances = scale * (np.abs(difference / scale) ** power).sum(axis=2) ** (1 / power)
    np.fill_diagonal(distances, np.inf)
    return distances


def assert_nearest(graph, X, metric, k, rtol=1e-5, atol=0.0, rows=None):
    """The graph lists the k nearest others of each row: any of those at equal distance, no other."""
    reference = all_distances(X, metric)
    rows = np.arange(len(X)) if rows is None else np.asarray(rows)
    ids, distances = graph.indices.numpy(), graph.distances.numpy()
    assert ids.shape == distances.shape == (len(rows), k)
    assert graph.indices.dtype == torch.int32
    assert ids.min() >= 0
    assert ids.max() < len(X)
    assert not (ids == rows[:, None]).any(), "a row is listed among its own neighbours"
    assert (np.diff(np.sort(ids, axis=1), axis=1) > 0).all(), "a neighbour is listed twice"
    assert (np.diff(distances, axis=1) >= 0).all(), "not nearest first"
    nearest = np.sort(reference[rows], axis=1)[:, :k]
    tolerance = {"rtol": rtol, "atol": atol}
    np.testing.assert_allclose(distances, nearest, **tolerance)
    np.testing.assert_allclose(np.take_along_axis(reference[rows], ids, axis=1), nearest, **tolerance)


def gaussian(n=300, dim=DIM, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim))


@each_backend
class TestEveryBackend:
    @each_metric
    def test_neighbors_and_distances_are_those_of_the_definition(self, backend, metric):
        X = gaussian().astype(np.float32)
        graph = kneighbors(X, K, metric=metric, backend=backend)
        assert_nearest(graph, X, metric, K)
        truth = np.argsort(all_distances(X, metric), axis=1)[:, :K]
        np.testing.assert_array_equal(np.sort(graph.indices), np.sort(truth))

    def test_distances_are_in_the_units_of_the_data_not_squared(self, backend):
        X = np.zeros((10, DIM))
        X[:, 0] = 3 * np.arange(10)
        X[:, 1] = 4 * np.arange(10)
        for metric, step in [("euclidean", 5.0), ("manhattan", 7.0)]:
            distances = kneighbors(X, K, metric=metric, backend=backend).distances
            np.testing.assert_allclose(distances[0], step * np.arange(1, K + 1), rtol=1e-6)

    def test_self_is_removed_by_id_not_by_position(self, backend):
        X = np.concatenate([np.ones((40, DIM)), gaussian(20)])
        graph = kneighbors(X, K, backend=backend)
        assert_nearest(graph, X, "euclidean", K, rtol=1e-5)
        assert (graph.distances[:40] == 0).all()
        assert (graph.indices[:40] < 40).all()

    def test_equal_rows_and_a_far_outlier_do_not_blur_the_rows_between(self, backend):
        X = np.concatenate([np.ones((12, DIM)), gaussian(50), np.full((1, DIM), 1e9)])
        graph = kneighbors(X, K, backend=backend)
        assert_nearest(graph, X, "euclidean", K, rtol=1e-4, atol=1e-6)

    def test_all_rows_equal_still_gives_k_distinct_others(self, backend):
        X = np.full((50, DIM), 0.1)
        assert_nearest(kneighbors(X, K, backend=backend), X, "euclidean", K)

    def test_an_all_zero_row_is_at_cosine_distance_1_from_every_row(self, backend):
        X = gaussian(60, DIM - 1)  # they are searched with a coordinate more
        X[[3, 17, 18]] = 0
        X[30:, 0] = np.abs(X[30:, 0]) + 20  # a narrow cone, so that other rows see few right angles
        graph = kneighbors(X, K, metric="cosine", backend=backend)
        assert_nearest(graph, X, "cosine", K, atol=1e-7)
        np.testing.assert_array_equal(graph.distances[[3, 17, 18]], 1.0)

    def test_a_zero_row_is_nearer_than_an_opposite_row_and_farther_than_an_acute_one(self, backend):
        X = np.zeros((10, DIM - 1))
        X[:3, 0] = [1, 2, 3]  # same direction
        X[3:7, 0] = [-1, -2, -3, -4]  # opposite
        X[7, :2] = 1, 1.7  # 60 degrees
        graph = kneighbors(X, K, metric="cosine", backend=backend)
        np.testing.assert_allclose(graph.distances[0, :5], [0, 0, 1 - 1 / np.sqrt(3.89), 1, 1], atol=1e-6)
        assert set(graph.indices[0, 3:5].tolist()) == {8, 9}

    def test_cosine_tells_directions_in_a_narrow_cone_apart(self, backend):
        X = gaussian() + 1000
        graph = kneighbors(X, K, metric="cosine", backend=backend)
        assert_nearest(graph, X, "cosine", K, rtol=2e-3)

    def test_cosine_ignores_lengths_however_different(self, backend):
        X = gaussian(100)
        lengths = 10.0 ** np.random.default_rng(1).uniform(-18, 18, size=(100, 1))
        graph = kneighbors((X * lengths).astype(np.float32), K, metric="cosine", backend=backend)
        assert_nearest(graph, X, "cosine", K, rtol=1e-4)

    def test_constant_columns_do_not_matter(self, backend):
        X = gaussian()
        X[:, [1, 3]] = [5e4, -0.1]
        assert_nearest(kneighbors(X, K, backend=backend), X, "euclidean", K)

    @pytest.mark.parametrize(("offset", "dtype"), [(1e3, np.float32), (1e6, np.float64)])
    def test_an_offset_of_the_data_loses_no_neighbor(self, backend, offset, dtype):
        X = (gaussian() + offset).astype(dtype)
        assert_nearest(kneighbors(X, K, backend=backend), X, "euclidean", K)

    def test_far_blobs_keep_their_inner_neighbors(self, backend):
        X = gaussian().astype(np.float32)
        X[:150] += 1e4
        graph = kneighbors(X, K, backend=backend)
        assert_nearest(graph, X, "euclidean", K, rtol=5e-3)
        assert ((graph.indices < 150).numpy() == (np.arange(300) < 150)[:, None]).all()

    @pytest.mark.parametrize("size", [1e30, 1e-30, 2.0**100])
    def test_huge_and_tiny_values_have_the_same_neighbors(self, backend, size):
        X = gaussian().astype(np.float32)
        graph = kneighbors(X * np.float32(size), K, backend=backend)
        plain = kneighbors(X, K, backend=backend)
        assert torch.equal(graph.indices, plain.indices)
        np.testing.assert_allclose(graph.distances.double() / size, plain.distances, rtol=2e-6)

    def test_values_beyond_float32_have_finite_distances(self, backend):
        X = gaussian()
        distances = kneighbors(X * 1e200, K, backend=backend).distances
        expected = kneighbors(X, K, backend=backend).distances
        np.testing.assert_allclose(distances / 1e200, expected, rtol=2e-6)

    def test_too_many_neighbors_are_clamped_with_one_warning_naming_both_numbers(self, backend):
        X = gaussian(K + 1)
        with pytest.warns(UserWarning, match="n_neighbors=15 needs more than 15 samples, got 8") as caught:
            graph = kneighbors(X, 15, backend=backend)
        assert len(caught) == 1
        assert_nearest(graph, X, "euclidean", K)

    def test_k_up_to_all_others_needs_no_warning(self, backend):
        X = gaussian(K + 1)
        assert_nearest(kneighbors(X, K, backend=backend), X, "euclidean", K)

    def test_queried_rows_are_those_of_the_full_answer(self, backend):
        X = gaussian()
        rows = [250, 3, 3, 0, 299]
        graph = kneighbors(X, K, backend=backend, rows=rows)
        assert_nearest(graph, X, "euclidean", K, rows=rows)
        assert torch.equal(graph.indices, kneighbors(X, K, backend=backend).indices[rows])

    def test_all_rows_in_another_order_are_answered_in_that_order(self, backend):
        X = gaussian()
        order = np.random.default_rng(2).permutation(300)
        graph = kneighbors(X, K, backend=backend, rows=order)
        assert torch.equal(graph.indices, kneighbors(X, K, backend=backend).indices[order])

    def test_memory_layout_and_dtype_of_the_caller_do_not_matter(self, backend):
        X = np.random.default_rng(3).integers(0, 17, size=(300, DIM))
        plain = np.ascontiguousarray(X, dtype=np.float32)
        expected = kneighbors(plain, K, backend=backend)
        for other in [
            np.asfortranarray(plain),
            plain[::-1].copy()[::-1],
            np.repeat(plain, 2, axis=1)[:, ::2],
            X.astype(np.float64),
            X.astype(np.uint8),
            X.astype(">f4"),
            X.tolist(),
            torch.from_numpy(plain),
            torch.from_numpy(plain).to(torch.bfloat16),
            torch.from_numpy(plain).t().contiguous().t(),
        ]:
            graph = kneighbors(other, K, backend=backend)
            assert torch.equal(graph.indices, expected.indices)
            assert torch.equal(graph.distances, expected.distances)

    @each_metric
    def test_the_input_is_never_written_to(self, backend, metric):
        X = gaussian().astype(np.float32) + 3
        before = X.copy()
        kneighbors(X, K, metric=metric, backend=backend)
        np.testing.assert_array_equal(X, before)
        X.flags.writeable = False
        assert_nearest(kneighbors(X, K, metric=metric, backend=backend), X, metric, K)

    def test_no_rows_give_an_empty_answer(self, backend):
        graph = kneighbors(gaussian(), K, backend=backend, rows=[])
        assert graph.indices.shape == graph.distances.shape == (0, K)

    def test_twice_the_same_answer(self, backend):
        X = np.random.default_rng(4).integers(0, 3, size=(300, DIM))
        first, second = (kneighbors(X, K, backend=backend) for _ in range(2))
        assert torch.equal(first.indices, second.indices)


@pytest.mark.parametrize("backend", [b for b in BACKENDS.values() if b != "keops"], ids=str)
def test_two_rows_are_each_others_neighbor(backend):
    X = np.array([[0.0] * DIM, [3.0, 4.0, 0, 0, 0]])
    with pytest.warns(UserWarning, match="n_neighbors=7 needs more than 7 samples, got 2"):
        graph = kneighbors(X, K, backend=backend)
    assert graph.indices.tolist() == [[1], [0]]
    np.testing.assert_allclose(graph.distances, 5.0)


class TestTorch:
    @each_metric
    @pytest.mark.parametrize(
        "X",
        [
            gaussian(),
            np.random.default_rng(5).integers(0, 3, size=(300, DIM)) + 0.1,
            np.concatenate([np.full((200, DIM), 0.3), gaussian(100)]),
        ],
        ids=["gaussian", "ties", "duplicates"],
    )
    def test_a_subset_of_rows_equals_the_full_answer_bit_for_bit(self, metric, X):
        full = kneighbors(X, 15, metric=metric, backend="torch")
        for rows in ([0], [299, 4], np.arange(100, 237)):
            part = kneighbors(X, 15, metric=metric, backend="torch", rows=rows)
            assert torch.equal(part.indices, full.indices[rows])
            assert torch.equal(part.distances, full.distances[rows])

    def test_ties_go_to_the_lowest_ids(self):
        X = np.concatenate([gaussian(20) + 50, np.full((300, DIM), 0.3)])
        indices = kneighbors(X, 15, backend="torch").indices
        expected = [[i for i in range(20, 37) if i != row][:15] for row in range(20, 320)]
        assert indices[20:].tolist() == expected

    def test_40_of_60_equal_rows_each_have_15_distinct_others(self):
        X = np.concatenate([np.ones((40, 3)), gaussian(20, 3)])
        assert_nearest(kneighbors(X, 15), X, "euclidean", 15)

    def test_float64_input_far_from_the_origin_is_centred_before_it_is_rounded(self):
        X = gaussian(200, 3)
        shifted, plain = kneighbors(X + 2.0**20, 5), kneighbors(X, 5)
        assert torch.equal(shifted.indices, plain.indices)
        np.testing.assert_allclose(shifted.distances, plain.distances, rtol=1e-5)


class TestFaiss:
    def test_small_data_are_searched_without_lists_and_exactly(self):
        X = gaussian(2000, 10)
        assert_nearest(kneighbors(X, 15, backend="faiss"), X, "euclidean", 15)

    @pytest.mark.parametrize("metric", ["euclidean", "cosine"])
    def test_matrix_products_in_float32_lose_no_neighbor(self, metric):
        # Large enough for FAISS to use x² + y² − 2xy.
        X = gaussian(3000, 50).astype(np.float32)
        if metric == "euclidean":
            X[:1500] += 1e4
        else:
            X += 1000
        exact = kneighbors(X, 15, metric=metric, backend="torch")
        graph = kneighbors(X, 15, metric=metric, backend=FaissConfig(n_lists=0))
        assert torch.equal(graph.indices, exact.indices)

    @pytest.mark.parametrize("metric", ["euclidean", "cosine"])
    @pytest.mark.parametrize("recall", [0.9, 0.98])
    def test_lists_meet_their_recall_target(self, metric, recall):
        rng = np.random.default_rng(6)
        X = (rng.normal(size=(20_000, 6)) @ rng.normal(size=(6, 24)) + 0.3 * rng.normal(size=(20_000, 24))).astype(
            np.float32
        )
        sample = rng.choice(20_000, 1000, replace=False)
        truth = kneighbors(X, 15, metric=metric, backend="torch", rows=sample).indices
        found = kneighbors(X, 15, metric=metric, backend=FaissConfig(recall=recall), rows=sample).indices
        hits = (found.unsqueeze(2) == truth.unsqueeze(1)).any(dim=2).double().mean()
        assert hits >= recall - 0.01  # the target is met on a sample of 256 rows

    def test_lists_too_small_for_k_are_filled_up_never_left_at_minus_one(self):
        X = np.concatenate([gaussian(50), gaussian(3) + 100])
        graph = kneighbors(X, K, backend=FaissConfig(n_lists=20, n_probes=1))
        assert graph.indices.min() >= 0
        assert_nearest(kneighbors(X, K, backend=FaissConfig(n_lists=20, n_probes=20)), X, "euclidean", K)
        # The three far rows have two others in their list: the exact answer fills up.
        assert torch.equal(graph.indices[50:], kneighbors(X, K, backend="torch").indices[50:])

    def test_more_lists_than_rows_are_as_many_as_rows(self):
        X = gaussian(30)
        assert_nearest(kneighbors(X, K, backend=FaissConfig(n_lists=64, n_probes=64)), X, "euclidean", K)

    def test_duplicates_do_not_spoil_the_recall_target(self):
        X = np.repeat(gaussian(50), 20, axis=0)
        graph = kneighbors(X, K, backend=FaissConfig(n_lists=8))
        assert (graph.distances == 0).all()

    @pytest.mark.parametrize("metric", ["euclidean", "cosine"])
    def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(self, metric):
        X = np.round(gaussian(5000, 8), 1)  # with ties
        graphs = []
        for n_threads in (1, 2, 3, 2):
            with torch_threads(n_threads):
                graphs.append(kneighbors(X, 20, metric=metric, backend=FaissConfig(n_lists=200), random_state=3))
        for graph in graphs[1:]:
            assert torch.equal(graph.indices, graphs[0].indices)
            assert torch.equal(graph.distances, graphs[0].distances)

    def test_passes_over_the_graph_instead_of_more_lists_meet_the_target_with_the_same_bits(self, monkeypatch):
        monkeypatch.setattr("torchdr_cne.neighbors.probing._JOIN_COST", 0)
        X = gaussian(6000, 10).astype(np.float32)
        exact = kneighbors(X, 10, backend="torch")
        graphs = []
        for n_threads in (1, 2, 3):
            with torch_threads(n_threads):
                graphs.append(kneighbors(X, 10, backend=FaissConfig(n_lists=128)))
        assert torch.equal(graphs[0].indices, graphs[1].indices)
        assert torch.equal(graphs[0].indices, graphs[2].indices)
        assert torch.equal(graphs[0].distances, graphs[2].distances)
        indices, distances = graphs[0].indices, graphs[0].distances
        assert (distances <= exact.distances[:, -1:] * (1 + 1e-5)).double().mean() >= 0.98
        assert (np.diff(np.sort(indices), axis=1) > 0).all()
        assert (indices != torch.arange(6000).unsqueeze(1)).all()
        ends = torch.from_numpy(X)[indices.long()]
        np.testing.assert_allclose(distances, (ends - torch.from_numpy(X).unsqueeze(1)).norm(dim=2), rtol=1e-5)

    @pytest.mark.parametrize("k", [1, 15, 16, 17, 40])
    @pytest.mark.parametrize("dim", [1, 3, 16, 50])
    def test_all_lists_give_the_exact_answer_for_any_number_of_columns_and_neighbors(self, k, dim):
        X = gaussian(700, dim).astype(np.float32)
        exact = kneighbors(X, k, backend="torch")
        graph = kneighbors(X, k, backend=FaissConfig(n_lists=150, n_probes=150))
        np.testing.assert_allclose(graph.distances, exact.distances, rtol=1e-5)
        if dim > 1:  # on a line float32 distances tie
            assert torch.equal(graph.indices, exact.indices)

    def test_equal_neighbors_are_listed_by_id(self):
        X = np.repeat(gaussian(40), 3, axis=0)
        graph = kneighbors(X, 8, backend=FaissConfig(n_lists=4, n_probes=4))
        same = graph.distances[:, 1:] == graph.distances[:, :-1]
        assert same.any()
        assert (graph.indices[:, 1:] > graph.indices[:, :-1])[same].all()

    def test_equal_rows_do_not_share_one_long_list(self):
        from torchdr_cne.neighbors.lists import clustered
        from torchdr_cne.workers import Workers

        X = np.concatenate([np.ones((5000, DIM)), gaussian(3000)]).astype(np.float32)
        with Workers() as workers:
            tree, home = clustered(X, 100, np.random.default_rng(0), workers)
        assert np.bincount(home).max() <= 16 * 80
        assert len(tree.centroids) > home.max()
        graph = kneighbors(X, K, backend=FaissConfig(n_lists=100))
        assert (graph.distances[:5000] == 0).all()
        assert (np.diff(np.sort(graph.indices), axis=1) > 0).all()
        assert (graph.indices != torch.arange(8000).unsqueeze(1)).all()


@pytest.mark.usefixtures("without_numba")
class TestFaissWithoutNumba:
    @pytest.fixture
    def without_numba(self, monkeypatch):
        monkeypatch.setattr(faiss_index, "numba_works", lambda: False)

    @pytest.mark.parametrize("metric", ["euclidean", "cosine"])
    def test_all_lists_give_the_exact_answer(self, metric):
        X = gaussian()
        graph = kneighbors(X, K, metric=metric, backend=FaissConfig(n_lists=4, n_probes=4))
        assert_nearest(graph, X, metric, K, rtol=1e-4)

    def test_the_recall_target_is_met(self):
        X = gaussian(5000, 8)
        exact = kneighbors(X, 15, backend="torch").distances
        found = kneighbors(X, 15, backend=FaissConfig(n_lists=64, recall=0.95)).distances
        assert (found <= exact[:, -1:] * (1 + 1e-5)).double().mean() >= 0.94

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"recall": 0.0}, r"recall=0.0 must lie in \(0, 1\]"),
            ({"recall": 98}, r"recall=98 must lie in \(0, 1\]"),
            ({"n_lists": -1}, "n_lists=-1 must be at least 0"),
            ({"n_probes": 0}, "n_probes=0 must be at least 1"),
        ],
    )
    def test_impossible_settings_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            FaissConfig(**options)


class TestRequests:
    def test_auto_is_exact_for_few_rows(self):
        X = gaussian()
        auto, exact = (kneighbors(X, K, backend=backend) for backend in ("auto", "torch"))
        assert torch.equal(auto.indices, exact.indices)
        assert torch.equal(auto.distances, exact.distances)

    def test_unknown_metric_lists_the_known_ones(self):
        with pytest.raises(ValueError, match=r"metric='hamming' is unknown; choose one of .*manhattan"):
            kneighbors(gaussian(), K, metric="hamming")

    def test_unknown_backend_lists_the_known_ones(self):
        with pytest.raises(ValueError, match=r"backend='annoy' is unknown; choose one of .*faiss"):
            kneighbors(gaussian(), K, backend="annoy")

    @pytest.mark.parametrize("n_neighbors", [0, -3, 2.5, "15", None])
    def test_n_neighbors_must_be_a_positive_integer(self, n_neighbors):
        with pytest.raises(ValueError, match=r"n_neighbors=.* must be an integer of at least 1"):
            kneighbors(gaussian(), n_neighbors)

    @pytest.mark.parametrize(
        "rows",
        [[-1], [300], [True] * 300, [1.5], [[0, 1]], 4],
        ids=["negative", "too-large", "mask", "fraction", "table", "scalar"],
    )
    def test_rows_that_do_not_exist_are_refused(self, rows):
        with pytest.raises(ValueError, match="rows must be a 1-D array of row numbers from 0 to 299"):
            kneighbors(gaussian(), K, rows=rows)

    def test_non_finite_values_are_counted_and_located(self):
        X = gaussian()
        X[41, 2], X[100, :2] = np.nan, np.inf
        with pytest.raises(ValueError, match=r"NaN or infinity: 3 value\(s\), first in row 41"):
            kneighbors(X, K)

    @pytest.mark.parametrize(
        ("X", "message"),
        [
            (np.zeros(5), "Expected 2D array, got 1D array"),
            (np.zeros((5, 2, 2)), "dim 3"),
            (np.zeros((1, 5)), "minimum of 2"),
            (np.zeros((5, 2), dtype=complex), "Complex data not supported"),
            (np.array([["a"], ["b"]]), "Convert your data to numeric values"),
        ],
        ids=["1d", "3d", "one-row", "complex", "strings"],
    )
    def test_only_tables_of_real_numbers_are_taken(self, X, message):
        with pytest.raises(ValueError, match=message):
            kneighbors(X, 3)

    def test_a_valid_request_warns_of_nothing(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kneighbors(gaussian(), K)
