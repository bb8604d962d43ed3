"""The engine of CUDA devices: Triton kernels over tiles and over slices of edges."""

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from torchdr_cne.forces.problem import ForceProblem, StepCoefficients
from torchdr_cne.forces.tiles import power
from torchdr_cne.forces.triton.arithmetic import power_function
from torchdr_cne.forces.triton.edge_kernels import edge_forces, edge_shares
from torchdr_cne.forces.triton.slices import LANES, EdgeSlices
from torchdr_cne.forces.triton.tile_kernels import tile_forces, tile_totals
from torchdr_cne.forces.triton.translation import MOST_PARAMETERS, device_function, interprets
from torchdr_cne.sampling import BLOCK_SIZE

_TILES = {"BLOCK": BLOCK_SIZE, "K": 4, "UNROLL": 4, "num_warps": 2}
"""Columns that a thread takes at once, and in how many copies of the loop's body: more take longer to compile."""
_EDGES_AT_ONCE = 4


class TritonForces:
    """Computes `TileForces`' gradient on a CUDA device in float32, for up to three components.

    A gradient's memory is used again by the next one. The host never waits for the device.
    """

    own_threads = False
    is_replayable = True

    def __init__(self, problem: ForceProblem) -> None:
        self._problem, share = problem, problem.share
        forces, layout = problem.forces, problem.layout
        self._attractive, self._repulsive = device_function(forces.attractive), device_function(forces.repulsive)
        self._normaliser = device_function(forces.normaliser)
        self._scalars = device_function(forces.attractive_scalar), device_function(forces.repulsive_scalar)
        self._power = power_function(interprets())
        self._edges = EdgeSlices.of(problem)
        self._occupied = layout.occupied.float()
        self._repels = bool(problem.draw_weights.any())
        self._scale = (problem.row_weights * problem.draw_weights).float()
        self._totals = torch.zeros_like(self._scale)
        device = self._scale.device
        self._no_shifts = torch.zeros(1, dtype=torch.int32, device=device)
        self._shifts: dict[int, Tensor] = {}
        self._parameters = torch.zeros(MOST_PARAMETERS, dtype=torch.float32, device=device)
        self._sent: tuple[Tensor | float, ...] | None = None
        self._guards = False
        self._first, self._n_own = share.start // BLOCK_SIZE, len(share)
        learned = len(share) if self._learns else 0
        self._learned = torch.zeros(learned, dtype=torch.float32, device=device)
        self._gradient = torch.empty((0, 0), dtype=torch.float32, device=device)
        self._points = self._gradient

    @property
    def _learns(self) -> bool:
        return self._problem.forces.attractive_scalar is not None

    def gradient(self, z_ds: Tensor, step: StepCoefficients) -> tuple[Tensor, Tensor | None]:
        """Return the gradient (d, own slots) and the learned scalar's derivative (), if there is one."""
        self.send(z_ds, step)
        return self.launch(z_ds, step)

    def send(self, z_ds: Tensor, step: StepCoefficients) -> Hashable:
        """Send the shifts and parameters of the step, and return what its launches depend on besides these."""
        self._make_room(z_ds)
        n_shifts = len(step.shifts)
        if n_shifts:
            if n_shifts not in self._shifts:
                self._shifts[n_shifts] = torch.empty(n_shifts, dtype=torch.int32, device=z_ds.device)
            self._shifts[n_shifts].copy_(torch.tensor(step.shifts, dtype=torch.int32), non_blocking=True)
        self._send_parameters(step.parameters)
        return n_shifts, self._guards, step.attraction, step.repulsion, step.longest

    def launch(self, z_ds: Tensor, step: StepCoefficients) -> tuple[Tensor, Tensor | None]:
        """Launch the kernels of the step; `gradient` returns what this returns."""
        shifts, parameters = self._shifts.get(len(step.shifts), self._no_shifts), self._parameters
        self._points[:, : len(z_ds)] = z_ds.t()
        draws = self._repels and len(step.shifts) > 0
        if draws and self._normaliser is not None:
            self._normalise(z_ds, shifts, parameters)
        if draws:
            self._repulsion(z_ds, shifts, parameters, step)
        self._attraction(z_ds, shifts, parameters, step, adds=draws)
        if not self._learns:
            return self._gradient, None
        total = self._problem.share.total(self._learned, "the exchange of the learned scalar's derivative")
        return self._gradient, total.to(z_ds.dtype)

    def _make_room(self, z_ds: Tensor) -> None:
        """Make the table of points, whose last columns are the row sum and the scale where edges need these."""
        d = len(z_ds)
        if self._gradient.shape != (d, self._n_own):
            further = (self._normaliser is not None) + self._problem.exclude_edges
            width = 1 << (d + further - 1).bit_length()
            self._points = z_ds.new_zeros((z_ds.shape[1], width))
            self._gradient = z_ds.new_zeros((d, self._n_own))
            if self._problem.exclude_edges and self._normaliser is None:
                self._points[:, -1] = self._scale

    def _send_parameters(self, parameters: tuple[Tensor | float, ...]) -> None:
        """Send the declared functions' parameters to the device; numbers only once they change.

        A force that is infinite at distance 0 needs kernels that guard against it.
        """
        parameters = parameters[:MOST_PARAMETERS]  # no translated function reads others
        learned = any(isinstance(value, Tensor) for value in parameters)
        if self._sent is None or (not learned and parameters != self._sent):
            at_zero = self._problem.forces.repulsive(torch.zeros(()), tuple(map(float, parameters)), power)
            self._guards = not bool(at_zero.isfinite())
        if learned:
            for place, value in enumerate(parameters):
                self._parameters[place] = value
        elif parameters and parameters != self._sent:
            self._parameters[: len(parameters)].copy_(torch.tensor(parameters, dtype=torch.float32), non_blocking=True)
        self._sent = parameters

    def _normalise(self, z_ds: Tensor, shifts: Tensor, parameters: Tensor) -> None:
        """Compute each row's normaliser and scale, and hand both to all ranks."""
        problem, share = self._problem, self._problem.share
        n_slots, n_blocks = z_ds.shape[1], problem.layout.n_blocks
        tile_totals[(self._n_own // BLOCK_SIZE,)](
            z_ds, self._occupied, shifts, parameters, self._totals, n_slots, self._first, n_blocks, len(shifts),
            Q=self._normaliser, POWER=self._power, D=len(z_ds), **_TILES,
        )  # fmt: skip
        edge_shares[(len(self._edges.starts) - 1,)](
            self._points, *self._edges, problem.draw_weights, shifts, parameters, self._totals, self._scale,
            share.start, n_blocks, len(shifts), 1 / len(shifts), Q=self._normaliser, **self._of_edges(z_ds),
        )  # fmt: skip
        for of_row in (self._totals, self._scale):
            share.gather_(of_row, "the exchange of normalisers")
        self._points[:, len(z_ds)] = self._totals
        if problem.exclude_edges:
            self._points[:, -1] = self._scale

    def _repulsion(self, z_ds: Tensor, shifts: Tensor, parameters: Tensor, step: StepCoefficients) -> None:
        n_slots, n_blocks = z_ds.shape[1], self._problem.layout.n_blocks
        tile_forces[(self._n_own // BLOCK_SIZE,)](
            z_ds, self._occupied, self._scale, shifts, parameters, self._gradient, self._learned,
            n_slots, self._n_own, self._first, n_blocks, len(shifts), step.repulsion / len(shifts),
            F=self._repulsive, F_SCALAR=self._scalars[1], POWER=self._power,
            D=len(z_ds), LEARNS=self._learns, GUARDS=self._guards, **_TILES,
        )  # fmt: skip

    def _attraction(
        self, z_ds: Tensor, shifts: Tensor, parameters: Tensor, step: StepCoefficients, *, adds: bool
    ) -> None:
        problem = self._problem
        longest = 0.0 if step.longest is None else float(step.longest)
        edge_forces[(len(self._edges.starts) - 1,)](
            self._points, *self._edges, shifts, parameters, self._gradient, self._learned,
            problem.share.start, self._n_own, problem.layout.n_blocks, len(shifts),
            float(step.attraction), float(step.repulsion), step.repulsion / max(1, len(shifts)), longest,
            F=self._attractive, F_REPULSIVE=self._repulsive, Q=self._normaliser,
            F_SCALAR=self._scalars[0], F_REPULSIVE_SCALAR=self._scalars[1],
            NORMALISED=adds and self._normaliser is not None, LEARNS=self._learns,
            ADDS=adds, SHORTENS=step.longest is not None, **self._of_edges(z_ds),
        )  # fmt: skip

    def _of_edges(self, z_ds: Tensor) -> dict[str, Any]:
        """Return the constants that kernels over edges have in common."""
        return {
            "POWER": self._power,
            "D": len(z_ds),
            "WIDTH": self._points.shape[1],
            "WEIGHTED": not self._problem.is_uniform,
            "EXCLUDES": self._problem.exclude_edges,
            "BLOCK": BLOCK_SIZE,
            "LANES": LANES,
            "E": _EDGES_AT_ONCE,
            "num_warps": 1,
        }
