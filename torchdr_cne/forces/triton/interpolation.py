"""Sums over all pairs in O(n) on a CUDA device, without a wait for the device in most steps.

The grid's size follows bounds of the layout that were read a few steps ago; its step is computed on the device from the
present bounds, so that the grid always covers all points. In a narrow layout the grid carries q(d²) − q(0), whose
rounding errors shrink with the layout.
"""

import math
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from torchdr_cne.distributed import Share
from torchdr_cne.forces.declaration import PairForces
from torchdr_cne.forces.interpolation import FEWEST_STEPS, MOST_CELLS, NODES, STEP, influence
from torchdr_cne.forces.triton.arithmetic import plain_power
from torchdr_cne.forces.triton.grid_kernels import collect, convolve, measure, q_of_grid, spread, to_padded
from torchdr_cne.forces.triton.translation import MOST_PARAMETERS, device_function

_MARGIN = NODES + 2
_SIZES = [m << k for k in range(3, 22) for m in (4, 6)]
"""Numbers of nodes of every axis: a new size takes a second, for new plans of the transform and a new recording."""
_READ_EVERY, _READ_AFTER = 10, 5
"""The bounds are asked for every ten steps, and their answer is awaited five steps later, when it has long arrived."""
_GROWTH = 1.25
"""Factor by which a layout may grow between two readings before the grid's step has to grow with it."""
_UNITS = 2.0**32
"""Units of the largest charge in which charges add up."""
_NARROW = 1.0
"""Width up to which the grid carries q(d²) − q(0)."""
_BLOCK = 128


