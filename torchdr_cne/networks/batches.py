"""Mini-batches: which rows a step sees, and which pairs it makes of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.distributed import Share
from torchdr_cne.hashing import bounded, bounded_int, hash_counters, stream_key
from torchdr_cne.inputs.pairs import PositivePairs
from torchdr_cne.networks.training import TrainingSet
from torchdr_cne.sampling.permutation import permuted

_ORDER, _POOL, _NEGATIVES = 11, 12, 13
"""What random numbers are for; see `torchdr_cne.hashing.stream_key`."""


@dataclass(frozen=True)
class Draw:
    """The rows of one step.

    Attributes
    ----------
    x : Tensor of shape (r, f)
        Rows for the encoder: for edges B heads, B tails and, if negatives are drawn apart, these.
    ids : Tensor of shape (r,) or None
        Their numbers among all; None where they have none.
    heads, tails : Tensor of shape (E,)
        Which rows are joined by an edge; empty for items.
    weights : Tensor of shape (E,)
        The edges' weights, 1 on average.
    negatives : Tensor of shape (M,) or (E, M)
        Which rows are negatives of all edges, or of each.
    graph : AffinityGraph or None
        The graph whose edges they are, this rank's rows of it.
    """

    x: Tensor
    ids: Tensor | None
    heads: Tensor
    tails: Tensor
    weights: Tensor
    negatives: Tensor
    graph: AffinityGraph | None = None


class Batches(Protocol):
    """Where a phase's mini-batches come from."""

    length: int
    """Mini-batches of an epoch."""

    def draw(self, step: int) -> Draw:
        """Return the rows of a step, counted from the phase's first."""


