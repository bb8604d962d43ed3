"""Neighbours by FAISS: flat for small data, inverted lists grown until a recall target is met."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchdr_cne._optional import import_optional
from torchdr_cne.neighbors import exact
from torchdr_cne.neighbors.distances import drop_self, nearest_first, pair_distances

_FLAT_BELOW = 16_384
_CALIBRATION_ROWS = 256


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


def search(
    prepared: Tensor, queries: Tensor, n_neighbors: int, metric: str, config: FaissConfig, seed: int
) -> tuple[Tensor, Tensor]:
    """Return ids (q, k) int64 and distances (q, k) of the nearest other rows."""
    faiss = import_optional("faiss", "backend='faiss'")
    host = prepared.detach().cpu().float().contiguous()
    n = host.shape[0]
    n_lists = _default_lists(n) if config.n_lists is None else config.n_lists
    # FAISS offers no trained lists for the city-block distance that pay at these sizes.
    flat = n_lists == 0 or metric == "manhattan" or config.recall == 1.0
    index = _flat_index(faiss, host, metric) if flat else _list_index(faiss, host, metric, n_lists, seed)
    if not flat:
        _set_probes(faiss, index, host, n_neighbors, metric, config, seed)
    where = queries.cpu()
    query_rows = host if len(where) == n else host[where]
    candidates = torch.from_numpy(index.search(query_rows.numpy(), n_neighbors + 1)[1])
    ids = drop_self(candidates, where, n_neighbors)
    short = torch.nonzero((ids < 0).any(dim=1)).squeeze(1)
    if len(short):
        ids[short] = exact.search(host, where[short], n_neighbors, metric)[0]
    ids, distances = nearest_first(ids, pair_distances(host, where, ids, metric))
    return ids.to(prepared.device), distances.to(prepared.device)


def _default_lists(n: int) -> int:
    return 0 if n < _FLAT_BELOW else 2 ** round(2 + torch.tensor(float(n)).log2().item() / 2)


def _faiss_metric(faiss: Any, metric: str) -> int:
    return {
        "euclidean": faiss.METRIC_L2,
        "manhattan": faiss.METRIC_L1,
        "cosine": faiss.METRIC_INNER_PRODUCT,
    }[metric]


def _flat_index(faiss: Any, host: Tensor, metric: str) -> Any:
    index = faiss.IndexFlat(host.shape[1], _faiss_metric(faiss, metric))
    index.add(host.numpy())
    return index


def _list_index(faiss: Any, host: Tensor, metric: str, n_lists: int, seed: int) -> Any:
    kind = _faiss_metric(faiss, metric)
    quantizer = faiss.IndexFlat(host.shape[1], kind)
    index = faiss.IndexIVFFlat(quantizer, host.shape[1], n_lists, kind)
    index.cp.seed = seed % (2**31)
    index.cp.niter = 8
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = 64
    index.train(host.numpy())
    index.add(host.numpy())
    index.own_fields = True
    quantizer.this.disown()
    return index


def _set_probes(
    faiss: Any, index: Any, host: Tensor, n_neighbors: int, metric: str, config: FaissConfig, seed: int
) -> None:
    """Double the probed lists until the recall on a sample of rows meets the target."""
    if config.n_probes is not None:
        index.nprobe = config.n_probes
        return
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(host.shape[0], generator=generator)[:_CALIBRATION_ROWS]
    truth = _flat_index(faiss, host, metric).search(host[sample].numpy(), n_neighbors + 1)[1]
    truth = drop_self(torch.from_numpy(truth), sample, n_neighbors)
    for n_probes in [2**i for i in range(2, 32)]:
        index.nprobe = min(n_probes, index.nlist)
        found = torch.from_numpy(index.search(host[sample].numpy(), n_neighbors + 1)[1])
        found = drop_self(found, sample, n_neighbors)
        hits = (found.unsqueeze(2) == truth.unsqueeze(1)).any(dim=2)
        if float(hits.double().mean()) >= config.recall or index.nprobe == index.nlist:
            return
