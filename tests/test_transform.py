"""New points: placed beside their neighbours in a fit that stays as it was, each as if it were alone."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.manifold import trustworthiness
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import torchdr_cne.hashing
from torchdr_cne import UMAP, AffinityMatcher, InfoTSNE, NCVis, NegativeSamplingNeighborEmbedding, NegTSNE, load
from torchdr_cne.affinity import EntropicAffinity, UMAPAffinity, UnionAffinity
from torchdr_cne.forces import shorten_rows
from torchdr_cne.inputs import as_rows
from torchdr_cne.inputs.sources import ArraySource
from torchdr_cne.matching import Pairs
from torchdr_cne.neighbors import FaissConfig, KeptRows, kept_rows
from torchdr_cne.placement.refinement import ROWS, Refinement, _Descent
from torchdr_cne.similarities import CosineExp, StudentT

METHODS = [UMAP, NegTSNE, NCVis, InfoTSNE]
DIGITS, LABELS = load_digits(return_X_y=True)
ORDER = np.random.default_rng(0).permutation(len(DIGITS))
X, Y = DIGITS[ORDER].astype(np.float32), LABELS[ORDER]
TRAIN, NEW = X[:1437], X[1437:]
FEW = {"max_iter": 30, "random_state": 0}


class Plain(NegativeSamplingNeighborEmbedding):
    """A user's method: two hooks and nothing else."""

    max_iter: int = 30
    random_state: int = 0

    def _compute_attractive_loss(self, pairs):
        return -pairs.log_q_edges

    def _compute_repulsive_loss(self, pairs):
        return (2 * pairs.log_q_negatives).exp()


class Stress(AffinityMatcher):
    """A user's method with one loss, which is no sum over a point's pairs."""

    max_iter: int = 30
    random_state: int = 0

    def _compute_loss(self, embedding_nd, state):
        ends = embedding_nd[state.graph.rows] - embedding_nd[state.graph.indices.long()]
        return ends.square().mean() + (embedding_nd.std() - 1).square()

    def _default_affinity(self):
        return UnionAffinity(n_neighbors=10)


@pytest.fixture(scope="module")
def fitted():
    """Each method's fit of four fifths of the digits, by class."""
    return {method: method(random_state=0).fit(TRAIN) for method in METHODS}


def weighted_means(estimator, rows, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Refinement, "refine", lambda self, start, *rest: start)
        return estimator.transform(rows)


# ---- quality ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_held_out_digits_fall_among_their_own_kind(method, fitted, monkeypatch):
    estimator = fitted[method]
    classifier = KNeighborsClassifier(10).fit(estimator.embedding_, Y[:1437])
    accuracy = classifier.score(estimator.transform(NEW), Y[1437:])
    assert accuracy >= 0.955
    assert accuracy >= classifier.score(weighted_means(estimator, NEW, monkeypatch), Y[1437:])


@pytest.mark.parametrize("method", METHODS)
def test_neighbourhoods_of_held_out_digits_are_kept_as_well_as_by_the_weighted_mean(method, fitted, monkeypatch):
    estimator = fitted[method]
    placed, means = estimator.transform(NEW), weighted_means(estimator, NEW, monkeypatch)
    both = [trustworthiness(X, np.concatenate([estimator.embedding_, new]), n_neighbors=15) for new in (placed, means)]
    assert both[0] > 0.97
    assert both[0] >= both[1] - 0.001


@pytest.mark.parametrize("method", METHODS)
def test_no_point_s_loss_is_higher_than_at_its_start_and_most_are_lower(method, fitted, monkeypatch):
    estimator, seen = fitted[method], []
    run = _Descent.run

    def watched(self, start):
        end = run(self, start)
        seen.append(torch.stack([self.losses(start, self._all), self.losses(end, self._all)]))
        return end

    monkeypatch.setattr(_Descent, "run", watched)
    estimator.transform(NEW)
    before, after = torch.cat(seen, dim=1)
    assert bool((after <= before).all())
    assert (after < before).double().mean() > 0.98


