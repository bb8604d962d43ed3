"""Row-owned gradients in torch, on any device: the reference for the compiled kernels.

Positions are (d, slots), so that a meeting of two blocks is a (d, 64, 64) tile. All sums have one fixed order:
a row's tiles by shift, its edges by column, global scalars by block.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from torchdr_cne.devices import block_elements
from torchdr_cne.forces.problem import ForceProblem, StepCoefficients
from torchdr_cne.sampling import BLOCK_SIZE

_TILES_AT_ONCE = 32, 4096
"""Number of tiles in one operation, on a CPU and on other devices."""
_EDGE_CHUNK_BLOCKS = 256, 32_768
"""Number of blocks whose rows' edges are in one operation, likewise."""


def power(base: Tensor, exponent: Tensor | float) -> Tensor:
    """Positive base to a real exponent, as exp(exponent · log base): the same bits for any split of rows."""
    return torch.exp(exponent * torch.log(base))


def shorten_rows(gradient: Tensor, axis: int, longest: float) -> None:
    """Shorten, in place, each row's gradient vector, along ``axis``, to at most ``longest``."""
    squares = gradient.square().sum(dim=axis, keepdim=True)
    gradient *= longest * squares.clamp_min_(longest**2).rsqrt_()


class TileForces:
    """Computes the gradient of the sampled loss, a chunk of tiles or edges at a time."""

    own_threads = False

    def __init__(self, problem: ForceProblem, *, compile: bool = False) -> None:
        self._problem = problem
        own = problem.share.own
        self._graph = graph = problem.slot_graph()
        self._rows, self._columns = graph.rows + own.start, graph.indices.long()
        self._meeting = problem.layout.meeting_shift(self._rows, self._columns) if problem.exclude_edges else None
        device = graph.indptr.device
        step = block_elements(device, *_EDGE_CHUNK_BLOCKS) * BLOCK_SIZE
        self._tiles_at_once = block_elements(device, *_TILES_AT_ONCE)
        slots = list(range(own.start, own.stop, step)) + [own.stop]
        bounds = graph.indptr[[slot - own.start for slot in slots]].tolist()
        self._chunks = [
            (slice(*edges), slice(*rows)) for edges, rows in zip(pairwise(bounds), pairwise(slots), strict=True)
        ]
        self._tile_forces = torch.compile(_tile_forces, dynamic=True) if compile else _tile_forces

    def gradient(self, z_ds: Tensor, step: StepCoefficients) -> tuple[Tensor, Tensor | None]:
        """Return the gradient (d, own slots) and the learned scalar's derivative (), if there is one."""
        problem, share = self._problem, self._problem.share
        met = self._met_edges(step.shifts, z_ds.dtype)
        if problem.forces.normaliser is None:
            totals, shares = None, problem.row_weights
        else:
            totals = self._normalisers(z_ds, step, met)
            shares = self._edge_shares(z_ds, step, totals)
            for of_row in (totals, shares):
                share.gather_(of_row, "the exchange of normalisers")
        row_scale = shares * problem.draw_weights / max(len(step.shifts), 1)
        gradient, scalar = self._repulsion(z_ds, step, row_scale)
        edge_gradient, edge_scalar = self._edge_forces(z_ds, step, totals, row_scale, met)
        gradient += edge_gradient
        if step.longest is not None:
            shorten_rows(gradient, 0, step.longest)
        own = gradient if share.ranks.size == 1 else gradient[:, share.own].contiguous()
        if scalar is None or edge_scalar is None:
            return own, None
        total = share.total((scalar + edge_scalar)[share.own], "the exchange of the learned scalar's derivative")
        return own, total.to(z_ds.dtype)

    def _met_edges(self, shifts: list[int], dtype: torch.dtype) -> Tensor | None:
        """1 for edges whose ends meet as negatives in this step, though they are excluded; (E,)."""
        if self._meeting is None:
            return None
        met = torch.zeros_like(self._meeting, dtype=torch.bool)
        for shift in shifts:
            met |= self._meeting == shift
        return met.to(dtype)

    def _tiles(self, z_ds: Tensor, shifts: list[int]) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Yield slot ranges of own row blocks with tile differences (d, c, 64, 64), partner slots and masks."""
        layout = self._problem.layout
        d, n_blocks = len(z_ds), layout.n_blocks
        z_blocks = z_ds.view(d, n_blocks, BLOCK_SIZE)
        occupied = layout.occupied.view(n_blocks, BLOCK_SIZE)
        not_self = ~torch.eye(BLOCK_SIZE, dtype=torch.bool, device=z_ds.device)
        own = self._problem.share.own
        stop = own.stop // BLOCK_SIZE
        at_once = self._tiles_at_once
        for start in range(own.start // BLOCK_SIZE, stop, at_once):
            blocks = torch.arange(start, min(start + at_once, stop), device=z_ds.device)
            rows = slice(start * BLOCK_SIZE, min(start + at_once, stop) * BLOCK_SIZE)
            for shift in shifts:
                partners = (shift - blocks) % n_blocks
                difference = z_blocks[:, blocks].unsqueeze(3) - z_blocks[:, partners].unsqueeze(2)
                both = occupied[blocks].unsqueeze(2) & occupied[partners].unsqueeze(1)
                mask = both & (not_self | (partners != blocks).view(-1, 1, 1))
                yield rows, difference, partners, mask

    def _normalisers(self, z_ds: Tensor, step: StepCoefficients, met: Tensor | None) -> Tensor:
        """Σ_k q_ik of each row over its negatives, scaled to n_negatives of them, (slots,)."""
        normaliser = self._problem.forces.normaliser
        assert normaliser is not None
        totals = torch.zeros_like(z_ds[0])
        for rows, difference, _, mask in self._tiles(z_ds, step.shifts):
            q = normaliser(difference.square().sum(dim=0), step.parameters, power)
            totals[rows] += torch.where(mask, q, 0.0).sum(dim=2).flatten()
        if met is not None:
            for edges, rows, _, d2, _ in self._edges(z_ds):
                totals[rows] -= self._row_sums(normaliser(d2, step.parameters, power) * met[edges], rows, edges)
        return totals * self._problem.draw_weights / len(step.shifts)

    def _edge_shares(self, z_ds: Tensor, step: StepCoefficients, totals: Tensor) -> Tensor:
        """Σ_j w_ij / (q_ij + S_i) of each row, S_i its normaliser, (slots,)."""
        normaliser = self._problem.forces.normaliser
        assert normaliser is not None
        shares = torch.zeros_like(totals)
        for edges, rows, _, d2, weights in self._edges(z_ds):
            q = normaliser(d2, step.parameters, power)
            shares[rows] = self._row_sums(weights / (q + totals[self._rows[edges]]), rows, edges)
        return shares

    def _repulsion(self, z_ds: Tensor, step: StepCoefficients, row_scale: Tensor) -> tuple[Tensor, Tensor | None]:
        forces = self._problem.forces
        gradient = torch.zeros_like(z_ds)
        scalar = None if forces.repulsive_scalar is None else torch.zeros_like(z_ds[0])
        scale = row_scale.view(-1, BLOCK_SIZE)
        for rows, difference, partners, mask in self._tiles(z_ds, step.shifts):
            row_part = scale.view(-1)[rows].view(-1, BLOCK_SIZE, 1)
            pair_scale = torch.where(mask, row_part + scale[partners].unsqueeze(1), 0.0)
            gradient[:, rows] += self._tile_forces(forces.repulsive, step.parameters, difference, pair_scale)
            if scalar is not None and forces.repulsive_scalar is not None:
                value = forces.repulsive_scalar(difference.square().sum(dim=0), step.parameters, power)
                scalar[rows] += (torch.where(mask, row_part, 0.0) * value).sum(dim=2).flatten()
        gradient *= 2 * step.repulsion
        return gradient, None if scalar is None else scalar * step.repulsion

    def _edges(self, z_ds: Tensor) -> Iterator[tuple[slice, slice, Tensor, Tensor, Tensor]]:
        """Yield edge ranges with their row ranges, differences (d, e), d² and weights."""
        for edges, rows in self._chunks:
            difference = z_ds[:, self._rows[edges]] - z_ds[:, self._columns[edges]]
            d2 = difference.square().sum(dim=0)
            yield edges, rows, difference, d2, self._graph.weights[edges]

    def _edge_forces(
        self,
        z_ds: Tensor,
        step: StepCoefficients,
        totals: Tensor | None,
        row_scale: Tensor,
        met: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        forces, p = self._problem.forces, step.parameters
        gradient = torch.zeros_like(z_ds)
        scalar = None if forces.attractive_scalar is None else torch.zeros_like(z_ds[0])
        for edges, rows, difference, d2, weights in self._edges(z_ds):
            i, j = self._rows[edges], self._columns[edges]
            coefficient = 2 * step.attraction * weights * forces.attractive(d2, p, power)
            if totals is not None and forces.normaliser is not None:
                q = forces.normaliser(d2, p, power)
                both = 1 / (q + totals[i]) + 1 / (q + totals[j])
                coefficient += step.repulsion * weights * both * forces.repulsive(d2, p, power)
            if met is not None:
                unwanted = met[edges] * (row_scale[i] + row_scale[j])
                coefficient -= step.repulsion * unwanted * forces.repulsive(d2, p, power)
            gradient[:, rows] = self._row_sums(2 * coefficient * difference, rows, edges)
            if scalar is not None and forces.attractive_scalar is not None:
                value = step.attraction * weights * forces.attractive_scalar(d2, p, power)
                if met is not None and forces.repulsive_scalar is not None:
                    unwanted = met[edges] * row_scale[i] * forces.repulsive_scalar(d2, p, power)
                    value = value - step.repulsion * unwanted
                scalar[rows] = self._row_sums(value, rows, edges)
        return gradient, scalar

    def _row_sums(self, values: Tensor, rows: slice, edges: slice) -> Tensor:
        """Sum values of edges (…, e) within each row (…, r)."""
        start = self._problem.share.start
        offsets = self._graph.indptr[rows.start - start : rows.stop - start + 1] - edges.start
        columns = values.t().contiguous() if values.ndim == 2 else values
        sums = torch.segment_reduce(columns, "sum", offsets=offsets, axis=0, initial=0, unsafe=True)
        return sums.t() if values.ndim == 2 else sums


def _tile_forces(
    repulsive: Callable[..., Tensor],
    parameters: tuple[Tensor | float, ...],
    difference: Tensor,
    scale: Tensor,
) -> Tensor:
    """Σ_k scale_ik · f(d²_ik) (z_i − z_k) of a chunk of tiles, (d, rows); f may be infinite where the scale is 0."""
    coefficient = scale * repulsive(difference.square().sum(dim=0), parameters, power)
    coefficient = torch.where(scale == 0, 0.0, coefficient)
    return (coefficient * difference).sum(dim=3).flatten(1)
