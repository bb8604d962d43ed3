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
"""Purposes of the random numbers, each with a stream of its own; see `torchdr_cne.hashing.stream_key`."""


@dataclass(frozen=True)
class Draw:
    """The rows of one step.

    Attributes
    ----------
    x : Tensor of shape (r, f)
        Rows for the encoder. Edges have B heads, then B tails and, if negatives are drawn separately, the negatives.
    ids : Tensor of shape (r,) or None
        Numbers of the rows among all rows; None if the rows have no numbers.
    heads, tails : Tensor of shape (E,)
        Positions in ``x`` of the two ends of each edge; empty for items.
    weights : Tensor of shape (E,)
        Weights of the edges, 1 on average.
    negatives : Tensor of shape (M,) or (E, M)
        Positions in ``x`` of the negatives: the same M for all edges, or M for each edge.
    graph : AffinityGraph or None
        The graph from which the edges are drawn, restricted to this rank's rows.
    """

    x: Tensor
    ids: Tensor | None
    heads: Tensor
    tails: Tensor
    weights: Tensor
    negatives: Tensor
    graph: AffinityGraph | None = None


class Batches(Protocol):
    """Source of the mini-batches of a phase."""

    length: int
    """Number of mini-batches in an epoch."""

    def draw(self, step: int) -> Draw:
        """Return the rows of a step; steps are counted from the first step of the phase."""


class Epochs:
    """The numbers 0 to n − 1 in a random order, which changes every epoch, in batches of nearly equal size.

    Parameters
    ----------
    n : int
        How many numbers there are.
    n_batches : int
        Number of batches into which the numbers are divided.
    length : int
        Number of batches in an epoch, after which a new order begins.
    seed : int
        Seed of the orders.
    """

    def __init__(self, n: int, n_batches: int, length: int, seed: int) -> None:
        self._n, self._n_batches, self._length, self._seed = n, n_batches, length, seed

    def batch(self, step: int) -> Tensor:
        """Return the numbers that belong to a step, int64, on the CPU."""
        epoch, place = divmod(step, self._length)
        first, last = (part * self._n // self._n_batches for part in (place, place + 1))
        return permuted(torch.arange(first, last), self._n, stream_key(self._seed, epoch, _ORDER))


def n_batches_of(n: int, size: int, share: Share, n_own: int) -> int:
    """Return how many batches of about ``size`` hold n numbers; this rank has ``n_own`` of them."""
    most = share.ranks.smallest(torch.tensor(n_own), "the count of mini-batches")
    return max(1, min(-(-n // size), int(most)))


class ItemBatches:
    """Mini-batches of items; each item is drawn once an epoch, by the rank that has it."""

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
        Number of edges in a mini-batch, summed over all ranks.
    batches_per_epoch : int or None
        Number of mini-batches in an epoch; with None an epoch ends after every edge has been drawn.
    by_weight : bool
        Whether edges are drawn in proportion to their weights, instead of each once an epoch.
    uniform_negatives : bool
        Whether negatives are drawn from all points, instead of from the mini-batch.
    n_drawn : int
        Number of negatives that an edge meets.
    apart : bool
        Whether negatives are drawn for each edge separately, instead of the same ones for all edges.
    """

    size: int
    batches_per_epoch: int | None
    by_weight: bool
    uniform_negatives: bool
    n_drawn: int
    apart: bool


class EdgeBatches:
    """Mini-batches of edges, each once an epoch or in proportion to its weight; a rank draws edges of its own rows."""

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
        # The means of the ranks are averaged, so each rank counts by its part of the edges, or of their weight.
        part = own / every if settings.by_weight else torch.tensor(graph.n_edges / total)
        self._part = float(part) * share.ranks.size
        self._mean_weight = float(every) / total
        self._reached = graph.weights.cumsum(0, dtype=torch.float64) if settings.by_weight else None

    def draw(self, step: int) -> Draw:
        """Return the edges that belong to a step, with their negatives."""
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
        """Return the pairs that belong to a step, each in both directions."""
        first, second = self._load(step)
        training, n = self._training, len(first)
        x = training.as_input(torch.cat([first, second]))
        places = torch.arange(n, device=training.device)
        heads, tails = torch.cat([places, places + n]), torch.cat([places + n, places])
        drawn = some_of(2 * n, self._n_drawn, stream_key(self._seed, step, _NEGATIVES)).to(training.device)
        return Draw(x, None, heads, tails, torch.ones(2 * n, device=x.device, dtype=training.dtype), drawn)

    def _load(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the mini-batch of a step; unless it is the next one, its epoch is read again from the beginning."""
        if self._stream is None or step != self._next:
            self._stream = self._pairs.stream(step, self._seed, self._training.share.ranks)
        self._next = step + 1
        return next(self._stream)


def some_of(n: int, m: int, key: int) -> Tensor:
    """Return m consecutive numbers of range(n) from a random one on, or all; the rows are in random order already."""
    return torch.arange(n) if m >= n else (torch.arange(m) + bounded_int(key, n)) % n


def adjacent(graph: AffinityGraph, rows: Tensor, columns: Tensor) -> Tensor:
    """Return which of the points ``columns``, (M,) or (B, M), are neighbours of each row of the graph (B,)."""
    if columns.ndim == 1:
        return block_of(graph, rows, columns) > 0
    different, places = torch.unique(columns, return_inverse=True)
    return (block_of(graph, rows, different) > 0).gather(1, places)


def block_of(graph: AffinityGraph, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the graph's weights (B, M) between ``rows`` (B,), counted from its first row, and points (M,)."""
    ordered, order = torch.sort(columns)
    starts, degrees = graph.indptr[rows], graph.indptr[rows + 1] - graph.indptr[rows]
    owner = torch.repeat_interleave(torch.arange(len(rows)), degrees)
    within = torch.arange(len(owner)) - (degrees.cumsum(0) - degrees)[owner]
    edges = starts[owner] + within
    points = graph.indices[edges].long()
    block = torch.zeros((len(rows), len(columns)), dtype=graph.weights.dtype)
    # A point may occur several times among the columns.
    low, high = torch.searchsorted(ordered, points), torch.searchsorted(ordered, points, right=True)
    while bool((low < high).any()):
        found = low < high
        block[owner[found], order[low[found]]] = graph.weights[edges[found]]
        low = low + 1
    return block
