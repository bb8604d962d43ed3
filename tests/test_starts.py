"""What a start has to keep: the shape of the data, for few points, for every seed, and in one dimension."""

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris, load_wine, make_blobs, make_swiss_roll
from sklearn.manifold import TSNE as ScikitTSNE

from tests.helpers import repeated
from torchdr_cne import SNE, TSNE, UMAP, InfoTSNE, LargeVis, NCVis, NegTSNE
from torchdr_cne.evaluation import distance_correlation, knn_accuracy

SAMPLED = [NegTSNE, UMAP, NCVis, InfoTSNE, LargeVis]


def swiss_roll():
    X, t = make_swiss_roll(3000, random_state=0)
    return X.astype(np.float32), np.stack([(t * np.sqrt(1 + t**2) + np.arcsinh(t)) / 2, X[:, 1]], axis=1)


@pytest.mark.parametrize("seed", [0, *repeated(1, 2)])
def test_umap_unrolls_a_swiss_roll(seed):
    X, coordinates = swiss_roll()
    assert distance_correlation(coordinates, UMAP(random_state=seed).fit_transform(X)) >= 0.87


@pytest.mark.filterwarnings("ignore:the input graph has 2 connected components:UserWarning")
@pytest.mark.parametrize("seed", [0, 1, 2, *repeated(*range(3, 10))])
def test_umap_keeps_the_distances_of_iris_for_any_seed(seed):
    X = load_iris().data.astype(np.float32)
    assert distance_correlation(X, UMAP(random_state=seed).fit_transform(X)) >= 0.9


class TestChoice:
    def start(self, X, init="auto", **options):
        return NegTSNE(init=init, init_scaling=1.0, learning_rate=1e-9, max_iter=1, random_state=0, **options).fit(X)

    def test_a_curved_surface_starts_spectral(self):
        X, coordinates = swiss_roll()
        assert distance_correlation(coordinates, self.start(X).embedding_) > 0.8
        assert distance_correlation(coordinates, self.start(X, init="pca").embedding_) < 0.5

    def test_digits_start_from_pca(self):
        X = load_digits().data.astype(np.float32)
        np.testing.assert_array_equal(self.start(X).embedding_, self.start(X, init="pca").embedding_)

    @pytest.mark.filterwarnings("ignore:the input graph has .* connected components:UserWarning")
    def test_a_graph_in_parts_starts_from_pca(self):
        X, _ = swiss_roll()
        X = np.concatenate([X, X + np.float32(100)])
        np.testing.assert_array_equal(self.start(X).embedding_, self.start(X, init="pca").embedding_)

    def test_a_graph_without_rows_starts_spectral(self):
        X, _ = swiss_roll()
        graph = self.start(X).graph_
        alone = self.start(graph, affinity_in="precomputed").embedding_
        np.testing.assert_array_equal(alone, self.start(graph, "spectral", affinity_in="precomputed").embedding_)

    def test_equal_rows_are_no_obstacle(self):
        X, coordinates = swiss_roll()
        X[1::2], coordinates[1::2] = X[::2], coordinates[::2]
        assert distance_correlation(coordinates, self.start(X).embedding_) > 0.8

    def test_an_unknown_word_is_answered_with_the_known_ones(self):
        with pytest.raises(ValueError, match=r"init='fast' is unknown; choose one of .*'auto'"):
            self.start(swiss_roll()[0], init="fast")


class TestScale:
    def scale(self, method, n=70_000, **options):
        return method(**options)._scale_of_start(n)

    def test_it_is_the_methods_own_unless_given(self):
        assert [self.scale(method) for method in (NegTSNE, NCVis, InfoTSNE, UMAP, LargeVis)] == [10, 10, 10, 6, 3]
        assert self.scale(UMAP, init_scaling=2.0) == 2.0
        assert self.scale(UMAP, init="random") == 1.0

    def test_a_stronger_attraction_starts_smaller(self):
        assert self.scale(NegTSNE, nu=10.0) == pytest.approx(10 * 10**-0.4)
        assert self.scale(NegTSNE, nu=0.01) == 10
        assert self.scale(InfoTSNE, s=1.0) == pytest.approx(self.scale(InfoTSNE, exaggeration=4.0))
        assert self.scale(UMAP, exaggeration=4.0) < 6 == self.scale(UMAP, repulsion_strength=2.0)

    def test_few_points_learn_slowly(self):
        rates = [UMAP()._first_learning_rate(UMAP()._phases(n)[0], n) for n in (100, 10_000, 70_000, 10**6)]
        assert rates == pytest.approx([0.12, 0.6 * (1 / 7) ** (1 / 3), 0.6, 0.6])


