"""What goes in, in whatever form, gives the same graph; what comes out is of the kind that went in."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from torchdr_cne import PACMAP, TSNE, UMAP, InfoTSNE, NCVis, NegTSNE
from torchdr_cne.affinity.precomputed import graph_from_user
from torchdr_cne.inputs import as_rows, check_finite

METHODS = [NegTSNE, UMAP, NCVis, InfoTSNE, PACMAP]
each_method = pytest.mark.parametrize("method", METHODS)
N, F = 120, 5


def small(method=NegTSNE, **options):
    return method(**{"max_iter": 5, "random_state": 0, **options})


@pytest.fixture
def X():
    """Small integers, which every dtype holds exactly, far from centred."""
    return np.random.default_rng(0).integers(0, 100, size=(N, F)).astype(np.float32)


def same_graph(a, b):
    return a.shape == b.shape and a.nnz == b.nnz and abs(a - b).max() == 0


FORMS = {
    "fortran": np.asfortranarray,
    "negative-strides": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "every-other-column": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "big-endian": lambda X: X.astype(">f4"),
    "float16": np.float16,
    "float64": np.float64,
    "int8": np.int8,
    "uint8": np.uint8,
    "int64": np.int64,
    "object": lambda X: X.astype(object),
    "list": np.ndarray.tolist,
    "list-of-arrays": list,
    "pandas": pd.DataFrame,
    "polars": lambda X: pl.DataFrame(X, schema=[f"c{i}" for i in range(F)]),
    "tensor": torch.from_numpy,
    "tensor-requires-grad": lambda X: torch.from_numpy(X.copy()).requires_grad_(True),
    "tensor-transposed": lambda X: torch.from_numpy(X.T.copy()).t(),
    "tensor-float64": lambda X: torch.from_numpy(X).double(),
    "tensor-float16": lambda X: torch.from_numpy(X).half(),
    "tensor-bfloat16": lambda X: torch.from_numpy(X).to(torch.bfloat16),
    "tensor-int8": lambda X: torch.from_numpy(X).to(torch.int8),
    "tensor-uint8": lambda X: torch.from_numpy(X).to(torch.uint8),
    "loader": lambda X: DataLoader(torch.from_numpy(X), batch_size=32),
}


class TestForms:
    @pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
    def test_every_form_gives_the_graph_and_embedding_of_the_plain_array(self, X, form):
        plain, other = small().fit(X), small().fit(form(X))
        assert same_graph(plain.graph_, other.graph_)
        np.testing.assert_array_equal(np.asarray(other.embedding_), plain.embedding_)

    @pytest.mark.parametrize("offset", [0.0, 1e3])
    @pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
    def test_memory_layout_does_not_matter_for_real_numbers_either(self, offset, metric):
        X = (np.random.default_rng(1).normal(size=(N, F)) + offset).astype(np.float32)
        plain = small(metric=metric).fit(X)
        for form in ("fortran", "negative-strides", "float64", "tensor", "tensor-transposed", "loader"):
            other = small(metric=metric).fit(FORMS[form](X))
            assert same_graph(plain.graph_, other.graph_), form

    @pytest.mark.parametrize("form", [bool, torch.from_numpy], ids=["array", "tensor"])
    def test_truth_values_are_zeros_and_ones(self, form):
        X = np.random.default_rng(1).integers(0, 2, size=(N, 40)).astype(bool)
        given = X if form is bool else form(X)
        assert same_graph(small().fit(given).graph_, small().fit(X.astype(np.float32)).graph_)

    @each_method
    def test_arrays_come_back_as_float32_arrays(self, X, method):
        embedding = small(method).fit_transform(X)
        assert type(embedding) is np.ndarray
        assert embedding.dtype == np.float32
        assert embedding.shape == (N, 2)
        assert embedding.flags.c_contiguous
        assert embedding.flags.writeable

    @each_method
    def test_tensors_come_back_as_detached_tensors_on_their_device(self, X, method):
        given = torch.from_numpy(X).requires_grad_(True)
        embedding = small(method).fit_transform(given)
        assert isinstance(embedding, torch.Tensor)
        assert embedding.device == given.device
        assert embedding.dtype == torch.float32
        assert not embedding.requires_grad
        assert given.grad is None

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_the_result_has_the_dtype_asked_for(self, X, dtype):
        assert small(dtype=dtype).fit_transform(X).dtype == dtype
        assert small(dtype=dtype).fit_transform(torch.from_numpy(X)).dtype == getattr(torch, dtype)

    @pytest.mark.parametrize("form", [np.array, torch.tensor])
    def test_the_embedding_shares_no_memory_with_input_or_start(self, form):
        X = form(np.random.default_rng(1).normal(size=(N, 2)).astype(np.float32))
        embedding = small(init=X).fit_transform(X)
        before = embedding + 0
        X[:] = 7
        assert (embedding == before).all()

    @each_method
    @pytest.mark.parametrize("form", ["tensor", "float64", "fortran", "plain"])
    def test_the_input_is_never_written_to(self, X, method, form):
        given = {**FORMS, "plain": np.array}[form](X - 3)
        before = np.asarray(given).copy()
        small(method, init="spectral").fit(given)
        np.testing.assert_array_equal(np.asarray(given), before)


class TestTables:
    def test_pandas_names_are_recorded_and_set_output_gives_a_frame(self, X):
        frame = pd.DataFrame(X, columns=list("abcde"), index=np.arange(N) + 1000)
        estimator = small(UMAP).set_output(transform="pandas")
        embedding = estimator.fit_transform(frame)
        assert estimator.feature_names_in_.tolist() == list("abcde")
        assert estimator.n_features_in_ == F
        assert embedding.columns.tolist() == ["umap0", "umap1"]
        assert embedding.index.equals(frame.index)
        np.testing.assert_array_equal(embedding, small(UMAP).fit_transform(X))

    def test_set_output_works_for_arrays_too(self, X):
        embedding = small(NCVis).set_output(transform="pandas").fit_transform(X)
        assert embedding.columns.tolist() == ["ncvis0", "ncvis1"]

    def test_polars_names_are_recorded_and_set_output_gives_a_frame(self, X):
        frame = pl.DataFrame(X, schema=list("abcde"))
        estimator = small().set_output(transform="polars")
        embedding = estimator.fit_transform(frame)
        assert estimator.feature_names_in_.tolist() == list("abcde")
        assert isinstance(embedding, pl.DataFrame)
        assert embedding.columns == ["negtsne0", "negtsne1"]

    def test_a_refit_forgets_old_feature_names(self, X):
        estimator = small().fit(pd.DataFrame(X, columns=list("abcde")))
        estimator.fit(X)
        assert not hasattr(estimator, "feature_names_in_")

    def test_mixed_integer_and_float_columns_are_taken(self, X):
        frame = pd.DataFrame(X).astype({0: "int8", 1: "uint16", 2: "float64", 3: "Int64"})
        assert same_graph(small().fit(frame).graph_, small().fit(X).graph_)

    def test_a_frame_with_missing_values_is_refused(self, X):
        frame = pd.DataFrame(X).astype({3: "Int64"})
        frame.loc[5, 3] = pd.NA
        with pytest.raises(ValueError, match=r"column 3 of X .* has 1 value\(s\) that are empty, first in row 5"):
            small().fit(frame)

    @each_method
    def test_a_read_only_memory_map_is_read_and_never_written(self, X, method, tmp_path):
        np.save(tmp_path / "X.npy", X)
        mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
        content = (tmp_path / "X.npy").read_bytes()
        found = small(method).fit_transform(mapped)
        assert type(found) is np.ndarray
        np.testing.assert_array_equal(found, small(method).fit_transform(X))
        assert (tmp_path / "X.npy").read_bytes() == content


class Stream(IterableDataset):
    """Rows one after another, their number unknown."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


