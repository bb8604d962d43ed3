import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from torchdr_cne.evaluation import class_similarity_matrix, linear_probe


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:500], y[:500]


def brute_similarity(features, labels):
    """Means of all cosines of pairs of different rows, one pair of classes after the other."""
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = units @ units.T
    np.fill_diagonal(cosines, np.nan)
    classes = np.unique(labels)
    return np.array([[np.nanmean(cosines[np.ix_(labels == a, labels == b)]) for b in classes] for a in classes])


class TestClassSimilarityMatrix:
    def test_equals_the_mean_of_all_pairs_without_a_point_and_itself(self, digits):
        X, y = digits
        matrix, classes = class_similarity_matrix(X, y)
        np.testing.assert_allclose(matrix, brute_similarity(X, y), atol=1e-12)
        np.testing.assert_array_equal(classes, np.arange(10))

    def test_blocks_of_rows_add_up(self, digits, monkeypatch):
        X, y = digits
        monkeypatch.setattr("torchdr_cne.evaluation.similarity._BLOCK_VALUES", 7 * 64 + 1)
        np.testing.assert_allclose(class_similarity_matrix(X, y)[0], brute_similarity(X, y), atol=1e-12)

    def test_lengths_of_rows_do_not_matter_however_large_or_small(self, digits):
        X, y = digits
        lengths = 10.0 ** np.linspace(-300, 300, len(X))[:, None]
        np.testing.assert_allclose(class_similarity_matrix(X * lengths, y)[0], brute_similarity(X, y), atol=1e-12)

    def test_a_class_of_one_point_is_nan_on_the_diagonal_only(self):
        matrix, classes = class_similarity_matrix([[1, 0], [0, 2], [0, 3]], ["b", "a", "a"])
        np.testing.assert_array_equal(matrix, [[1.0, 0.0], [0.0, np.nan]])
        assert classes.tolist() == ["a", "b"]

    def test_equal_points_have_a_mean_of_one_and_not_more(self):
        matrix = class_similarity_matrix(np.full((1000, 3), 0.1), np.arange(1000) % 2)[0]
        np.testing.assert_allclose(matrix, 1.0, atol=1e-12)
        assert matrix.max() <= 1.0

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.uint8])
    def test_tensors_of_any_dtype_count_as_their_values_in_float64(self, digits, dtype):
        X, y = torch.tensor(digits[0]).to(dtype), torch.tensor(digits[1])
        expected = class_similarity_matrix(X.double().numpy(), digits[1])[0]
        np.testing.assert_array_equal(class_similarity_matrix(X, y)[0], expected)

    def test_the_first_row_of_zeros_is_named(self, monkeypatch):
        monkeypatch.setattr("torchdr_cne.evaluation.similarity._BLOCK_VALUES", 4)
        features = np.ones((9, 2))
        features[[5, 7]] = 0
        with pytest.raises(ValueError, match="row 5 of features is zero and has no direction; drop such rows"):
            class_similarity_matrix(features, np.arange(9) % 2)

    @pytest.mark.parametrize(
        ("features", "labels", "message"),
        [
            (np.ones((3, 2)), [0, 1], r"labels has shape \(2,\), features has 3 rows; pass one label a row"),
            (np.ones((3, 2)), [0.5, 1, 1], "labels holds fractions and the metric needs classes"),
            (np.ones((3, 2)), [np.nan, 1, 1], "labels has 1 missing values; drop these rows"),
            (np.array([[1, np.inf], [1, 1], [1, 1]]), [0, 1, 1], "features has NaN or infinite values in 1 rows"),
            (np.ones((0, 2)), [], r"features has shape \(0, 2\); pass at least one row"),
        ],
    )
    def test_what_has_no_cosines_between_classes_is_refused(self, features, labels, message):
        with pytest.raises(ValueError, match=message):
            class_similarity_matrix(features, labels)