@pytest.mark.parametrize("method", METHODS)
def test_copies_with_a_little_noise_come_to_lie_beside_their_originals(method, fitted):
    estimator = fitted[method]
    noisy = TRAIN[:300] + np.random.default_rng(0).normal(scale=0.01, size=(300, 64)).astype(np.float32)
    gaps = np.linalg.norm(estimator.transform(noisy) - estimator.embedding_[:300], axis=1)
    assert np.median(gaps) < 0.05 * np.linalg.norm(estimator.embedding_.std(axis=0))


@pytest.mark.parametrize("method", [UMAP, NegTSNE, NCVis])
def test_a_new_point_feels_the_gradient_that_a_fit_s_point_feels_from_both_ends_of_its_pairs(method):
    """On a ring graph, where all others are negatives: the gradient of the whole loss is that of each point alone."""
    estimator = method(random_state=0, max_iter=5).fit(X[:40])
    z = torch.from_numpy(estimator.embedding_).requires_grad_(True)
    others = (torch.arange(40).unsqueeze(1) + torch.tensor([-2, -1, 1, 2])) % 40
    refinement = estimator._refinement(z.detach())
    descent = _Descent(refinement, z.detach()[others], torch.full((40, 4), 0.25))
    similarity = estimator._similarity
    pairs = Pairs(
        log_q_edges=similarity(z.unsqueeze(1), z[others]).flatten(),
        weights=torch.full((160,), 0.25),
        rows=torch.arange(40).repeat_interleave(4),
        log_q_negatives=similarity(z.unsqueeze(1), z),
        draw_weights=torch.full((40,), 5 / 40),
        parameters=refinement.parameters,
    )
    (whole,) = torch.autograd.grad(estimator._loss_of_pairs(pairs, 1.0), z)
    if estimator._max_row_gradient is not None:
        shorten_rows(whole, 1, estimator._max_row_gradient)
    torch.testing.assert_close(descent._gradient(z.detach(), descent._all), whole, rtol=1e-3, atol=1e-4)


# ---- what never changes -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_training_rows_have_exactly_their_own_places_and_nothing_moves(method, fitted):
    estimator = fitted[method]
    before, rows = estimator.embedding_.copy(), TRAIN.copy()
    mixed = np.concatenate([NEW[:50], TRAIN, NEW[50:]])
    placed = estimator.transform(mixed)
    np.testing.assert_array_equal(placed[50:-310], estimator.embedding_)
    np.testing.assert_array_equal(estimator.embedding_, before)
    np.testing.assert_array_equal(TRAIN, rows)
    assert placed.dtype == np.float32
    assert not np.shares_memory(estimator.transform(TRAIN), estimator.embedding_)


@pytest.mark.parametrize("method", METHODS)
def test_a_point_s_place_has_the_same_bits_in_any_batch(method, fitted):
    estimator = fitted[method]
    whole = estimator.transform(NEW)
    shuffled = np.random.default_rng(1).permutation(len(NEW))
    np.testing.assert_array_equal(estimator.transform(NEW[::-1])[::-1], whole)
    np.testing.assert_array_equal(estimator.transform(NEW[shuffled]), whole[shuffled])
    for size in (1, 7, ROWS - 1, ROWS, ROWS + 1, 257):
        np.testing.assert_array_equal(estimator.transform(NEW[:size]), whole[:size])
    one_by_one = np.concatenate([estimator.transform(row[None]) for row in NEW[:40]])
    np.testing.assert_array_equal(one_by_one, whole[:40])


