"""Improve a neighbour graph by looking at neighbours of neighbours, compiled (Dong, Moses & Li, 2011).

A pass compares each point with the neighbours of its neighbours and of its reverse neighbours. Points are
independent of each other within a pass, so its result does not depend on the number of threads.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from numba import njit
from torch import Tensor

_F = np.float32
_CHUNKS_PER_THREAD = 8


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def _squared_distance(x, i, j):  # type: ignore[no-untyped-def]
    a, b = x[i], x[j]
    total = _F(0)
    for c in range(len(a)):
        total += (a[c] - b[c]) * (a[c] - b[c])
    return total


@njit(nogil=True, error_model="numpy", cache=True)
def _insert(ids, keys, new_id, new_key):  # type: ignore[no-untyped-def]
    """Put a candidate into a list sorted by key, dropping the last."""
    place = len(keys) - 1
    while place > 0 and keys[place - 1] > new_key:
        keys[place] = keys[place - 1]
        ids[place] = ids[place - 1]
        place -= 1
    keys[place] = new_key
    ids[place] = new_id


@njit(nogil=True, error_model="numpy", cache=True)
def _reverse(ids, n_reverse):  # type: ignore[no-untyped-def]
    """For each point up to ``n_reverse`` points that have it among their first neighbours; −1 where fewer."""
    n, k = ids.shape
    reverse = np.full((n, n_reverse), -1, dtype=np.int32)
    filled = np.zeros(n, dtype=np.int32)
    for column in range(k):
        for i in range(n):
            j = ids[i, column]
            if j >= 0 and filled[j] < n_reverse:
                reverse[j, filled[j]] = i
                filled[j] += 1
    return reverse


@njit(nogil=True, error_model="numpy", cache=True)
def _join(first, last, x, ids, reverse, new_ids, new_keys):  # type: ignore[no-untyped-def]
    """Rewrite rows [first, last) of the lists; ``new_ids`` and ``new_keys`` hold the old lists on entry."""
    n, k = ids.shape
    seen = np.full(n, -1, dtype=np.int32)
    for i in range(first, last):
        seen[i] = i
        for j in ids[i]:
            if j >= 0:
                seen[j] = i
        row_ids, row_keys = new_ids[i], new_keys[i]
        for source in range(k + reverse.shape[1]):
            j = ids[i, source] if source < k else reverse[i, source - k]
            if j < 0:
                continue
            if seen[j] != i:
                seen[j] = i
                key = _squared_distance(x, i, j)
                if key < row_keys[k - 1]:
                    _insert(row_ids, row_keys, j, key)
            for candidate in ids[j]:
                if candidate >= 0 and seen[candidate] != i:
                    seen[candidate] = i
                    key = _squared_distance(x, i, candidate)
                    if key < row_keys[k - 1]:
                        _insert(row_ids, row_keys, candidate, key)


def join_pass(values: Tensor, ids: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return improved lists of neighbours.

    Parameters
    ----------
    values : Tensor of shape (n, f), float32, on the CPU
        The rows; for cosine scaled to unit length.
    ids : Tensor of shape (n, k), int32
        Other points, nearest first; −1 (last) where a list is short.
    keys : Tensor of shape (n, k), float32
        Their squared distances; infinite where a list is short.

    Returns
    -------
    ids, keys : Tensor of shape (n, k)
        No list gets worse.
    """
    n, k = ids.shape
    old = ids.numpy()
    new_ids, new_keys = old.copy(), keys.numpy().copy()
    arguments = (values.numpy(), old, _reverse(old, k), new_ids, new_keys)
    n_threads = torch.get_num_threads()
    bounds = np.linspace(0, n, (1 if n_threads == 1 else _CHUNKS_PER_THREAD * n_threads) + 1).astype(int).tolist()
    with ThreadPoolExecutor(n_threads) as pool:
        for done in [pool.submit(_join, first, last, *arguments) for first, last in pairwise(bounds)]:
            done.result()
    return torch.from_numpy(new_ids), torch.from_numpy(new_keys)
