"""First embeddings: principal components, eigenmaps, noise, and arrays of the user's own."""

import re

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import spectral_embedding as sklearn_spectral

from torchdr_cne.affinity import UMAPAffinity, UnionAffinity, graph_from_user
from torchdr_cne.initialization import initial_embedding, pca_embedding, spectral_embedding
from torchdr_cne.inputs import as_rows


def gaussian(n, dim, seed=0):
    """Rows whose columns have clearly different spreads."""
    return np.random.default_rng(seed).normal(size=(n, dim)) * (1 + np.arange(dim)[::-1])


def start(init, X, graph=None, n_components=2, scaling=1.0, seed=0):
    rows = None if X is None else as_rows(X)
    graph = UnionAffinity(n_neighbors=10)(rows) if graph is None else graph
    return initial_embedding(init, rows, graph, n_components, scaling, seed)


def assert_equal_up_to_signs(found, expected, atol):
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=atol)


def moons(n, noise, seed=0):
    """A connected band in ten dimensions."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0, 3, n))
    X = np.zeros((n, 10))
    X[:, 0], X[:, 1], X[:, 2] = np.cos(t), np.sin(t), 0.3 * rng.uniform(size=n)
    return (X + noise * rng.normal(size=X.shape)).astype(np.float32)


class TestPCA:
    @pytest.mark.parametrize("shape", [(200, 6), (20, 50), (30, 30), (12, 6000)], ids=str)
    def test_scores_equal_sklearns_up_to_sign(self, shape):
        X = gaussian(*shape)
        found = pca_embedding(torch.from_numpy(X), 3).numpy()
        expected = PCA(3, svd_solver="full").fit_transform(X)
        assert_equal_up_to_signs(found, expected, atol=1e-8 * np.abs(expected).max())

    def test_digits_in_float32_equal_sklearn_in_float64(self):
        X = load_digits().data
        found = pca_embedding(as_rows(X.astype(np.float32)).values, 2).numpy()
        assert_equal_up_to_signs(found, PCA(2, svd_solver="full").fit_transform(X), atol=1e-3)

    def test_a_direction_of_little_spread_is_found_in_float32_too(self):
        X = gaussian(500, 5) @ np.diag([1.0, 1e-5, 0, 0, 0])
        found = pca_embedding(torch.from_numpy(X.astype(np.float32)), 2).numpy()
        expected = PCA(2, svd_solver="full").fit_transform(X)
        for c in range(2):
            assert_equal_up_to_signs(found[:, c], expected[:, c], atol=1e-5 * np.abs(expected[:, c]).max())

    def test_any_number_of_threads_gives_the_same_float32_bits(self):
        X = torch.from_numpy(gaussian(30_000, 40).astype(np.float32))
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            one = pca_embedding(X, 2).float()
            torch.set_num_threads(3)
            assert torch.equal(pca_embedding(X, 2).float(), one)
        finally:
            torch.set_num_threads(before)

    @pytest.mark.parametrize("shape", [(100, 5), (20, 50)], ids=str)
    def test_signs_make_the_largest_loading_positive(self, shape):
        X = gaussian(*shape)
        X -= X.mean(axis=0)
        for data in (X, -X):
            scores = pca_embedding(torch.from_numpy(data), 2).numpy()
            loadings = data.T @ scores
            assert (np.take_along_axis(loadings, np.abs(loadings).argmax(axis=0)[None], axis=0) > 0).all()

    @pytest.mark.parametrize("shape", [(60, 8), (8, 60)], ids=str)
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("rank", [1, 2])
    def test_components_beyond_the_rank_are_exactly_zero(self, shape, dtype, rank):
        rng = np.random.default_rng(1)
        X = (rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))).astype(dtype)
        scores = pca_embedding(torch.from_numpy(X), 4)
        assert (scores[:, rank:] == 0).all()
        assert (scores[:, :rank].std(dim=0) > 0.1).all()

    def test_more_components_than_features_are_zero_columns(self):
        X = torch.from_numpy(gaussian(50, 2))
        scores = pca_embedding(X, 5)
        assert scores.shape == (50, 5)
        np.testing.assert_array_equal(scores[:, 2:], 0)
        np.testing.assert_array_equal(scores[:, :2], pca_embedding(X, 2))

    def test_more_components_than_rows_are_zero_columns(self):
        scores = pca_embedding(torch.from_numpy(gaussian(3, 40)), 4)
        assert scores.shape == (3, 4)
        np.testing.assert_array_equal(scores[:, 2:], 0)

    def test_the_offset_of_the_data_does_not_matter(self):
        X = gaussian(100, 5)
        shifted = pca_embedding(as_rows(X + 1e6).values, 2)
        np.testing.assert_allclose(shifted, pca_embedding(torch.from_numpy(X), 2), atol=1e-4)

    def test_the_table_is_not_written_to(self):
        X = torch.from_numpy(gaussian(20, 5))
        before = X.clone()
        pca_embedding(X, 2)
        assert torch.equal(X, before)


class TestSpectral:
    @pytest.mark.parametrize("n", [300, 1500], ids=["dense", "lanczos"])
    def test_eigenvectors_equal_sklearns_up_to_sign_and_scale(self, n):
        graph = UMAPAffinity(n_neighbors=20)(moons(n, 0.02))
        found = spectral_embedding(graph, 2, seed=1).numpy()
        expected = sklearn_spectral(graph.to_scipy(), n_components=2, eigen_solver="arpack", random_state=0)
        expected = (expected - expected.mean(axis=0)) / expected.std(axis=0)
        assert_equal_up_to_signs(found, expected, atol=0.02)

    def test_digits_span_sklearns_subspace(self):
        graph = UMAPAffinity()(load_digits().data)
        found = spectral_embedding(graph, 4, seed=1).numpy()
        expected = sklearn_spectral(graph.to_scipy(), n_components=4, eigen_solver="arpack", random_state=0)
        found, expected = (np.linalg.qr(vectors - vectors.mean(axis=0))[0] for vectors in (found, expected))
        cosines = np.linalg.svd(found.T @ expected)[1]
        assert cosines.min() > 0.999

    @pytest.mark.parametrize("n", [300, 900], ids=["dense", "lanczos"])
    def test_the_same_seed_gives_the_same_bits(self, n):
        graph = UnionAffinity()(gaussian(n, 5))
        assert torch.equal(spectral_embedding(graph, 2, seed=5), spectral_embedding(graph, 2, seed=5))

    @staticmethod
    def assert_own_regions(layout, labels):
        """Discs around the components' middles, as wide as the components, do not overlap."""
        parts = [layout[labels == label] for label in np.unique(labels)]
        middles = np.array([(part.max(axis=0) + part.min(axis=0)) / 2 for part in parts])
        for a in range(len(parts)):
            for b in range(a):
                direction = middles[a] - middles[b]
                assert np.linalg.norm(direction) > 0
                along_a, along_b = parts[a] @ direction, parts[b] @ direction
                assert along_a.min() > along_b.max(), f"components {a} and {b} mix"

    @pytest.mark.parametrize("with_features", [True, False], ids=["features", "graph-only"])
    @pytest.mark.parametrize(
        "sizes",
        [(100, 100), (500, 30, 40, 30), (30,) * 8, (400, *(1,) * 25)],
        ids=["two", "one-large", "eight", "isolated-points"],
    )
    def test_every_component_has_its_own_region_and_a_warning_counts_them(self, sizes, with_features):
        rng = np.random.default_rng(2)
        labels = np.repeat(np.arange(len(sizes)), sizes)
        X = rng.normal(size=(len(labels), 6)) + 50 * rng.normal(size=(len(sizes), 6))[labels]
        blocks = [UnionAffinity(n_neighbors=8)(X[labels == p]).to_scipy() for p, s in enumerate(sizes) if s > 8]
        graph = scipy.sparse.block_diag([*blocks, *[[[0.0]]] * sizes.count(1)], format="csr")
        order = rng.permutation(len(labels))
        graph, labels, X = graph[order][:, order], labels[order], X[order]
        with pytest.warns(UserWarning, match=f"has {len(sizes)} connected components") as caught:
            layout = spectral_embedding(graph_from_user(graph), 2, rows=as_rows(X) if with_features else None).numpy()
        assert len(caught) == 1
        assert np.isfinite(layout).all()
        self.assert_own_regions(layout, labels)
        for part, size in enumerate(sizes):
            if size > 1:
                assert (layout[labels == part].std(axis=0) > 0).all(), "a component keeps its inner layout"

    def test_components_lie_where_their_features_are(self):
        X = np.concatenate([gaussian(60, 3) + [far, 0, 0] for far in (0, 1000, 5000)])
        with pytest.warns(UserWarning, match="3 connected components.*mean features"):
            layout = spectral_embedding(UnionAffinity(n_neighbors=8)(X), 2, rows=as_rows(X)).numpy()
        middles = layout.reshape(3, 60, 2).mean(axis=1)
        gaps = np.linalg.norm(np.diff(middles, axis=0), axis=1)
        assert gaps[1] / gaps[0] == pytest.approx(4, rel=0.2)

    def test_one_dimension_keeps_components_apart_too(self):
        X = np.concatenate([gaussian(40, 3) + 1000 * i for i in range(4)])
        with pytest.warns(UserWarning, match="4 connected components.*no information"):
            layout = spectral_embedding(UnionAffinity(n_neighbors=8)(X), 1).numpy()
        self.assert_own_regions(layout, np.repeat(np.arange(4), 40))

    def test_a_pair_of_points_is_laid_out(self):
        graph = graph_from_user(np.array([[0.0, 1.0], [1.0, 0.0]]))
        layout = spectral_embedding(graph, 2)
        assert layout[0, 0] == -layout[1, 0] != 0
        assert torch.isfinite(layout).all()