@pytest.mark.parametrize(
    "estimator",
    [
        UMAP(local_connectivity=0, **FEW),
        NegTSNE(affinity_in=EntropicAffinity(perplexity=12), **FEW),
        NegTSNE(metric="manhattan", **FEW),
        UMAP(metric="cosine", n_components=5, gradient="autograd", **FEW),  # the places need no kernels of their own
        InfoTSNE(n_neighbors=1, n_components=3, gradient="autograd", **FEW),
        NCVis(dtype="float64", gradient="autograd", max_iter=10, random_state=0),
        NegTSNE(similarity=StudentT(3.0), **FEW),
        Plain(similarity=CosineExp(), n_components=7),
        Plain(n_components=1),
        Stress(),
    ],
    ids=repr,
)
def test_bits_do_not_depend_on_the_batch_whatever_the_affinity_similarity_and_dimension(estimator):
    estimator = clone(estimator).fit(TRAIN[:500])
    whole = estimator.transform(NEW[:150])
    assert whole.shape == (150, estimator.n_components)
    assert whole.dtype == estimator.dtype
    assert np.isfinite(whole).all()
    np.testing.assert_array_equal(estimator.transform(TRAIN[:500]), estimator.embedding_)
    np.testing.assert_array_equal(estimator.transform(NEW[:150][::-1])[::-1], whole)
    np.testing.assert_array_equal(np.concatenate([estimator.transform(row[None]) for row in NEW[:20]]), whole[:20])


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_bits_do_not_depend_on_the_number_of_threads(n_jobs, fitted):
    estimator = fitted[UMAP]
    whole = estimator.transform(NEW)
    fewer = clone(estimator)
    for name, value in vars(estimator).items():
        setattr(fewer, name, value)
    np.testing.assert_array_equal(fewer.set_params(n_jobs=n_jobs).transform(NEW), whole)


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_or_pickled_estimator_places_with_the_same_bits(method, fitted, tmp_path):
    estimator = fitted[method]
    placed = estimator.transform(NEW)
    estimator.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").transform(NEW), placed)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(estimator)).transform(NEW), placed)


# ---- equal rows ---------------------------------------------------------------------------------------


def test_of_equal_training_rows_the_first_one_s_place_is_taken():
    rows = np.concatenate([TRAIN[:100], TRAIN[:100], np.tile(TRAIN[100], (30, 1))])
    estimator = UMAP(**FEW).fit(rows)
    placed = estimator.transform(rows)
    np.testing.assert_array_equal(placed[:100], estimator.embedding_[:100])
    np.testing.assert_array_equal(placed[100:200], estimator.embedding_[:100])
    np.testing.assert_array_equal(placed[200:], np.tile(estimator.embedding_[200], (30, 1)))


def test_equality_is_of_values_and_not_of_bits_or_distances():
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    rows[4] = 0.0
    kept = KeptRows(as_rows(rows, center=False))
    negative_zero = torch.tensor([[-0.0, 0.0, -0.0]])
    assert kept.equal(negative_zero).tolist() == [4]
    too_near_to_tell = torch.full((1, 3), 1e-30)  # whose squared distance is 0 in float32
    assert kept.equal(too_near_to_tell).tolist() == [-1]


def test_rows_that_share_a_digest_are_told_apart(monkeypatch):
    monkeypatch.setattr(kept_rows, "row_digests", lambda rows: torch.zeros(len(rows), dtype=torch.int64))
    kept = KeptRows(as_rows(TRAIN[:50]))
    assert kept.equal(kept.rows.values).tolist() == list(range(50))
    assert kept.equal(kept.rows.alike(NEW[:5])).tolist() == [-1] * 5


def test_digests_of_different_rows_differ():
    digests = torchdr_cne.hashing.row_digests(torch.from_numpy(X))
    assert len(digests.unique()) == len(np.unique(X, axis=0))


# ---- rows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float64])
def test_the_dtype_of_new_rows_does_not_matter(dtype, fitted):
    estimator = fitted[UMAP]
    np.testing.assert_array_equal(estimator.transform(NEW.astype(dtype)), estimator.transform(NEW))


def test_rows_far_from_the_origin_and_of_any_scale_are_centred_and_scaled_as_those_of_the_fit():
    for shift, factor in ((1e6, 1.0), (0.0, 2.0**100), (0.0, 2.0**-100)):
        train, new = (shift + factor * rows.astype(np.float64) for rows in (TRAIN[:400], NEW[:60]))
        estimator = NegTSNE(init="random", **FEW).fit(train)
        placed = estimator.transform(new)
        np.testing.assert_array_equal(estimator.transform(train), estimator.embedding_)
        expected = clone(estimator).fit(TRAIN[:400]).transform(NEW[:60])
        np.testing.assert_allclose(placed, expected, atol=1e-4)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
