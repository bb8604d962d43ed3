"""Comparisons of rows with points that lie in tiles, by Triton kernels that keep most of their keys in registers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchdr_cne.neighbors.comparisons import GROUP, PlacedPoints, nearest_of
from torchdr_cne.neighbors.device_search import smallest

_PRECISION = "tf32x3"
"""Three products of tensor cores for one of float32, whose rounding errors are hardly larger."""
_ROWS, _POINTS, _COLUMNS = 128, 64, 16
"""Rows, points and columns in one product."""
_CANDIDATES, _COLUMNS_READ = 128, 16
"""Candidates of a row whose distances one program computes, and columns that are read at once."""
_KEYS_OF_WARP = 256
"""Candidates of a row for each warp that selects among them."""
_MOST_CANDIDATES = 1 << 14
"""Candidates of a row that the registers of 16 warps hold."""


@triton.jit
def group_minima(
    table, squares, rows, pairs, starts, tiles, first_batches, minima, n_tiles, n_probes, size, width,
    ROWS: tl.constexpr, POINTS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the smallest key of each group of points in a tile for a batch of the rows that probe it.

    A key is the squared distance less the squared norm of the row. Tile t is probed by
    ``pairs[starts[t] : starts[t + 1]]``, which count row by row and probe by probe.
    """
    batch = tl.program_id(0)
    tile = tl.load(tiles + batch)
    if tile < n_tiles:
        at = tl.load(starts + tile) + (batch - tl.load(first_batches + tile)) * ROWS + tl.arange(0, ROWS)
        use = at < tl.load(starts + tile + 1)
        pair = tl.load(pairs + at, mask=use, other=0).to(tl.int64)
        row = tl.load(rows + pair // n_probes).to(tl.int64)
        column = tl.arange(0, COLUMNS)[None, :]
        n_groups = size // GROUP
        for first in range(0, size, POINTS):
            point = first + tl.arange(0, POINTS)
            is_place = point < size
            x_at = table + row[:, None] * width + column
            y_at = table + (tile * size + point).to(tl.int64)[:, None] * width + column
            product = tl.zeros((ROWS, POINTS), tl.float32)
            for _ in range(0, width, COLUMNS):
                x, y = tl.load(x_at), tl.load(y_at, mask=is_place[:, None], other=0.0)
                product = tl.dot(x, tl.trans(y), product, input_precision=PRECISION)
                x_at += COLUMNS
                y_at += COLUMNS
            square = tl.load(squares + tile * size + point, mask=is_place, other=float("inf"))
            key = square[None, :] - 2.0 * product
            least = tl.min(tl.reshape(key, (ROWS, POINTS // GROUP, GROUP)), axis=2)
            group = first // GROUP + tl.arange(0, POINTS // GROUP)
            to = minima + pair[:, None] * n_groups + group[None, :]
            tl.store(to, least, mask=use[:, None] & (group < n_groups)[None, :])


@triton.jit
def squared_distances(
    table, rows, candidates, keys, n_candidates, width, CANDIDATES: tl.constexpr, COLUMNS: tl.constexpr
):
    """Write the squared distances of some candidates of a row; that of the row itself is infinite."""
    blocks = tl.cdiv(n_candidates, CANDIDATES)
    query = (tl.program_id(0) // blocks).to(tl.int64)
    candidate = tl.program_id(0) % blocks * CANDIDATES + tl.arange(0, CANDIDATES)
    use = candidate < n_candidates
    own = tl.load(rows + query).to(tl.int64)
    place = tl.load(candidates + query * n_candidates + candidate, mask=use, other=0).to(tl.int64)
    total = tl.zeros((CANDIDATES, COLUMNS), tl.float32)
    for start in range(0, width, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        x = tl.load(table + own * width + column)[None, :]
        y = tl.load(table + place[:, None] * width + column[None, :], mask=use[:, None], other=0.0)
        total += (y - x) * (y - x)
    key = tl.where(place == own, float("inf"), tl.sum(total, axis=1))
    tl.store(keys + query * n_candidates + candidate, key, mask=use)


@triton.jit
def nearest_unique(rows, candidates, keys, nearest, n_candidates, n_near, BLOCK: tl.constexpr):
    """Write a row's nearest candidates, each once, by key and number; infinitely far ones are replaced by the row."""
    query = tl.program_id(0).to(tl.int64)
    candidate = tl.arange(0, BLOCK)
    use = candidate < n_candidates
    key = tl.load(keys + query * n_candidates + candidate, mask=use, other=float("inf"))
    place = tl.load(candidates + query * n_candidates + candidate, mask=use, other=0).to(tl.int64)
    own = tl.load(rows + query).to(tl.int32)
    nothing = tl.full((BLOCK,), 0x7F80000000000000, tl.int64)
    # Keys are not negative, so that their bits have their order.
    left = tl.where(key < float("inf"), (key.to(tl.int32, bitcast=True).to(tl.int64) << 32) | place, nothing)
    for k in range(n_near):
        least = tl.min(left, axis=0)
        found = tl.where(least < 0x7F80000000000000, (least & 0xFFFFFFFF).to(tl.int32), own)
        tl.store(nearest + query * n_near + k, found)
        left = tl.where(left == least, nothing, left)


class TritonComparisons:
    """Comparisons on CUDA devices."""

    def __init__(self, points: PlacedPoints) -> None:
        self._points = points

    def probed(self, rows: Tensor, probes: Tensor, n_near: int) -> Tensor:
        """See `Comparisons`."""
        n_tiles, size = len(self._points.squares) // self._points.size, self._points.size
        n_groups, (n_rows, n_probes) = size // GROUP, probes.shape
        tiles, pairs = probes.reshape(-1).to(torch.int32).sort(stable=True)
        starts = torch.searchsorted(tiles, torch.arange(n_tiles + 1, dtype=torch.int32, device=tiles.device))
        n_batches = (starts.diff() + _ROWS - 1) // _ROWS
        ends = n_batches.cumsum(0)
        most = len(pairs) // _ROWS + n_tiles  # as the number of batches, for which the host does not wait
        of_batches = torch.searchsorted(ends, torch.arange(most, device=ends.device), right=True)
        minima = torch.empty((n_rows, n_probes * n_groups), dtype=torch.float32, device=rows.device)
        group_minima[(most,)](
            self._points.table, self._points.squares, rows.contiguous(), pairs, starts, of_batches, ends - n_batches,
            minima, n_tiles, n_probes, size, self._points.table.shape[1],
            ROWS=_ROWS, POINTS=_POINTS, COLUMNS=_COLUMNS, GROUP=GROUP, PRECISION=_PRECISION, num_warps=8, num_stages=2,
        )  # fmt: skip
        groups = smallest(minima, n_near, n_groups)[1]
        first = (probes.gather(1, groups // n_groups) * size + groups % n_groups * GROUP).int()
        members = torch.arange(GROUP, dtype=torch.int32, device=rows.device)
        return self._points.or_row(rows, (first.unsqueeze(2) + members).view(n_rows, -1))

    def nearest(self, rows: Tensor, candidates: Tensor, n_near: int) -> Tensor:
        """See `Comparisons`."""
        n_rows, n_candidates = candidates.shape
        if n_candidates > _MOST_CANDIDATES:
            return nearest_of(self._points.table, rows, candidates, n_near)
        rows, candidates = rows.contiguous(), candidates.contiguous()
        keys = torch.empty((n_rows, n_candidates), dtype=torch.float32, device=rows.device)
        squared_distances[(n_rows * triton.cdiv(n_candidates, _CANDIDATES),)](
            self._points.table, rows, candidates, keys, n_candidates, self._points.table.shape[1],
            CANDIDATES=_CANDIDATES, COLUMNS=_COLUMNS_READ, num_warps=4,
        )  # fmt: skip
        nearest = torch.empty((n_rows, n_near), dtype=torch.int32, device=rows.device)
        block = triton.next_power_of_2(n_candidates)
        nearest_unique[(n_rows,)](
            rows, candidates, keys, nearest, n_candidates, n_near,
            BLOCK=block, num_warps=min(16, max(1, block // _KEYS_OF_WARP)),
        )  # fmt: skip
        return nearest