class TestDataLoader:
    @pytest.mark.parametrize("batch_size", [7, 40, 500])
    def test_batches_are_read_in_order(self, X, batch_size):
        X = X + np.float32(0.1)
        loader = DataLoader(TensorDataset(torch.from_numpy(X)), batch_size=batch_size)
        np.testing.assert_array_equal(small().fit_transform(loader), small().fit_transform(X))

    def test_targets_beside_the_features_are_left_out(self, X):
        data = TensorDataset(torch.from_numpy(X), torch.arange(N))
        np.testing.assert_array_equal(small().fit_transform(DataLoader(data, batch_size=50)), small().fit_transform(X))

    def test_streams_of_unknown_length_are_read_to_their_end(self, X):
        loader = DataLoader(Stream(torch.from_numpy(X)), batch_size=9)
        np.testing.assert_array_equal(small().fit_transform(loader), small().fit_transform(X))

    def test_double_precision_is_kept(self):
        X = np.random.default_rng(1).normal(size=(N, F)) + 1e8
        loader = DataLoader(torch.from_numpy(X), batch_size=50)
        assert same_graph(small().fit(loader).graph_, small().fit(X).graph_)

    def test_numpy_batches_are_taken(self, X):
        loader = DataLoader(X, batch_size=50, collate_fn=np.stack)
        assert same_graph(small().fit(loader).graph_, small().fit(X).graph_)

    def test_bfloat16_batches_are_taken(self, X):
        loader = DataLoader(torch.from_numpy(X).to(torch.bfloat16), batch_size=50)
        assert same_graph(small().fit(loader).graph_, small().fit(X).graph_)

    @pytest.mark.parametrize("how", ["shuffle", "subset", "weighted", "batch-sampler"])
    def test_a_shuffled_order_is_warned_of(self, X, how):
        data, order = torch.from_numpy(X), torch.utils.data.RandomSampler(range(N))
        options = {
            "shuffle": {"shuffle": True},
            "subset": {"sampler": torch.utils.data.SubsetRandomSampler(range(N))},
            "weighted": {"sampler": torch.utils.data.WeightedRandomSampler([1.0] * N, N)},
            "batch-sampler": {"batch_sampler": torch.utils.data.BatchSampler(order, 20, drop_last=False)},
        }[how]
        with pytest.warns(UserWarning, match="the DataLoader shuffles.*shuffle=False") as caught:
            embedding = small().fit_transform(DataLoader(data, **options))
        assert len(caught) == 1
        assert embedding.shape == (N, 2)

    def test_an_ordered_loader_warns_of_nothing(self, X):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            small().fit(DataLoader(torch.from_numpy(X), batch_size=20))

    @pytest.mark.parametrize(
        ("data", "shape"),
        [(torch.zeros(N), r"\(20,\)"), (torch.zeros(N, 3, 4), r"\(20, 3, 4\)")],
        ids=["1d", "3d"],
    )
    def test_batches_that_are_no_tables_are_refused_with_the_remedy(self, data, shape):
        with pytest.raises(ValueError, match=rf"batch must be real and 2-D .*got shape {shape}.*flatten"):
            small().fit(DataLoader(data, batch_size=20))

    def test_batches_of_different_width_are_refused(self):
        with pytest.raises(ValueError, match="batches differ in width: 3 features at first, then 1"):
            small().fit(DataLoader([torch.zeros(9, 3), torch.zeros(9, 1)], batch_size=None))

    def test_batches_without_a_tensor_are_refused(self):
        loader = DataLoader([{"x": torch.zeros(3)}] * 9, batch_size=3)
        with pytest.raises(TypeError, match="tuple or list that starts with one, got dict"):
            small().fit(loader)

    def test_an_empty_loader_is_refused(self):
        with pytest.raises(ValueError, match="yielded no batch; it needs at least two rows"):
            small().fit(DataLoader(torch.zeros(0, 3)))

    def test_non_finite_rows_are_located_over_all_batches(self, X):
        X[93, 1] = np.nan
        with pytest.raises(ValueError, match=r"1 value\(s\), first in row 93"):
            small().fit(DataLoader(torch.from_numpy(X), batch_size=25))


