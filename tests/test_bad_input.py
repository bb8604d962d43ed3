"""Data and parameters that cannot work are refused with a remedy; awkward ones give the right answer."""

from functools import cache

import joblib
import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.datasets import load_digits

from torchdr_cne import PACMAP, TSNE, UMAP, InfoTSNE, LearnedMap, NCVis, NegTSNE
from torchdr_cne.affinity import UnionAffinity
from torchdr_cne.evaluation import knn_accuracy, knn_recall
from torchdr_cne.parametric import Phase, Position

METHODS = [NegTSNE, UMAP, NCVis, InfoTSNE]
each_method = pytest.mark.parametrize("method", METHODS)


def small(method, **options):
    return method(**{"max_iter": 5, "random_state": 0, "n_neighbors": 15, **options})


def gaussian(n=60, dim=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def assert_spread(embedding, n, n_components=2):
    """Finite, of the right shape, and using every dimension."""
    assert embedding.shape == (n, n_components)
    assert np.isfinite(embedding).all()
    assert (embedding.std(axis=0) > 0).all()


@pytest.fixture(scope="module")
def recall_of_digits():
    """Return a function that gives the share of neighbours that maps of the digits, times a factor, keep."""
    X = load_digits().data[:200].astype(np.float32)

    @cache
    def recall(method, factor):  # the mean of some runs: a last bit in the start decides about single points
        data = X * np.float32(factor)
        runs = [small(method, max_iter=100, random_state=seed).fit_transform(data) for seed in range(5)]
        return np.mean([knn_recall(X, embedding) for embedding in runs])

    return recall


@pytest.mark.parametrize("method", [*METHODS, PACMAP])
class TestData:
    @pytest.mark.parametrize("form", [np.array, torch.tensor, np.asfortranarray])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_nan_and_infinity_are_counted_and_located(self, method, form, value):
        X = gaussian()
        X[[7, 7, 31], [0, 2, 3]] = value
        with pytest.raises(ValueError, match=r"NaN or infinity: 3 value\(s\), first in row 7; .*SimpleImputer"):
            small(method).fit(form(X))

    @pytest.mark.parametrize(
        ("X", "message"),
        [
            (np.zeros(9), "Expected 2D array, got 1D array"),
            (np.zeros((9, 2, 2)), "dim 3"),
            (np.float64(3), "Expected 2D array, got scalar array"),
            (np.zeros((0, 3)), r"Found array with 0 sample\(s\)"),
            (np.zeros((9, 0)), r"Found array with 0 feature\(s\)"),
            (np.zeros((1, 3)), "minimum of 2 is required"),
            (np.zeros((9, 3), dtype=complex), "Complex data not supported"),
            (torch.zeros(9, 3, dtype=torch.complex64), "Complex data not supported"),
            (np.array([["a", "b"]] * 9), "Convert your data to numeric values"),
            ([["a", 1.0]] * 9, "Convert your data to numeric values"),
            (np.array([["a", 1.0]] * 9, dtype=object), "could not convert string to float"),
            ([[1, 2], [3]], "inhomogeneous"),
        ],
        ids=("1d 3d scalar no-rows no-columns one-row complex complex-tensor strings mixed objects ragged").split(),
    )
    def test_what_is_no_table_of_numbers_is_refused(self, method, X, message):
        with pytest.raises(ValueError, match=message):
            small(method).fit(X)

    @pytest.mark.parametrize("form", [scipy.sparse.csr_array, scipy.sparse.coo_matrix])
    def test_sparse_data_are_refused_with_the_remedy(self, method, form):
        with pytest.raises(TypeError, match=r"Sparse data was passed.*toarray\(\)"):
            small(method).fit(form(gaussian()))

    def test_sparse_tensors_are_refused_with_the_remedy(self, method):
        with pytest.raises(TypeError, match=r"sparse tensor .*to_dense\(\)"):
            small(method).fit(torch.from_numpy(gaussian()).to_sparse())

    def test_none_is_refused(self, method):
        with pytest.raises(ValueError, match="Expected 2D array, got scalar array"):
            small(method).fit(None)

    def test_two_samples_are_placed_apart(self, method):
        with pytest.warns(UserWarning, match="n_neighbors=15 needs more than .* samples, got 2") as caught:
            embedding = small(method).fit_transform(gaussian(2))
        assert len(caught) == 1
        assert_spread(embedding, 2)

    @pytest.mark.parametrize("n", [3, 10, 14])
    def test_fewer_samples_than_neighbors_warn_once_and_use_fewer(self, method, n):
        estimator = small(method)
        with pytest.warns(UserWarning, match=f"n_neighbors=15 needs .* got {n}; .* used") as caught:
            embedding = estimator.fit_transform(gaussian(n))
        assert len(caught) == 1
        assert_spread(embedding, n)
        if method is not PACMAP:  # whose mid-near and far pairs tell groups apart
            assert estimator.graph_.nnz <= 2 * n * max(1, (n - 1) // 3)

    @pytest.mark.parametrize("init", ["pca", "spectral"])
    def test_equal_rows_are_told_and_spread_at_random(self, method, init):
        estimator = small(method, init=init)
        with pytest.warns(UserWarning, match="all rows of X are equal.*no information") as caught:
            embedding = estimator.fit_transform(np.full((60, 3), 0.1))
        assert len(caught) == 1
        assert_spread(embedding, 60)
        assert len(np.unique(embedding, axis=0)) == 60

    @pytest.mark.parametrize("init", ["pca", "spectral"])
    def test_40_of_60_equal_rows_are_embedded(self, method, init):
        if method is PACMAP:
            pytest.skip("its scaled distances leave equal rows to themselves, which a warning tells")
        X = np.concatenate([np.ones((40, 4), dtype=np.float32), gaussian(20)])
        estimator = small(method, init=init)
        assert_spread(estimator.fit_transform(X), 60)
        assert (np.diff(estimator.graph_.indptr) >= 14).all()

    def test_one_feature_uses_both_dimensions(self, method):
        assert_spread(small(method).fit_transform(gaussian(dim=1)), 60)

    @pytest.mark.parametrize("init", ["pca", "random"])
    def test_far_blobs_stay_finite_and_apart(self, method, init):
        X = np.concatenate([gaussian(100), gaussian(100, seed=1) + np.float32(1e4)])
        estimator = small(method, init=init, max_iter=150)
        with pytest.warns(UserWarning, match="2 connected components, the largest of 100 and 100 points") as caught:
            embedding = estimator.fit_transform(X)
        assert len(caught) == 1
        assert estimator.n_connected_components_ == 2
        assert_spread(embedding, 200)
        assert estimator.graph_[:100, 100:].nnz == 0
        assert knn_accuracy(embedding, np.repeat([0, 1], 100)) > (0.99 if init == "pca" else 0.85)

    def test_the_spectral_start_reports_disconnected_blobs(self, method):
        X = np.concatenate([gaussian(30), gaussian(30, seed=1) + np.float32(1e4)])
        with pytest.warns(UserWarning, match="input graph has 2 connected components") as caught:
            embedding = small(method, init="spectral").fit_transform(X)
        assert len(caught) == 1
        assert_spread(embedding, 60)

    @pytest.mark.parametrize("size", [1e30, 1e-30])
    def test_huge_and_tiny_values_are_embedded_as_well_as_ordinary_ones(self, method, size, recall_of_digits):
        plain = recall_of_digits(method, 1.0)
        np.testing.assert_allclose(recall_of_digits(method, size), plain, atol=0.02)
        assert plain > 0.25


@each_method
class TestGraph:
    @pytest.fixture
    def graph(self):
        return UnionAffinity(n_neighbors=5)(gaussian()).to_scipy()

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda g: g[:59, :59], "the graph has 59 points but X has 60 rows"),
            (lambda g: g[:, :59], "must be square"),
            (lambda g: -g, "negative weights.*a distance matrix is not an affinity"),
            (lambda g: g * np.nan, "NaN or infinite weights"),
            (scipy.sparse.triu, r"not symmetric.*\(A \+ A.T\) / 2"),
            (lambda g: g * 0, "no edge between different points"),
        ],
        ids=["other-size", "not-square", "negative", "nan", "asymmetric", "empty"],
    )
    def test_a_graph_that_cannot_be_is_refused(self, method, graph, spoil, message):
        with pytest.raises(ValueError, match=message):
            small(method).fit(gaussian(), graph=spoil(graph))
        X = spoil(graph)
        if X.shape != (59, 59):
            with pytest.raises(ValueError, match=message):
                small(method, affinity_in="precomputed").fit(X)

    def test_a_given_graph_is_the_one_used(self, method, graph):
        estimator = small(method).fit(gaussian(), graph=graph)
        assert abs(estimator.graph_ - graph).max() == 0

    def test_precomputed_takes_the_graph_as_x_and_refuses_a_second(self, method, graph):
        estimator = small(method, affinity_in="precomputed")
        assert_spread(estimator.fit_transform(graph), 60)
        assert abs(estimator.graph_ - graph).max() == 0
        with pytest.raises(ValueError, match="takes the graph as X; leave graph= out"):
            estimator.fit(graph, graph=graph)

    def test_precomputed_refuses_a_table_of_features(self, method):
        with pytest.raises(ValueError, match=r"must be square \(n, n\), got shape \(60, 4\)"):
            small(method, affinity_in="precomputed").fit(gaussian())

    def test_points_without_edges_are_embedded(self, method, graph):
        graph = graph.tolil()
        graph[[3, 4]] = 0
        graph[:, [3, 4]] = 0
        with pytest.warns(UserWarning, match="2 rows of the input graph have no edge, first row 3"):
            embedding = small(method).fit_transform(gaussian(), graph=graph)
        assert_spread(embedding, 60)
        with pytest.warns(UserWarning, match="have no edge|connected components") as caught:
            embedding = small(method, affinity_in="precomputed").fit_transform(graph)
        told = " ".join(str(warning.message) for warning in caught)
        assert "have no edge" in told
        assert "connected components" in told
        assert_spread(embedding, 60)


