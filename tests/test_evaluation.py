import time

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from torchdr_cne.evaluation import distance_correlation, evaluate, knn_accuracy, knn_recall, trustworthiness
from torchdr_cne.evaluation._exact import ExactSearch
from torchdr_cne.evaluation._inputs import sample_pairs


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X, y = X[:600].astype(np.float32), y[:600]
    noise = np.random.default_rng(0).normal(size=(600, 2))
    return X, PCA(2, random_state=0).fit_transform(X) + noise, y


def brute_neighbors(points, k):
    """Neighbours by (distance, id) from all differences; self removed by id."""
    points = points.astype(np.float64)
    distances = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    ids = np.broadcast_to(np.arange(len(points)), distances.shape)
    return np.lexsort((ids, distances), axis=1)[:, :k]


def brute_recall(X, embedding, k):
    pairs = zip(brute_neighbors(X, k), brute_neighbors(embedding, k), strict=True)
    return np.mean([len(set(a) & set(b)) / k for a, b in pairs])


SCORES_OF_DATA = [knn_recall, trustworthiness, distance_correlation]


class TestExactSearch:
    def test_neighbors_equal_sklearn_brute_force(self, digits):
        points = np.random.default_rng(1).normal(size=(500, 7))
        expected = NearestNeighbors(n_neighbors=9, algorithm="brute").fit(points).kneighbors()[1]
        np.testing.assert_array_equal(ExactSearch(points).neighbors(np.arange(500), 9), expected)

    @pytest.mark.parametrize(
        "points",
        [
            np.random.default_rng(2).integers(0, 2, size=(300, 6)),
            np.repeat(np.random.default_rng(3).normal(size=(10, 4)), 30, axis=0),
            np.full((60, 3), 0.1),
            np.random.default_rng(4).normal(size=(300, 5)).astype(np.float32) + np.float32(1000),
            np.vstack([np.random.default_rng(5).normal(size=(200, 3)) * 1e-6, [[1e6, 0, 0]]]),
        ],
        ids=["binary-ties", "duplicates", "constant", "far-from-origin", "one-outlier"],
    )
    def test_ties_duplicates_and_offsets_are_ordered_by_distance_then_id(self, points):
        rows = np.arange(len(points))
        expected = brute_neighbors(points, len(points) - 1)
        np.testing.assert_array_equal(ExactSearch(points).neighbors(rows, 11), expected[:, :11])
        others = np.random.default_rng(0).permuted(expected, axis=1)[:, :8]
        ranks = np.take_along_axis(np.argsort(expected, axis=1), others - (others > rows[:, None]), axis=1) + 1
        np.testing.assert_array_equal(ExactSearch(points).ranks(rows, others), ranks)

    def test_a_duplicate_is_a_neighbor_and_the_row_itself_never(self):
        points = np.zeros((40, 2))
        neighbors = ExactSearch(points).neighbors(np.array([0, 7]), 3)
        np.testing.assert_array_equal(neighbors, [[1, 2, 3], [0, 1, 2]])


class TestKnnRecall:
    def test_equals_the_overlap_of_brute_force_neighbors(self, digits):
        X, embedding, _ = digits
        assert knn_recall(X, embedding) == pytest.approx(brute_recall(X, embedding, 15), abs=1e-12)

    def test_random_embedding_has_k_over_n(self):
        rng = np.random.default_rng(0)
        score = knn_recall(rng.normal(size=(2000, 5)), rng.normal(size=(2000, 2)), n_neighbors=40)
        assert score == pytest.approx(40 / 1999, rel=0.1)

    def test_sample_judges_the_documented_rows_among_all_points(self, digits):
        X, embedding, _ = digits
        rows = np.random.default_rng(3).choice(600, 50, replace=False)
        kept = [set(a) & set(b) for a, b in zip(brute_neighbors(X, 15), brute_neighbors(embedding, 15), strict=True)]
        expected = np.mean([len(kept[row]) / 15 for row in rows])
        assert knn_recall(X, embedding, n_samples=50, random_state=3) == pytest.approx(expected, abs=1e-12)


