"""What one core of this machine can do: fused multiply-adds, divisions, gathers, all in float32 on data in cache."""

import time
from collections.abc import Callable

import numpy as np
from numba import njit

from torchdr_cne.forces.numerics import prefer_wide_vectors

_N = 2048
_CHAIN = 32
_REPEATS = 50


@njit(fastmath={"contract"}, error_model="numpy")
def _multiply_add(values, factor, summand, repeats):
    prefer_wide_vectors()
    for _ in range(repeats):
        for i in range(len(values)):
            x = values[i]
            for _ in range(32):
                x = x * factor + summand
            values[i] = x


@njit(fastmath=True, error_model="numpy")  # as the kernels: estimates of reciprocals are allowed
def _divide(values, divisors, repeats):
    prefer_wide_vectors()
    for _ in range(repeats):
        for i in range(len(values)):
            values[i] = divisors[i] / values[i]


@njit(fastmath=True, error_model="numpy")
def _gather(xs, ys, columns):
    prefer_wide_vectors()
    total = np.float32(0)
    for e in range(len(columns)):
        total += xs[columns[e]] + ys[columns[e]]
    return total


def best_seconds(function: Callable[[], object], seconds: float = 1.0) -> float:
    """Return the shortest of the calls of ``function`` that fit in ``seconds``, at least three."""
    function()
    best, calls, end = float("inf"), 0, time.perf_counter() + seconds
    while calls < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
        calls += 1
    return best


def measure(n_points: int, n_pairs: int = 2**19) -> dict[str, float]:
    """Return gflops, ns_division and ns_gather (one random pair of floats out of ``n_points`` points) of one core."""
    rng = np.random.default_rng(0)
    values, divisors = rng.uniform(0.5, 1.5, (2, _N)).astype(np.float32)
    xs, ys = rng.normal(size=(2, n_points)).astype(np.float32)
    columns = rng.integers(0, n_points, n_pairs, dtype=np.int32)
    factor, summand = np.float32(0.999), np.float32(0.001)
    adding = best_seconds(lambda: _multiply_add(values, factor, summand, _REPEATS))
    dividing = best_seconds(lambda: _divide(values, divisors, _REPEATS))
    gathering = best_seconds(lambda: _gather(xs, ys, columns))
    return {
        "gflops": 2 * _CHAIN * _N * _REPEATS / adding / 1e9,
        "ns_division": dividing / (_N * _REPEATS) * 1e9,
        "ns_gather": gathering / n_pairs * 1e9,
    }