class TestRows:
    def test_rows_in_range_and_near_the_origin_are_not_copied(self):
        X = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
        assert as_rows(X).values.data_ptr() == X.ctypes.data

    def test_rows_are_the_data_up_to_shift_and_scale(self):
        X = 1e9 * np.random.default_rng(0).normal(size=(50, 3)) + 3e10
        rows = as_rows(X)
        assert np.log2(rows.scale) % 1 == 0
        restored = rows.values.double().numpy() / rows.scale
        np.testing.assert_allclose(restored - restored[0], X - X[0], atol=1e3)

    def test_equal_distances_of_counts_stay_equal(self):
        X = np.random.default_rng(0).integers(0, 256, size=(100, 3)).astype(np.float32)
        values = as_rows(X).values.numpy()
        assert values.max() < 200, "the rows are centred"
        np.testing.assert_array_equal(values[:, None] - values[None], X[:, None] - X[None])

    @pytest.mark.parametrize("share", [0.0, 0.05, 0.085, 0.0925, 0.099, 0.101, 0.12, 1.0])
    def test_whether_rows_are_centred_does_not_depend_on_dtype_or_layout(self, share):
        X = np.random.default_rng(0).uniform(-1, 1, size=(10_000, 3))
        X = (X - X.mean(axis=0) + share * np.array([1, 0, -0.5])).astype(np.float32)
        expected = as_rows(X.astype(np.float64)).values
        centred = abs(float(expected.mean())) < 0.4 * share / 6
        assert centred == (share >= 0.12) or 0.085 < share < 0.12
        for other in (X, np.asfortranarray(X), torch.from_numpy(X)):
            assert torch.equal(as_rows(other).values, expected)

    def test_the_centre_is_kept_where_the_origin_matters(self):
        X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32) + 10
        np.testing.assert_array_equal(as_rows(X, center=False).values, X)

    def test_large_finite_values_are_not_taken_for_infinity(self):
        X = np.full((3, 4), 1e308)
        check_finite(X)
        X[2, 1] = np.inf
        with pytest.raises(ValueError, match=r"1 value\(s\), first in row 2"):
            check_finite(X)

    @pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
    def test_bad_values_are_counted_over_blocks_of_rows(self, kind):
        X = np.zeros((3, 1 << 21), dtype=np.float32)  # two rows fill a block
        X[1, :4], X[2, 7] = np.nan, -np.inf
        with pytest.raises(ValueError, match=r"X contains NaN or infinity: 5 value\(s\), first in row 1"):
            check_finite(kind(X))


