"""The stages before the loop on a device: the same neighbours and graphs as on the CPU, from few launches."""

import math

import numpy as np
import pytest
import scipy.sparse.csgraph
import torch

from tests.pretended_device import DEVICE, Pretended, device  # noqa: F401  # a fixture
from torchdr_cne import COSNE, PACMAP, TSNE, UMAP, InfoTSNE, LargeVis, NegTSNE, TSNEkhorn
from torchdr_cne.affinity import (
    Affinity,
    Connectivity,
    EntropicAffinity,
    Function,
    Neighbors,
    Normalize,
    ScaledAffinity,
    Symmetrize,
    UMAPAffinity,
    UnionAffinity,
)
from torchdr_cne.affinity import device as solutions
from torchdr_cne.affinity.components import component_sizes
from torchdr_cne.affinity.device_graph import component_labels, mean_with_transpose, union_with_transpose
from torchdr_cne.affinity.entropic import conditional_probabilities
from torchdr_cne.affinity.graph import symmetric_mean, symmetrized
from torchdr_cne.distributed import Share
from torchdr_cne.initialization import pca_embedding
from torchdr_cne.inputs import as_rows
from torchdr_cne.neighbors import device_lists, device_search, exact, kneighbors, tile_index
from torchdr_cne.neighbors.comparisons import TorchComparisons
from torchdr_cne.neighbors.distances import prepare
from torchdr_cne.neighbors.kneighbors import EXACT_ON_DEVICE
from torchdr_cne.neighbors.tile_index import TileIndex
from torchdr_cne.neighbors.tiles import tiled
from torchdr_cne.similarities import StudentT


def normal(n, f, seed=0):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed))


def grid(n, f):
    """Points with few values, so that many distances are equal and many points too."""
    return torch.randint(0, 3, (n, f), generator=torch.Generator().manual_seed(1)).float()


def with_far_cluster():
    """Points of which a third are so far away that their distances drown in float32 products."""
    return torch.cat([normal(800, 5), 1e3 + 1e-3 * normal(400, 5, seed=2)])


def with_zeros():
    X = normal(600, 6)
    X[:50] = 0
    return X


def clusters(n, f, seed=3):
    """Points in overlapping clusters, each of which has three wide directions."""
    generator = torch.Generator().manual_seed(seed)
    centres, axes = 3 * torch.randn(20, f, generator=generator), torch.randn(20, 3, f, generator=generator)
    which = torch.randint(0, 20, (n,), generator=generator)
    wide = torch.randn(n, 1, 3, generator=generator) @ axes[which]
    return centres[which] + wide.squeeze(1) + 0.1 * torch.randn(n, f, generator=generator)


# ---- exact neighbours -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
@pytest.mark.parametrize(
    ("X", "k"),
    [
        pytest.param(normal(1500, 20), 15, id="normal"),
        pytest.param(normal(1500, 20).double(), 15, id="float64"),
        pytest.param(grid(1500, 4), 15, id="ties"),
        pytest.param(torch.ones(300, 3), 7, id="equal"),
        pytest.param(with_far_cluster(), 15, id="far"),
        pytest.param(with_zeros(), 15, id="zeros"),
        pytest.param(with_zeros()[:51], 50, id="all-others"),
        pytest.param(grid(40, 2), 39, id="all-tied"),
    ],
)
def test_neighbors_and_distances_equal_the_reference(X, k, metric):
    rows, queries = prepare(X, metric), torch.arange(len(X)).flip(0)
    ids, distances = device_search.search(rows, queries, k, metric)
    true_ids, true_distances = exact.search(rows, queries, k, metric)
    assert torch.equal(ids, true_ids)
    assert torch.equal(distances, true_distances)


def test_only_uncertain_rows_are_searched_again(monkeypatch):
    again = []

    def recorded(prepared, queries, *rest):
        again.extend(queries.tolist())
        return exact_search(prepared, queries, *rest)

    exact_search = exact.search
    monkeypatch.setattr(exact, "search", recorded)
    X = torch.cat([normal(1000, 10), 5 + torch.zeros(30, 10)])
    device_search.search(X, torch.arange(len(X)), 15, "euclidean")
    assert sorted(again) == list(range(1000, 1030))


