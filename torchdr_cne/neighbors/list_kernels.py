"""Compiled functions on ranges of rows, which fill lists, find the lists of each row and search them."""

from typing import NamedTuple

import numpy as np

from torchdr_cne.neighbors.scan import Lists, jit, nearest, nothing_found, scan
from torchdr_cne.simd import LANES

_ASSIGNED = 2048
"""Number of rows that are put into lists together."""


class Queries(NamedTuple):
    """Queries ``rows[places]``; ``own`` are their ids among the points, −1 if they have none."""

    rows: np.ndarray
    places: np.ndarray
    own: np.ndarray


@jit
def pack(first, last, X, order, starts, offsets, points, ids):
    """Fill lists [first, last) with rows ``order[starts[i]:starts[i + 1]]``."""
    points[offsets[first] : offsets[last]] = np.nan
    ids[offsets[first] : offsets[last]] = -1
    for current in range(first, last):
        for place in range(starts[current + 1] - starts[current]):
            row = order[starts[current] + place]
            group, lane = offsets[current] + place // LANES, place % LANES
            ids[group, lane] = row
            for c in range(X.shape[1]):
                points[group, c, lane] = X[row, c]


@jit
def add_up(X, members, home, totals, counts):
    """Add the rows of each list to ``totals`` and count them."""
    for i in range(len(members)):
        counts[home[i]] += 1
        for c in range(X.shape[1]):
            totals[home[i], c] += X[members[i], c]


@jit
def _rows(X, ids):
    rows = np.empty((len(ids), X.shape[1]), dtype=X.dtype)
    for i in range(len(ids)):
        for c in range(X.shape[1]):
            rows[i, c] = X[ids[i], c]
    return rows


@jit
def _nearest_lists(rows, tree, n_groups, n_probes):
    """Return the lists (b, ≥ n_probes) of the nearest centroids in the ``n_groups`` nearest groups."""
    middles, centroids = tree
    nobody = np.full(len(rows), -1, dtype=np.int32)
    everything = np.zeros((len(rows), 1), dtype=np.int32)
    near_groups = nearest(rows, nobody, everything, everything.shape[1], middles, n_groups)[1]
    return nearest(rows, nobody, near_groups, n_groups, centroids, n_probes)[1]


@jit
def assign(first, last, X, members, tree, n_groups, n_probes, home):
    """Write the nearest list of rows ``members[first:last]`` to ``home``."""
    for start in range(first, last, _ASSIGNED):
        some = members[start : min(start + _ASSIGNED, last)]
        probes = _nearest_lists(_rows(X, some), tree, n_groups, n_probes)
        for i in range(len(some)):
            home[start + i] = probes[i, 0]


@jit
def search(first, last, queries, order, block, tree, lists, n_groups, n_probes, keys, ids):
    """Write the nearest other points of the queries ``order[first:last]``, ``block`` of them at a time."""
    for start in range(first, last, block):
        places = order[start : min(start + block, last)]
        own_ids = queries.own[places]
        rows = _rows(queries.rows, queries.places[places])
        probes = _nearest_lists(rows, tree, n_groups, n_probes)
        found_keys, found_ids = nearest(rows, own_ids, probes, n_probes, lists, keys.shape[1])
        for i in range(len(places)):
            for c in range(keys.shape[1]):
                keys[places[i], c] = found_keys[i, c]
                ids[places[i], c] = found_ids[i, c]


@jit
def farthest_neighbor(first, last, queries, lists, k, farthest):
    """Write the squared distances of queries [first, last) to the k-th nearest of all other points."""
    own_ids = queries.own[first:last]
    probes = np.zeros((len(own_ids), 1), dtype=np.int32)
    everything = Lists(np.array([0, len(lists.ids)]), lists.points, lists.ids)
    keys = nearest(_rows(queries.rows, queries.places[first:last]), own_ids, probes, probes.shape[1], everything, k)[0]
    for i in range(len(own_ids)):
        farthest[first + i] = keys[i, k - 1]


@jit
def hits_by_probes(first, last, queries, tree, lists, n_groups, k, farthest, hits):
    """Write how many of the k nearest points of queries [first, last) 1, 2, … probes find, (probes, rows).

    A neighbour as near as the true last one counts, as duplicates have no order.
    """
    own_ids = queries.own[first:last]
    rows = _rows(queries.rows, queries.places[first:last])
    probes = _nearest_lists(rows, tree, n_groups, len(hits))
    keys, ids = nothing_found(len(rows), k)
    for probe in range(len(hits)):
        scan(rows, own_ids, probes, probe, probe + 1, lists, k, keys, ids)
        for i in range(len(rows)):
            hits[probe, first + i] = 0
            for c in range(k):
                hits[probe, first + i] += keys[i, c] <= farthest[first + i]
