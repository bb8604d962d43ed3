"""Sums over all pairs in O(n) on a CUDA device, without a wait for the device in most steps.

The grid's size follows bounds of the layout that were read a few steps ago; its step is computed on the device from the
present bounds, so that the grid always covers all points.
"""

import torch
from torch import Tensor

from torchdr_cne.distributed import Share
from torchdr_cne.forces.declaration import PairForces
from torchdr_cne.forces.interpolation import (
    FEWEST_STEPS,
    MOST_CELLS,
    NODES,
    SMALL,
    STEP,
    InterpolatedSums,
    influence,
)
from torchdr_cne.forces.triton.grid_kernels import collect, spread
from torchdr_cne.workers import Workers

_MARGIN = NODES + 2
_SIZES = [m << k for k in range(3, 22) for m in (4, 5, 6, 7)]
"""Numbers of nodes of an axis: few sizes have few plans of the transform, and all factors are small."""
_READ_EVERY, _READ_AFTER = 10, 5
"""The bounds are asked for every ten steps, and their answer is awaited five steps later, when it has long arrived."""
_GROWTH = 1.25
"""Factor by which a layout may grow between two readings before the grid's step has to grow with it."""
_UNITS = 2.0**32
"""Units of the largest charge in which charges add up."""
_BLOCK = 128


class DeviceInterpolatedSums(InterpolatedSums):
    """`InterpolatedSums` in float32 on a CUDA device; the bits do not depend on the order of additions."""

    def __init__(self, forces: PairForces, share: Share, workers: Workers, step: float = STEP) -> None:
        super().__init__(forces, share, workers, step)
        self.own_threads = False
        self._calls = 0
        self._widest, self._sizes = 0.0, []
        self._asked: tuple[Tensor, torch.cuda.Event | None] | None = None
        self._constants: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}

    def compute(self, z_ds: Tensor, charges: Tensor, parameters: tuple[Tensor | float, ...]) -> tuple[Tensor, Tensor]:
        """Return both sums for the own slots."""
        low, high = torch.aminmax(z_ds, dim=1)
        span = high - low
        self._read(span)
        if self._widest <= SMALL / 2:
            return self._by_moments(z_ds, charges, parameters)
        sizes, widest = self._sizes, span.amax()
        room = torch.tensor([size - _MARGIN for size in sizes], dtype=torch.float32).to(span.device, non_blocking=True)
        step = torch.maximum((widest / FEWEST_STEPS).clamp_max(self._step), (span / room).amax())
        per_cell = 1 / step
        potential = self._potential(z_ds, charges, low, per_cell, step, parameters)
        totals, forces = z_ds.new_empty(len(self._share)), z_ds.new_empty((len(z_ds), len(self._share)))
        at_zero = self._of_distance(torch.zeros_like(per_cell), parameters)
        shape = (*sizes[1:], 1, 1)[:2]
        collect[(-(-len(self._share) // _BLOCK),)](
            z_ds, charges, low, per_cell, at_zero, potential, totals, forces, self._share.start, len(self._share),
            z_ds.shape[1], *shape, D=len(z_ds), BLOCK=_BLOCK,
        )  # fmt: skip
        return totals, forces

    def _potential(
        self,
        z_ds: Tensor,
        charges: Tensor,
        low: Tensor,
        per_cell: Tensor,
        step: Tensor,
        parameters: tuple[Tensor | float, ...],
    ) -> Tensor:
        """Return Σ_j c_j q(‖node − z_j‖²) at the nodes of the grid."""
        sizes, n_slots = self._sizes, z_ds.shape[1]
        unit = _UNITS / charges.double().abs().amax()
        counts = torch.zeros(sizes, dtype=torch.int64, device=z_ds.device)
        shape = (*sizes[1:], 1, 1)[:2]
        spread[(-(-n_slots // _BLOCK),)](
            z_ds, charges, low, per_cell, unit, counts, n_slots, *shape, D=len(z_ds), BLOCK=_BLOCK
        )
        grid = (counts / unit).to(z_ds.dtype)
        padded = [2 * size for size in sizes]
        squares, undoing = self._of_grid(padded, z_ds)
        kernel = torch.fft.rfftn(self._of_distance(squares * step.square(), parameters)).real * undoing
        found = torch.fft.irfftn(torch.fft.rfftn(grid, s=padded) * kernel, s=padded)
        return found[tuple(map(slice, sizes))].contiguous()

    def _of_grid(self, padded: list[int], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the squared distances from node 0 in steps, around the ends, and what undoes both splines."""
        key = (*padded,)
        if key not in self._constants:
            squares = torch.zeros((), dtype=like.dtype, device=like.device)
            undoing = torch.ones((), dtype=like.dtype, device=like.device)
            for axis, m in enumerate(padded):
                along = [-1 if other == axis else 1 for other in range(len(padded))]
                at = torch.arange(m, device=like.device)
                squares = squares + torch.minimum(at, m - at).to(like.dtype).square().view(along)
                undoing = undoing * influence(m, axis == len(padded) - 1, like).view(along)
            self._constants[key] = squares, undoing
        return self._constants[key]

    def _read(self, span: Tensor) -> None:
        """Ask for the bounds every tenth step, and choose the grid by them five steps later."""
        call, self._calls = self._calls, self._calls + 1
        if call == 0:
            self._choose(span.tolist())
        elif call % _READ_EVERY == 0:
            self._asked = _sent_to_host(span)
        elif call % _READ_EVERY == _READ_AFTER and self._asked is not None:
            answer, arrived = self._asked
            if arrived is not None:
                arrived.synchronize()
            self._choose(answer.tolist())

    def _choose(self, spans: list[float]) -> None:
        """Choose the numbers of nodes for a layout of these widths; one that is not finite keeps the grid it has."""
        if not all(0 <= width < float("inf") for width in spans):
            spans = [0.0] * len(spans)
        self._widest = max(spans)
        step = min(self._step, max(self._widest, SMALL / 2) / FEWEST_STEPS)
        most = int(MOST_CELLS ** (1 / len(spans)))
        needed = [_GROWTH * width / step + _MARGIN for width in spans]
        self._sizes = [min((size for size in _SIZES if size >= least), default=_SIZES[-1]) for least in needed]
        self._sizes = [min(size, max(fits for fits in _SIZES if fits <= most)) for size in self._sizes]


def _sent_to_host(values: Tensor) -> tuple[Tensor, "torch.cuda.Event | None"]:
    """Begin to copy values to the host, and return their copy with the event of its arrival."""
    if values.device.type != "cuda":
        return values.clone(), None
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return copy, arrived
