"""Compiled row-owned forces (Numba): one kernel for each method and number of components.

`step` runs the passes of a gradient, in pass_kernels.py, one after the other; the threads take ranges as they go.
"""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from torchdr_cne.forces import pass_kernels
from torchdr_cne.forces.caching import cached_kernel, content_name, named_jit
from torchdr_cne.forces.declaration import PairForces
from torchdr_cne.forces.numerics import jit, prefer_wide_vectors, single_precision
from torchdr_cne.forces.team import take, wait_for_all

_F = np.float32


class Blocks(NamedTuple):
    """Where the points stand, and which blocks meet in this step; d components, B blocks of 64 slots, S meetings.

    ``z`` (d, slots), ``mask`` (slots,) 1 for points and 0 for padding, ``sizes`` (B,) points of each block,
    ``draw_weights`` (slots,), ``shifts`` (S,), and ``met`` (B,) whether a shift is drawn, empty if no pair is excluded.
    This process sums the forces of ``n_own`` blocks from ``first`` on.
    """

    z: np.ndarray
    mask: np.ndarray
    sizes: np.ndarray
    draw_weights: np.ndarray
    shifts: np.ndarray
    met: np.ndarray
    first: int
    n_own: int


class Weights(NamedTuple):
    """The step's numbers: the method's ``p``, the weights of both parts, and the longest gradient of a row."""

    p: tuple[np.float32, ...]
    attraction: np.float32
    repulsion: np.float32
    longest: np.float32


class Room(NamedTuple):
    """What the passes leave for each other.

    ``points`` (slots, width), for looking up; ``totals``, the normalisers, and ``scale``, the row's weight in the
    forces of its negatives (slots,). Of own blocks only, ``met_totals`` (own, S, 64) and ``met_forces``
    (own, S, d, 64) of each meeting; ``gradient`` (d, 64 · own); the learned scalar's parts by block and by slice.
    """

    points: np.ndarray
    met_totals: np.ndarray
    totals: np.ndarray
    scale: np.ndarray
    met_forces: np.ndarray
    gradient: np.ndarray
    block_scalars: np.ndarray
    slice_scalars: np.ndarray


@jit
def _nothing(d2, p, power):
    return _F(0)


@lru_cache(maxsize=64)
def compiled_kernels(
    forces: PairForces, n_components: int, weighted: bool = True, repels: bool = True
) -> SimpleNamespace:
    """Return a declaration's kernel ``step``, and ``point_width``, the numbers that stand for a point in it.

    ``weighted`` tells whether the edges' weights differ, ``repels`` whether blocks ever meet.
    """
    name = content_name(forces, n_components, weighted, repels)
    named = named_jit(name)
    f = SimpleNamespace(
        **{
            part: _nothing if function is None else named(single_precision(function))
            for part, function in vars(forces).items()
        },
        jit=named,
        weighted=weighted,
        normalised=forces.normaliser is not None,
        learns=forces.attractive_scalar is not None,
    )
    passes = pass_kernels.make(f, n_components, repels)
    return SimpleNamespace(step=cached_kernel(_step(f, passes), name), point_width=passes.point_width)


def _normalisers(f: SimpleNamespace, passes: SimpleNamespace) -> Any:
    meet_totals, add_totals, shares = passes.meet_totals, passes.add_totals, passes.shares

    @f.jit
    def normalisers(n_threads, counters, some_blocks, some_slices, blocks, edges, weights, room):
        n_blocks, n_slices = blocks.n_own, len(edges.starts) - 1
        first = take(counters, 0, some_blocks)
        while first < n_blocks:
            meet_totals(first, min(first + some_blocks, n_blocks), blocks, edges, weights, room)
            first = take(counters, 0, some_blocks)
        wait_for_all(counters, 1, n_threads)
        first = take(counters, 2, some_blocks)
        while first < n_blocks:
            add_totals(first, min(first + some_blocks, n_blocks), blocks, room)
            first = take(counters, 2, some_blocks)
        wait_for_all(counters, 3, n_threads)
        first = take(counters, 4, some_slices)
        while first < n_slices:
            shares(first, min(first + some_slices, n_slices), blocks, edges, weights, room)
            first = take(counters, 4, some_slices)
        wait_for_all(counters, 5, n_threads)

    return normalisers


def _step(f: SimpleNamespace, passes: SimpleNamespace) -> Any:
    normalised, normalisers = f.normalised, _normalisers(f, passes)
    fetch_points, fetch_totals = passes.fetch_points, passes.fetch_totals
    meet_forces, add_forces, edges_pass = passes.meet_forces, passes.add_forces, passes.edges

    def step(part, n_threads, counters, some_blocks, some_slices, blocks, edges, weights, room):
        """Take part in one step with the other threads, ranges of so many blocks or slices at a time.

        Part 1 finds the row normalisers, part 2 the forces, 0 both.
        """
        prefer_wide_vectors()
        n_blocks, n_slices, n_all = blocks.n_own, len(edges.starts) - 1, len(blocks.sizes)
        first = take(counters, 11, some_blocks) if n_blocks < n_all else n_all
        while first < n_all:
            if part == 2 and normalised:
                fetch_totals(first, min(first + some_blocks, n_all), blocks, room)
            else:
                fetch_points(first, min(first + some_blocks, n_all), blocks, room)
            first = take(counters, 11, some_blocks)
        if normalised and part < 2:
            normalisers(n_threads, counters, some_blocks, some_slices, blocks, edges, weights, room)
        if part == 1:
            return
        first = take(counters, 6, some_blocks)
        while first < n_blocks:
            meet_forces(first, min(first + some_blocks, n_blocks), blocks, edges, weights, room)
            first = take(counters, 6, some_blocks)
        wait_for_all(counters, 7, n_threads)
        first = take(counters, 8, some_blocks)
        while first < n_blocks:
            add_forces(first, min(first + some_blocks, n_blocks), blocks, weights, room)
            first = take(counters, 8, some_blocks)
        wait_for_all(counters, 9, n_threads)
        first = take(counters, 10, some_slices)
        while first < n_slices:
            edges_pass(first, min(first + some_slices, n_slices), blocks, edges, weights, room)
            first = take(counters, 10, some_slices)

    return step


N_COUNTERS = 12
"""Counters of `step`."""