class DeviceInterpolatedSums:
    """Both sums of `PairSums` in float32 on a CUDA device, for one to three dimensions; the same bits in every run.

    Parameters
    ----------
    forces, share, step
        As in `InterpolatedSums`.
    device : torch.device
        The device of the positions.
    """

    own_threads = False

    def __init__(self, forces: PairForces, share: Share, device: torch.device, step: float = STEP) -> None:
        self._share, self._step = share, step
        self._calls = 0
        self._sizes: list[int] = []
        self._asked: tuple[Tensor, torch.cuda.Event | None] | None = None
        self._constants: dict[tuple[int, bool], Tensor] = {}
        self._normaliser = device_function(forces.normaliser, exact=True)
        self._device = device
        self._sent: tuple[tuple[Tensor | float, ...] | None, Tensor] = (None, torch.empty(0))

    def send(self, z_ds: Tensor) -> Hashable:
        """Choose the size of the grid, and return it."""
        call, self._calls = self._calls, self._calls + 1
        if call == 0:
            self._choose(_widths(z_ds).tolist())
        elif call % _READ_EVERY == 0:
            self._asked = _sent_to_host(_widths(z_ds))
        elif call % _READ_EVERY == _READ_AFTER and self._asked is not None:
            answer, arrived = self._asked
            if arrived is not None:
                arrived.synchronize()
            self._choose(answer.tolist())
        return tuple(self._sizes)

    def compute(self, z_ds: Tensor, charges: Tensor, parameters: tuple[Tensor | float, ...]) -> tuple[Tensor, Tensor]:
        """Return both sums for the own slots, on a grid of the size that was chosen."""
        if not self._sizes:
            self.send(z_ds)
        low, high = torch.aminmax(z_ds, dim=1)
        d, sizes = len(z_ds), (*self._sizes, 1, 1)[:3]
        scalars = torch.empty(4, dtype=torch.float64, device=z_ds.device)
        measure[(1,)](
            low, high, charges.abs().amax(), scalars, *sizes, self._step, _UNITS, _MARGIN, FEWEST_STEPS, _NARROW, D=d
        )
        potential, at_zero = self._potential(self._charged(z_ds, charges, low, scalars), scalars, parameters)
        offset = scalars[3] * at_zero * charges.sum(dtype=torch.float64)
        n_own = len(self._share)
        totals, forces = z_ds.new_empty(n_own), z_ds.new_empty((d, n_own))
        collect[(-(-n_own // _BLOCK),)](
            z_ds, charges, low, scalars, offset, at_zero, potential, totals, forces,
            self._share.start, n_own, z_ds.shape[1], *sizes, D=d, BLOCK=_BLOCK,
        )  # fmt: skip
        return totals, forces

    def _charged(self, z_ds: Tensor, charges: Tensor, low: Tensor, scalars: Tensor) -> Tensor:
        """Return the charges on the grid, twice as wide as the layout on each axis."""
        n_slots, sizes = z_ds.shape[1], (*self._sizes, 1, 1)[:3]
        counts = torch.zeros(self._sizes, dtype=torch.int64, device=z_ds.device)
        spread[(-(-n_slots // _BLOCK),)](
            z_ds, charges, low, scalars, counts, n_slots, *sizes, D=len(z_ds), BLOCK=_BLOCK
        )
        grid = z_ds.new_empty([2 * size for size in self._sizes])
        to_padded[self._programs(grid.shape)](counts, scalars, grid, *sizes, D=len(z_ds), BLOCK=_BLOCK)
        return grid

    def _potential(
        self, charged: Tensor, scalars: Tensor, parameters: tuple[Tensor | float, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return Σ_j c_j q between each node and the charges, of which the first half of each axis counts, and q(0)."""
        d, sizes = charged.ndim, (*self._sizes, 1, 1)[:3]
        q, at_zero = torch.empty_like(charged), torch.empty((), dtype=torch.float64, device=charged.device)
        q_of_grid[self._programs(q.shape)](
            q, scalars, at_zero, self._on_device(parameters), *sizes,
            Q=self._normaliser, POWER=plain_power, D=d, BLOCK=_BLOCK,
        )  # fmt: skip
        spectrum = self._convolved(torch.fft.rfftn(charged), torch.fft.rfftn(q))
        return torch.fft.irfftn(spectrum, s=charged.shape).contiguous(), at_zero

    def _convolved(self, spectrum: Tensor, kernel: Tensor) -> Tensor:
        """Return the transform of the charges times that of q, and times what undoes the splines of each axis.

        CUDA's transforms leave their results in another order of the axes, which is kept: the last is that of memory.
        """
        d = spectrum.ndim
        order = sorted(range(d), key=spectrum.stride, reverse=True)
        together, other = spectrum.permute(order), kernel.permute(order)
        if not (together.is_contiguous() and other.is_contiguous()):
            return self._convolved(spectrum.contiguous(), kernel.contiguous())
        undoing = [self._undoing(axis, spectrum.device) for axis in order]
        n_y, n_last = together.shape[-2] if d > 1 else 1, together.shape[-1]
        convolve[self._programs(together.shape)](
            torch.view_as_real(together), torch.view_as_real(other), *undoing, *undoing[:1] * (3 - d), n_y, n_last,
            D=d, BLOCK=_BLOCK,
        )  # fmt: skip
        return spectrum

    def _programs(self, shape: Sequence[int]) -> tuple[int]:
        """Return the programs for all nodes of a grid: one for each block of the last axis."""
        return (math.prod(shape[:-1]) * -(-shape[-1] // _BLOCK),)

    def _on_device(self, parameters: tuple[Tensor | float, ...]) -> Tensor:
        """Return the parameters of q as a tensor."""
        if parameters != self._sent[0]:
            numbers = [*map(float, parameters), *[0.0] * (MOST_PARAMETERS - len(parameters))]
            self._sent = parameters, torch.tensor(numbers, dtype=torch.float64).to(self._device, non_blocking=True)
        return self._sent[1]

    def _undoing(self, axis: int, device: torch.device) -> Tensor:
        """Return what undoes both splines in the transform along an axis."""
        size, is_last = self._sizes[axis], axis == len(self._sizes) - 1
        if (size, is_last) not in self._constants:
            like = torch.empty(0, dtype=torch.float32, device=device)
            self._constants[size, is_last] = influence(2 * size, is_last, like)
        return self._constants[size, is_last]

    def _choose(self, widths: list[float]) -> None:
        """Choose the number of nodes for a layout of these widths; one that is not finite keeps the smallest grid."""
        if not all(0 <= width < float("inf") for width in widths):
            widths = [0.0] * len(widths)
        step = min(self._step, max(widths) / FEWEST_STEPS) or 1.0
        most = int(MOST_CELLS ** (1 / len(widths)))
        possible = [size for size in _SIZES if size <= most]
        needed = _GROWTH * max(widths) / step + _MARGIN
        self._sizes = [next((size for size in possible if size >= needed), possible[-1])] * len(widths)


def _widths(z_ds: Tensor) -> Tensor:
    low, high = torch.aminmax(z_ds, dim=1)
    return high - low


def _sent_to_host(values: Tensor) -> tuple[Tensor, "torch.cuda.Event | None"]:
    """Begin to copy values to the host, and return their copy with the event of its arrival."""
    if values.device.type != "cuda":
        return values.clone(), None
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return copy, arrived
