"""The compiled engine: kernels over blocks and slices, their work shared out among threads."""

from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from torchdr_cne._compiler import explained
from torchdr_cne.forces.kernels import N_COUNTERS, Blocks, Room, Weights, compiled_kernels
from torchdr_cne.forces.problem import ForceProblem, StepCoefficients
from torchdr_cne.forces.slices import EdgeSlices, is_uniform
from torchdr_cne.forces.team import COUNTER_STRIDE
from torchdr_cne.sampling import BLOCK_SIZE
from torchdr_cne.workers import Workers

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
        self._weighted = not is_uniform(problem.graph)
        self._learns = problem.forces.attractive_scalar is not None
        n_blocks = problem.layout.n_blocks
        self._workers = Workers(min(torch.get_num_threads(), 1 + n_blocks // _BLOCKS_WORTH_A_THREAD))
        self._mask = problem.layout.occupied.float().numpy()
        self._sizes = problem.layout.occupied.view(-1, BLOCK_SIZE).sum(dim=1).numpy()
        self._draw_weights = problem.draw_weights.numpy()
        row_weights = problem.layout.scatter(problem.graph.row_weights).numpy()
        self._scale = row_weights * self._draw_weights
        self._met = np.zeros(n_blocks if problem.exclude_edges else 0, dtype=np.bool_)
        self._edges = EdgeSlices.of(problem.graph, problem.layout, self._workers)
        self._counters = np.zeros(N_COUNTERS * COUNTER_STRIDE, dtype=np.int64)
        self._room: Room | None = None
        self._gradient = torch.empty(0)

    def gradient(self, z_ds: Tensor, step: StepCoefficients) -> tuple[Tensor, Tensor | None]:
        """Return the gradient (d, slots) and the learned scalar's derivative (), if there is one."""
        kernels = compiled_kernels(self._problem.forces, len(z_ds), self._weighted)
        z, shifts = z_ds.numpy(), np.array(step.shifts, dtype=np.int64)
        if len(self._met):
            self._met[:] = False
            self._met[shifts] = True
        blocks = Blocks(z, self._mask, self._sizes, self._draw_weights, shifts, self._met)
        p = tuple(np.float32(value) for value in step.parameters)
        longest = np.float32(np.inf if step.longest is None else step.longest)
        weights = Weights(p, np.float32(step.attraction), np.float32(step.repulsion), longest)
        compiling = explained("the forces") if self._room is None else nullcontext()
        room = self._make_room(len(z), len(shifts), kernels.point_width)
        self._counters[:] = 0
        n_threads = self._workers.n_threads
        some_blocks, some_slices = (
            max(1, n // (_RANGES_PER_THREAD * n_threads)) for n in (len(self._sizes), len(self._edges.starts) - 1)
        )
        with compiling:
            self._workers.together(
                kernels.step, n_threads, self._counters, some_blocks, some_slices, blocks, self._edges, weights, room
            )
        if not self._learns:
            return self._gradient, None
        return self._gradient, torch.tensor(room.block_scalars.sum() + room.slice_scalars.sum(), dtype=z_ds.dtype)

    def _make_room(self, d: int, n_shifts: int, point_width: int) -> Room:
        """Return what steps of ``n_shifts`` meetings fill again and again."""
        n_blocks, n_slots = len(self._sizes), len(self._mask)
        n_slices = len(self._edges.starts) - 1
        if self._room is None or self._room.met_forces.shape[1:3] != (n_shifts, d):
            normalised = self._problem.forces.normaliser is not None
            self._gradient = torch.zeros((d, n_slots))
            self._room = Room(
                points=np.zeros((n_slots, point_width), dtype=np.float32),
                met_totals=np.empty((n_blocks if normalised else 0, n_shifts, BLOCK_SIZE), dtype=np.float32),
                totals=np.zeros(n_slots if normalised else 0, dtype=np.float32),
                scale=self._scale,
                met_forces=np.empty((n_blocks, n_shifts, d, BLOCK_SIZE), dtype=np.float32),
                gradient=self._gradient.numpy(),
                block_scalars=np.zeros(n_blocks),
                slice_scalars=np.zeros(n_slices),
            )
        return self._room
