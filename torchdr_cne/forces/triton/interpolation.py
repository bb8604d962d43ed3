"""Sums over all pairs in O(n) on a CUDA device, without a wait for the device in most steps.

The grid's size follows bounds of the layout that were read a few steps ago; its step is computed on the device from the
present bounds, so that the grid always covers all points. In a narrow layout the grid carries q(d²) − q(0), whose
rounding errors shrink with the layout.
"""

from collections.abc import Hashable

import torch
from torch import Tensor

from torchdr_cne.distributed import Share
from torchdr_cne.forces.declaration import PairForces
from torchdr_cne.forces.interpolation import FEWEST_STEPS, MOST_CELLS, NODES, STEP, influence
from torchdr_cne.forces.tiles import power
from torchdr_cne.forces.triton.grid_kernels import collect, measure, spread, to_padded

_MARGIN = NODES + 2
_SIZES = [m << k for k in range(3, 22) for m in (4, 6)]
"""Numbers of nodes of an axis: few sizes need few plans of the transform and few recordings of a step."""
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
    forces : PairForces
        Gives q as ``normaliser``; the gradient follows from it.
    share : Share
        The slots of each rank.
    step : float, default=0.2
        Step of the grid.
    """

    own_threads = False

    def __init__(self, forces: PairForces, share: Share, step: float = STEP) -> None:
        self._forces, self._share, self._step = forces, share, step
        self._calls = 0
        self._sizes: list[int] = []
        self._asked: tuple[Tensor, torch.cuda.Event | None] | None = None
        self._constants: dict[tuple[int, bool], tuple[Tensor, Tensor]] = {}

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
        transform, at_zero = self._kernel(scalars, parameters)
        charged = self._charged(z_ds, charges, low, scalars)
        potential = torch.fft.irfftn(torch.fft.rfftn(charged).mul_(transform), s=charged.shape)
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
        to_padded[(-(-grid.numel() // _BLOCK),)](counts, scalars, grid, *sizes, grid.numel(), D=len(z_ds), BLOCK=_BLOCK)
        return grid

    def _kernel(self, scalars: Tensor, parameters: tuple[Tensor | float, ...]) -> tuple[Tensor, Tensor]:
        """Return the transform of q by node, by which that of the charges is multiplied, and q(0)."""
        normaliser, axes = self._forces.normaliser, self._axes(scalars.device)
        assert normaliser is not None
        d2 = sum((squares * scalars[1] for squares, _ in axes[1:]), axes[0][0] * scalars[1])
        q = normaliser(d2, parameters, power)
        at_zero = q.view(-1)[0]
        transform = torch.fft.rfftn((q - scalars[3] * at_zero).float()).real
        for _, undoing in axes:
            transform = transform * undoing
        return transform, at_zero

    def _axes(self, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        """Return, for each axis, squared distances from node 0 in steps, and what undoes both splines."""
        found = []
        for axis, size in enumerate(self._sizes):
            is_last = axis == len(self._sizes) - 1
            if (size, is_last) not in self._constants:
                at = torch.arange(2 * size, device=device)
                squares = torch.minimum(at, 2 * size - at).double().square()
                self._constants[size, is_last] = squares, influence(2 * size, is_last, squares).float()
            along = [-1 if other == axis else 1 for other in range(len(self._sizes))]
            squares, undoing = self._constants[size, is_last]
            found.append((squares.view(along), undoing.view(along)))
        return found

    def _choose(self, widths: list[float]) -> None:
        """Choose the numbers of nodes for a layout of these widths; one that is not finite keeps the smallest grid."""
        if not all(0 <= width < float("inf") for width in widths):
            widths = [0.0] * len(widths)
        step = min(self._step, max(widths) / FEWEST_STEPS) or 1.0
        most = int(MOST_CELLS ** (1 / len(widths)))
        possible = [size for size in _SIZES if size <= most]
        needed = [_GROWTH * width / step + _MARGIN for width in widths]
        self._sizes = [next((size for size in possible if size >= least), possible[-1]) for least in needed]


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