@pytest.mark.parametrize("method", METHODS)
def test_absurd_rows_get_a_place_within_the_embedding(method, metric):
    estimator = method(metric=metric, **FEW).fit(TRAIN[:200])
    row = NEW[0].astype(np.float64)
    absurd = np.stack([1e30 * row, -1e300 * row, 1e-300 * row, 0 * row, row + 1e-7, 1e18 * np.eye(64)[3]])
    placed = estimator.transform(absurd)
    assert np.isfinite(placed).all()
    low, high = estimator.embedding_.min(axis=0), estimator.embedding_.max(axis=0)
    room = 0.5 * (high - low)
    assert ((placed > low - room) & (placed < high + room)).all()


def test_the_direction_of_a_huge_row_counts_where_the_metric_is_cosine():
    estimator = NegTSNE(metric="cosine", **FEW).fit(TRAIN[:400])
    np.testing.assert_allclose(estimator.transform(2.0**110 * NEW[:40].astype(float)), estimator.transform(NEW[:40]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:n_neighbors=.* needs more than:UserWarning")
@pytest.mark.filterwarnings("ignore:all rows of X are equal:UserWarning")
@pytest.mark.filterwarnings("ignore:the input graph has .* connected components:UserWarning")
def test_two_rows_or_equal_ones_are_enough(method):
    for rows in (TRAIN[:2], np.ones((40, 64), dtype=np.float32)):
        estimator = method(**FEW).fit(rows)
        placed = estimator.transform(np.concatenate([rows[:1], NEW[:5]]))
        np.testing.assert_array_equal(placed[0], estimator.embedding_[0])
        assert np.isfinite(placed).all()


@pytest.mark.parametrize("method", METHODS)
def test_training_points_at_one_place_do_not_throw_new_ones_out(method):
    estimator = method(**FEW).fit(TRAIN[:300])
    estimator.embedding_ = np.repeat(estimator.embedding_[:3], 100, axis=0)
    placed = estimator.transform(NEW[:100])
    assert np.linalg.norm(placed - estimator.embedding_.mean(axis=0), axis=1).max() < 30


def test_a_tensor_comes_back_as_a_tensor_without_a_gradient(fitted):
    placed = fitted[NegTSNE].transform(torch.from_numpy(NEW).requires_grad_(True))
    assert isinstance(placed, torch.Tensor)
    assert not placed.requires_grad
    np.testing.assert_array_equal(placed.numpy(), fitted[NegTSNE].transform(NEW))
    of_tensor = NegTSNE(**FEW).fit(torch.from_numpy(TRAIN))
    assert isinstance(of_tensor.transform(NEW), np.ndarray)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_caller_s_autograd_mode_changes_nothing(mode, fitted):
    expected = fitted[UMAP].transform(NEW[:20])
    with mode():
        np.testing.assert_array_equal(fitted[UMAP].transform(torch.from_numpy(NEW[:20])).numpy(), expected)


def test_a_frame_comes_back_as_a_frame_with_its_index():
    names = [f"pixel{i}" for i in range(64)]
    estimator = UMAP(**FEW).set_output(transform="pandas").fit(pd.DataFrame(TRAIN, columns=names))
    new = pd.DataFrame(NEW, columns=names, index=range(7, 7 + len(NEW)))
    placed = estimator.transform(new)
    assert list(placed.columns) == ["umap0", "umap1"]
    assert placed.index.equals(new.index)
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.transform(new[names[::-1]])


def test_a_pipeline_places_new_rows():
    pipeline = make_pipeline(StandardScaler(), NegTSNE(random_state=0, max_iter=100)).fit(TRAIN)
    nearest = KNeighborsClassifier(15).fit(pipeline[-1].embedding_, Y[: len(TRAIN)])
    assert nearest.score(pipeline.transform(NEW), Y[len(TRAIN) :]) > 0.85


def test_rows_of_a_source_or_loader_are_placed_as_those_of_an_array(fitted, monkeypatch):
    estimator = fitted[NegTSNE]
    monkeypatch.setattr("torchdr_cne.placement.placing._BLOCK", 100)
    whole = estimator.transform(NEW)
    np.testing.assert_array_equal(estimator.transform(ArraySource(NEW)), whole)
    np.testing.assert_array_equal(estimator.transform(torch.utils.data.DataLoader(NEW, batch_size=50)), whole)
    spoilt = NEW.copy()
    spoilt[120, 3] = np.nan
    with pytest.raises(ValueError, match=r"the array, from row 100 on, contains NaN or infinity: 1 value.* row 20"):
        estimator.transform(ArraySource(spoilt))
    with pytest.raises(ValueError, match="X has 63 features, but NegTSNE is expecting 64"):
        estimator.transform(ArraySource(NEW[:, 1:]))


# ---- neighbours ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("n", [5000, 20_000])
def test_the_kept_index_meets_its_recall_and_its_answers_do_not_depend_on_the_batch(metric, n):
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(60, 12)) * 2
    rows = (middles[rng.integers(60, size=n + 600)] + rng.normal(size=(n + 600, 12))).astype(np.float32)
    rows[:3] = 0
    rows[-2:] = 0
    kept = KeptRows(as_rows(rows[:n], center=metric != "cosine"))
    new = kept.rows.alike(rows[n:])
    found = kept.nearest(new, 15, metric, "auto")
    exact = KeptRows(kept.rows).nearest(new, 15, metric, "torch")
    assert kept._index[1]._lists is not None
    assert float((found.distances <= exact.distances[:, -1:] * (1 + 1e-5)).double().mean()) >= 0.985
    some = kept.nearest(new[100:103], 15, metric, "auto")
    assert torch.equal(some.indices, found.indices[100:103])
    assert torch.equal(some.distances, found.distances[100:103])


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_few_rows_are_searched_exactly(metric):
    from sklearn.neighbors import NearestNeighbors

    kept = KeptRows(as_rows(TRAIN, center=metric != "cosine"))
    found = kept.nearest(kept.rows.alike(NEW), 10, metric, "auto")
    oracle = NearestNeighbors(n_neighbors=10, metric=metric, algorithm="brute").fit(TRAIN.astype(float))
    np.testing.assert_allclose(found.distances, oracle.kneighbors(NEW.astype(float))[0], rtol=1e-5, atol=1e-6)


def test_the_index_is_made_once_and_again_only_for_another_request(fitted):
    kept = KeptRows(as_rows(TRAIN))
    new = kept.rows.alike(NEW[:3])
    kept.nearest(new, 10, "euclidean", "auto")
    first = kept._index[1]
    kept.nearest(new, 10, "euclidean", "auto")
    assert kept._index[1] is first
    kept.nearest(new, 10, "euclidean", FaissConfig(n_lists=8))
    assert kept._index[1] is not first


@pytest.mark.parametrize("affinity", [UnionAffinity(), UMAPAffinity(local_connectivity=0), EntropicAffinity()])
def test_weights_of_new_rows_are_each_row_s_own(affinity):
    kept = KeptRows(as_rows(TRAIN))
    k = affinity._n_neighbors_needed(len(TRAIN))
    whole = affinity.weights_of_new(kept.nearest(kept.rows.alike(NEW[:128]), k, "euclidean", "auto"))
    some = affinity.weights_of_new(kept.nearest(kept.rows.alike(NEW[64:128]), k, "euclidean", "auto"))
    assert torch.equal(whole[64:], some)


# ---- what is not possible -------------------------------------------------------------------------------


def test_a_fit_of_a_given_graph_can_place(fitted):
    first = fitted[NegTSNE]
    again = NegTSNE(random_state=0).fit(TRAIN, graph=first.graph_)
    np.testing.assert_array_equal(again.transform(NEW), first.transform(NEW))


def test_another_fit_forgets_the_rows_of_the_last():
    estimator = NegTSNE(**FEW).fit(TRAIN[:200])
    estimator.transform(NEW[:3])
    estimator.fit(TRAIN[200:500])
    np.testing.assert_array_equal(estimator.transform(TRAIN[200:500]), estimator.embedding_)


def test_dropped_rows_are_named_as_what_is_missing():
    estimator = NegTSNE(store_training_data=False, **FEW).fit(TRAIN[:100])
    assert estimator.training_rows_ is None
    with pytest.raises(ValueError, match=r"store_training_data=False has dropped; fit with store_training_data=True"):
        estimator.transform(NEW)


def test_a_precomputed_graph_has_no_rows(fitted):
    estimator = NegTSNE(affinity_in="precomputed", **FEW).fit(fitted[NegTSNE].graph_)
    with pytest.raises(ValueError, match=r"affinity_in='precomputed' has none; fit rows"):
        estimator.transform(NEW)


def test_rows_that_stay_in_their_file_cannot_be_compared_with():
    source = ArraySource(np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32))
    estimator = NegTSNE(memory_budget=4000, **FEW).fit(source)
    with pytest.raises(ValueError, match=r"have stayed in their file, were divided among ranks, or were not kept"):
        estimator.transform(np.zeros((1, 8)))