@each_method
class TestParameters:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"init": "pcs"}, r"init='pcs' is unknown; choose one of"),
            ({"init": np.zeros((60, 3))}, r"= \(60, 2\), got \(60, 3\)"),
            ({"init": np.full((60, 2), np.nan)}, "init contains NaN or infinity: 120"),
            ({"optimizer": "SDG"}, "optimizer='SDG' is unknown; give the name of a class of torch.optim"),
            ({"optimizer": 3}, "optimizer=3 is unknown"),
            ({"optimizer_kwargs": {"momentun": 0.5}}, "optimizer_kwargs=.*momentun.* do not fit 'SGD'"),
            ({"scheduler": "Linear"}, "scheduler='Linear' is unknown"),
            ({"scheduler": "StepLR"}, "scheduler_kwargs=.* do not fit 'StepLR'"),
            ({"metric": "euclid"}, r"metric='euclid' is unknown; choose one of"),
            ({"backend": "annoy"}, r"backend='annoy' is unknown; choose one of"),
            ({"dtype": "float16"}, "dtype='float16' is unknown; choose one of 'float32', 'float64'"),
            ({"gradient": "exact"}, "gradient='exact' is unknown; choose one of"),
            (
                {"affinity_in": "union"},
                "affinity_in='union' is unknown; pass an Affinity such as",
            ),
            ({"learning_rate": 0}, "learning_rate=0 must be 'auto' or a positive number"),
            ({"learning_rate": "fast"}, "learning_rate='fast' must be 'auto' or a positive number"),
            ({"n_components": 0}, "n_components=0 must be an integer >= 1"),
            ({"n_neighbors": 0}, "n_neighbors=0 must be an integer >= 1"),
            ({"n_neighbors": np.nan}, "n_neighbors=nan must be an integer >= 1"),
            ({"max_iter": 0}, "max_iter=0 must be an integer >= 1"),
            ({"n_negatives": -1}, "n_negatives=-1 must be an integer >= 1"),
            ({"init_scaling": 0.0}, "init_scaling=0.0 must be a number > 0"),
            ({"exaggeration": -1.0}, "exaggeration=-1.0 must be a number > 0"),
            ({"random_state": "zero"}, "random_state='zero' must be None, an integer >= 0, or"),
            ({"random_state": -1}, "random_state=-1 must be None, an integer >= 0, or"),
            ({"random_state": 1.5}, "random_state=1.5 must be None, an integer >= 0, or"),
            ({"n_jobs": 0}, "n_jobs=0 has no meaning"),
        ],
        ids=str,
    )
    def test_values_that_cannot_work_are_named_with_the_remedy(self, method, options, message):
        with pytest.raises(ValueError, match=message):
            small(method, **options).fit(gaussian())

    def test_an_unknown_keyword_is_refused_at_once(self, method):
        with pytest.raises(TypeError, match="unexpected keyword argument 'n_neighbours'"):
            method(n_neighbours=15)

    def test_a_misspelt_parameter_is_refused_by_set_params(self, method):
        with pytest.raises(ValueError, match="Invalid parameter 'n_neighbours'"):
            method().set_params(n_neighbours=15)

    def test_more_negatives_than_points_are_all_other_points(self, method):
        X = gaussian(50)
        options = {"gradient": "autograd", "max_iter": 3}
        every = small(method, negatives_per_row=49, **options).fit_transform(X)
        with pytest.warns(UserWarning, match="negatives_per_row=10000 is more than the 49 other points"):
            many = small(method, negatives_per_row=10_000, **options).fit_transform(X)
        assert_spread(many, 50)
        np.testing.assert_array_equal(many, every)

    def test_discarding_neighbors_when_all_points_are_is_refused(self, method):
        with pytest.raises(ValueError, match="lower n_neighbors or set discard_neighbors=False"):
            small(method, discard_neighbors=True).fit(gaussian(10), graph=np.ones((10, 10)) - np.eye(10))


