"""Principal components from the covariance, or from the Gram matrix of wide tables."""

from collections.abc import Iterator

import torch
from torch import Tensor

_BLOCK_ELEMENTS = 1 << 18
_RESOLVED = 1e-6
"""Components with more than this share of the largest variance keep six digits in float32 products."""


def pca_embedding(values: Tensor, n_components: int) -> Tensor:
    """Return the scores (n, n_components), float64, on the leading principal components.

    Signs are fixed so that each component's largest loading is positive; components beyond the data's
    rank are 0.
    """
    n, f = values.shape
    mean = torch.zeros(f, dtype=torch.float64, device=values.device)
    for block in _blocks(values):
        mean += block.sum(dim=0, dtype=torch.float64)
    mean /= n
    variances, directions = (_from_covariance if f <= n else _from_gram)(values, mean, n_components)
    # Spreads that small are the rounding of the rows and of the eigenvalues.
    rounding = 16 * (torch.finfo(values.dtype).eps ** 2 + min(n, f) * torch.finfo(torch.float64).eps)
    directions = directions * (variances > rounding * variances[0])
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    directions = directions * torch.where(largest < 0, -1.0, 1.0)
    dtype = values.dtype if bool((variances > _RESOLVED * variances[0]).all()) else torch.float64
    mean, directions = mean.to(dtype), directions.to(dtype)
    scores = torch.zeros((n, n_components), dtype=torch.float64, device=values.device)
    found = torch.cat([(block.to(dtype) - mean) @ directions for block in _blocks(values)])
    scores[:, : found.shape[1]] = found
    return scores


def _from_covariance(values: Tensor, mean: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """Return the leading variances and the directions (f, n_components at most)."""
    covariance = torch.zeros((values.shape[1],) * 2, dtype=torch.float64, device=values.device)
    for block in _blocks(values):
        centred = block.double() - mean
        covariance.addmm_(centred.T, centred)
    return _leading(covariance, n_components)


def _from_gram(values: Tensor, mean: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """Do `_from_covariance`'s work for tables with more columns than rows."""
    centred = values.double() - mean
    variances, coordinates = _leading(centred @ centred.T, n_components)
    directions = centred.T @ coordinates
    norms = torch.linalg.vector_norm(directions, dim=0)
    return variances, directions / torch.where(norms > 0, norms, 1.0)


def _leading(matrix: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """Return the ``n_components`` largest eigenvalues, descending, and their eigenvectors as columns."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0)[:n_components], vectors.flip(1)[:, :n_components]


def _blocks(values: Tensor) -> Iterator[Tensor]:
    """Iterate over blocks of rows that stay in the cache."""
    return iter(values.split(max(1, _BLOCK_ELEMENTS // max(1, values.shape[1]))))