@pytest.mark.filterwarnings("ignore:the input graph has 5 connected components:UserWarning")
class TestOneDimension:
    @pytest.mark.parametrize("method", SAMPLED)
    def test_classes_lie_side_by_side(self, method):
        X, y = make_blobs(600, n_features=10, centers=5, random_state=0)
        line = method(n_components=1, random_state=0).fit_transform(X.astype(np.float32))
        assert knn_accuracy(line, y, n_neighbors=5) >= 0.97

    @pytest.mark.parametrize("method", SAMPLED)
    def test_digits_lie_nearly_as_well_as_umap_learn_lays_them(self, method):
        X, y = load_digits(return_X_y=True)
        line = method(n_components=1, random_state=0).fit_transform(X.astype(np.float32))
        assert knn_accuracy(line, y, n_neighbors=5) >= 0.9 * 0.93


class TestFewRows:
    @pytest.mark.parametrize("n", [10, 24, *repeated(45, 100)])
    @pytest.mark.parametrize("name", ["iris", "digits", *repeated("wine", "blobs", "swiss roll")])
    @pytest.mark.filterwarnings("ignore:perplexity=30.0 needs more than 90 samples:UserWarning")
    def test_t_sne_finds_the_divergence_that_scikit_learn_finds(self, n, name):
        wine = load_wine().data
        tables = {
            "iris": load_iris().data,
            "wine": wine / wine.std(axis=0),
            "digits": load_digits().data,
            "blobs": make_blobs(500, n_features=5, centers=3, random_state=0)[0],
            "swiss roll": make_swiss_roll(500, random_state=0)[0],
        }
        X = np.random.default_rng(1).permutation(tables[name])[:n].astype(np.float32)
        ours = TSNE(random_state=0).fit(X)
        theirs = ScikitTSNE(perplexity=min(30, (n - 1) / 3), random_state=0).fit(X)
        assert ours.kl_divergence_ <= 1.1 * theirs.kl_divergence_
        assert np.abs(ours.embedding_).max() < 60

    @pytest.mark.parametrize("method", [*SAMPLED, TSNE])
    @pytest.mark.filterwarnings("ignore:.* needs more than .* samples:UserWarning")
    @pytest.mark.filterwarnings("ignore:the input graph has 3 connected components:UserWarning")
    def test_three_groups_of_eight_stand_apart(self, method):
        X, y = make_blobs(24, n_features=5, centers=3, random_state=1)
        embedding = method(random_state=0).fit_transform(X.astype(np.float32))
        assert knn_accuracy(embedding, y, n_neighbors=5) == 1

    @pytest.mark.filterwarnings("ignore:perplexity=5000 needs more than .* samples:UserWarning")
    def test_a_perplexity_of_thousands_is_a_third_of_the_points(self):
        X = load_digits().data[:300].astype(np.float32)
        graph = TSNE(perplexity=5000, max_iter=1, random_state=0).fit(X).graph_
        wanted = TSNE(perplexity=299 / 3, max_iter=1, random_state=0).fit(X).graph_
        np.testing.assert_allclose(graph.toarray(), wanted.toarray(), atol=1e-9)


class TestLearningRate:
    X, y = load_digits(return_X_y=True)

    @pytest.mark.parametrize(("method", "rate"), [(TSNE, 200.0), (SNE, 50.0)])
    def test_a_number_has_the_unit_of_scikit_learn(self, method, rate):
        fitted = method(learning_rate=rate, random_state=0).fit(self.X[:400])
        assert knn_accuracy(fitted.embedding_, self.y[:400]) > 0.85
        assert np.abs(fitted.embedding_).max() < 200

    def test_it_is_as_given_for_another_optimiser(self):
        assert TSNE(learning_rate=0.5, optimizer="Adam", max_iter=1).fit(self.X[:100]).learning_rate_ == 0.5
        assert TSNE(learning_rate=200.0, max_iter=1).fit(self.X[:100]).learning_rate_ == 2.0

    @pytest.mark.parametrize("method", [TSNE, NegTSNE, UMAP])
    def test_points_that_run_away_stop_the_fit_with_one_sentence(self, method):
        estimator = method(learning_rate=1e6, random_state=0)
        with pytest.raises(FloatingPointError, match="points ran away from each other by iteration 50 .*; lower learn"):
            estimator.fit(self.X)

    def test_a_start_far_out_is_no_flight(self):
        start = 1e6 * np.random.default_rng(0).standard_normal((200, 2))
        assert np.isfinite(NegTSNE(init=start, max_iter=60, random_state=0).fit_transform(self.X[:200])).all()

    def test_sixteenfold_attraction_leaves_no_point_far_out(self):
        plain, tight = (TSNE(random_state=0, exaggeration=e).fit_transform(self.X[:600]) for e in (1.0, 16.0))
        assert np.abs(tight).max() < 0.1 * np.abs(plain).max()
