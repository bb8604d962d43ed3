"""Compiled comparison of query rows with the points of inverted lists.

Points are stored in groups of ``LANES``, column by column, so that one vector holds one column of a group. A list is
a run of groups; its last group is filled up with NaN, which is near to nothing. Queries are processed in blocks, and a
block goes through the lists one by one, each with all queries that probe it. A query depends only on its own lists.
"""

from typing import NamedTuple

import numpy as np

from torchdr_cne.kernel_cache import cached_njit
from torchdr_cne.neighbors.vectors import QUERIES, first_bit, insert, squared_distances
from torchdr_cne.simd import LANES

_TILE = 16
"""Number of groups that stay in the first-level cache while all queries of a list are compared."""

jit = cached_njit(nogil=True, error_model="numpy")


class Lists(NamedTuple):
    """Points in lists: groups ``offsets[i]`` to ``offsets[i + 1]`` belong to list i.

    ``points`` is (groups, columns, LANES) float32, ``ids`` (groups, LANES) int32.
    """

    offsets: np.ndarray
    points: np.ndarray
    ids: np.ndarray


@jit
def by_list(lists_of, first, last, n_lists):
    """Return the items of all lists, one list after the other, and where each list begins.

    ``lists_of[i, first:last]`` are the lists of item i; −1 means none.
    """
    starts = np.zeros(n_lists + 1, dtype=np.int64)
    for i in range(len(lists_of)):
        for c in range(first, last):
            starts[lists_of[i, c] + 1] += lists_of[i, c] >= 0
    for i in range(n_lists):
        starts[i + 1] += starts[i]
    place = starts[:-1].copy()
    items = np.empty(starts[n_lists], dtype=np.int32)
    for i in range(len(lists_of)):
        for c in range(first, last):
            which = lists_of[i, c]
            if which >= 0:
                items[place[which]] = i
                place[which] += 1
    return items, starts


@jit
def scan(rows, own_ids, probes, first_probe, last_probe, lists, k, keys, ids):
    """Improve ``keys`` and ``ids`` (b, ≥ k), the sorted nearest points of ``rows`` (b, f), by some of the probes."""
    f, width = rows.shape[1], keys.shape[1]
    queries, starts = by_list(probes, first_probe, last_probe, len(lists.offsets) - 1)
    addresses = np.empty(QUERIES, dtype=np.uintp)
    limits = np.empty(QUERIES, dtype=np.float32)
    found = np.empty((QUERIES, LANES), dtype=np.float32)
    masks = np.empty(QUERIES * LANES // 64, dtype=np.uint64)
    # Addresses are used because a view of an array costs an atomic operation on memory that threads share.
    rows_at, keys_at, ids_at = np.uintp(rows.ctypes.data), np.uintp(keys.ctypes.data), np.uintp(ids.ctypes.data)
    block_at = addresses.ctypes.data, limits.ctypes.data, found.ctypes.data, masks.ctypes.data
    points_at, group_bytes = np.uintp(lists.points.ctypes.data), np.uintp(4 * f * LANES)
    for current in range(len(lists.offsets) - 1):
        first, last = starts[current], starts[current + 1]
        for tile in range(lists.offsets[current], lists.offsets[current + 1] if first < last else 0, _TILE):
            tile_end = min(tile + _TILE, lists.offsets[current + 1])
            for start in range(first, last, QUERIES):
                for q in range(QUERIES):
                    query = queries[min(start + q, last - 1)]
                    addresses[q] = rows_at + np.uintp(4 * f * query)
                    limits[q] = keys[query, k - 1] if start + q < last else np.float32(-1)
                for group in range(tile, tile_end):
                    points = points_at + np.uintp(group) * group_bytes
                    if not squared_distances(points, block_at[0], f, block_at[1], block_at[2], block_at[3]):
                        continue
                    for half in range(len(masks)):
                        while masks[half] != 0:
                            bit = first_bit(masks[half])
                            masks[half] &= masks[half] - np.uint64(1)
                            q, lane = half * (QUERIES // 2) + bit // LANES, bit % LANES
                            query, point, key = queries[start + q], lists.ids[group, lane], found[q, lane]
                            if point != own_ids[query] and key < limits[q]:
                                place = np.uintp(4 * width * query)
                                insert(keys_at + place, ids_at + place, width // LANES, key, point)
                                limits[q] = keys[query, k - 1]


@jit
def nothing_found(n_rows, k):
    """Return empty lists of at least k neighbours, as wide as whole vectors."""
    width = -(-k // LANES) * LANES
    return np.full((n_rows, width), np.inf, dtype=np.float32), np.full((n_rows, width), -1, dtype=np.int32)


@jit
def nearest(rows, own_ids, probes, n_probes, lists, k):
    """Return the nearest points in the probed lists; the first k of each row are sorted.

    The first probe, in the nearest list, sets limits that most points of the other lists exceed.
    """
    keys, ids = nothing_found(len(rows), k)
    for part in range(2):
        scan(rows, own_ids, probes, part, 1 + part * (n_probes - 1), lists, k, keys, ids)
    return keys, ids
