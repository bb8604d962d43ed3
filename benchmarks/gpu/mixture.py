"""Rows with structure, made on the device."""

import torch
from torch import Tensor

_ROWS_PER_CLUSTER = 500
_MOST_CLUSTERS = 2000
_SPREAD = 0.7
"""Of a cluster's rows, relative to that of the centres."""


def mixture(n: int, device: torch.device, n_columns: int = 50) -> Tensor:
    """Return (n, n_columns) rows of many clusters; the variance of the columns decays as that of components does."""
    generator = torch.Generator(device).manual_seed(0)
    scales = torch.arange(1, n_columns + 1, device=device, dtype=torch.float32).rsqrt()
    n_clusters = max(4, min(_MOST_CLUSTERS, n // _ROWS_PER_CLUSTER))
    centers = torch.randn(n_clusters, n_columns, generator=generator, device=device)
    cluster = torch.randint(0, n_clusters, (n,), generator=generator, device=device)
    rows = torch.randn(n, n_columns, generator=generator, device=device).mul_(_SPREAD)
    return rows.add_(centers[cluster]).mul_(scales)
