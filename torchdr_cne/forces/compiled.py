"""The compiled engine: kernels over blocks, shared out among threads."""

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.forces.kernels import compiled_kernels
from torchdr_cne.forces.problem import ForceProblem, StepCoefficients
from torchdr_cne.forces.slices import WINDOW_BLOCKS, EdgeSlices
from torchdr_cne.sampling import BLOCK_SIZE
from torchdr_cne.workers import Workers


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
        self._mask = layout.occupied.float().numpy()
        self._sizes = layout.occupied.view(-1, BLOCK_SIZE).sum(dim=1).numpy()
        self._draw_weights = problem.draw_weights.numpy()
        edges = EdgeSlices.of(problem.graph, layout)
        self._edges = edges.rows, edges.starts, edges.columns, edges.weights
        self._scale = edges.row_weights * self._draw_weights
        self._totals = np.zeros(layout.n_slots if self._normalised else 0, dtype=np.float32)
        self._met = np.zeros(layout.n_blocks if problem.exclude_edges else 0, dtype=np.bool_)
        self._met_forces = np.empty((0, 0, 0, 0), dtype=np.float32)
        self._workers = Workers()

    def gradient(self, z_ds: Tensor, step: StepCoefficients) -> tuple[Tensor, Tensor | None]:
        """Return the gradient (d, slots) and the learned scalar's derivative (), if there is one."""
        kernels = compiled_kernels(self._forces, len(z_ds))
        z, shifts = z_ds.numpy(), np.array(step.shifts, dtype=np.int64)
        p = tuple(np.float32(value) for value in step.parameters)
        self._make_room(len(z), len(shifts), kernels.point_width)
        if len(self._met):
            self._met[:] = False
            self._met[shifts] = True
        blocks = z, shifts, self._mask, self._sizes
        if self._normalised:
            met_totals = self._met_forces.reshape(-1)[: len(shifts) * self._n_slots].reshape(
                -1, len(shifts), BLOCK_SIZE
            )
            self._workers.share(kernels.meet_totals, self._n_blocks, *blocks, p, self._points, met_totals)
            self._workers.share(
                kernels.shares, self._n_windows, met_totals, self._draw_weights, *self._edges, self._points, p,
                self._met, self._totals, self._scale,
            )  # fmt: skip
        tile_scalars, edge_scalars = np.zeros(self._n_blocks), np.zeros(self._n_windows)
        self._workers.share(
            kernels.meet_forces, self._n_blocks, *blocks, self._scale, p, self._points,
            self._met_forces, tile_scalars,
        )  # fmt: skip
        attraction, repulsion = np.float32(step.attraction), np.float32(step.repulsion)
        self._workers.share(
            kernels.gradient, self._n_windows, self._met_forces, *self._edges, self._scale, self._points, p, self._met,
            attraction, repulsion, self._gradient.numpy(), edge_scalars,
        )  # fmt: skip
        scalar = edge_scalars.sum() + step.repulsion * tile_scalars.sum()
        return self._gradient, torch.tensor(scalar, dtype=z_ds.dtype) if self._learns else None

    def _make_room(self, d: int, n_shifts: int, point_width: int) -> None:
        """Allocate what steps of ``n_shifts`` meetings fill again and again."""
        if self._met_forces.shape[1:3] == (n_shifts, d):
            return
        self._met_forces = np.empty((self._n_blocks, n_shifts, d, BLOCK_SIZE), dtype=np.float32)
        self._points = np.zeros((self._n_slots, point_width), dtype=np.float32)
        self._gradient = torch.zeros((d, self._n_slots))
