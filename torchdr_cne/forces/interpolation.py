"""Sums over all pairs in O(n): charges go to a grid by cubic B-splines, the kernel acts there by FFT, and back.

The particle–mesh method (Hockney & Eastwood, 1988) for similarities that are smooth over a step of the grid, which is
the idea of FIt-SNE (Linderman et al., 2019) with another interpolation: one charge and one potential, whose gradient is
that of the spline. The grid's step is fixed in units of the similarity, so that the error does not grow with n.
"""

from collections.abc import Hashable, Iterator
from itertools import product

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from torchdr_cne._compiler import numba_works
from torchdr_cne.distributed import Share
from torchdr_cne.forces.declaration import PairForces
from torchdr_cne.forces.tiles import power
from torchdr_cne.workers import Workers

STEP = 0.2
"""Grid step, where the similarity is 1/(1 + d²) or as smooth; the gradient's error is about 0.1 %."""
NODES = 4
_ALIASES = 3
SMALL, _SMALL_SQUARE = 0.3, 1e-6
"""A layout no wider is one whose points a grid's own rounding would move; q is a quadratic function there."""
FEWEST_STEPS = 12
MOST_CELLS = 1 << 24
"""Of a larger layout the step grows, and the error."""


class InterpolatedSums:
    """Both sums of `PairSums` for all points, for one, two or three dimensions.

    Parameters
    ----------
    forces : PairForces
        Gives q as ``normaliser``; the gradient follows from it.
    share : Share
        The slots of each rank.
    workers : Workers
        Threads of the compiled parts: float32 in the plane, on a CPU.
    step : float, default=0.2
        Step of the grid.
    """

    def __init__(self, forces: PairForces, share: Share, workers: Workers, step: float = STEP) -> None:
        self._forces, self._share, self._workers, self._step = forces, share, workers, step
        self._transform: tuple[object, Tensor] = ((), torch.empty(0, dtype=torch.float32))
        self.own_threads = True

    def send(self, z_ds: Tensor) -> Hashable:
        """Prepare nothing."""
        return None

    def compute(self, z_ds: Tensor, charges: Tensor, parameters: tuple[Tensor | float, ...]) -> tuple[Tensor, Tensor]:
        """Return both sums for the own slots."""
        low, span = z_ds.amin(dim=1), z_ds.amax(dim=1) - z_ds.amin(dim=1)
        if not bool(torch.isfinite(span).all()):  # the loop says that the fit has diverged
            own = z_ds[:, self._share.own]
            return torch.full_like(own[0], torch.nan), torch.full_like(own, torch.nan)
        widest = float(span.max())
        if widest <= SMALL:
            return self._by_moments(z_ds, charges, parameters)
        step = min(self._step, widest / FEWEST_STEPS)
        while float(torch.prod(torch.ceil(span / step) + NODES)) > MOST_CELLS:
            step *= 1.25
        cells = [int(width) + 2 + NODES for width in (span / step).tolist()]
        padded = [fft.next_fast_len(2 * n, real=True) for n in cells]
        transform = self._kernel_transform(padded, step, parameters, z_ds)
        q_at_zero = float(self._of_distance(torch.zeros(1, dtype=z_ds.dtype), parameters))
        compiled = len(z_ds) == 2 and z_ds.device.type == "cpu" and z_ds.dtype == torch.float32 and numba_works()
        grid = _CompiledGrid if compiled else _TorchGrid
        moved = grid(z_ds, low, 1 / step, cells, self._workers)
        potential = _convolved(moved.spread(charges), transform, padded, self._workers.n_threads)
        return moved.collect(potential, charges, q_at_zero, self._share)

    def _by_moments(
        self, z_ds: Tensor, charges: Tensor, parameters: tuple[Tensor | float, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return both sums for a layout so small that two terms in d² say all, from moments of the charges."""
        own = self._share.own
        z, c = z_ds.double(), charges.double()
        z = z - (c * z).sum(dim=1, keepdim=True) / c.sum()
        squares, z_own = z.square().sum(dim=0), z[:, own]
        r = squares[own]
        total, first, second = c.sum(), z @ c, (c * z) @ z.T
        of_squares, third, fourth = squares @ c, z @ (c * squares), squares.square() @ c
        by_first, by_third = first @ z_own, third @ z_own
        d2 = total * r + of_squares - 2 * by_first
        d4 = total * r.square() + fourth + 2 * r * of_squares - 4 * (r * by_first + by_third)
        d4 = d4 + 4 * (z_own * (second @ z_own)).sum(dim=0)
        q_at_zero, slope, curvature = self._series(parameters, z)
        totals = q_at_zero * (total - c[own]) + slope * d2 + curvature / 2 * d4
        straight = total * z_own - first.unsqueeze(1)
        bent = z_own * d2 - (torch.outer(first, r) + third.unsqueeze(1) - 2 * second @ z_own)
        return totals.to(z_ds), (slope * straight + curvature * bent).to(z_ds)

    def _series(self, parameters: tuple[Tensor | float, ...], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q and its first two derivatives with respect to d² at 0."""
        d2 = torch.tensor([0.0, _SMALL_SQUARE], dtype=like.dtype).to(like.device, non_blocking=True)
        slopes = self._forces.repulsive(d2, parameters, power)
        return self._of_distance(d2, parameters)[0], slopes[0], (slopes[1] - slopes[0]) / _SMALL_SQUARE

    def _of_distance(self, d2: Tensor, parameters: tuple[Tensor | float, ...]) -> Tensor:
        assert self._forces.normaliser is not None
        return self._forces.normaliser(d2, parameters, power)

    def _kernel_transform(
        self, padded: list[int], step: float, parameters: tuple[Tensor | float, ...], like: Tensor
    ) -> Tensor:
        """Return what a grid's transform is multiplied by, kept as long as the grid stays as large."""
        key = (tuple(padded), step, tuple(map(float, parameters)))
        if self._transform[0] != key:
            d2 = torch.zeros((), dtype=like.dtype, device=like.device)
            for axis, m in enumerate(padded):
                at = torch.arange(m, device=like.device)
                steps = torch.minimum(at, m - at).to(like.dtype) * step
                d2 = d2 + steps.square().view([-1 if other == axis else 1 for other in range(len(padded))])
            kernel = _transformed(self._of_distance(d2, parameters), self._workers.n_threads).real
            for axis, m in enumerate(padded):
                kernel = kernel * influence(m, axis == len(padded) - 1, like).view(
                    [-1 if other == axis else 1 for other in range(len(padded))]
                )
            self._transform = key, kernel.contiguous()
        return self._transform[1]


def influence(m: int, halved: bool, like: Tensor) -> Tensor:
    """Return what undoes both splines along an axis of ``m`` nodes, of least error (Hockney & Eastwood, 1988)."""
    frequencies = np.fft.rfftfreq(m) if halved else np.fft.fftfreq(m)
    aliased = sum(np.sinc(frequencies + shift) ** (2 * NODES) for shift in range(-_ALIASES, _ALIASES + 1))
    return torch.from_numpy(np.sinc(frequencies) ** (2 * NODES) / aliased**2).to(
        like.device, like.dtype, non_blocking=True
    )


def _transformed(grid: Tensor, n_threads: int) -> Tensor:
    """Return the real Fourier transform; on a CPU by SciPy, whose bits do not depend on the threads."""
    if grid.device.type != "cpu":
        return torch.fft.rfftn(grid)
    return torch.from_numpy(fft.rfftn(grid.numpy(), workers=n_threads))


def _convolved(grid: Tensor, transform: Tensor, padded: list[int], n_threads: int) -> Tensor:
    """Return the grid's values after the kernel has acted, on the same nodes."""
    kept = tuple(map(slice, grid.shape))
    if grid.device.type != "cpu":
        return torch.fft.irfftn(torch.fft.rfftn(grid, s=padded) * transform, s=padded)[kept].contiguous()
    last, others = grid.ndim - 1, range(grid.ndim - 1)
    values = fft.rfft(grid.numpy(), n=padded[-1], axis=last, workers=n_threads)
    for axis in others:  # rows of the padding are transformed only once they are not zero
        values = fft.fft(values, n=padded[axis], axis=axis, workers=n_threads)
    values *= transform.numpy()
    for axis in others:
        values = fft.ifft(values, axis=axis, workers=n_threads, overwrite_x=True)
        values = values[(slice(None),) * axis + (kept[axis],)]
    values = fft.irfft(values, n=padded[-1], axis=last, workers=n_threads)
    return torch.from_numpy(np.ascontiguousarray(values[kept]))


class _CompiledGrid:
    """A grid over points of the plane, moved to and from by compiled kernels."""

    def __init__(self, z_ds: Tensor, low: Tensor, per_cell: float, cells: list[int], workers: Workers) -> None:
        from torchdr_cne.forces import spline_kernels

        self._kernels, self._workers, self._cells = spline_kernels, workers, cells
        self._z, self._origin, self._per_cell = z_ds.numpy(), low.numpy(), np.float32(per_cell)
        n_rows = cells[0] - NODES
        rows, self._starts = np.empty(z_ds.shape[1], dtype=np.int32), np.empty(n_rows + 1, dtype=np.int64)
        self._order = np.empty(z_ds.shape[1], dtype=np.int32)
        spline_kernels.sort_by_row(self._z, self._origin[0], self._per_cell, n_rows, rows, self._starts, self._order)

    def spread(self, charges: Tensor) -> Tensor:
        """Return the charges on the grid."""
        grid = np.empty(self._cells, dtype=np.float32)
        where = self._z, charges.numpy(), self._origin, self._per_cell, self._starts, self._order
        self._workers.parallel_for(self._kernels.spread, self._cells[0], *where, grid)
        return torch.from_numpy(grid)

    def collect(self, potential: Tensor, charges: Tensor, q_at_zero: float, share: Share) -> tuple[Tensor, Tensor]:
        """Return the potential without each charge's own, and half its gradient, at the own slots."""
        totals = torch.empty(len(share), dtype=torch.float32)
        forces = torch.empty((2, len(share)), dtype=torch.float32)
        where = self._z, charges.numpy(), self._origin, self._per_cell, self._starts, self._order
        found = share.start, np.float32(q_at_zero), potential.numpy(), totals.numpy(), forces.numpy()
        self._workers.parallel_for(self._kernels.collect, self._cells[0] - NODES, *where, *found)
        return totals, forces


class _TorchGrid:
    """A grid over points of any dimension, on any device."""

    def __init__(self, z_ds: Tensor, low: Tensor, per_cell: float, cells: list[int], workers: Workers) -> None:
        at = (z_ds - low.unsqueeze(1)) * per_cell
        self._cells, self._per_cell, self._first = cells, per_cell, at.floor().long()
        t = at - self._first
        u = 1 - t
        self._weights = torch.stack([u**3, 4 - 6 * t**2 + 3 * t**3, 4 - 6 * u**2 + 3 * u**3, t**3]) / 6
        self._slopes = torch.stack([-(u**2), t * (3 * t - 4), -u * (3 * u - 4), t**2]) / 2

    def _nodes(self, own: slice = slice(None)) -> Iterator[tuple[tuple[int, ...], Tensor]]:
        """Yield the nodes around a point, by their place on each axis, with their numbers on the grid."""
        for offsets in product(range(NODES), repeat=len(self._cells)):
            number = torch.zeros_like(self._first[0, own])
            for axis, offset in enumerate(offsets):
                number = number * self._cells[axis] + self._first[axis, own] + offset
            yield offsets, number

    def spread(self, charges: Tensor) -> Tensor:
        """Return the charges on the grid."""
        grid = charges.new_zeros(int(np.prod(self._cells)))
        for offsets, number in self._nodes():
            share = charges.clone()
            for axis, offset in enumerate(offsets):
                share *= self._weights[offset, axis]
            grid.index_add_(0, number, share)
        return grid.view(self._cells)

    def collect(self, potential: Tensor, charges: Tensor, q_at_zero: float, share: Share) -> tuple[Tensor, Tensor]:
        """Return the potential without each charge's own, and half its gradient, at the own slots."""
        own, d = share.own, len(self._cells)
        totals = -q_at_zero * charges[own]
        forces = charges.new_zeros((d, len(share)))
        for offsets, number in self._nodes(own):
            value = potential.reshape(-1)[number]
            weights = [self._weights[offset, axis, own] for axis, offset in enumerate(offsets)]
            totals += value * torch.stack(weights).prod(dim=0)
            for c in range(d):
                factors = [*weights[:c], self._slopes[offsets[c], c, own], *weights[c + 1 :]]
                forces[c] += value * torch.stack(factors).prod(dim=0)
        return totals, forces * (self._per_cell / 2)
