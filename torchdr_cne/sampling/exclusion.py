"""Uniform negatives with exclusions, by searchsorted in the gaps between excluded ids."""

from typing import Any

import torch
from torch import Tensor

from torchdr_cne.hashing import bounded, hash_grid, stream_key


class NegativeSampler:
    """Draws ids uniformly from all points that are not excluded for a row.

    If a row has w exclusions e_0 < e_1 < …, the number of allowed ids below e_k is e_k − k. A uniform r in
    [0, n − w) therefore stands for the id r + #{k : e_k − k ≤ r}. The values e_k − k of all rows are kept in one
    sorted array, offset by row, so that one searchsorted serves a whole step.

    Parameters
    ----------
    n : int
        Number of points.
    rows : Tensor of shape (R,), int64
        Global ids of the rows for which negatives are drawn; each excludes itself.
    exclude : tuple of (indptr, ids), default=None
        Further exclusions of each of ``rows``, ragged. Order, repeats and the row's own id do not matter, and
        negative ids (padding) are ignored.
    n_negatives : int
        Number of draws per row and call; at most the number of allowed ids.
    """

    def __init__(self, n: int, rows: Tensor, n_negatives: int, exclude: tuple[Tensor, Tensor] | None = None) -> None:
        keys = torch.arange(len(rows), device=rows.device) * n + rows
        if exclude is not None:
            indptr, ids = exclude
            owner = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), indptr.diff())
            real = ids >= 0
            extra = owner[real] * n + ids[real].long()
            keys = torch.unique(torch.cat([keys, extra]))
        owner = torch.div(keys, n, rounding_mode="floor")
        counts = torch.bincount(owner, minlength=len(rows))
        self.n_allowed = n - counts
        fewest = int(self.n_allowed.min()) if len(rows) else n
        if n_negatives > fewest:
            raise ValueError(
                f"{n_negatives} negatives asked for, but a row has only {fewest} points left to draw from "
                f"({n} points less its exclusions); lower negatives_per_row (n_negatives here) or exclude fewer."
            )
        self._n = n
        self._rows = rows
        self._n_negatives = n_negatives
        self._starts = counts.cumsum(0) - counts
        rank = torch.arange(len(keys), device=rows.device) - self._starts[owner]
        self._gap_keys = keys - rank
        self._offsets = torch.arange(len(rows), device=rows.device) * n

    def draw(self, seed: int, step: int) -> Tensor:
        """Return ids (R, n_negatives), int64; a pure function of seed, step and global row."""
        words = hash_grid(stream_key(seed, step), self._rows, self._n_negatives)
        r = bounded(words, self.n_allowed.unsqueeze(1))
        wanted = (r + self._offsets.unsqueeze(1)).contiguous()
        passed = torch.searchsorted(self._gap_keys, wanted, right=True)
        return r + passed - self._starts.unsqueeze(1)


def sample_negatives(n: int, rows: Any, n_negatives: int, *, seed: int, step: int, exclude: Any = None) -> Tensor:
    """Return negatives drawn uniformly from the points that a row may meet.

    Parameters
    ----------
    n : int
        Number of points.
    rows : int array of shape (R,)
        Global ids of the rows; each is always excluded from its own negatives.
    n_negatives : int
        Number of draws per row, with replacement.
    seed, step : int
        The draws are a pure function of (seed, step, row, draw).
    exclude : int array of shape (R, w), or pair (indptr (R + 1,), ids), default=None
        Excluded ids of each of ``rows``, sorted, rectangular or ragged.

    Returns
    -------
    Tensor of shape (R, n_negatives), int64

    Raises
    ------
    ValueError
        If more negatives are asked for than a row has allowed points.
    """
    rows = torch.as_tensor(rows, dtype=torch.int64)
    ragged = None
    if isinstance(exclude, tuple):
        indptr, ids = (torch.as_tensor(part, dtype=torch.int64, device=rows.device) for part in exclude)
        ragged = (indptr, ids)
    elif exclude is not None:
        table = torch.as_tensor(exclude, dtype=torch.int64, device=rows.device)
        if table.ndim != 2 or len(table) != len(rows):
            raise ValueError(
                f"exclude must have one row of ids for each of the {len(rows)} rows, got shape {tuple(table.shape)}."
            )
        indptr = torch.arange(len(rows) + 1, device=rows.device) * table.shape[1]
        ragged = (indptr, table.reshape(-1))
    if ragged is not None and len(ragged[0]) != len(rows) + 1:
        raise ValueError(f"exclude's indptr must have {len(rows) + 1} entries, got {len(ragged[0])}.")
    return NegativeSampler(n, rows, n_negatives, ragged).draw(seed, step)