def test_products_have_full_precision_whatever_the_caller_has_set(monkeypatch):
    used, keys_of = [], device_search.BoundedPoints.keys

    def recorded(points, queries):
        used.append(torch.get_float32_matmul_precision())
        return keys_of(points, queries)

    monkeypatch.setattr(device_search.BoundedPoints, "keys", recorded)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        device_search.search(normal(500, 40), torch.arange(500), 5, "euclidean")
        device_lists.search(clusters(3000, 5), 5, "euclidean", 0.9, seed=0)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(used) == {"highest"}


@pytest.mark.parametrize("k", [3, 40])  # by way of the minima of groups, and without them
def test_the_smallest_of_a_row_are_found_by_groups(k):
    key = normal(50, 32 * 30)
    key[:, ::7] = 0.25
    values, columns = device_search.smallest(key, k)
    assert torch.equal(values.sort(dim=1).values, key.sort(dim=1).values[:, :k])
    assert torch.equal(values, key.gather(1, columns))
    assert all(len(set(row)) == k for row in columns.tolist())


# ---- approximate neighbours -------------------------------------------------------------------------------


def found_share(X, ids, metric="euclidean", n_rows=1000):
    """Return the fraction of found neighbours that are as near as the true last one, for some rows."""
    rows, some = prepare(X, metric), torch.randperm(len(X), generator=torch.Generator().manual_seed(9))[:n_rows]
    farthest = exact.search(rows, some, ids.shape[1], metric)[1][:, -1:]
    found = device_lists._ranked(rows, some, ids[some], ids.shape[1], metric)[1]
    return float((found <= farthest * (1 + 1e-9)).double().mean())


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_tiles_reach_the_recall(metric, monkeypatch):
    X = clusters(20_000, 20)
    monkeypatch.setattr(device_lists.device_search, "search", only_for_the_sample(device_search.search))
    ids, distances = device_lists.search(prepare(X, metric), 15, metric, 0.99, seed=0)
    assert found_share(X, ids, metric) >= 0.99
    assert not bool((ids == torch.arange(len(X)).unsqueeze(1)).any())
    assert bool((ids.sort(dim=1).values.diff(dim=1) > 0).all())
    assert bool((distances.diff(dim=1) >= 0).all())


def only_for_the_sample(search):
    def checked(prepared, queries, *rest):
        assert len(queries) <= 1000, "tiles did not reach the recall"
        return search(prepared, queries, *rest)

    return checked


def test_equal_seeds_give_equal_bits():
    X = clusters(6000, 8)
    first, second, other = (device_lists.search(X, 5, "euclidean", 0.9, seed) for seed in (0, 0, 1))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert found_share(X, other[0]) >= 0.9


def test_fewer_tiles_are_probed_for_a_lower_recall():
    X = clusters(8000, 20)
    sample = torch.arange(0, 8000, 20)
    true_ids, _ = exact.search(X, sample, 15, "euclidean")
    index = TileIndex(X, 16)
    few, many = (index.enough_probes(sample, true_ids, recall) for recall in (0.95, 0.999))
    assert few < many
    assert 0.94 < found_share(X, listed(X, index, index.search(few))) < 0.995
    assert found_share(X, listed(X, index, index.search(many))) > 0.997


def listed(X, index, lists):
    """Return the neighbours of all rows in lists of places."""
    everyone = torch.arange(len(X))
    return device_lists._ranked(X, everyone, index.points_of(lists, everyone), lists.shape[1] - 1, "euclidean")[0]


@pytest.mark.parametrize("X", [normal(1500, 60), with_far_cluster(), torch.ones(1200, 4)], ids=["wide", "far", "equal"])
def test_where_tiles_do_not_help_the_search_is_exact(X):
    ids, distances = device_lists.search(X, 15, "euclidean", 0.99, seed=0)
    true_ids, true_distances = exact.search(X, torch.arange(len(X)), 15, "euclidean")
    assert torch.equal(ids, true_ids)
    assert torch.equal(distances, true_distances)


def test_a_missed_recall_is_noticed(monkeypatch):
    X = clusters(3000, 5)
    few_tiles = TileIndex.search
    monkeypatch.setattr(TileIndex, "search", lambda index, n_probes: few_tiles(index, 10))
    monkeypatch.setattr(device_lists, "_WORTHWHILE", 1.0)
    index = TileIndex(X, 16)
    assert found_share(X, listed(X, index, few_tiles(index, 10))) < 0.99
    ids, _ = device_lists.search(X, 15, "euclidean", 0.9999, seed=0)
    assert torch.equal(ids, exact.search(X, torch.arange(3000), 15, "euclidean")[0])


