"""Distances of given pairs from direct differences; they are exactly 0 for equal rows, and the same in any batch."""

import torch
from torch import Tensor

from torchdr_cne.devices import block_elements

METRICS = ("euclidean", "cosine", "manhattan")
_PAIR_ELEMENTS = 1 << 17, 1 << 26
"""Number of differences that stay in the cache of a core from one operation to the next; and for other devices."""


def prepare(values: Tensor, metric: str) -> Tensor:
    """Return the rows in which ``metric`` is computed: unit length for cosine, unchanged otherwise."""
    if metric != "cosine":
        return values
    # In float64 the squares of the smallest float32 numbers do not vanish.
    norms = torch.linalg.vector_norm(values, dim=1, keepdim=True, dtype=torch.float64)
    return (values / torch.where(norms > 0, norms, 1.0)).to(values.dtype)


def ordered_form(prepared: Tensor, metric: str) -> Tensor:
    """Return rows whose Euclidean (for manhattan, city-block) distances order neighbours as ``metric`` does.

    For cosine these are the unit rows, as differences of close directions keep the digits that 1 − u·v loses. All-zero
    rows get a separate coordinate, in which they are as far from every direction as cosine 0.
    """
    if metric != "cosine":
        return prepared
    empty = (prepared == 0).all(dim=1, keepdim=True)
    return torch.cat([prepared, empty.to(prepared.dtype)], dim=1) if bool(empty.any()) else prepared


def pair_distances(prepared: Tensor, query_rows: Tensor, neighbors_qk: Tensor, metric: str) -> Tensor:
    """Return the distances of ``query_rows`` (q, f) to their ``neighbors_qk`` (q, k) in ``prepared``, float64."""
    q, k = neighbors_qk.shape
    result = torch.empty((q, k), dtype=torch.float64, device=prepared.device)
    step = max(1, block_elements(prepared.device, *_PAIR_ELEMENTS) // max(1, k * prepared.shape[1]))
    for start in range(0, q, step):
        block = slice(start, start + step)
        ends = prepared[neighbors_qk[block].long()].double()
        origins = query_rows[block].double().unsqueeze(1)
        result[block] = _direct(origins, ends, metric)
    return result


def _direct(x: Tensor, y: Tensor, metric: str) -> Tensor:
    difference = x - y
    if metric == "manhattan":
        return difference.abs().sum(dim=-1)
    squared = difference.square().sum(dim=-1)
    if metric == "euclidean":
        return squared.sqrt()
    # 1 − u·v = ‖u − v‖²/2 for unit rows; an all-zero row is at distance 1 from every row.
    return torch.where((x != 0).any(dim=-1) & (y != 0).any(dim=-1), squared / 2, 1.0)


def merged(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], n_neighbors: int) -> tuple[Tensor, Tensor]:
    """Return the ``n_neighbors`` nearest in two lists of ids and distances for each row, (q, k) each."""
    ids, distances = (torch.cat([one, other], dim=1) for one, other in zip(first, second, strict=True))
    ids, distances = nearest_first(ids, distances)
    return ids[:, :n_neighbors].contiguous(), distances[:, :n_neighbors].contiguous()


def nearest_first(indices: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Return ids and distances sorted by (distance, id) in each row, so that ties are alike in all backends."""
    by_id = torch.argsort(indices, dim=1, stable=True)
    indices, distances = indices.gather(1, by_id), distances.gather(1, by_id)
    by_distance = torch.argsort(distances, dim=1, stable=True)
    return indices.gather(1, by_distance), distances.gather(1, by_distance)


def drop_self(indices: Tensor, queries: Tensor, n_neighbors: int) -> Tensor:
    """Return candidate lists without each query's own id, which is found by value and not by position.

    The first ``n_neighbors`` ids that are not missing (−1) remain; there is a −1 only if the backend found too few.
    """
    unwanted = (indices == queries.unsqueeze(1)) | (indices < 0)
    order = torch.argsort(unwanted.to(torch.uint8), dim=1, stable=True)[:, :n_neighbors]
    return indices.masked_fill(unwanted, -1).gather(1, order)
