"""Principal components from the covariance, or from the Gram matrix of wide tables."""

from collections.abc import Iterator

import torch
from torch import Tensor

_BLOCK_ELEMENTS = 1 << 22


def pca_embedding(values: Tensor, n_components: int) -> Tensor:
    """Return the scores (n, n_components), float64, on the leading principal components.

    Signs are fixed so that each component's largest loading is positive; components beyond the data's
    rank are 0.
    """
    n, f = values.shape
    mean = sum(block.sum(dim=0) for block in _blocks(values)) / n
    if f <= n:
        covariance = torch.zeros((f, f), dtype=torch.float64, device=values.device)
        for block in _blocks(values):
            centred = block - mean
            covariance.addmm_(centred.T, centred)
        variances, directions = _leading(covariance, n_components)
    else:
        centred = values.double() - mean
        variances, coordinates = _leading(centred @ centred.T, n_components)
        directions = centred.T @ coordinates
        norms = torch.linalg.vector_norm(directions, dim=0)
        directions /= torch.where(norms > 0, norms, 1.0)
    # Spreads that small are the rounding of the rows and of the eigenvalues.
    rounding = 16 * (torch.finfo(values.dtype).eps ** 2 + min(n, f) * torch.finfo(torch.float64).eps)
    directions = directions * (variances > rounding * variances[0])
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    directions = directions * torch.where(largest < 0, -1.0, 1.0)
    scores = torch.zeros((n, n_components), dtype=torch.float64, device=values.device)
    found = torch.cat([(block - mean) @ directions for block in _blocks(values)])
    scores[:, : found.shape[1]] = found
    return scores


def _leading(matrix: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """Return the ``n_components`` largest eigenvalues, descending, and their eigenvectors as columns."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0)[:n_components], vectors.flip(1)[:, :n_components]


def _blocks(values: Tensor) -> Iterator[Tensor]:
    """Iterate over float64 copies of row blocks."""
    return map(torch.Tensor.double, values.split(max(1, _BLOCK_ELEMENTS // max(1, values.shape[1]))))
