"""The compiled engine: kernels over row blocks, split among threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.forces.kernels import compiled_kernels
from torchdr_cne.forces.problem import ForceProblem, StepCoefficients
from torchdr_cne.forces.row_kernels_2d import EDGE_CHUNK
from torchdr_cne.sampling import BLOCK_SIZE

_CHUNKS_PER_THREAD = 4


class CompiledForces:
    """Computes `TileForces`' gradient on the CPU in float32, with the same bits for any number of threads."""

    own_threads = True

    def __init__(self, problem: ForceProblem) -> None:
        graph, layout = problem.graph, problem.layout
        self._forces = problem.forces
        self._n_blocks = layout.n_blocks
        self._mask = layout.occupied.float().numpy()
        self._sizes = layout.occupied.view(-1, BLOCK_SIZE).sum(dim=1).numpy()
        spare = (0, EDGE_CHUNK)
        self._edges = (
            graph.indptr.numpy(),
            np.pad(graph.indices.numpy(), spare),
            np.pad(graph.weights.numpy(), spare),
        )
        self._draw_weights = problem.draw_weights.numpy()
        self._pair_scale = (graph.row_weights * problem.draw_weights).numpy()
        self._exclude_edges = problem.exclude_edges
        self._learns = problem.forces.attractive_scalar is not None
        self._n_threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._n_threads) if self._n_threads > 1 else None

    def gradient(self, z_ds: Tensor, step: StepCoefficients) -> tuple[Tensor, Tensor | None]:
        """Return the gradient (d, slots) and the learned scalar's derivative (), if there is one."""
        kernels = compiled_kernels(self._forces, len(z_ds))
        z = z_ds.numpy()
        shifts = np.array(step.shifts, dtype=np.int64)
        p = tuple(np.float32(value) for value in step.parameters)
        met = np.zeros(self._n_blocks if self._exclude_edges else 0, dtype=np.bool_)
        if self._exclude_edges:
            met[shifts] = True
        fixed = (z, shifts, self._mask, self._sizes)
        scale, totals = self._pair_scale, np.empty(0, dtype=np.float32)
        if kernels.totals_and_shares is not None:
            totals, shares = np.zeros((2, z.shape[1]), dtype=np.float32)
            arguments = (*fixed, self._draw_weights, *self._edges, p, met, totals, shares)
            self._over_blocks(kernels.totals_and_shares, arguments)
            scale = shares * self._draw_weights
        gradient = np.empty_like(z)
        scalars = np.zeros(self._n_blocks)
        weights = np.float32(step.attraction), np.float32(step.repulsion)
        self._over_blocks(kernels.forces, (*fixed, scale, *self._edges, p, met, totals, *weights, gradient, scalars))
        scalar = torch.tensor(scalars.sum(), dtype=z_ds.dtype) if self._learns else None
        return torch.from_numpy(gradient), scalar

    def _over_blocks(self, kernel: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Run ``kernel(first, last, *arguments)`` over all blocks."""
        if self._pool is None:
            kernel(0, self._n_blocks, *arguments)
            return
        bounds = np.linspace(0, self._n_blocks, _CHUNKS_PER_THREAD * self._n_threads + 1).astype(int).tolist()
        pending = [self._pool.submit(kernel, first, last, *arguments) for first, last in pairwise(bounds)]
        for future in pending:
            future.result()
