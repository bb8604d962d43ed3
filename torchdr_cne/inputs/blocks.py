"""Blocks of rows in double precision, of a size that stays in the cache."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.devices import block_elements
from torchdr_cne.inputs.sources import RowSource

BLOCK_ELEMENTS = 1 << 17
"""Number of float64 elements that stay in the cache of a core while they are used several times."""


def row_blocks(X: np.ndarray | Tensor | RowSource, own: slice | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Yield ``(slice, float64 block)`` over the ``own`` rows of ``X``, or over all with None; blocks are copies.

    Slices are counted from the first own row.
    """
    first, last = (0, len(X)) if own is None else (own.start, own.stop)
    device = X.device if isinstance(X, Tensor) else torch.device("cpu")
    step = max(1, block_elements(device, BLOCK_ELEMENTS) // max(1, X.shape[1]))
    for start in range(first, last, step):
        rows = slice(start, min(start + step, last))
        if isinstance(X, Tensor):
            block = X[rows].to(torch.float64, copy=True)
        else:
            found = X.read(rows.start, rows.stop) if isinstance(X, RowSource) else X[rows]
            block = torch.from_numpy(np.array(found, dtype=np.float64, order="C"))
        yield slice(rows.start - first, rows.stop - first), block