@pytest.mark.parametrize("method", METHODS)
def test_bad_rows_are_refused_in_scikit_learn_s_words(method, fitted):
    with pytest.raises(NotFittedError, match=f"This {method.__name__} instance is not fitted yet"):
        method().transform(NEW)
    estimator = fitted[method]
    with pytest.raises(ValueError, match=f"X has 63 features, but {method.__name__} is expecting 64 features"):
        estimator.transform(NEW[:, 1:])
    with pytest.raises(ValueError, match="X has 63 features"):
        estimator.transform(torch.from_numpy(NEW[:, 1:]))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
        estimator.transform(NEW[0])
    with pytest.raises(ValueError, match="X contains NaN or infinity: 64 value.*first in row 0"):
        estimator.transform(np.full((2, 64), [[np.nan], [0]]))
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
        estimator.transform(NEW[:0])


# ---- a user's own methods -------------------------------------------------------------------------------


def test_a_method_of_two_hooks_is_refined_and_one_of_a_whole_loss_is_not(monkeypatch):
    plain, stress = Plain().fit(TRAIN[:300]), Stress().fit(TRAIN[:300])
    assert not np.array_equal(plain.transform(NEW), weighted_means(plain, NEW, monkeypatch))
    np.testing.assert_array_equal(stress.transform(NEW), weighted_means(stress, NEW, monkeypatch))
    kept = stress.training_rows_
    ids = kept.nearest(kept.rows.alike(NEW), 10, "euclidean", "auto").indices.numpy()
    np.testing.assert_allclose(stress.transform(NEW), stress.embedding_[ids].mean(axis=1), atol=1e-5)


def test_a_subclass_that_gathers_its_own_pairs_is_placed_by_the_weighted_mean(monkeypatch):
    class Own(Plain):
        def _make_pairs(self, embedding_nd, state):
            return super()._make_pairs(embedding_nd, state)

    estimator = Own().fit(TRAIN[:300])
    np.testing.assert_array_equal(estimator.transform(NEW), weighted_means(estimator, NEW, monkeypatch))


def test_neighbours_of_no_weight_count_alike():
    class Weightless(UnionAffinity):
        def directed_weights(self, neighbors):
            return torch.zeros(neighbors.indices.shape)

        def from_neighbors(self, neighbors):
            return UnionAffinity().from_neighbors(neighbors)

    with_none, with_ones = (Stress(affinity_in=affinity) for affinity in (Weightless(), UnionAffinity()))
    np.testing.assert_array_equal(with_none.fit(TRAIN[:300]).transform(NEW), with_ones.fit(TRAIN[:300]).transform(NEW))
