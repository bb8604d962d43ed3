"""Principal components from the covariance, or from the Gram matrix of wide tables."""

import torch
from torch import Tensor

_BLOCK_ELEMENTS = 1 << 22
_WIDE = 4096


def pca_embedding(values: Tensor, n_components: int) -> Tensor:
    """Return the scores (n, n_components), float64, on the leading principal components.

    Signs are fixed so that each component's largest loading is positive; components beyond the data's
    rank are 0.
    """
    n, f = values.shape
    mean = sum(block.sum(dim=0) for block in _blocks(values)) / n
    if f <= max(n, _WIDE):
        covariance = torch.zeros((f, f), dtype=torch.float64, device=values.device)
        for block in _blocks(values):
            centred = block - mean
            covariance.addmm_(centred.T, centred)
        directions = torch.linalg.eigh(covariance).eigenvectors[:, -n_components:].flip(1)
    else:
        centred = values.double() - mean
        gram = torch.linalg.eigh(centred @ centred.T)
        directions = centred.T @ gram.eigenvectors[:, -n_components:].flip(1)
        norms = torch.linalg.vector_norm(directions, dim=0)
        directions /= torch.where(norms > 0, norms, 1.0)
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    directions = directions * torch.where(largest < 0, -1.0, 1.0)
    scores = torch.zeros((n, n_components), dtype=torch.float64, device=values.device)
    found = torch.cat([(block - mean) @ directions for block in _blocks(values)])
    scores[:, : found.shape[1]] = found
    return scores


def _blocks(values: Tensor) -> list[Tensor] | map:  # type: ignore[type-arg]
    """Iterate over float64 copies of row blocks."""
    return map(torch.Tensor.double, values.split(max(1, _BLOCK_ELEMENTS // max(1, values.shape[1]))))
