"""Rows that are safe for float32 arithmetic: they are centred and scaled by a power of two."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.distributed import Share
from torchdr_cne.inputs.blocks import BLOCK_ELEMENTS, row_blocks
from torchdr_cne.inputs.sources import RowSource

_SAFE_RANGE = (1e-6, 1e6)
"""Range of the largest absolute value in which squares and their sums keep the full precision of float32."""
_LARGEST_EXPONENT = 1023
"""Exponent of the largest power of two in float64."""
_CENTRE_BITS = 7
_NEGLIGIBLE = 0.1
"""Fraction of the largest absolute value below which column means are not subtracted."""
_LARGEST_NEW = 1e15
"""Largest value in new rows; rows with larger values are shortened, so that their squares are finite."""
_ROUGH_ROWS, _ROUGHNESS = 1 << 12, 1e-3
"""A float32 sum of this many values in any order is exact up to this fraction of the sum of absolute values."""


@dataclass(frozen=True)
class Rows:
    """The data as the library computes with it: ``X ≈ values / scale + centre``.

    Attributes
    ----------
    values : Tensor of shape (m, f)
        Contiguous floating-point rows of this rank; possibly the caller's own memory, so never written to.
    scale : float
        Power of two by which the centred data were multiplied; distances have to be divided by it.
    share : Share
        Position of these rows among all n; None if they are all rows.
    is_constant : bool
        Whether all n rows are known to be equal.
    centre : Tensor of shape (f,), float64
        Vector that was subtracted from each row; None is 0.
    """

    values: Tensor
    scale: float = 1.0
    share: Share = None  # type: ignore[assignment]  # filled in below
    is_constant: bool = False
    centre: Tensor = None  # type: ignore[assignment]  # filled in below

    def __post_init__(self) -> None:
        if self.share is None:
            object.__setattr__(self, "share", Share.whole(len(self.values)))
        if self.centre is None:
            zero = torch.zeros(self.n_columns, dtype=torch.float64, device=self.values.device)
            object.__setattr__(self, "centre", zero)

    @property
    def in_memory(self) -> bool:
        """Whether ``values`` holds the rows."""
        return True

    @property
    def n_points(self) -> int:
        """Number of rows of all ranks."""
        return self.share.n

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return self.values.shape[1]

    def block(self, start: int, stop: int) -> Tensor:
        """Return some of this rank's rows, counted from its first row."""
        return self.values[start:stop]

    def blocks(self, n_elements: int) -> Iterator[Tensor]:
        """Yield the rows of this rank in blocks of about ``n_elements`` numbers."""
        step = max(1, n_elements // max(1, self.n_columns))
        for start in range(0, len(self.share), step):
            yield self.block(start, min(start + step, len(self.share)))

    def alike(self, X: np.ndarray | Tensor) -> Tensor:
        """Return rows (m, f) of another table, centred, scaled and rounded like these, so that equal rows stay equal.

        Rows outside the range of ``values`` are shortened and keep their direction.
        """
        device = self.values.device
        found = torch.empty((len(X), self.n_columns), dtype=self.values.dtype, device=device)
        for rows, block in row_blocks(X):
            block = block.to(device).sub_(self.centre)
            largest = block.abs().amax(dim=1, keepdim=True)
            too_large = largest * self.scale > _LARGEST_NEW
            found[rows] = block.mul_(torch.where(too_large, _LARGEST_NEW / largest, self.scale))
        return found


@dataclass(frozen=True)
class StreamedRows(Rows):
    """Rows that stay in their file: each block is read, centred and scaled when it is needed.

    ``values`` is (0, f); ``source`` has all n rows; ``budget`` is the number of bytes that rows and their index may
    take in memory at a time.
    """

    source: RowSource = None  # type: ignore[assignment]  # filled in below
    budget: int = 0

    @property
    def in_memory(self) -> bool:
        """False, as ``block`` reads the rows from their file."""
        return False

    def block(self, start: int, stop: int) -> Tensor:
        """Return some of this rank's rows, counted from its first row, by reading them."""
        found = self.source.read(self.share.start + start, self.share.start + stop)
        values = torch.from_numpy(found).double().sub_(self.centre).mul_(self.scale)
        return values.to(self.values.dtype)


def check_finite(X: np.ndarray | Tensor, name: str = "X") -> None:
    """Raise a ValueError with the count and the first row if ``X`` holds NaN or infinity."""
    if isinstance(X, np.ndarray) and X.dtype.kind in "iub":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(float(X.sum(dtype=_sum_type(X)))):  # one pass without a copy
            return
    _refuse_not_finite(X, None, name)


def _refuse_not_finite(X: np.ndarray | Tensor | RowSource, own: slice | None, name: str = "X") -> None:
    n_bad, first_bad = 0, None
    for rows, block in row_blocks(X, own):
        bad_row = ~torch.isfinite(block.sum(dim=1))
        if not bool(bad_row.any()):
            continue
        bad = ~torch.isfinite(block)
        n_bad += int(bad.sum())
        if first_bad is None and bool(bad.any()):
            first_bad = rows.start + int(torch.nonzero(bad.any(dim=1))[0]) + (0 if own is None else own.start)
    if n_bad:
        raise ValueError(
            f"{name} contains NaN or infinity: {n_bad} value(s), first in row {first_bad}; "
            "drop or impute these rows (for instance with sklearn.impute.SimpleImputer)."
        )


def _sum_type(X: np.ndarray | Tensor) -> Any:
    """Return a dtype in which the sum of ordinary values is finite."""
    if isinstance(X, Tensor):
        return torch.promote_types(X.dtype, torch.float32)
    return np.promote_types(X.dtype, np.float32)


def as_rows(
    X: np.ndarray | Tensor | RowSource,
    *,
    center: bool = True,
    dtype: torch.dtype = torch.float32,
    share: Share | None = None,
    budget: int | None = None,
) -> Rows:
    """Return a 2-D table as `Rows`, with at most one copy, or none if the data can be used as they are.

    Centring is in float64 before rounding to ``dtype``, so that data far from the origin keep their differences.
    Scaling by a power of two keeps the squares of very large values finite and those of very small values above 0.

    Parameters
    ----------
    X : ndarray, Tensor or RowSource of shape (n, f)
        Numbers of any real dtype, which are already checked if they are in memory.
    center : bool, default=True
        Whether to subtract the column means; False if the origin matters (cosine).
    dtype : torch.dtype, default=torch.float32
        Dtype to which the rows are rounded.
    share : Share, default=None
        The rows of each rank; this one takes its own, with the means and ranges of all rows. None is one rank.
    budget : int, default=None
        Bytes above which the rows of a source stay in their file; None reads all rows into memory.
    """
    share = Share.whole(len(X)) if share is None else share
    if share.ranks.size > 1 and not isinstance(X, RowSource):
        X, own = X[share.own], None
    else:
        own = share.own
    centre, largest, is_constant = _centre_and_size(X, own, center, share)
    # The scale depends only on the values, so that dtype and memory layout of X never change the result.
    in_range = largest == 0 or _SAFE_RANGE[0] <= largest <= _SAFE_RANGE[1]
    scale = 1.0 if in_range else 2.0 ** min(_LARGEST_EXPONENT, -round(np.log2(largest)))
    longest = max(end - start for start, end in pairwise(share.bounds))  # all ranks decide alike
    if isinstance(X, RowSource) and budget is not None and longest * X.shape[1] * dtype.itemsize > budget:
        nothing = torch.empty((0, X.shape[1]), dtype=dtype)
        return StreamedRows(nothing, scale, share, is_constant, centre, X, budget)
    shared = None if isinstance(X, RowSource) else _shared_tensor(X, dtype)
    if shared is not None and scale == 1.0 and not bool(centre.any()):
        return Rows(shared, scale, share, is_constant, centre)
    device = X.device if isinstance(X, Tensor) else torch.device("cpu")
    values = torch.empty((len(share), X.shape[1]), dtype=dtype, device=device)
    for rows, block in row_blocks(X, own):
        values[rows] = block.sub_(centre).mul_(scale)
    return Rows(values, scale, share, is_constant, centre)


def _centre_and_size(
    X: np.ndarray | Tensor | RowSource, own: slice | None, center: bool, share: Share
) -> tuple[Tensor, float, bool]:
    """Return what to subtract from each column, the largest absolute value after it, and if all rows are equal.

    Column means are rounded to the leading bits of the largest value. Subtracting them is then exact for data with
    few digits (pixels, counts), and equal distances stay equal. Means near 0 are not subtracted.
    """
    zero = torch.zeros(X.shape[1], dtype=torch.float64, device=X.device if isinstance(X, Tensor) else "cpu")
    if isinstance(X, np.ndarray) and X.dtype == np.float32 and X.flags.c_contiguous:
        mean, low, high = _of_all(share, *map(torch.from_numpy, _rough_statistics(X)))
        largest = _largest_from(zero, low, high)
        # The mean is negligible relative to the largest value after subtraction, however it was rounded.
        if not center or float(mean.abs().max()) <= (_NEGLIGIBLE / (1 + _NEGLIGIBLE) - _ROUGHNESS) * largest:
            return zero, largest, bool((low == high).all())
    with share.ranks.all_or_none("reading the rows"):
        statistics = _statistics(X, own, zero)
    mean, low, high = _of_all(share, *statistics)
    if not bool(torch.isfinite(mean).all()):  # the sum is too large, on all ranks
        mean, low, high = _of_all(share, *_statistics(X, own, zero, share.n))
        mean = mean * share.n
    # A constant column is centred by its value, so that the rounding error of its mean does not look like a spread.
    mean = torch.where(low == high, low, mean) if center else zero
    largest = _largest_from(mean, low, high)
    if not math.isfinite(largest):
        raise ValueError("X has values so large, near ±1.8e308, that their differences are infinite; divide X first.")
    if float(mean.abs().max()) <= _NEGLIGIBLE * largest:
        mean = zero
    elif (grid := 2.0 ** (math.floor(math.log2(largest)) - _CENTRE_BITS) if largest > 0 else 0.0) > 0:
        mean = torch.where(low == high, mean, (mean / grid).round() * grid)
    return mean, _largest_from(mean, low, high), bool((low == high).all())


def _statistics(
    X: np.ndarray | Tensor | RowSource, own: slice | None, zero: Tensor, divisor: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the column sums, divided by ``divisor``, minima and maxima of own rows; those of a source are checked."""
    total, low, high = zero.clone(), torch.full_like(zero, torch.inf), torch.full_like(zero, -torch.inf)
    for _, block in row_blocks(X, own):
        total += (block if divisor == 1 else block / divisor).sum(dim=0)
        low = torch.minimum(low, block.amin(dim=0))
        high = torch.maximum(high, block.amax(dim=0))
    if isinstance(X, RowSource) and not bool(torch.isfinite(total).all()):
        _refuse_not_finite(X, own)
    return total, low, high


def _of_all(share: Share, total: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the means, minima and maxima of the columns over the rows of all ranks."""
    what = "the exchange of column means"
    mean = share.ranks.add_up(total, what) / share.n
    ends = share.ranks.smallest(torch.stack([low, -high]), what)
    return mean, ends[0], -ends[1]


def _rough_statistics(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return float32 column sums, to `_ROUGHNESS` of n times the largest value, and exact minima and maxima."""
    total, low, high = np.zeros(X.shape[1]), np.full(X.shape[1], np.inf), np.full(X.shape[1], -np.inf)
    step = max(1, min(BLOCK_ELEMENTS // max(1, X.shape[1]), _ROUGH_ROWS))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(X), step):
            block = X[start : start + step]
            total += block.sum(axis=0)
            low = np.minimum(low, block.min(axis=0))
            high = np.maximum(high, block.max(axis=0))
    return total, low, high


def _largest_from(centre: Tensor, low: Tensor, high: Tensor) -> float:
    return float(torch.maximum((high - centre).abs(), (low - centre).abs()).max())


def _shared_tensor(X: np.ndarray | Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return ``X`` itself as a tensor if dtype, layout and writability permit this, or else None."""
    if isinstance(X, Tensor):
        return X if X.dtype == dtype and X.is_contiguous() else None
    plain = X.flags.c_contiguous and X.flags.writeable and min(X.strides, default=0) > 0
    matches = X.dtype == torch.empty(0, dtype=dtype).numpy().dtype
    return torch.from_numpy(X) if plain and matches else None
