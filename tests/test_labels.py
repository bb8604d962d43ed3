"""Class labels in UMAP's graph: umap-learn's numbers, every form of labels, and what they change."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import silhouette_score

from torchdr_cne import UMAP, NegTSNE
from torchdr_cne.affinity import UMAPAffinity, UnionAffinity, intersect_labels
from torchdr_cne.inputs import read_labels

pandas = pytest.importorskip("pandas")
DATA = Path(__file__).parent / "data"
X, TARGET = load_digits().data[:600].astype(np.float32), load_digits().target[:600]


def some(y, fraction=0.5, seed=0):
    """Keep a fraction of the labels."""
    return np.where(np.random.default_rng(seed).random(len(y)) < fraction, y, -1)


def fitted(y=None, **parameters):
    return UMAP(**{"random_state": 0, "max_iter": 100, **parameters}).fit(X, y)


def dense(graph):
    return graph.to_scipy().toarray()


class TestTheGraph:
    # umap_labels.npz: UMAP(transform_mode="graph", n_neighbors=15, target_weight=…).fit(X, y).graph_ of umap-learn
    # 0.5.12 for these rows of the digits, given their exact neighbours, of equally near ones those of lower number;
    # 5 % and 50 % of the rows are labelled. All four graphs have the same edges.
    @pytest.mark.parametrize("percent", [5, 50])
    @pytest.mark.parametrize("target_weight", [0.5, 0.8])
    def test_it_equals_umap_learns(self, percent, target_weight):
        with np.load(DATA / "umap_labels.npz") as file:
            values = dict(file)
        data, labels = load_digits().data[values["rows"]], values[f"labels_{percent}"]
        n = len(data)
        parts = values[f"{percent}_{target_weight}"], values["indices"], values["indptr"]
        expected = scipy.sparse.csr_array(parts, shape=(n, n)).toarray()
        found = UMAP(target_weight=target_weight, max_iter=1, random_state=0).fit(data, labels).graph_.toarray()
        np.testing.assert_array_equal(found > 0, expected > 0)
        np.testing.assert_allclose(found, expected, atol=1e-5)

    @pytest.mark.parametrize("affinity", [UMAPAffinity(), UnionAffinity()], ids=["fuzzy", "union"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_it_is_symmetric_keeps_its_dtype_and_gives_each_row_an_edge_of_weight_1(self, affinity, dtype):
        graph = affinity(X).to(torch.device("cpu"), dtype)
        before = dense(graph)
        found = intersect_labels(graph, read_labels(some(TARGET), 600))
        assert found.weights.dtype == dtype
        weights = dense(found)
        np.testing.assert_array_equal(weights, weights.T)
        np.testing.assert_allclose(weights.max(axis=1), 1)
        np.testing.assert_array_equal(dense(graph), before)

    def test_it_is_the_definition_on_three_points(self):
        graph = scipy.sparse.csr_array([[0, 0.8, 0.5], [0.8, 0, 0.4], [0.5, 0.4, 0]])
        found = fitted_on_graph(graph, [0, 1, -1], target_weight=0.5)
        a, b, c = 0.8 * np.exp(-5), 0.5 * np.exp(-1), 0.4 * np.exp(-1)
        rows = np.array([[0, a / b, 1], [a / c, 0, 1], [1, c / b, 0]])
        np.testing.assert_allclose(found, rows + rows.T - rows * rows.T, rtol=1e-6)

    def test_weight_1_leaves_no_edge_between_classes(self):
        y = some(TARGET)
        rows, columns = fitted(y, target_weight=1.0, max_iter=1).graph_.nonzero()
        known = (y[rows] >= 0) & (y[columns] >= 0)
        assert known.sum() > 1000
        assert (y[rows] == y[columns])[known].all()

    def test_weight_0_ignores_labels_and_whatever_else_y_is(self):
        expected = fitted().embedding_
        for y in (TARGET, np.linspace(0, 1, 600), "no labels"):
            np.testing.assert_array_equal(fitted(y, target_weight=0.0).embedding_, expected)

    def test_a_given_graph_is_changed_as_a_computed_one(self):
        y = some(TARGET)
        given = UMAP(random_state=0, max_iter=1).fit(X, y, graph=fitted(max_iter=1).graph_)
        difference = abs(given.graph_ - fitted(y, max_iter=1).graph_)
        assert difference.max() < 1e-6

    @pytest.mark.filterwarnings("ignore:.*input graph has:UserWarning")
    @pytest.mark.filterwarnings("ignore:y has 600 classes, of which 600 have one or two rows:UserWarning")
    def test_neighbors_of_different_classes_only_are_refused(self):
        with pytest.raises(ValueError, match="target_weight=1.0 leaves no edge: .* lower target_weight"):
            fitted(np.arange(600), target_weight=1.0)


def fitted_on_graph(graph, y, **parameters):
    found = UMAP(affinity_in="precomputed", max_iter=1, init="random", random_state=0, **parameters)
    return found.fit(graph, y).graph_.toarray()


class TestLabels:
    @pytest.mark.parametrize(
        "form",
        [
            lambda y: y.astype(np.int32),
            lambda y: y.astype(np.int8),
            lambda y: y.astype(np.float64),
            lambda y: y.astype(str),
            lambda y: y.astype(bytes),
            lambda y: y.astype(object),
            np.ndarray.tolist,
            torch.from_numpy,
            lambda y: torch.from_numpy(y).to(torch.bfloat16),
            lambda y: pandas.Series(y, index=np.arange(600)[::-1]),
            lambda y: pandas.Series(y, dtype="Int64"),
            lambda y: pandas.Series(y).astype("category"),
            lambda y: np.where(y < 0, y, 10 * y + 3),
            lambda y: ["no" if label == 3 else int(label) for label in y],
        ],
        ids=(
            "int32 int8 float string bytes object list tensor bfloat16 series nullable category other-numbers mixed"
        ).split(),
    )
    def test_every_form_is_the_same_partition(self, form):
        y = some(TARGET)
        codes = read_labels(form(y), 600)
        assert codes.dtype == torch.int64
        np.testing.assert_array_equal(codes < 0, y < 0)
        pairs = {(int(a), int(b)) for a, b in zip(codes, y, strict=True)}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == 11

    def test_int32_and_int64_give_the_same_bits(self):
        y = some(TARGET)
        first, second = fitted(y.astype(np.int32)), fitted(y.astype(np.int64))
        np.testing.assert_array_equal(first.embedding_, second.embedding_)
        np.testing.assert_array_equal(fitted(y.astype(str)).embedding_, first.embedding_)

    def test_booleans_are_two_classes(self):
        np.testing.assert_array_equal(read_labels([True, False, True], 3), [1, 0, 1])

    def test_no_label_at_all_is_a_fit_without_labels_bit_for_bit(self):
        np.testing.assert_array_equal(fitted(np.full(600, -1)).embedding_, fitted().embedding_)

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (TARGET[:599], "y has 599 labels but X has 600 rows"),
            (TARGET.reshape(-1, 1), r"y has shape \(600, 1\); give one label a row in 1-D, for instance with y.ravel"),
            (7, r"y has shape \(\)"),
            (TARGET + 0.5, "such as 0.5, which are no classes; bin them, or set target_weight=0 to ignore y"),
            (np.where(TARGET == 3, np.inf, TARGET), "such as inf, which are no classes"),
            (np.where(TARGET == 3, np.nan, TARGET), r"NaN or None in 62 rows, first in row 3; mark .* rows by -1"),
            ([None, *TARGET[1:]], "NaN or None in 1 rows, first in row 0; mark unlabelled rows by -1"),
            (["a", float("nan")] * 300, "NaN or None in 300 rows, first in row 1"),
            (pandas.Series([1, None] * 300, dtype="Int64"), "NaN or None in 300 rows, first in row 1"),
            (TARGET + 0j, r"neither numbers nor strings \(dtype complex128\)"),
            (TARGET.astype("datetime64[D]"), "neither numbers nor strings"),
        ],
        ids="short column scalar continuous infinite nan none nan-among-strings missing complex dates".split(),
    )
    def test_what_is_no_labels_is_refused(self, y, message):
        with pytest.raises(ValueError, match=message):
            fitted(y)

    @pytest.mark.parametrize("target_weight", [-0.1, 1.1, np.nan, "0.5", None, True])
    def test_target_weight_lies_between_0_and_1(self, target_weight):
        with pytest.raises(ValueError, match=rf"target_weight={target_weight!r} must be a number in \[0, 1\]"):
            fitted(TARGET, target_weight=target_weight)

    def test_methods_without_labels_ignore_y(self):
        found, expected = (NegTSNE(random_state=0, max_iter=5).fit(X, y) for y in ("no labels", None))
        np.testing.assert_array_equal(found.embedding_, expected.embedding_)


class TestWhatLabelsDo:
    def test_classes_separate_the_more_the_more_labels_count(self):
        def separated(*y, **options):
            return silhouette_score(fitted(*y, learning_rate=0.6, init_scaling=1.0, **options).embedding_, TARGET)

        alone, some_known, all_known = separated(), separated(some(TARGET)), separated(TARGET)
        firmly = separated(TARGET, target_weight=0.8)
        assert alone + 0.03 < some_known
        assert some_known + 0.03 < all_known <= firmly + 0.02

    def test_unlabelled_rows_are_drawn_to_the_class_of_their_neighbors(self):
        y = some(TARGET, 0.8)
        unknown = y < 0
        alone, labelled = fitted().embedding_[unknown], fitted(y).embedding_[unknown]
        assert silhouette_score(labelled, TARGET[unknown]) > silhouette_score(alone, TARGET[unknown])

    def test_fit_transform_takes_labels_as_fit_does(self):
        y = some(TARGET)
        found = UMAP(random_state=0, max_iter=100).fit_transform(X, y)
        np.testing.assert_array_equal(found, fitted(y).embedding_)

    def test_a_checkpoint_of_other_labels_is_not_taken_up(self, tmp_path):
        y = some(TARGET)
        options = {"checkpoint_dir": tmp_path, "max_iter": 20}
        first = fitted(y, **options)
        again = fitted(y, **options)
        np.testing.assert_array_equal(again.embedding_, first.embedding_)
        assert abs(again.graph_ - first.graph_).max() == 0
        for other in (some(TARGET, seed=1), None):
            with pytest.raises(ValueError, match="labels"):
                fitted(other, **options)


def test_methods_without_labels_ignore_y_whatever_it_is():
    expected = NegTSNE(random_state=0, max_iter=5).fit_transform(X)
    for y in (TARGET, np.random.default_rng(0).normal(size=len(X)), np.full(len(X), np.nan), ["a"] * len(X)):
        np.testing.assert_array_equal(NegTSNE(random_state=0, max_iter=5).fit_transform(X, y), expected)


class TestTargetsOfRegression:
    def test_many_numbers_with_few_rows_each_give_a_warning(self):
        y = np.arange(120) // 2
        with pytest.warns(UserWarning, match="y has 60 classes, of which 60 have one or two rows, as a regression"):
            UMAP(max_iter=2).fit(X[:120], y)

    @pytest.mark.parametrize(
        "y", [np.arange(150) // 3, np.arange(100) // 2, [f"c{i}" for i in range(200)], np.arange(200) % 40]
    )
    def test_classes_do_not(self, y):
        assert read_labels(y, len(y)) is not None

    def test_other_numbers_are_refused_with_the_reason(self):
        y = np.random.default_rng(0).normal(size=len(X))
        with pytest.raises(ValueError, match="which are no classes; bin them, or set target_weight=0 to ignore y"):
            UMAP(max_iter=2).fit(X, y)

    def test_missing_labels_are_counted_and_located(self):
        y = TARGET.astype(float)
        y[[4, 9]] = np.nan
        with pytest.raises(ValueError, match="y is NaN or None in 2 rows, first in row 4; mark unlabelled rows by -1"):
            UMAP(max_iter=2).fit(X, y)
