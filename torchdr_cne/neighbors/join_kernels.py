"""Compiled passes over a neighbour graph with points in list order, so that neighbours are close in memory."""

import numpy as np

from torchdr_cne.neighbors.scan import jit
from torchdr_cne.neighbors.vectors import squared_distance


@jit
def in_order(first, last, X, order, position, ids, keys, rows, new_ids, new_keys):
    """Write the rows, and the positions of their neighbours, for places [first, last) in ``order``."""
    for place in range(first, last):
        row = order[place]
        for c in range(rows.shape[1]):
            rows[place, c] = X[row, c] if c < X.shape[1] else np.float32(0)
        for c in range(ids.shape[1]):
            new_ids[place, c] = position[ids[row, c]] if ids[row, c] >= 0 else -1
            new_keys[place, c] = keys[row, c]


@jit
def reverse(first, last, ids, listed_by):
    """Write to ``listed_by[j]``, for j in [first, last), as many points that list j as there is room for, then −1."""
    n_listed = np.zeros(last - first, dtype=np.int32)
    listed_by[first:last] = -1
    for i in range(len(ids)):
        for c in range(ids.shape[1]):
            j = ids[i, c] - first
            if j >= 0 and j < last - first and n_listed[j] < listed_by.shape[1]:
                listed_by[first + j, n_listed[j]] = i
                n_listed[j] += 1


@jit
def _put(ids, keys, new_id, new_key):
    """Insert a candidate into a list sorted by key, and drop the last entry."""
    place = len(keys) - 1
    while place > 0 and keys[place - 1] > new_key:
        keys[place], ids[place] = keys[place - 1], ids[place - 1]
        place -= 1
    keys[place], ids[place] = new_key, new_id


@jit
def join(first, last, rows, ids, listed_by, new_ids, new_keys):
    """Compare points [first, last) with the neighbours of their neighbours and of the points that list them.

    ``new_ids`` and ``new_keys`` hold the old lists on entry; ``rows`` have the width of whole vectors.
    """
    n, k = ids.shape
    rows_at, row_bytes = np.uintp(rows.ctypes.data), np.uintp(4 * rows.shape[1])
    seen = np.full(n, -1, dtype=np.int32)
    for i in range(first, last):
        seen[i] = i
        for c in range(k):
            if ids[i, c] >= 0:
                seen[ids[i, c]] = i
        own_ids, own_keys = new_ids[i], new_keys[i]
        own_row = rows_at + np.uintp(i) * row_bytes
        for source in range(2 * k):
            middle = ids[i, source] if source < k else listed_by[i, source - k]
            if middle < 0:
                continue
            for c in range(-1, k):  # the point itself, then its neighbours
                j = ids[middle, c] if c >= 0 else middle
                if j < 0 or seen[j] == i:
                    continue
                seen[j] = i
                key = squared_distance(own_row, rows_at + np.uintp(j) * row_bytes, rows.shape[1])
                if key < own_keys[k - 1]:
                    _put(own_ids, own_keys, j, key)


@jit
def back(first, last, order, new_ids, new_keys, ids, keys):
    """Write the row numbers of the neighbours for places [first, last) in ``order``; ties are sorted by number."""
    for place in range(first, last):
        row = order[place]
        for c in range(ids.shape[1]):
            key = new_keys[place, c]
            number = order[new_ids[place, c]] if new_ids[place, c] >= 0 else -1
            slot = c
            while slot > 0 and keys[row, slot - 1] == key and ids[row, slot - 1] > number:
                ids[row, slot] = ids[row, slot - 1]
                slot -= 1
            ids[row, slot] = number
            keys[row, c] = key
