"""Neighbours by FAISS: flat for small data, inverted lists grown until a recall target is met."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchdr_cne._optional import import_optional
from torchdr_cne.neighbors import exact
from torchdr_cne.neighbors.distances import drop_self, nearest_first, ordered_form, pair_distances

_FLAT_BELOW = 16_384
_CALIBRATION_ROWS = 256
_SLACK = 4
"""Extra candidates of the flat index, so that rounding in its matrix products cannot lose a neighbour."""
_RESOLVED = 2.0**-15
"""Squared distances below this share of a row's squared norm drown in the flat index's float32 products."""


@dataclass(frozen=True, kw_only=True)
class FaissConfig:
    """How FAISS is used; every field has a working default.

    Attributes
    ----------
    recall : float, default=0.98
        Share of the true neighbours to find, measured on a sample of rows against the exact answer;
        the number of probed lists doubles until it is met.
    n_lists : int, default=None
        Inverted lists; None is 4·√n rounded to a power of two. 0 asks for the exact flat index.
    n_probes : int, default=None
        Lists searched a query; None measures what ``recall`` needs.
    """

    recall: float = 0.98
    n_lists: int | None = None
    n_probes: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise ValueError(f"recall={self.recall} must lie in (0, 1].")
        if self.n_lists is not None and self.n_lists < 0:
            raise ValueError(f"n_lists={self.n_lists} must be at least 0; 0 asks for the flat index.")
        if self.n_probes is not None and self.n_probes < 1:
            raise ValueError(f"n_probes={self.n_probes} must be at least 1.")


def search(
    prepared: Tensor, queries: Tensor, n_neighbors: int, metric: str, config: FaissConfig, seed: int
) -> tuple[Tensor, Tensor]:
    """Return ids (q, k) int64 and distances (q, k) of the nearest other rows."""
    faiss = import_optional("faiss", "backend='faiss'")
    host = prepared.detach().cpu()
    columns = ordered_form(host, metric).float().contiguous()
    n = host.shape[0]
    n_lists = _default_lists(n) if config.n_lists is None else min(config.n_lists, n)
    # FAISS offers no trained lists for the city-block distance that pay at these sizes.
    flat = n_lists == 0 or metric == "manhattan" or config.recall == 1.0
    index = _flat_index(faiss, columns, metric) if flat else _list_index(faiss, columns, n_lists, seed)
    if not flat:
        _set_probes(index, columns, n_neighbors, config, seed)
    where = queries.cpu()
    query_rows = columns if torch.equal(where, torch.arange(n)) else columns[where]
    n_candidates = min(n - 1, n_neighbors + (_SLACK if flat else 0))
    found = torch.from_numpy(index.search(query_rows.numpy(), n_candidates + 1)[1])
    ids, distances = _ranked(host, where, drop_self(found, where, n_candidates), metric)
    ids, distances = ids[:, :n_neighbors].contiguous(), distances[:, :n_neighbors].contiguous()
    doubtful = torch.isinf(distances[:, -1])
    if flat and metric != "manhattan":
        doubtful |= _drowned(query_rows, distances[:, -1], metric)
    again = torch.nonzero(doubtful).squeeze(1)
    if len(again):
        ids[again], distances[again] = exact.search(host, where[again], n_neighbors, metric)
    return ids.to(prepared.device), distances.to(prepared.device)


def _ranked(host: Tensor, where: Tensor, candidates: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    """Order candidates by their distances; missing ones (−1) are infinitely far."""
    distances = pair_distances(host, where, candidates.clamp_min(0), metric)
    return nearest_first(candidates, distances.masked_fill_(candidates < 0, torch.inf))


def _drowned(query_rows: Tensor, farthest: Tensor, metric: str) -> Tensor:
    """Tell which rows' neighbours are too close together, so far from 0, for float32 matrix products."""
    squares = 2 * farthest if metric == "cosine" else farthest.square()
    return squares < _RESOLVED * query_rows.double().square().sum(dim=1)


def _default_lists(n: int) -> int:
    return 0 if n < _FLAT_BELOW else 2 ** round(2 + torch.tensor(float(n)).log2().item() / 2)


def _flat_index(faiss: Any, columns: Tensor, metric: str) -> Any:
    index = faiss.IndexFlat(columns.shape[1], faiss.METRIC_L1 if metric == "manhattan" else faiss.METRIC_L2)
    index.add(columns.numpy())
    return index


def _list_index(faiss: Any, columns: Tensor, n_lists: int, seed: int) -> Any:
    quantizer = faiss.IndexFlat(columns.shape[1], faiss.METRIC_L2)
    index = faiss.IndexIVFFlat(quantizer, columns.shape[1], n_lists, faiss.METRIC_L2)
    index.cp.seed = seed % (2**31)
    index.cp.niter = 8
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = 64
    index.train(columns.numpy())
    index.add(columns.numpy())
    index.own_fields = True
    quantizer.this.disown()
    return index


def _set_probes(index: Any, columns: Tensor, n_neighbors: int, config: FaissConfig, seed: int) -> None:
    """Double the probed lists until the recall on a sample of rows meets the target.

    The truth is the same index with every list probed; a neighbour as near as the true last one counts.
    """
    if config.n_probes is not None:
        index.nprobe = config.n_probes
        return
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(columns.shape[0], generator=generator)[:_CALIBRATION_ROWS]
    rows = columns[sample].numpy()
    index.nprobe = index.nlist
    farthest = index.search(rows, n_neighbors + 1)[0][:, -1:]
    for n_probes in [2**i for i in range(2, 32)]:
        index.nprobe = min(n_probes, index.nlist)
        hits = (index.search(rows, n_neighbors + 1)[0] <= farthest).sum(axis=1)
        # One hit is the row itself.
        if (hits.mean() - 1) / n_neighbors >= config.recall or index.nprobe == index.nlist:
            return