class TestMethodParameters:
    @pytest.mark.parametrize("options", [{"s": 0.5, "nu": 1.0}, {"s": 0.5, "Z_bar": 1.0}, {"nu": 1, "Z_bar": 1}])
    def test_two_names_of_negtsnes_spectrum_exclude_each_other(self, options):
        with pytest.raises(ValueError, match="exclude each other; give at most one of s, Z_bar and nu"):
            small(NegTSNE, **options).fit(gaussian())

    @pytest.mark.parametrize("options", [{"nu": 0.0}, {"nu": -1.0}, {"Z_bar": -1.0}])
    def test_noise_odds_must_be_positive(self, options):
        with pytest.raises(ValueError, match="must be a number > 0"):
            small(NegTSNE, **options).fit(gaussian())

    def test_two_names_of_infotsnes_spectrum_exclude_each_other(self):
        with pytest.raises(ValueError, match=r"s=0.5 and exaggeration=2.0 exclude each other"):
            small(InfoTSNE, s=0.5, exaggeration=2.0).fit(gaussian())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"a": 1.0}, "a=1.0 and b=None: give both or neither"),
            ({"min_dist": 2.0}, "0 <= min_dist <= spread"),
            ({"min_dist": -0.1}, "0 <= min_dist <= spread"),
            ({"set_op_mix_ratio": 2.0}, r"set_op_mix_ratio=2.0 must lie in \[0, 1\]"),
            ({"local_connectivity": -1.0}, "local_connectivity=-1.0 must be at least 0"),
            ({"n_neighbors": 1}, "n_neighbors=1 counts the point itself"),
        ],
        ids=str,
    )
    def test_umaps_own_parameters_are_checked(self, options, message):
        with pytest.raises(ValueError, match=message):
            small(UMAP, **options).fit(gaussian())