class TestLinearProbe:
    def test_equals_a_regression_fitted_to_the_other_folds(self, digits):
        X, y = digits
        shares = []
        for fit, judge in StratifiedKFold(4, shuffle=True, random_state=3).split(X, y):
            scaler = StandardScaler().fit(X[fit])
            model = LogisticRegression(max_iter=1000).fit(scaler.transform(X[fit]), y[fit])
            shares.append(np.mean(model.predict(scaler.transform(X[judge])) == y[judge]))
        score = linear_probe(X, y, n_folds=4, random_state=3)
        assert type(score) is float
        assert score == pytest.approx(np.mean(shares), abs=1e-12)

    def test_a_test_set_is_judged_by_what_was_fitted_to_the_rest(self, digits):
        X, y = digits
        scaler = StandardScaler().fit(X[:300])
        model = LogisticRegression(max_iter=1000).fit(scaler.transform(X[:300]), y[:300])
        expected = np.mean(model.predict(scaler.transform(X[300:])) == y[300:])
        assert linear_probe(X[:300], y[:300], test_features=X[300:], test_labels=y[300:]) == pytest.approx(expected)

    def test_a_test_set_may_lack_classes(self, digits):
        X, y = digits
        rows = np.flatnonzero(y >= 8)
        assert linear_probe(X, y, test_features=X[rows], test_labels=y[rows]) > 0.95

    def test_separable_classes_score_one_whatever_their_names_and_units(self):
        codes = np.arange(60) % 3
        features = np.eye(3)[codes] * [1e-6, 1, 1e6] + np.random.default_rng(0).normal(size=(60, 3)) * [1e-8, 0.01, 1e4]
        for labels in (codes, np.array(["x", "y", "z"])[codes], codes.astype(float), torch.tensor(codes)):
            assert linear_probe(features, labels) == 1.0
            assert linear_probe(features, labels, test_features=features, test_labels=labels) == 1.0

    def test_labels_that_are_chance_score_near_chance(self):
        rng = np.random.default_rng(0)
        assert linear_probe(rng.normal(size=(600, 5)), rng.integers(2, size=600)) == pytest.approx(0.5, abs=0.08)

    def test_the_seed_fixes_the_folds_and_global_state_is_left_alone(self, digits):
        X, y = digits
        state = np.random.get_state()[1].copy()  # noqa: NPY002
        scores = [linear_probe(X, y, random_state=np.random.default_rng(1)) for _ in range(2)]
        assert scores[0] == scores[1]
        linear_probe(X, y, random_state=None)
        np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002

    def test_tensors_that_need_gradients_score_as_their_values(self, digits):
        X, y = digits
        assert linear_probe(torch.tensor(X, requires_grad=True), torch.tensor(y)) == linear_probe(X, y)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"labels": [0, 1]}, r"labels has shape \(2,\), features has 12 rows; pass one label a row"),
            ({"labels": np.linspace(0, 1, 12)}, "labels holds fractions"),
            ({"labels": ["a"] * 12}, r"labels has 1 classes, \['a'\]; a probe needs at least 2"),
            ({"features": np.full((12, 2), np.nan)}, "features has NaN or infinite values in 12 rows"),
            (
                {"labels": ["a"] * 9 + ["b"] * 3},
                "n_folds=5 needs 5 rows of each class and class 'b' has 3; lower",
            ),
            ({"n_folds": 1}, "n_folds=1 leaves nothing to judge; it must be at least 2"),
            ({"test_features": np.ones((2, 2))}, "test_features is given without test_labels; pass both"),
            ({"test_labels": [0, 1]}, "test_labels is given without test_features; pass both"),
            (
                {"test_features": np.ones((2, 3)), "test_labels": [0, 1]},
                r"test_features has shape \(2, 3\) and features \(12, 2\); .* with the same columns",
            ),
            (
                {"test_features": np.ones((2, 2)), "test_labels": [0]},
                r"test_labels has shape \(1,\), test_features has 2 rows",
            ),
            (
                {"test_features": np.full((2, 2), np.inf), "test_labels": [0, 1]},
                "test_features has NaN or infinite values in 2 rows",
            ),
            (
                {"test_features": np.ones((2, 2)), "test_labels": ["0", "1"]},
                r"test_labels has classes that labels has not, \['0', '1'\], and labels has \[0, 1\]",
            ),
        ],
    )
    def test_what_cannot_be_probed_is_refused(self, options, message):
        features = np.random.default_rng(0).normal(size=(12, 2))
        with pytest.raises(ValueError, match=message):
            linear_probe(**{"features": features, "labels": np.arange(12) % 2} | options)