class Epochs:
    """Numbers 0 to n − 1 in a random order, an epoch at a time, in batches as even as can be.

    Parameters
    ----------
    n : int
        Numbers to go through.
    n_batches : int
        Batches that go through them.
    length : int
        Batches of an epoch; another order begins after it.
    seed : int
        Of the orders.
    """

    def __init__(self, n: int, n_batches: int, length: int, seed: int) -> None:
        self._n, self._n_batches, self._length, self._seed = n, n_batches, length, seed

    def batch(self, step: int) -> Tensor:
        """Return the numbers of a step, int64, on the CPU."""
        epoch, place = divmod(step, self._length)
        first, last = (part * self._n // self._n_batches for part in (place, place + 1))
        return permuted(torch.arange(first, last), self._n, stream_key(self._seed, epoch, _ORDER))


def n_batches_of(n: int, size: int, share: Share, n_own: int) -> int:
    """Return in how many batches of about ``size`` the ranks go through n numbers, of which this one has ``n_own``."""
    most = share.ranks.smallest(torch.tensor(n_own), "the count of mini-batches")
    return max(1, min(-(-n // size), int(most)))


class ItemBatches:
    """Items, each once an epoch; each rank draws its own."""

    def __init__(self, training: TrainingSet, size: int, batches_per_epoch: int | None, seed: int) -> None:
        share = training.share
        n_batches = n_batches_of(share.n, size, share, len(share) // 2)
        self.length = min(batches_per_epoch or n_batches, n_batches)
        self._training = training
        self._epochs = Epochs(len(share), n_batches, self.length, seed)

    def draw(self, step: int) -> Draw:
        """Return the items of a step."""
        ids = self._epochs.batch(step) + self._training.share.start
        nothing = ids[:0].to(self._training.device)
        return Draw(self._training.take(ids), ids, nothing, nothing, nothing.to(self._training.dtype), nothing)


@dataclass(frozen=True)
class EdgeSettings:
    """How edges and their negatives are drawn.

    Attributes
    ----------
    size : int
        Edges of a mini-batch, all ranks together.
    batches_per_epoch : int or None
        When an epoch ends; None is after every edge.
    by_weight : bool
        Draw in proportion to weights, instead of each once an epoch.
    uniform_negatives : bool
        Draw negatives from all points, instead of from the mini-batch.
    n_drawn : int
        Negatives of an edge.
    apart : bool
        Draw them for each edge, instead of the same ones for all.
    """

    size: int
    batches_per_epoch: int | None
    by_weight: bool
    uniform_negatives: bool
    n_drawn: int
    apart: bool


class EdgeBatches:
    """Edges of a graph, each once an epoch or in proportion to their weights; each rank draws of its own rows'."""

    def __init__(self, training: TrainingSet, graph: AffinityGraph, settings: EdgeSettings, seed: int) -> None:
        share = training.share
        self._training, self._graph, self._settings, self._seed = training, graph, settings, seed
        total = int(share.ranks.add_up(torch.tensor(graph.n_edges), "the count of edges"))
        n_batches = n_batches_of(total, settings.size, share, graph.n_edges)
        self.length = min(settings.batches_per_epoch or n_batches, n_batches)
        self._size = max(1, graph.n_edges // n_batches)
        self._epochs = Epochs(graph.n_edges, n_batches, self.length, seed)
        own, every = graph.weights.sum(dtype=torch.float64), graph.weights.sum(dtype=torch.float64)
        share.ranks.add_up(every, "the sum of weights")
        # The ranks' means are averaged: each counts by its part of the edges, or of their weight.
        part = own / every if settings.by_weight else torch.tensor(graph.n_edges / total)
        self._part = float(part) * share.ranks.size
        self._mean_weight = float(every) / total
        self._reached = graph.weights.cumsum(0, dtype=torch.float64) if settings.by_weight else None

    def draw(self, step: int) -> Draw:
        """Return the edges of a step with their negatives."""
        training, graph = self._training, self._graph
        edges, weights = self._edges(step)
        local = torch.searchsorted(graph.indptr, edges, right=True) - 1
        ids = torch.cat([local + training.share.start, graph.indices[edges].long()])
        n, m, pool = len(edges), self._settings.n_drawn, range(2 * len(edges))
        if self._settings.uniform_negatives:
            pool = range(2 * n, 2 * n + (max(n, m) if self._settings.apart else m))
            counters = torch.arange(len(pool)) + training.share.start
            ids = torch.cat(
                [ids, bounded(hash_counters(stream_key(self._seed, step, _POOL), counters), training.share.n)]
            )
        negatives = some_of(len(pool), m, stream_key(self._seed, step, _NEGATIVES))
        places = torch.arange(n)
        if self._settings.apart:
            negatives = (places.unsqueeze(1) + negatives) % len(pool)
        negatives = negatives + pool.start
        device = training.device
        return Draw(
            training.take(ids),
            ids,
            places.to(device),
            (places + n).to(device),
            weights.to(device=device, dtype=training.dtype),
            negatives.to(device),
            graph,
        )

    def _edges(self, step: int) -> tuple[Tensor, Tensor]:
        if self._reached is None:
            edges = self._epochs.batch(step)
            return edges, self._graph.weights[edges].double() * (self._part / self._mean_weight)
        words = hash_counters(stream_key(self._seed, step, _ORDER), torch.arange(self._size))
        uniform = ((words >> 11) & ((1 << 53) - 1)).double() * 2.0**-53
        edges = torch.searchsorted(self._reached, uniform * self._reached[-1], right=True)
        return edges.clamp_max(self._graph.n_edges - 1), torch.full((self._size,), self._part, dtype=torch.float64)


class LoadedPairs:
    """Positive pairs from the user's loader; every other row of the mini-batch is a negative of both."""

    def __init__(self, pairs: PositivePairs, training: TrainingSet, n_drawn: int, seed: int) -> None:
        self.length = len(pairs)
        self._pairs, self._training, self._n_drawn, self._seed = pairs, training, n_drawn, seed
        self._stream: Iterator[tuple[Tensor, Tensor]] | None = None
        self._next = 0

    def draw(self, step: int) -> Draw:
        """Return the pairs of a step, both ways round."""
        first, second = self._load(step)
        training, n = self._training, len(first)
        x = training.as_input(torch.cat([first, second]))
        places = torch.arange(n, device=training.device)
        heads, tails = torch.cat([places, places + n]), torch.cat([places + n, places])
        drawn = some_of(2 * n, self._n_drawn, stream_key(self._seed, step, _NEGATIVES)).to(training.device)
        return Draw(x, None, heads, tails, torch.ones(2 * n, device=x.device, dtype=training.dtype), drawn)

    def _load(self, step: int) -> tuple[Tensor, Tensor]:
        """Return a mini-batch; one that is not the next is looked for from the beginning of its epoch."""
        if self._stream is None or step != self._next:
            self._stream = self._pairs.stream(step, self._seed, self._training.share.ranks)
        self._next = step + 1
        return next(self._stream)


def some_of(n: int, m: int, key: int) -> Tensor:
    """Return m consecutive numbers of range(n), from a random one on, or all: rows come in random order."""
    return torch.arange(n) if m >= n else (torch.arange(m) + bounded_int(key, n)) % n


def adjacent(graph: AffinityGraph, rows: Tensor, columns: Tensor) -> Tensor:
    """Tell for each row of the graph (B,) which of the points ``columns``, (M,) or (B, M), are its neighbours."""
    if columns.ndim == 1:
        return block_of(graph, rows, columns) > 0
    different, places = torch.unique(columns, return_inverse=True)
    return (block_of(graph, rows, different) > 0).gather(1, places)


def block_of(graph: AffinityGraph, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the graph's weights between some of its rows (B,), counted from its first, and points (M,), (B, M)."""
    ordered, order = torch.sort(columns)
    starts, degrees = graph.indptr[rows], graph.indptr[rows + 1] - graph.indptr[rows]
    owner = torch.repeat_interleave(torch.arange(len(rows)), degrees)
    within = torch.arange(len(owner)) - (degrees.cumsum(0) - degrees)[owner]
    edges = starts[owner] + within
    points = graph.indices[edges].long()
    block = torch.zeros((len(rows), len(columns)), dtype=graph.weights.dtype)
    # A point may be among the columns several times.
    low, high = torch.searchsorted(ordered, points), torch.searchsorted(ordered, points, right=True)
    while bool((low < high).any()):
        found = low < high
        block[owner[found], order[low[found]]] = graph.weights[edges[found]]
        low = low + 1
    return block