class TestStart:
    @pytest.mark.parametrize("init", ["pca", "spectral", "random"])
    @pytest.mark.parametrize("scaling", [1e-4, 1.0, 10.0])
    def test_the_widest_column_has_the_asked_standard_deviation(self, init, scaling):
        layout = start(init, gaussian(200, 5), scaling=scaling)
        assert layout.dtype == torch.float32
        assert float(layout.std(dim=0, correction=0).max()) == pytest.approx(scaling, rel=1e-5)
        np.testing.assert_allclose(layout.mean(dim=0), 0, atol=1e-5 * scaling)

    def test_pca_is_the_principal_components_in_their_proportions(self):
        X = gaussian(200, 5)
        expected = PCA(2, svd_solver="full").fit_transform(X)
        found = start("pca", X).numpy()
        assert_equal_up_to_signs(found, expected / expected.std(axis=0).max(), atol=1e-5)

    @pytest.mark.parametrize("init", ["pca", "spectral", "random"])
    def test_the_same_seed_gives_the_same_bits(self, init):
        X = gaussian(500, 5)
        assert torch.equal(start(init, X, seed=3), start(init, X, seed=3))

    def test_another_seed_gives_another_random_start(self):
        X = gaussian(50, 5)
        assert not torch.equal(start("random", X, seed=3), start("random", X, seed=4))

    def test_global_random_state_is_neither_used_nor_touched(self):
        X = gaussian(50, 5)
        torch.manual_seed(0)
        state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        first = start("random", X, seed=3)
        assert torch.equal(torch.get_rng_state(), state)
        np.testing.assert_array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
        torch.manual_seed(1)
        assert torch.equal(start("random", X, seed=3), first)

    def test_without_features_pca_becomes_spectral(self):
        graph = UnionAffinity()(gaussian(100, 5))
        assert torch.equal(start("pca", None, graph), start("spectral", None, graph))

    @pytest.mark.parametrize("init", ["pca", "spectral"])
    @pytest.mark.parametrize("value", [0.0, 0.1, 1e30, -7.3e-30])
    @pytest.mark.parametrize("n", [2, 7, 50])
    def test_equal_rows_start_at_random_with_a_warning(self, init, value, n):
        X = np.full((n, 3), value)
        graph = graph_from_user(1 - np.eye(n))
        with pytest.warns(UserWarning, match="all rows of X are equal.*random start is used") as caught:
            layout = start(init, X, graph)
        assert len(caught) == 1
        assert torch.equal(layout, start("random", X, graph))

    def test_a_direction_without_spread_starts_with_a_little_noise(self):
        layout = start("pca", gaussian(100, 1), scaling=2.0)
        deviations = layout.std(dim=0, correction=0)
        np.testing.assert_allclose(deviations, [2.0, 0.02], rtol=1e-5)

    @pytest.mark.parametrize(
        "form",
        [np.asarray, np.float64, np.asfortranarray, np.ndarray.tolist, torch.from_numpy],
        ids=["numpy", "float64", "fortran", "list", "tensor"],
    )
    def test_a_given_array_is_used_as_it_is(self, form):
        given = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
        np.testing.assert_array_equal(start(form(given), gaussian(50, 3), scaling=123.0), given)

    def test_a_given_float64_array_keeps_its_digits(self):
        given = np.random.default_rng(0).normal(size=(50, 2))
        np.testing.assert_array_equal(start(given, gaussian(50, 3)), given)

    def test_a_tensor_that_requires_grad_is_taken_detached(self):
        given = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
        layout = start(given, gaussian(50, 3))
        assert not layout.requires_grad
        assert torch.equal(layout, given.detach())

    @pytest.mark.parametrize("form", [np.array, torch.tensor])
    def test_a_given_array_is_copied(self, form):
        given = form(np.arange(100, dtype=np.float32).reshape(50, 2))
        start(given, gaussian(50, 3)).zero_()
        assert given[0, 1] == 1
        assert given[49, 1] == 99

    @pytest.mark.parametrize("shape", [(49, 2), (50, 3), (100,), ()], ids=str)
    def test_a_given_array_of_another_shape_is_refused(self, shape):
        with pytest.raises(ValueError, match=re.escape(f"= (50, 2), got {shape}")):
            start(np.zeros(shape), gaussian(50, 3))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_given_array_must_be_finite(self, value):
        given = np.zeros((50, 2))
        given[7, 1] = value
        with pytest.raises(ValueError, match=r"init contains NaN or infinity: 1 value\(s\), first in row 7"):
            start(given, gaussian(50, 3))

    def test_an_unknown_name_lists_the_known_ones(self):
        with pytest.raises(ValueError, match=r"init='pcs' is unknown; choose one of .*'spectral'.* or pass an"):
            start("pcs", gaussian(50, 3))


def test_wide_rows_that_stay_in_a_file_start_from_the_same_components(tmp_path):
    from torchdr_cne.inputs import open_rows

    X = np.random.default_rng(0).normal(size=(60, 1500)).astype(np.float32)
    X[:, :3] *= [30, 20, 10]
    np.save(tmp_path / "wide.npy", X)
    rows = as_rows(open_rows(tmp_path / "wide.npy"), budget=50_000)
    assert not rows.in_memory
    np.testing.assert_allclose(pca_embedding(rows, 2), pca_embedding(as_rows(X), 2), atol=1e-3)


def test_a_covariance_that_is_too_large_is_refused_with_what_to_do(tmp_path):
    from torchdr_cne.inputs import open_rows

    np.save(tmp_path / "wide.npy", np.zeros((3, 20_000), dtype=np.float32))
    rows = as_rows(open_rows(tmp_path / "wide.npy"), budget=50_000)
    with pytest.raises(ValueError, match=r"covariance of 20000 columns, 3 GB .* set init='random'"):
        pca_embedding(rows, 2)