# ---- the ends of the range of numbers, masks and memory that cannot be written ---------------------------


@pytest.mark.parametrize("factor", [2.0**-1022, 2.0**-1000, 2.0**1000, 2.0**1018])
def test_the_ends_of_the_range_of_numbers_change_nothing(factor):
    X = np.round(gaussian().astype(np.float64), 3)
    with np.errstate(all="raise", under="ignore"):
        fitted = small(NegTSNE, max_iter=20).fit(X * factor)
        placed = fitted.transform(X[:5] * factor)
    expected = small(NegTSNE, max_iter=20).fit(X * 2.0**-900 if factor < 1 else X * 2.0**900)
    if factor != 2.0**-1022:  # where numbers have fewer digits
        np.testing.assert_array_equal(fitted.embedding_, expected.embedding_)
    assert_spread(fitted.embedding_, 60)
    np.testing.assert_array_equal(placed, fitted.embedding_[:5])


def test_the_smallest_numbers_are_told_apart():
    X = np.round(gaussian() * 1000).astype(np.float64) * 5e-324
    assert_spread(small(NegTSNE).fit_transform(X), 60)


def test_differences_beyond_the_range_of_numbers_are_refused():
    X = np.full((60, 2), 1.7e308)
    X[0] = -1.7e308
    with pytest.raises(ValueError, match="X has values so large, near ±1.8e308, that their differences are infinite"):
        small(NegTSNE).fit(X)


