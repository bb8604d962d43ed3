"""Mini-batches: every number once an epoch, orders without pattern, edges in proportion to their weights."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.stats import chi2

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.distributed import Share
from torchdr_cne.hashing import stream_key
from torchdr_cne.networks.batches import EdgeBatches, EdgeSettings, Epochs, ItemBatches, block_of, some_of
from torchdr_cne.networks.training import TrainingSet
from torchdr_cne.sampling.permutation import permuted

N = 60


def random_graph(seed=0, n=N, density=0.15):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) < density, 1) * rng.uniform(0.1, 2, (n, n))
    upper[np.arange(n - 1), np.arange(1, n)] = 1  # no row without an edge
    return AffinityGraph.from_scipy(csr_array((upper + upper.T).astype(np.float32)))


def training_set(n=N):
    data = np.arange(2.0 * n, dtype=np.float32).reshape(n, 2)
    return TrainingSet(data, Share.whole(n), torch.device("cpu"), torch.float32)


def settings(**options):
    common = {"size": 50, "batches_per_epoch": None, "by_weight": False, "uniform_negatives": False}
    return EdgeSettings(**{**common, "n_drawn": 16, "apart": False, **options})


def ends(draw):
    return torch.stack([draw.ids[draw.heads], draw.ids[draw.tails]], dim=1)


def edges_of(graph):
    return torch.stack([graph.rows, graph.indices.long()], dim=1)


@pytest.mark.parametrize("n", [*range(1, 40), 97, 100, 101, 1023, 1024, 1025, 10_007])
def test_an_order_has_every_number_once(n):
    for key in (0, 1, 2**63 + 5):
        found = permuted(torch.arange(n), n, key)
        assert torch.equal(found.sort().values, torch.arange(n))


def test_a_place_has_its_number_whatever_else_is_asked_for():
    whole = permuted(torch.arange(1000), 1000, 7)
    places = torch.tensor([999, 3, 3, 500])
    assert torch.equal(permuted(places, 1000, 7), whole[places])
    assert torch.equal(places, torch.tensor([999, 3, 3, 500]))


@pytest.mark.parametrize("n", [5, 12, 31])
def test_over_many_orders_every_place_has_every_number_equally_often(n):
    """A table of uniform permutation matrices has (n − 1)² degrees of freedom, its statistic shrinks by (n − 1)/n."""
    n_orders = 1000
    table = torch.zeros((n, n))
    for key in range(n_orders):
        table[torch.arange(n), permuted(torch.arange(n), n, stream_key(3, key))] += 1
    expected = n_orders / n
    statistic = float(((table - expected).square() / expected).sum()) * (n - 1) / n
    assert chi2.sf(statistic, (n - 1) ** 2) > 1e-3
    assert chi2.cdf(statistic, (n - 1) ** 2) > 1e-3


def test_neighbours_in_an_order_are_independent():
    """Pairs of numbers at places 0 and 1 are uniform over the 30 ordered pairs of 6."""
    n, n_orders = 6, 1500
    found = torch.stack([permuted(torch.arange(2), n, stream_key(4, key)) for key in range(n_orders)])
    counts = torch.bincount(found[:, 0] * n + found[:, 1], minlength=n * n)
    counts = counts[[i * n + j for i in range(n) for j in range(n) if i != j]].double()
    assert int(counts.sum()) == n_orders
    expected = n_orders / len(counts)
    assert chi2.sf(float(((counts - expected).square() / expected).sum()), len(counts) - 1) > 1e-3


@pytest.mark.parametrize(("n", "n_batches"), [(100, 1), (100, 7), (7, 7), (1001, 13)])
def test_an_epoch_has_every_number_once_in_even_batches_and_each_its_own_order(n, n_batches):
    epochs = Epochs(n, n_batches, n_batches, seed=0)
    orders = []
    for epoch in range(3):
        batches = [epochs.batch(epoch * n_batches + place) for place in range(n_batches)]
        sizes = {len(batch) for batch in batches}
        assert max(sizes) - min(sizes) <= 1
        orders.append(torch.cat(batches))
        assert torch.equal(orders[-1].sort().values, torch.arange(n))
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[1], orders[2])


def test_a_shorter_epoch_begins_another_order_after_its_batches():
    short, whole = Epochs(100, 10, 4, seed=0), Epochs(100, 10, 10, seed=0)
    for step in range(4):
        assert torch.equal(short.batch(step), whole.batch(step))
    assert torch.equal(short.batch(4), whole.batch(10))


def test_every_edge_is_drawn_once_an_epoch_with_its_weight_and_its_rows():
    graph, training = random_graph(), training_set()
    batches = EdgeBatches(training, graph, settings(), seed=0)
    assert batches.length == -(-graph.n_edges // 50)
    drawn = []
    for epoch in range(2):
        draws = [batches.draw(epoch * batches.length + place) for place in range(batches.length)]
        found = torch.cat([ends(draw) for draw in draws])
        weights = torch.cat([draw.weights for draw in draws])
        dense = torch.zeros((N, N))
        dense[found[:, 0], found[:, 1]] += weights
        assert len(torch.unique(found, dim=0)) == len(found) == graph.n_edges
        expected = torch.from_numpy(graph.to_scipy().toarray())
        torch.testing.assert_close(dense, expected / graph.weights.mean())
        for draw in draws:
            assert torch.equal(draw.x, torch.from_numpy(training.data[draw.ids.numpy()]))
        drawn.append(found)
    assert not torch.equal(*drawn)


def test_weighted_edges_come_in_proportion_to_their_weights():
    graph = random_graph()
    batches = EdgeBatches(training_set(), graph, settings(by_weight=True), seed=0)
    counts = torch.zeros((N, N))
    n_steps = 300
    for step in range(n_steps):
        draw = batches.draw(step)
        assert bool((draw.weights == 1).all())
        found = ends(draw)
        counts.index_put_((found[:, 0], found[:, 1]), torch.ones(len(found)), accumulate=True)
    edges = edges_of(graph)
    found, weights = counts[edges[:, 0], edges[:, 1]].double(), graph.weights.double()
    assert found.sum() == counts.sum()
    expected = weights / weights.sum() * found.sum()
    p = chi2.sf(float(((found - expected).square() / expected).sum()), len(found) - 1)
    assert p > 1e-3
    uniform = found.sum() / len(found)
    assert chi2.sf(float(((found - uniform).square() / uniform).sum()), len(found) - 1) < 1e-9


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("uniform", [False, True])
def test_negatives_are_different_rows_of_the_mini_batch_or_uniform_points(uniform, apart):
    batches = EdgeBatches(training_set(), random_graph(), settings(uniform_negatives=uniform, apart=apart), seed=0)
    counts = torch.zeros(N)
    for step in range(batches.length * 20):
        draw = batches.draw(step)
        n_edges = len(draw.heads)
        negatives = draw.negatives if apart else draw.negatives.unsqueeze(0)
        assert negatives.shape == (n_edges if apart else 1, 16)
        assert all(len(row.unique()) == 16 for row in negatives)
        first, last = (2 * n_edges, len(draw.ids)) if uniform else (0, 2 * n_edges)
        assert int(negatives.min()) >= first
        assert int(negatives.max()) < last
        if uniform:
            counts += torch.bincount(draw.ids[2 * n_edges :], minlength=N)
    if uniform:
        expected = counts.sum() / N
        assert chi2.sf(float(((counts - expected).square() / expected).sum()), N - 1) > 1e-3


def test_more_negatives_than_there_are_rows_are_all_rows():
    assert torch.equal(some_of(5, 9, key=0), torch.arange(5))
    assert len(some_of(9, 5, key=0).unique()) == 5


@pytest.mark.parametrize("size", [2, 16, 60, 500])
def test_every_item_is_drawn_once_an_epoch(size):
    batches = ItemBatches(training_set(), size, None, seed=0)
    assert batches.length == max(1, -(-N // size))
    drawn = torch.cat([batches.draw(step).ids for step in range(batches.length)])
    assert torch.equal(drawn.sort().values, torch.arange(N))


def test_a_block_of_the_graph_has_its_weights_also_where_points_repeat():
    graph = random_graph()
    dense = torch.from_numpy(graph.to_scipy().toarray())
    rows, columns = torch.tensor([5, 0, 5, 59]), torch.randint(0, N, (90,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(block_of(graph, rows, columns), dense[rows][:, columns])
