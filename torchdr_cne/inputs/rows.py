"""Rows made safe for float32 arithmetic: centred, scaled by a power of two, never the caller's memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_BLOCK_ELEMENTS = 1 << 17
"""Elements that stay in a core's cache in float64 while they are looked at several times."""
_SAFE_RANGE = (1e-6, 1e6)
"""Largest absolute values between which squares and their sums keep float32's full precision."""
_CENTRE_BITS = 7
_NEGLIGIBLE = 0.1
"""Column means below this share of the largest absolute value are left alone."""
_ROUGH_ROWS, _ROUGHNESS = 1 << 12, 1e-3
"""A float32 sum of so many values, whatever their order, is exact to this share of the sum of their sizes."""


@dataclass(frozen=True)
class Rows:
    """The data as the library computes with it: ``X ≈ values / scale + centre``.

    Attributes
    ----------
    values : Tensor of shape (n, f)
        Contiguous floating-point rows; possibly the caller's own memory, so never written to.
    scale : float
        Power of two by which the centred data were multiplied; a distance is divided by it.
    """

    values: Tensor
    scale: float = 1.0

    def __len__(self) -> int:
        return self.values.shape[0]


def row_blocks(X: np.ndarray | Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield ``(slice, float64 block)`` over the rows of ``X``; every block is a copy."""
    n_rows, n_columns = X.shape
    step = max(1, _BLOCK_ELEMENTS // max(1, n_columns))
    for start in range(0, n_rows, step):
        rows = slice(start, min(start + step, n_rows))
        if isinstance(X, Tensor):
            yield rows, X[rows].to(torch.float64, copy=True)
        else:
            yield rows, torch.from_numpy(np.array(X[rows], dtype=np.float64, order="C"))


def check_finite(X: np.ndarray | Tensor, name: str = "X") -> None:
    """Raise a ValueError with the count and the first row if ``X`` holds NaN or infinity."""
    if isinstance(X, np.ndarray) and X.dtype.kind in "iub":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(float(X.sum(dtype=_sum_type(X)))):  # one pass, and a copy of nothing
            return
    n_bad, first_bad = 0, None
    for rows, block in row_blocks(X):
        bad_row = ~torch.isfinite(block.sum(dim=1))
        if not bool(bad_row.any()):
            continue
        bad = ~torch.isfinite(block)
        n_bad += int(bad.sum())
        if first_bad is None and bool(bad.any()):
            first_bad = rows.start + int(torch.nonzero(bad.any(dim=1))[0])
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


def as_rows(X: np.ndarray | Tensor, *, center: bool = True, dtype: torch.dtype = torch.float32) -> Rows:
    """Turn a checked 2-D array into `Rows`: at most one copy, and none when the data are fit as they are.

    Centring happens in float64 before rounding to ``dtype``, so that data far from the origin keep their
    differences; scaling by a power of two keeps squares of very large or very small values finite.

    Parameters
    ----------
    X : ndarray or Tensor of shape (n, f)
        Finite numbers of any real dtype.
    center : bool, default=True
        Subtract the column means. False where the origin matters (cosine).
    dtype : torch.dtype, default=torch.float32
        What the rows are rounded to.
    """
    centre, largest = _centre_and_size(X, center)
    # Decided by the values alone, so that dtype and memory layout of X never change the result.
    in_range = largest == 0 or _SAFE_RANGE[0] <= largest <= _SAFE_RANGE[1]
    scale = 1.0 if in_range else 2.0 ** -round(np.log2(largest))
    shared = _shared_tensor(X, dtype)
    if shared is not None and scale == 1.0 and not bool(centre.any()):
        return Rows(shared)
    device = X.device if isinstance(X, Tensor) else torch.device("cpu")
    values = torch.empty(tuple(X.shape), dtype=dtype, device=device)
    for rows, block in row_blocks(X):
        values[rows] = block.sub_(centre).mul_(scale)
    return Rows(values, scale)


def _centre_and_size(X: np.ndarray | Tensor, center: bool) -> tuple[Tensor, float]:
    """Return what to subtract from each column, and the largest absolute value that leaves.

    Column means are rounded to the largest value's leading bits: subtracting them then is exact for data of
    few digits (pixels, counts), whose equal distances stay equal. Means near 0 are left alone.
    """
    zero = torch.zeros(X.shape[1], dtype=torch.float64, device=X.device if isinstance(X, Tensor) else "cpu")
    total, low, high = zero.clone(), torch.full_like(zero, torch.inf), torch.full_like(zero, -torch.inf)
    if isinstance(X, np.ndarray) and X.dtype == np.float32 and X.flags.c_contiguous:
        total, low, high = map(torch.from_numpy, _rough_statistics(X))
        largest = _largest_from(zero, low, high)
        # Negligible beside what is left of the largest value after subtraction, however the mean was rounded.
        if not center or float(total.abs().max()) <= (_NEGLIGIBLE / (1 + _NEGLIGIBLE) - _ROUGHNESS) * largest:
            return zero, largest
        total.zero_()
    for _, block in row_blocks(X):
        total += block.mean(dim=0) * (block.shape[0] / X.shape[0])
        low = torch.minimum(low, block.amin(dim=0))
        high = torch.maximum(high, block.amax(dim=0))
    # A mean's rounding error must not pass for a spread: a constant column is centred by its value.
    mean = torch.where(low == high, low, total) if center else zero
    largest = _largest_from(mean, low, high)
    if float(mean.abs().max()) <= _NEGLIGIBLE * largest:
        mean = zero
    elif largest > 0:
        grid = 2.0 ** (math.floor(math.log2(largest)) - _CENTRE_BITS)
        mean = torch.where(low == high, mean, (mean / grid).round() * grid)
    return mean, _largest_from(mean, low, high)


def _rough_statistics(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return float32 columns' means, to `_ROUGHNESS` of the largest value, and their exact minima and maxima."""
    total, low, high = np.zeros(X.shape[1]), np.full(X.shape[1], np.inf), np.full(X.shape[1], -np.inf)
    step = max(1, min(_BLOCK_ELEMENTS // max(1, X.shape[1]), _ROUGH_ROWS))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(X), step):
            block = X[start : start + step]
            total += block.sum(axis=0)
            low = np.minimum(low, block.min(axis=0))
            high = np.maximum(high, block.max(axis=0))
    return total / len(X), low, high


def _largest_from(centre: Tensor, low: Tensor, high: Tensor) -> float:
    return float(torch.maximum((high - centre).abs(), (low - centre).abs()).max())


def _shared_tensor(X: np.ndarray | Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return ``X`` itself as a tensor where dtype, layout and writability permit, else None."""
    if isinstance(X, Tensor):
        return X if X.dtype == dtype and X.is_contiguous() else None
    plain = X.flags.c_contiguous and X.flags.writeable and min(X.strides, default=0) > 0
    matches = X.dtype == torch.empty(0, dtype=dtype).numpy().dtype
    return torch.from_numpy(X) if plain and matches else None