def test_what_lies_under_a_mask_is_never_taken():
    X = gaussian()
    fitted = small(UMAP).fit(np.ma.masked_array(X))
    masked = np.ma.masked_array(X, X > 2)
    n, row = int(masked.mask.sum()), int(np.nonzero(masked.mask.any(axis=1))[0][0])
    found = rf"masked array with {n} masked value\(s\), first in row {row}; "
    with pytest.raises(ValueError, match=rf"X is a {found}fill them with X.filled"):
        fitted.transform(masked)
    y = np.ma.masked_array(np.arange(60) % 3, np.arange(60) == 4)
    with pytest.raises(ValueError, match=r"y is a masked array with 1 masked .*in row 4; .*y.filled\(-1"):
        small(UMAP).fit(X, y)
    with pytest.raises(ValueError, match=rf"X is a {found}fill them with X.filled"):
        knn_recall(masked, X)


@pytest.mark.parametrize("method", [*METHODS, PACMAP])
def test_estimators_and_data_in_read_only_memory_are_used_without_a_warning(method, tmp_path):
    def mapped(value):
        joblib.dump(value, tmp_path / "file")
        return joblib.load(tmp_path / "file", mmap_mode="r")

    X = gaussian()
    fitted = small(method).fit(X)
    loaded = mapped(fitted)
    assert not loaded.embedding_.flags.writeable
    np.testing.assert_array_equal(loaded.transform(X[:4] + 0.1), fitted.transform(X[:4] + 0.1))
    np.testing.assert_array_equal(small(method).fit_transform(mapped(X)), fitted.embedding_)


def test_the_places_of_a_learned_map_may_be_read_only():
    X, places = gaussian(), gaussian(dim=2)
    places.setflags(write=False)
    assert LearnedMap(phases=[Phase(2, Position(places))]).fit_transform(X).shape == (60, 2)


# ---- graphs in several parts ----------------------------------------------------------------------------


def two_clouds():
    return np.concatenate([gaussian(), gaussian(seed=1) + 100])


@pytest.mark.parametrize(
    ("estimator", "given", "advice"),
    [
        (NegTSNE(n_neighbors=10), False, "raise n_neighbors to join them"),
        (TSNE(perplexity=5), False, "raise perplexity to join them"),
        (NegTSNE(n_neighbors=10), True, "give the graph edges between them, for instance of more neighbours, to join"),
    ],
)
def test_separate_parts_are_told_once_with_advice_that_fits(estimator, given, advice):
    X = two_clouds()
    graph = UnionAffinity(n_neighbors=10)(X).to_scipy() if given else None
    with pytest.warns(UserWarning, match="connected components") as caught:
        estimator.set_params(max_iter=2, random_state=0).fit(X, graph=graph)
    (told,) = [str(warning.message) for warning in caught]
    assert advice in told


def test_parts_that_labels_have_made_are_told_with_both_ways_to_join_them():
    X = np.concatenate([gaussian(), gaussian(seed=1) + 1])
    with pytest.warns(UserWarning, match="lower target_weight or raise n_neighbors to join them"):
        UMAP(target_weight=1.0, max_iter=2, n_neighbors=40, init="pca").fit(X, np.repeat([0, 1], 60))


@pytest.mark.parametrize("given", [False, True])
def test_separate_parts_are_told_once_where_the_start_is_spectral(given):
    X = two_clouds()
    graph = UnionAffinity(n_neighbors=10)(X).to_scipy() if given else None
    with pytest.warns(UserWarning, match="connected components; each is laid out by itself") as caught:
        UMAP(max_iter=2, n_neighbors=10, init="spectral", random_state=0).fit(X, graph=graph)
    assert len(caught) == 1
