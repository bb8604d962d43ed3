"""Functions on ranges of rows of a neighbour graph, compiled if Numba can be imported."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from torchdr_cne._compiler import numba_works
from torchdr_cne.affinity.tolerances import (
    ENTROPY_TOLERANCE,
    MIN_RELATIVE_SCALE,
    MOST_STEPS,
    NARROWEST_BRACKET,
    PATIENCE,
    SUM_TOLERANCE,
    WIDEST,
)

if numba_works():
    from torchdr_cne.kernel_cache import cached_njit

    jit: Callable[..., Any] = cached_njit(nogil=True, error_model="numpy")
else:  # the same code without compilation, which is slow

    def jit(function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function`` as it is."""
        return function


@jit
def _nearest_distance(distances, local_connectivity):
    """Return the ``local_connectivity``-th non-zero distance, interpolated; ``distances`` ascend."""
    n_zero = 0
    while n_zero < len(distances) and distances[n_zero] <= 0:
        n_zero += 1
    if len(distances) - n_zero < local_connectivity:
        return np.float64(distances[-1])
    whole = math.floor(local_connectivity)
    fraction = local_connectivity - whole
    rho = np.float64(distances[n_zero + whole - 1]) if whole > 0 else 0.0
    if fraction > 1e-5:
        rho += fraction * (np.float64(distances[n_zero + whole]) - rho)
    return rho


@jit
def _inverse_scale(excess, target):
    """Return 1/σ at which Σ exp(−excess/σ) is ``target``; infinite if too many neighbours have an excess of 0.

    The sum is convex and decreasing in 1/σ, so that Newton's steps from 0 approach the solution from one side.
    """
    beta = 0.0
    for _ in range(MOST_STEPS):
        total, slope = 0.0, 0.0
        for x in excess:
            weight = math.exp(-beta * x)
            total += weight
            slope += x * weight
        if total - target < SUM_TOLERANCE:
            return beta
        if slope == 0:
            return np.inf
        beta += (total - target) / slope
        if not math.isfinite(beta):
            return np.inf
    return beta


@jit
def _log_precision(squares, target, p):
    """Write p with p_j ∝ exp(−β s_j) and the entropy ``target``.

    Newton's steps on the entropy, which falls with log β, find log β within a bracket that every step narrows. Where
    they alternate between two places instead, the bracket is halved after `PATIENCE` steps.
    """
    low, high, x = -WIDEST, WIDEST, 0.0
    smallest = squares.min()
    for step in range(MOST_STEPS):
        beta = math.exp(x)
        total, mean, second = 0.0, 0.0, 0.0
        for j in range(len(squares)):
            weight = math.exp(-beta * (squares[j] - smallest))
            p[j] = weight
            total += weight
            mean += weight * (squares[j] - smallest)
            second += weight * (squares[j] - smallest) ** 2
        mean, second = mean / total, second / total
        excess = math.log(total) + beta * mean - target
        slope = -beta * beta * (second - mean * mean)
        if abs(excess) < ENTROPY_TOLERANCE or high - low < NARROWEST_BRACKET:
            break
        if excess > 0:
            low = x
        else:
            high = x
        x = x - excess / slope if slope < 0 else high + 1
        if step >= PATIENCE or not low < x < high:
            x = (low + high) / 2
    for j in range(len(squares)):
        p[j] /= total


@jit
def conditional_probabilities(first, last, distances, target, p):
    """Write Gaussian weights with the entropy ``target`` for the neighbours of rows [first, last).

    Squares are relative to the row's largest distance and then to their mean, so that the scale has no effect.
    """
    k = distances.shape[1]
    squares = np.empty(k)
    for i in range(first, last):
        farthest = distances[i].max()
        unit, smallest = 0.0, np.inf
        for j in range(k):
            squares[j] = (np.float64(distances[i, j]) / farthest) ** 2 if farthest > 0 else 0.0
            smallest = min(smallest, squares[j])
        for j in range(k):
            squares[j] -= smallest
            unit += squares[j] / k
        for j in range(k):
            squares[j] /= unit if unit > 0 else 1.0
        _log_precision(squares, target, p[i])