class TestWhatIsNoTable:
    """It is refused by name at once, and told what to pass instead."""

    @pytest.mark.parametrize(
        ("column", "sentence"),
        [
            (["a", "b", None, "d"], r"column 'bad' of X .* has 4 value\(s\) that are no numbers, first in row 0: 'a'"),
            (["1", "2", "x", "4"], r"column 'bad' of X .* has 1 value\(s\) that are no numbers, first in row 2: 'x'"),
            (pd.Categorical(["a", "b", "a", "b"]), r"column 'bad' of X \(dtype category\) holds categories"),
            (pd.to_datetime(["2026-01-01"] * 4), r"column 'bad' of X \(dtype datetime64.* holds dates or times"),
            (pd.array([1, None, 3, None], dtype="Int64"), r"has 2 value\(s\) that are empty, first in row 1: <NA>"),
        ],
    )
    def test_a_column_that_holds_no_numbers_is_named(self, column, sentence):
        frame = pd.DataFrame({"good": np.arange(4.0), "bad": column})
        with pytest.raises(ValueError, match=sentence + ".*X.drop"):
            NegTSNE().fit(frame)

    @pytest.mark.parametrize(
        "column", [["a", "b"], pl.Series(["a", "b"], dtype=pl.Categorical), pd.to_datetime([0, 1])]
    )
    def test_a_column_of_polars_that_holds_no_numbers_is_named_too(self, column):
        with pytest.raises(ValueError, match=r"column 'bad' of X has dtype .* holds no numbers; .*X.drop\('bad'\)"):
            NegTSNE().fit(pl.DataFrame({"good": [1.0, 2.0], "bad": pl.Series(column)}))

    def test_columns_of_numbers_of_any_kind_are_taken(self):
        frame = pd.DataFrame(
            {
                "whole": pd.array(range(40), dtype="Int64"),
                "text": [str(number) for number in range(40)],
                "truth": [True, False] * 20,
            }
        )
        assert NegTSNE(max_iter=2).fit_transform(frame).shape == (40, 2)

    def test_masked_values_are_counted(self):
        masked = np.ma.masked_array(np.eye(6), mask=np.eye(6, k=-2))
        with pytest.raises(ValueError, match=r"4 masked value\(s\), first in row 2; fill them with X.filled"):
            NegTSNE().fit(masked)

    def test_an_annotated_table_and_a_path_are_told_what_to_pass(self, tmp_path):
        class AnnData:
            X, obsm = np.eye(9), {}

        with pytest.raises(TypeError, match=r"X is AnnData, which holds several tables; .*adata.obsm\['X_pca'\]"):
            NegTSNE().fit(AnnData())
        for path in (tmp_path / "x.npy", str(tmp_path / "x.npy")):
            with pytest.raises(TypeError, match="is the path .*x.npy.* and no table; pass torchdr_cne.open_rows"):
                NegTSNE().fit(path)