class TestKnnAccuracy:
    @pytest.mark.parametrize("k", [1, 4, 10])
    def test_equals_sklearn_leave_one_out(self, digits, k):
        _, embedding, y = digits
        leave_one_out = KNeighborsClassifier(k).fit(embedding, y).predict(None)
        assert knn_accuracy(embedding, y, n_neighbors=k) == pytest.approx(np.mean(leave_one_out == y), abs=1e-12)

    def test_a_tied_vote_goes_to_the_smallest_label(self):
        line = np.arange(3.0)[:, None]
        assert knn_accuracy(line, ["b", "a", "c"], n_neighbors=2) == pytest.approx(0.0)
        assert knn_accuracy(line, ["a", "b", "a"], n_neighbors=2) == pytest.approx(2 / 3)

    def test_separate_classes_score_one_whatever_the_kind_of_label(self):
        centers = np.repeat([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]], 30, axis=0)
        embedding = centers + np.random.default_rng(0).normal(size=(90, 2))
        codes = np.repeat([0, 1, 2], 30)
        for labels in (codes, np.array(["x", "y", "z"])[codes], codes.astype(float), torch.tensor(codes)):
            assert knn_accuracy(embedding, labels) == 1.0

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (np.zeros(19), r"labels has shape \(19,\), embedding has 20 rows"),
            ([None] * 3 + ["a"] * 17, "3 missing values; drop these rows"),
            (np.r_[np.nan, np.zeros(19)], "1 missing values"),
            (np.linspace(0, 1, 20), "fractions and the metric needs classes"),
        ],
    )
    def test_labels_that_are_no_classes_are_refused(self, labels, message):
        with pytest.raises(ValueError, match=message):
            knn_accuracy(np.random.default_rng(0).normal(size=(20, 2)), np.array(labels))


class TestTrustworthiness:
    @pytest.mark.parametrize("k", [1, 5, 15, 100])
    def test_equals_sklearn_on_all_rows(self, k):
        rng = np.random.default_rng(k)
        X, embedding = rng.normal(size=(350, 8)), rng.normal(size=(350, 2))
        embedding += X[:, :2]
        expected = sklearn_trustworthiness(X, embedding, n_neighbors=k)
        assert trustworthiness(X, embedding, n_neighbors=k) == pytest.approx(expected, abs=1e-12)

    def test_sample_estimates_the_value_of_all_rows(self, digits):
        X, embedding, _ = digits
        full = trustworthiness(X, embedding)
        sampled = [trustworthiness(X, embedding, n_samples=200, random_state=seed) for seed in range(5)]
        assert np.mean(sampled) == pytest.approx(full, abs=0.01)

    def test_needs_fewer_neighbors_than_half_the_points(self):
        points = np.random.default_rng(0).normal(size=(30, 2))
        with pytest.raises(ValueError, match=r"n_neighbors=15 needs more than 30 samples \(n_neighbors < n / 2\)"):
            trustworthiness(points, points)
        assert trustworthiness(points, points, n_neighbors=14) == 1.0