def test_neighbors_of_neighbors_replace_probes(monkeypatch):
    X, probes, search = clusters(8000, 20), [], TileIndex.search
    monkeypatch.setattr(TileIndex, "search", lambda index, n_probes: probes.append(n_probes) or search(index, n_probes))
    monkeypatch.setattr(device_lists.device_search, "search", only_for_the_sample(device_search.search))
    device_lists.search(X, 10, "euclidean", 0.99, seed=0)
    monkeypatch.setattr(device_lists, "_JOIN_COST", 0)
    ids, _ = device_lists.search(X, 10, "euclidean", 0.99, seed=0)
    assert len(probes) == 2
    assert probes[1] < probes[0]
    assert found_share(X, ids) >= 0.99
    assert bool((ids.sort(dim=1).values.diff(dim=1) > 0).all())


@pytest.mark.parametrize("X", [normal(3000, 8), grid(3000, 6)], ids=["normal", "ties"])
def test_a_pass_makes_no_list_worse(X):
    index, everyone = TileIndex(X, 8), torch.arange(3000)
    lists = index.search(6)
    points = [index.points_of(found, everyone) for found in (lists, index.joined(lists))]
    before, after = ((X[of] - X.unsqueeze(1)).norm(dim=2) for of in points)
    assert bool((after <= before + 1e-5).all())
    assert float(after.mean()) < 0.99 * float(before.mean())
    assert bool((points[1].sort(dim=1).values.diff(dim=1) > 0).all())


def test_torch_searches_where_triton_cannot_compile(monkeypatch):
    errors, X = pytest.importorskip("triton.errors"), clusters(3000, 5)

    def failing(points, fused):
        if fused:
            raise errors.TritonError("out of resource: shared memory")
        return TorchComparisons(points)

    expected = device_lists.search(X, 5, "euclidean", 0.9, seed=0)
    monkeypatch.setattr(device_lists, "_fuses", lambda rows: True)
    monkeypatch.setattr(tile_index, "_comparisons", failing)
    with pytest.warns(UserWarning, match="shared memory.*is computed by torch"):
        found = device_lists.search(X, 5, "euclidean", 0.9, seed=0)
    assert torch.equal(found[0], expected[0])


def test_a_list_of_too_few_candidates_holds_the_row_itself():
    index = TileIndex(normal(1000, 3), 4)
    rows = index._rows[:5]
    candidates = torch.stack([rows, rows, rows + 1], dim=1)
    nearest = index._comparisons.nearest(rows, candidates, 2)
    assert torch.equal(nearest[:4], torch.stack([rows + 1, rows], dim=1).int()[:4])