@jit
def memberships(first, last, distances, local_connectivity, target, mean_distance, weights):
    """Write the fuzzy memberships of the neighbours of rows [first, last).

    σ has a lower bound in proportion to a mean distance: ``mean_distance`` if ρ is 0 and ``mean_distance`` is not
    NaN, and otherwise the mean distance of the row itself.
    """
    k = distances.shape[1]
    excess = np.empty(k)
    for i in range(first, last):
        rho = _nearest_distance(distances[i], local_connectivity)
        row_mean = 0.0
        for c in range(k):
            excess[c] = max(np.float64(distances[i, c]) - rho, 0.0)
            row_mean += np.float64(distances[i, c]) / (k + 1)  # the point itself counts, at distance 0
        smallest = MIN_RELATIVE_SCALE * (row_mean if rho > 0 or math.isnan(mean_distance) else mean_distance)
        beta = _inverse_scale(excess, target)
        if smallest > 0:
            beta = min(beta, 1 / smallest)
        for c in range(k):
            weights[i, c] = math.exp(-beta * excess[c]) if excess[c] > 0 else 1.0


@jit
def count_listings(ids, starts):
    """Add the number of rows that list j to ``starts[j + 1]``."""
    for i in range(ids.shape[0]):
        for j in ids[i]:
            starts[j + 1] += 1


@jit
def listings(first, last, ids, weights, starts, rows, row_weights):
    """Write the rows that list each point of [first, last), in ascending order, and their weights."""
    place = starts[first:last].copy()
    for i in range(ids.shape[0]):
        for c in range(ids.shape[1]):
            j = ids[i, c] - first
            if j >= 0 and j < last - first:
                rows[place[j]] = i
                row_weights[place[j]] = weights[i, c]
                place[j] += 1


@jit
def _sort(ids, weights):
    for c in range(1, len(ids)):
        new_id, new_weight, place = ids[c], weights[c], c
        while place > 0 and ids[place - 1] > new_id:
            ids[place], weights[place] = ids[place - 1], weights[place - 1]
            place -= 1
        ids[place], weights[place] = new_id, new_weight


@jit
def fuzzy_union(first, last, ids, weights, starts, rows, row_weights, mix, counts, columns, values):
    """Merge the lists of rows [first, last) with the rows that list them; edges of i begin at ``starts[i] + i * k``."""
    k = ids.shape[1]
    own_ids, own_weights = np.empty(k, dtype=ids.dtype), np.empty(k, dtype=weights.dtype)
    zero, one = weights.dtype.type(0), weights.dtype.type(1)
    for i in range(first, last):
        for c in range(k):
            own_ids[c], own_weights[c] = ids[i, c], weights[i, c]
        _sort(own_ids, own_weights)
        own, other, other_end = 0, starts[i], starts[i + 1]
        place = starts[i] + i * k
        while own < k or other < other_end:
            mine = own < k and (other == other_end or own_ids[own] <= rows[other])
            theirs = other < other_end and (own == k or rows[other] <= own_ids[own])
            columns[place] = own_ids[own] if mine else rows[other]
            a = own_weights[own] if mine else zero
            b = row_weights[other] if theirs else zero
            own += mine
            other += theirs
            both = a * b
            values[place] = mix * (a + b - both) + (one - mix) * both
            place += values[place] > 0
        counts[i] = place - starts[i] - i * k


@jit
def close_gaps(starts, k, counts, indptr, columns, values):
    """Move the edges of each row up to those of the row before; ``indptr`` receives their beginnings."""
    place = 0
    for i in range(len(counts)):
        indptr[i] = place
        for e in range(starts[i] + i * k, starts[i] + i * k + counts[i]):
            columns[place], values[place] = columns[e], values[e]
            place += 1
    indptr[len(counts)] = place