class TestDistanceCorrelation:
    def test_equals_scipy_spearman_of_all_pairs_of_few_points(self, digits):
        X, embedding = (data[:200] for data in digits[:2])
        expected = scipy.stats.spearmanr(scipy.spatial.distance.pdist(X), scipy.spatial.distance.pdist(embedding))
        assert distance_correlation(X, embedding) == pytest.approx(expected.statistic, abs=1e-9)

    def test_equals_scipy_spearman_on_the_sampled_pairs(self, digits):
        X, embedding, _ = digits
        i, j = sample_pairs(600, 5000, random_state=4)
        expected = scipy.stats.spearmanr(
            np.linalg.norm(X[i].astype(float) - X[j], axis=1),
            np.linalg.norm(embedding[i] - embedding[j], axis=1),
        )
        score = distance_correlation(X, embedding, n_pairs=5000, random_state=4)
        assert score == pytest.approx(expected.statistic, abs=1e-9)

    @pytest.mark.parametrize(("n", "n_pairs"), [(2, None), (50, None), (50, 300), (3_000_000, 40_000)])
    def test_pairs_are_different_and_never_a_point_with_itself(self, n, n_pairs):
        i, j = sample_pairs(n, n_pairs, random_state=0)
        assert len(i) == (n_pairs or n * (n - 1) // 2)
        assert (j >= 0).all()
        assert (j < i).all()
        assert (i < n).all()
        assert len(set(zip(i.tolist(), j.tolist(), strict=True))) == len(i)

    def test_sampled_pairs_cover_points_evenly(self):
        i, j = sample_pairs(1000, 100_000, random_state=0)
        counts = np.bincount(np.r_[i, j], minlength=1000)
        assert abs(counts - 200).max() < 6 * np.sqrt(200)

    def test_collapsed_embedding_is_nan_without_a_warning(self):
        points = np.random.default_rng(0).normal(size=(20, 3))
        assert np.isnan(distance_correlation(points, np.zeros((20, 2))))


class TestEveryMetric:
    @pytest.mark.parametrize("metric", SCORES_OF_DATA)
    def test_perfect_embedding_scores_one(self, metric, digits):
        X = digits[0]
        assert metric(X, X * 3 + 5) == pytest.approx(1.0, abs=1e-12)

    @pytest.mark.parametrize("metric", SCORES_OF_DATA)
    def test_order_of_rows_does_not_matter(self, metric, digits):
        X, embedding = (data[:400] for data in digits[:2])
        X = X + np.random.default_rng(0).normal(size=X.shape)
        order = np.random.default_rng(1).permutation(400)
        assert metric(X[order], embedding[order]) == pytest.approx(metric(X, embedding), abs=1e-9)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.uint8])
    def test_tensors_of_any_dtype_score_as_their_values_in_float64(self, dtype, digits):
        X, embedding, y = digits
        tensor = torch.tensor(X).to(dtype)
        embedded = torch.tensor(embedding, requires_grad=True)
        values = tensor.to(torch.float64).numpy()
        assert evaluate(tensor, embedded, torch.tensor(y)) == evaluate(values, embedding, y)

    def test_inputs_are_left_unchanged(self, digits):
        X, embedding, y = digits[0].astype(np.float64), digits[1], digits[2]
        before = X.copy(), embedding.copy()
        evaluate(X, embedding, y)
        np.testing.assert_array_equal(X, before[0])
        np.testing.assert_array_equal(embedding, before[1])

    def test_evaluate_returns_what_the_single_functions_do(self, digits):
        X, embedding, y = digits
        options = {"n_samples": 100, "random_state": 7}
        scores = evaluate(X, embedding, y, n_neighbors=6, n_voters=9, n_pairs=999, **options)
        assert scores == {
            "knn_recall": knn_recall(X, embedding, n_neighbors=6, **options),
            "knn_accuracy": knn_accuracy(embedding, y, n_neighbors=9, **options),
            "trustworthiness": trustworthiness(X, embedding, n_neighbors=6, **options),
            "distance_correlation": distance_correlation(X, embedding, n_pairs=999, random_state=7),
        }
        assert all(type(score) is float for score in scores.values())
        assert set(evaluate(X, embedding)) == set(scores) - {"knn_accuracy"}

    @pytest.mark.parametrize("metric", [*SCORES_OF_DATA, evaluate])
    @pytest.mark.parametrize(
        ("X", "message"),
        [
            (np.zeros((19, 3)), "X has 19 rows and embedding has 20; pass the embedding of exactly these"),
            (np.zeros(20), r"X has shape \(20,\); pass a 2-D array .* X.reshape\(-1, 1\)"),
            (np.r_[np.zeros((18, 3)), np.full((2, 3), np.nan)], "NaN or infinite values in 2 rows"),
            (np.zeros((20, 3), dtype=complex), "dtype complex128; pass an array of real numbers"),
            (scipy.sparse.csr_array((20, 3)), "X is a sparse csr_array; pass X.toarray"),
        ],
        ids=["rows", "1-D", "NaN", "complex", "sparse"],
    )
    def test_data_that_cannot_be_judged_are_refused(self, metric, X, message):
        with pytest.raises(ValueError, match=message):
            metric(X, np.zeros((20, 2)))

    @pytest.mark.parametrize("metric", [knn_recall, trustworthiness, evaluate])
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"n_neighbors": 40}, "n_neighbors=40 needs more than 40 samples, got 40; lower n_neighbors"),
            ({"n_neighbors": 0}, "n_neighbors=0 is too small"),
            ({"n_samples": 0}, "n_samples=0 must be at least 1; None takes all rows"),
        ],
    )
    def test_options_that_do_not_fit_the_data_are_refused(self, metric, options, message):
        points = np.random.default_rng(0).normal(size=(40, 2))
        with pytest.raises(ValueError, match=message):
            metric(points, points, **options)


@pytest.mark.slow
def test_mnist_size_takes_seconds():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(70_000, 50)).astype(np.float32)
    start = time.perf_counter()
    scores = evaluate(X, X[:, :2], rng.integers(10, size=70_000))
    assert time.perf_counter() - start < 30
    assert scores["knn_accuracy"] == pytest.approx(0.1, abs=0.03)
