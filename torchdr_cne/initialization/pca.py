"""Principal components from the covariance, or from the Gram matrix of wide tables."""

import torch
from torch import Tensor

from torchdr_cne.inputs import Rows

_BLOCK_ELEMENTS = 1 << 18
_RESOLVED = 1e-6
"""Components with more than this share of the largest variance keep six digits in float32 products."""


def pca_embedding(rows: Rows | Tensor, n_components: int) -> Tensor:
    """Return the scores (n, n_components), float64, on the leading principal components.

    Each rank adds up its own rows' covariance and projects them. Signs are fixed so that each component's largest
    loading is positive; components beyond the data's rank are 0.
    """
    rows = Rows(rows) if isinstance(rows, Tensor) else rows
    n, f, ranks, values = rows.n_points, rows.n_columns, rows.share.ranks, rows.values
    mean = torch.zeros(f, dtype=torch.float64, device=values.device)
    for block in rows.blocks(_BLOCK_ELEMENTS):
        mean += block.sum(dim=0, dtype=torch.float64)
    mean = ranks.add_up(mean, "the sum of columns") / n
    has_all = rows.in_memory and ranks.size == 1
    variances, directions = (_from_gram if has_all and f > n else _from_covariance)(rows, mean, n_components)
    # The same to the last bit on all ranks, whatever their processors.
    for part in (variances, directions):
        ranks.copy_from(0, part, "the exchange of directions")
    # Spreads that small are the rounding of the rows and of the eigenvalues.
    rounding = 16 * (torch.finfo(values.dtype).eps ** 2 + min(n, f) * torch.finfo(torch.float64).eps)
    directions = directions * (variances > rounding * variances[0])
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    directions = directions * torch.where(largest < 0, -1.0, 1.0)
    dtype = values.dtype if bool((variances > _RESOLVED * variances[0]).all()) else torch.float64
    mean, directions = mean.to(dtype), directions.to(dtype)
    found = torch.cat([(block.to(dtype) - mean) @ directions for block in rows.blocks(_BLOCK_ELEMENTS)])
    found = rows.share.gather(found.double(), "the exchange of the first embedding")
    scores = torch.zeros((n, n_components), dtype=torch.float64, device=values.device)
    scores[:, : found.shape[1]] = found
    return scores


def _from_covariance(rows: Rows, mean: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """Return the leading variances and the directions (f, n_components at most)."""
    covariance = torch.zeros((rows.n_columns,) * 2, dtype=torch.float64, device=mean.device)
    for block in rows.blocks(_BLOCK_ELEMENTS):
        centred = block.double() - mean
        covariance.addmm_(centred.T, centred)
    return _leading(rows.share.ranks.add_up(covariance, "the sum of covariances"), n_components)


def _from_gram(rows: Rows, mean: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """Do `_from_covariance`'s work for tables with more columns than rows."""
    centred = rows.values.double() - mean
    variances, coordinates = _leading(centred @ centred.T, n_components)
    directions = centred.T @ coordinates
    norms = torch.linalg.vector_norm(directions, dim=0)
    return variances, directions / torch.where(norms > 0, norms, 1.0)


def _leading(matrix: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """Return the ``n_components`` largest eigenvalues, descending, and their eigenvectors as columns."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0)[:n_components], vectors.flip(1)[:, :n_components].contiguous()
