"""The compiled engine: kernels over blocks, shared out among threads."""

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.forces.kernels import compiled_kernels
from torchdr_cne.forces.problem import ForceProblem, StepCoefficients
from torchdr_cne.forces.slices import WINDOW_BLOCKS, EdgeSlices
from torchdr_cne.forces.team import COUNTER_STRIDE
from torchdr_cne.sampling import BLOCK_SIZE
from torchdr_cne.workers import Workers

_RANGES_PER_THREAD = 16
_N_COUNTERS = 7
_BLOCKS_WORTH_A_THREAD = 64
"""For fewer blocks, waking another thread costs more than it saves."""


class CompiledForces:
    """Computes `TileForces`' gradient on the CPU in float32, with the same bits for any number of threads.

    A gradient's memory is used again by the next one.
    """

    own_threads = True

    def __init__(self, problem: ForceProblem) -> None:
        layout = problem.layout
        self._forces = problem.forces
        self._normalised = problem.forces.normaliser is not None
        self._learns = problem.forces.attractive_scalar is not None
        self._n_blocks, self._n_slots = layout.n_blocks, layout.n_slots
        self._n_windows = -(-layout.n_blocks // WINDOW_BLOCKS)
        sizes = layout.occupied.view(-1, BLOCK_SIZE).sum(dim=1).numpy()
        self._slots = layout.occupied.float().numpy(), sizes, problem.draw_weights.numpy()
        edges = EdgeSlices.of(problem.graph, layout)
        self._edges = edges.rows, edges.starts, edges.columns, edges.weights
        self._scale = edges.row_weights * problem.draw_weights.numpy()
        self._met = np.zeros(layout.n_blocks if problem.exclude_edges else 0, dtype=np.bool_)
        self._tile_scalars, self._edge_scalars = np.zeros(self._n_blocks), np.zeros(self._n_windows)
        self._room: tuple[np.ndarray, ...] = ()
        self._counters = np.zeros(_N_COUNTERS * COUNTER_STRIDE, dtype=np.int64)
        self._workers = Workers(min(torch.get_num_threads(), 1 + layout.n_blocks // _BLOCKS_WORTH_A_THREAD))

    def gradient(self, z_ds: Tensor, step: StepCoefficients) -> tuple[Tensor, Tensor | None]:
        """Return the gradient (d, slots) and the learned scalar's derivative (), if there is one."""
        kernels = compiled_kernels(self._forces, len(z_ds))
        shifts = np.array(step.shifts, dtype=np.int64)
        self._make_room(len(z_ds), len(shifts), kernels.point_width)
        if len(self._met):
            self._met[:] = False
            self._met[shifts] = True
        self._counters[:] = 0
        self._workers.together(
            kernels.step,
            self._workers.n_threads,
            self._counters,
            self._range_of(self._n_blocks),
            self._range_of(self._n_windows),
            z_ds.numpy(),
            shifts,
            *self._slots,
            *self._edges,
            tuple(np.float32(value) for value in step.parameters),
            self._met,
            np.float32(step.attraction),
            np.float32(step.repulsion),
            np.float32(np.inf if step.longest is None else step.longest),
            *self._room,
        )
        if not self._learns:
            return self._gradient, None
        scalar = self._edge_scalars.sum() + step.repulsion / len(shifts) * self._tile_scalars.sum()
        return self._gradient, torch.tensor(scalar, dtype=z_ds.dtype)

    def _range_of(self, n_items: int) -> int:
        """Items a thread takes at a time: few enough that all end together."""
        return max(1, n_items // (_RANGES_PER_THREAD * self._workers.n_threads))

    def _make_room(self, d: int, n_shifts: int, point_width: int) -> None:
        """Allocate what steps of ``n_shifts`` meetings fill again and again."""
        if self._room and self._room[-4].shape[1:3] == (n_shifts, d):
            return
        self._gradient = torch.zeros((d, self._n_slots))
        self._room = (
            np.zeros((self._n_slots, point_width), dtype=np.float32),
            np.empty((self._n_blocks if self._normalised else 0, n_shifts, BLOCK_SIZE), dtype=np.float32),
            np.zeros(self._n_slots if self._normalised else 0, dtype=np.float32),
            self._scale,
            np.empty((self._n_blocks, n_shifts, d, BLOCK_SIZE), dtype=np.float32),
            self._gradient.numpy(),
            self._tile_scalars,
            self._edge_scalars,
        )
