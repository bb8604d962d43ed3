"""The compiled engine: kernels over blocks and slices, their work shared out among threads."""

from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from torchdr_cne._compiler import explained
from torchdr_cne.distributed.share import UNIT
from torchdr_cne.forces.kernels import N_COUNTERS, Blocks, Room, Weights, compiled_kernels
from torchdr_cne.forces.problem import ForceProblem, StepCoefficients
from torchdr_cne.forces.slices import EdgeSlices
from torchdr_cne.forces.team import COUNTER_STRIDE
from torchdr_cne.sampling import BLOCK_SIZE
from torchdr_cne.simd import LANES
from torchdr_cne.workers import Workers

_ALL, _NORMALISERS, _FORCES = 0, 1, 2
"""Parts of a step."""
_RANGES_PER_THREAD = 16
_BLOCKS_WORTH_A_THREAD = 64
"""For fewer blocks, waking another thread costs more than it saves."""


class CompiledForces:
    """Computes `TileForces`' gradient on the CPU in float32, with the same bits for any number of threads.

    A gradient's memory is used again by the next one.
    """

    own_threads = True

    def __init__(self, problem: ForceProblem) -> None:
        self._problem = problem
        self._weighted = not problem.is_uniform
        self._repels = bool(problem.draw_weights.any())
        self._learns = problem.forces.attractive_scalar is not None
        self._own = range(problem.share.start // BLOCK_SIZE, problem.share.stop // BLOCK_SIZE)
        self._workers = Workers(min(torch.get_num_threads(), 1 + len(self._own) // _BLOCKS_WORTH_A_THREAD))
        self._mask = problem.layout.occupied.float().numpy()
        self._sizes = problem.layout.occupied.view(-1, BLOCK_SIZE).sum(dim=1).numpy()
        self._draw_weights = problem.draw_weights.numpy()
        self._scale = problem.row_weights.numpy() * self._draw_weights
        self._met = np.zeros(problem.layout.n_blocks if problem.exclude_edges else 0, dtype=np.bool_)
        self._edges = EdgeSlices.of(problem, self._workers)
        self._counters = np.zeros(N_COUNTERS * COUNTER_STRIDE, dtype=np.int64)
        self._room: Room | None = None
        self._gradient = torch.empty(0, dtype=torch.float32)

    def gradient(self, z_ds: Tensor, step: StepCoefficients) -> tuple[Tensor, Tensor | None]:
        """Return the gradient (d, own slots) and the learned scalar's derivative (), if there is one."""
        kernels = compiled_kernels(self._problem.forces, len(z_ds), self._weighted, self._repels)
        z, shifts = z_ds.numpy(), np.array(step.shifts, dtype=np.int64)
        if len(self._met):
            self._met[:] = False
            self._met[shifts] = True
        own = self._own.start, len(self._own)
        blocks = Blocks(z, self._mask, self._sizes, self._draw_weights, shifts, self._met, *own)
        p = tuple(np.float32(value) for value in step.parameters)
        longest = np.float32(np.inf if step.longest is None else step.longest)
        weights = Weights(p, np.float32(step.attraction), np.float32(step.repulsion), longest)
        compiling = explained("the forces") if self._room is None else nullcontext()
        room = self._make_room(len(z), len(shifts), kernels.point_width)
        n_threads = self._workers.n_threads
        ranges = tuple(
            max(1, n // (_RANGES_PER_THREAD * n_threads)) for n in (len(self._own), len(self._edges.starts) - 1)
        )
        arguments = (n_threads, self._counters, *ranges, blocks, self._edges, weights, room)
        alone = not len(room.totals) or self._problem.share.ranks.size == 1
        with compiling:
            for part in (_ALL,) if alone else (_NORMALISERS, _FORCES):
                self._counters[:] = 0
                self._workers.together(kernels.step, part, *arguments)
                for of_row in (room.totals, room.scale) if part == _NORMALISERS else ():
                    self._problem.share.gather_(torch.from_numpy(of_row), "the exchange of normalisers")
        return self._gradient, self._scalar(room) if self._learns else None

    def _scalar(self, room: Room) -> Tensor:
        """Return the learned scalar's derivative, summed over all ranks in one order."""
        share, what = self._problem.share, "the exchange of the learned scalar's derivative"
        of_blocks = share.total(torch.from_numpy(room.block_scalars), what, UNIT // BLOCK_SIZE)
        of_slices = share.total(torch.from_numpy(room.slice_scalars), what, UNIT // LANES)
        return (of_blocks + of_slices).to(torch.float32)

    def _make_room(self, d: int, n_shifts: int, point_width: int) -> Room:
        """Return what steps of ``n_shifts`` meetings fill again and again."""
        n_own, n_slots = len(self._own), len(self._mask)
        n_slices = len(self._edges.starts) - 1
        if self._room is None or self._room.met_forces.shape[1:3] != (n_shifts, d):
            normalised = self._problem.forces.normaliser is not None
            self._gradient = torch.zeros((d, n_own * BLOCK_SIZE), dtype=torch.float32)
            self._room = Room(
                points=np.zeros((n_slots, point_width), dtype=np.float32),
                met_totals=np.empty((n_own if normalised else 0, n_shifts, BLOCK_SIZE), dtype=np.float32),
                totals=np.zeros(n_slots if normalised else 0, dtype=np.float32),
                scale=self._scale,
                met_forces=np.empty((n_own, n_shifts, d, BLOCK_SIZE), dtype=np.float32),
                gradient=self._gradient.numpy(),
                block_scalars=np.zeros(n_own),
                slice_scalars=np.zeros(n_slices),
            )
        return self._room