class TestDistancesForAffinities:
    @pytest.mark.parametrize("metric", ["euclidean", "cityblock", "cosine"])
    def test_a_matrix_of_distances_is_recognised(self, metric):
        from scipy.spatial.distance import cdist

        points = np.random.default_rng(0).normal(size=(80, 3))
        if metric == "cosine":  # the angle itself; its cosine's is no metric
            points /= np.linalg.norm(points, axis=1, keepdims=True)
            distances = np.arccos(np.clip(points @ points.T, -1, 1))
            np.fill_diagonal(distances, 0)
        else:
            distances = cdist(points, points, metric)
        with pytest.raises(ValueError, match="look like distances: points with small weights between them agree in"):
            UMAP().fit(points, graph=distances)
        with pytest.raises(ValueError, match="look like distances"):
            UMAP(affinity_in="precomputed").fit(distances)

    @pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "correlation", "manhattan"])
    @pytest.mark.parametrize("data", ["digits", "iris", "noise"])
    def test_dense_distances_of_every_metric_and_scale_are_recognised(self, metric, data):
        from sklearn.datasets import load_digits, load_iris
        from sklearn.metrics import pairwise_distances

        noise = np.random.default_rng(0).normal(size=(100, 100))  # whose distances are almost equal
        points = {"digits": load_digits().data[:200], "iris": load_iris().data, "noise": noise}[data]
        distances = pairwise_distances(points, metric=metric)
        distances = (distances + distances.T) / 2
        for graph in (distances, distances / distances.max(), scipy.sparse.csr_array(distances)):
            with pytest.raises(ValueError, match="look like distances: .* pass the rows as X; or for distances D"):
                graph_from_user(graph)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                graph_from_user(np.exp(-distances / distances.max()))
                graph_from_user(np.exp(-10 * distances / distances.mean()))
                graph_from_user(distances.max() - distances)

    @pytest.mark.parametrize("data", ["three columns", "digits"])
    @pytest.mark.parametrize("k", [5, 15])
    def test_distances_of_neighbours_are_recognised_however_they_were_symmetrised(self, k, data):
        from sklearn.datasets import load_digits
        from sklearn.neighbors import kneighbors_graph

        points = load_digits().data if data == "digits" else np.random.default_rng(0).normal(size=(1000, 3))
        graph = kneighbors_graph(points, k, mode="distance")
        with pytest.raises(ValueError, match=r"is not symmetric .* scanpy's obsp\['distances'\], pass the rows"):
            UMAP().fit(points, graph=graph)
        with pytest.raises(ValueError, match="look like distances"):
            UMAP().fit(points, graph=graph.maximum(graph.T))
        with pytest.warns(UserWarning, match="look like distances of neighbours that have been symmetrised"):
            UMAP(max_iter=1).fit(points, graph=(graph + graph.T) / 2)

    @pytest.mark.filterwarnings("ignore:n_neighbors=|perplexity=|the input graph has", "error:.*look like distances")
    @pytest.mark.parametrize("method", [UMAP, NegTSNE, TSNE, PACMAP])
    @pytest.mark.parametrize("n", [12, 60, 300])
    def test_affinities_of_every_kind_are_taken(self, method, n):
        from sklearn.neighbors import kneighbors_graph

        for seed in range(3):
            points = np.random.default_rng(seed).normal(size=(n, 3))
            squares = ((points[:, None] - points[None]) ** 2).sum(axis=2)
            nearest = kneighbors_graph(points, 8).toarray()
            kernel = np.exp(-squares / 2)
            given = {
                "of the method": method(max_iter=1, random_state=0).fit(points).graph_,
                "a kernel": kernel,
                "a kernel of neighbours": kernel * np.maximum(nearest, nearest.T),
                "a narrow range": (1 + kernel) * np.maximum(nearest, nearest.T),
                "shared neighbours": (nearest @ nearest.T) * np.maximum(nearest, nearest.T),
                "equal": np.ones((n, n)),
            }
            for name, graph in given.items():
                embedding = NegTSNE(max_iter=1).fit_transform(points, graph=graph)
                assert np.isfinite(embedding).all(), name