def test_every_point_is_in_one_tile_with_near_ones():
    X = normal(5000, 3)
    tiles = tiled(X, 64, 32)
    assert tiles.members.shape == (64, 96)
    assert tiles.members[tiles.is_point].sort().values.tolist() == list(range(5000))
    assert torch.equal(tiles.members.view(-1)[tiles.places()], torch.arange(5000))
    assert int((tiles.places() // 96 == 5).sum()) == int(tiles.is_point[5].sum())
    spread = (X - tiles.centroids[tiles.places() // 96]).square().mean()
    assert spread < 0.15 * X.var()


# ---- affinities -------------------------------------------------------------------------------------------

HARD = torch.tensor(
    [
        # Newton's steps alone alternate between two places.
        [1.1631, 1.3653, 1.8159, 1.9009, 2.0106, 2.0335, 2.0619, 2.1729, 2.2652, 2.3032],
        [1e-20, 1e-15, 1e-10, 1e-5, 1e-3, 1e-2, 0.1, 1.0, 1e5, 1e10],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
        [1e-3] * 9 + [1e8],
    ]
)


def distances_of(X, k):
    return kneighbors(X, k).distances


def perplexities(p):
    return torch.exp(-torch.xlogy(p, p).sum(dim=1))


@pytest.mark.parametrize("perplexity", [1.5, 4.0, 9.9])
@pytest.mark.parametrize("X", [normal(700, 6), normal(500, 8) ** 3], ids=["normal", "heavy"])
def test_rows_have_the_perplexity(X, perplexity):
    distances = torch.cat([distances_of(X, 10), HARD[:1]])
    p = solutions.conditional_probabilities(distances, math.log(perplexity))
    assert float((perplexities(p) - perplexity).abs().max()) < 1e-5
    host = conditional_probabilities(distances, perplexity)
    solved = (perplexities(host) - perplexity).abs() < 1e-5
    assert float((p - host)[solved].abs().max()) < 1e-6


def test_rows_that_cannot_have_the_perplexity_are_as_near_as_on_the_cpu():
    distances = torch.cat([HARD[1:], torch.ones(2, 10), torch.zeros(2, 10)])
    p = solutions.conditional_probabilities(distances, math.log(4.0))
    assert float((p - conditional_probabilities(distances, 4.0)).abs().max()) < 1e-6


@pytest.mark.parametrize("local_connectivity", [0.0, 0.5, 1.0, 1.5, 3.0, 20.0])
def test_memberships_equal_those_of_compiled_code(local_connectivity, monkeypatch):
    monkeypatch.setattr(solutions, "_BLOCK_ELEMENTS", (1000, 1000))
    X = normal(300, 5) ** 3
    X[:15] = X[0]
    distances = torch.cat([distances_of(X, 10), HARD, torch.zeros(2, 10), torch.ones(2, 10)])
    connectivity = Connectivity(local_connectivity)
    for mean_distance in (float(distances[:300].mean()), math.nan):
        found = solutions.memberships(distances, local_connectivity, math.log2(11), mean_distance)
        assert found.dtype == torch.float32
        assert float((found - connectivity._memberships(distances, mean_distance)).abs().max()) < 1e-6


def assert_same_graph(parts, graph):
    indptr, indices, weights = parts
    assert torch.equal(indptr, graph.indptr)
    assert torch.equal(indices, graph.indices)
    assert (indptr.dtype, indices.dtype, weights.dtype) == (torch.int64, torch.int32, graph.weights.dtype)
    assert float((weights - graph.weights).abs().max()) < 1e-6


@pytest.mark.parametrize("ratio", [1.0, 0.3, 0.0])
def test_the_fuzzy_union_equals_that_of_compiled_code(ratio):
    neighbors = kneighbors(normal(400, 3), 8)
    weights = torch.rand(400, 8, generator=torch.Generator().manual_seed(4))
    weights[::3, 5:] = 0  # no edges
    parts = union_with_transpose(neighbors.indices, weights, ratio)
    assert_same_graph(parts, symmetrized(neighbors.indices, weights, ratio))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_symmetric_mean_equals_that_of_scipy(dtype):
    neighbors = kneighbors(normal(400, 3), 8)
    weights = torch.rand(400, 8, generator=torch.Generator().manual_seed(4), dtype=dtype)
    parts = mean_with_transpose(neighbors.indices, weights)
    assert_same_graph(parts, symmetric_mean(neighbors.indices, weights, neighbors.share))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_components_are_labelled_by_their_lowest_point(k):
    graph = UnionAffinity(n_neighbors=k)(normal(2000, 2, seed=k))
    labels = component_labels(graph.rows, graph.indices.long(), 2000).numpy()
    n_parts, parts = scipy.sparse.csgraph.connected_components(graph.to_scipy(), directed=False)
    lowest = np.full(n_parts, 2000)
    np.minimum.at(lowest, parts, np.arange(2000))
    assert np.array_equal(labels, lowest[parts])


def test_a_long_path_is_one_component():
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(5))
    rows, columns = torch.cat([order[:-1], order[1:]]), torch.cat([order[1:], order[:-1]])
    assert not bool(component_labels(rows, columns, 5000).any())


# ---- whole stages on a pretended device -------------------------------------------------------------------

X = normal(300, 7) + 3
LABELS = torch.arange(300) % 3


@pytest.mark.parametrize("method", [NegTSNE, UMAP, InfoTSNE, LargeVis, TSNE, TSNEkhorn, COSNE, PACMAP])
def test_a_fit_of_tensors_on_a_device_stays_there(method, device):  # noqa: F811
    estimator = method(max_iter=2, random_state=0)
    embedding = estimator.fit_transform(Pretended(X))
    assert embedding.device == DEVICE
    assert bool(torch.isfinite(embedding.host).all())
    assert X.shape not in device.copied
    reference = method(random_state=0)._default_affinity()(X).to_scipy()
    assert estimator.graph_.nnz == reference.nnz
    assert abs(estimator.graph_ - reference).max() < 1e-6


@pytest.mark.parametrize("options", [{"metric": "cosine"}, {"metric": "manhattan"}, {"init": "spectral"}])
def test_options_of_a_fit_are_understood_on_a_device(options, device):  # noqa: F811
    estimator = UMAP(max_iter=1, random_state=0, **options)
    embedding = estimator.fit_transform(Pretended(X), Pretended(LABELS))
    assert bool(torch.isfinite(embedding.host).all())
    reference = UMAP(max_iter=1, random_state=0, device="cpu", **options).fit(X, LABELS)
    assert abs(estimator.graph_ - reference.graph_).max() < 1e-6


class Binary8(Affinity):
    """Someone's own affinity, with the weights of the base class."""

    def _n_neighbors_needed(self, n):
        return 8

    def from_neighbors(self, neighbors):
        return symmetrized(neighbors.indices, self.directed_weights(neighbors), share=neighbors.share)


AFFINITIES = [
    UnionAffinity(),
    UMAPAffinity(local_connectivity=1.5, set_op_mix_ratio=0.5),
    EntropicAffinity(perplexity=(5, 20)),
    ScaledAffinity(),
    Neighbors(10) | Connectivity() | Symmetrize("mean"),
    Neighbors(10) | Function(StudentT(2.0)) | Symmetrize("mean") | Normalize(),
    Binary8(),
]


@pytest.mark.parametrize("affinity", AFFINITIES, ids=lambda affinity: type(affinity).__name__)
def test_affinities_of_a_device_have_their_graph_there(affinity, device):  # noqa: F811
    graph = affinity(Pretended(X))
    assert device.copied == []
    assert {part.device for part in (graph.indptr, graph.indices, graph.weights)} == {DEVICE}
    reference = affinity(X)
    assert_same_graph((graph.indptr.host, graph.indices.host, graph.weights.host), reference)
    weights = affinity.directed_weights(kneighbors(Pretended(X), 30))
    assert float((weights.host - affinity.directed_weights(kneighbors(X, 30))).abs().max()) < 1e-6


def test_components_are_counted_on_the_device(device):  # noqa: F811
    two = torch.cat([X[:100], X[100:] + 100])
    sizes = component_sizes(UnionAffinity()(Pretended(two)), Share.whole(300))
    assert sorted(sizes.tolist()) == [100, 200]
    assert device.copied == [torch.Size([2])]


def test_kneighbors_takes_and_names_a_device(device):  # noqa: F811
    found, reference = kneighbors(X.numpy(), 5, device=DEVICE, rows=[3, 8]), kneighbors(X, 5, rows=[3, 8])
    assert found.indices.device == found.distances.device == DEVICE
    assert torch.equal(found.indices.host, reference.indices)
    assert torch.equal(found.distances.host, reference.distances)
    assert kneighbors(Pretended(X), 5, device="cpu").indices.device.type == "cpu"


def test_many_rows_are_searched_in_tiles_and_by_torch_exactly(device, monkeypatch):  # noqa: F811
    searched = []
    monkeypatch.setattr(device_lists, "search", lambda *arguments: searched.append(arguments) or SEARCHED)
    n = EXACT_ON_DEVICE + 1
    SEARCHED = Pretended(torch.zeros(n, 2).long()), Pretended(torch.zeros(n, 2))
    kneighbors(Pretended(normal(n, 2)), 2, random_state=5)
    assert [arguments[1:] for arguments in searched] == [(2, "euclidean", 0.99, 5)]
    kneighbors(Pretended(normal(300, 2)), 2)
    assert len(searched) == 1


def test_stages_take_few_launches_and_wait_seldom(device):  # noqa: F811
    rows = as_rows(Pretended(normal(20_000, 60) + 1))
    pca_embedding(rows, 2)
    assert device.n_calls < 105
    before = device.n_calls
    neighbors = kneighbors(Pretended(normal(5000, 10)), 45)
    assert device.n_calls - before < 150
    before = device.n_calls
    for affinity in (UnionAffinity(), UMAPAffinity(), EntropicAffinity(perplexity=15)):
        component_sizes(affinity.from_neighbors(neighbors), Share.whole(5000))
    assert device.n_calls - before < 1200
    before = device.n_calls
    Function(StudentT(2.0)).apply(neighbors.distances, neighbors)
    assert device.n_calls - before < 60
    assert device.n_waits < 60
