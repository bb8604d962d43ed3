"""Principal components from the covariance matrix or, for wide tables, from the Gram matrix."""

from collections.abc import Iterator

import numpy as np
import scipy.sparse.linalg
import torch
from torch import Tensor

from torchdr_cne.devices import block_elements
from torchdr_cne.inputs import Rows

_BLOCK_ELEMENTS = 1 << 18
_WIDE, _WIDEST = 1000, 16_384
"""If there are fewer rows: columns above which only leading directions are computed, and the largest number allowed."""
_RESOLVED = 1e-6
"""Fraction of the largest variance above which components keep six digits in float32 products."""


def pca_embedding(rows: Rows | Tensor, n_components: int) -> Tensor:
    """Return the scores (n, n_components), float64, on the leading principal components.

    Each rank adds up the covariance of its own rows and projects them. Signs are such that the largest loading of
    each component is positive. Components beyond the rank of the data are 0.
    """
    rows = Rows(rows) if isinstance(rows, Tensor) else rows
    n, f, ranks, values = rows.n_points, rows.n_columns, rows.share.ranks, rows.values
    mean = torch.zeros(f, dtype=torch.float64, device=values.device)
    for block in _blocks(rows):
        mean += block.sum(dim=0, dtype=torch.float64)
    mean = ranks.add_up(mean, "the sum of columns") / n
    has_all = rows.in_memory and ranks.size == 1
    variances, directions = (_from_gram if has_all and f > n else _from_covariance)(rows, mean, n_components)
    # All ranks must have the same bits, even if their processors differ.
    for part in (variances, directions):
        ranks.copy_from(0, part, "the exchange of directions")
    # Spreads below this are rounding errors of the rows and of the eigenvalues.
    rounding = 16 * (torch.finfo(values.dtype).eps ** 2 + min(n, f) * torch.finfo(torch.float64).eps)
    directions = directions * (variances > rounding * variances[0])
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    directions = directions * torch.where(largest < 0, -1.0, 1.0)
    dtype = values.dtype if bool((variances > _RESOLVED * variances[0]).all()) else torch.float64
    mean, directions = mean.to(dtype), directions.to(dtype)
    found = torch.cat([(block.to(dtype) - mean) @ directions for block in _blocks(rows)])
    found = rows.share.gather(found.double(), "the exchange of the first embedding")
    scores = torch.zeros((n, n_components), dtype=torch.float64, device=values.device)
    scores[:, : found.shape[1]] = found
    return scores


def _blocks(rows: Rows) -> Iterator[Tensor]:
    return rows.blocks(block_elements(rows.values.device, _BLOCK_ELEMENTS))


def _from_covariance(rows: Rows, mean: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """Return the leading variances and the directions (f, n_components at most)."""
    if rows.n_columns > max(_WIDEST, rows.n_points):
        raise ValueError(
            f"init='pca' needs a covariance of {rows.n_columns} columns, {8 * rows.n_columns**2 / 1e9:.0f} GB for each "
            "process, where rows are streamed or shared; reduce the columns first, or set init='random'."
        )
    covariance = torch.zeros((rows.n_columns,) * 2, dtype=torch.float64, device=mean.device)
    for block in _blocks(rows):
        centred = block.double() - mean
        covariance.addmm_(centred.T, centred)
    rows.share.ranks.add_up(covariance, "the sum of covariances")
    if rows.n_columns > max(_WIDE, rows.n_points):  # a full decomposition would take too much memory
        return _leading_few(covariance, n_components)
    return _leading(covariance, n_components)


def _from_gram(rows: Rows, mean: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """Return the result of `_from_covariance` for tables with more columns than rows."""
    centred = rows.values.double() - mean
    variances, coordinates = _leading(centred @ centred.T, n_components)
    directions = centred.T @ coordinates
    norms = torch.linalg.vector_norm(directions, dim=0)
    return variances, directions / torch.where(norms > 0, norms, 1.0)


def _leading(matrix: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """Return the ``n_components`` largest eigenvalues, descending, and their eigenvectors as columns."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0)[:n_components], vectors.flip(1)[:, :n_components].contiguous()


def _leading_few(matrix: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """Return the result of `_leading` for a large matrix of low rank, without decomposing all of it."""
    start = np.ones(len(matrix))
    values, vectors = scipy.sparse.linalg.eigsh(matrix.cpu().numpy(), k=n_components, v0=start)
    order = np.argsort(-values)
    parts = values[order].copy(), np.ascontiguousarray(vectors[:, order])
    return torch.from_numpy(parts[0]).to(matrix.device), torch.from_numpy(parts[1]).to(matrix.device)
