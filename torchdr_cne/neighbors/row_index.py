"""An index of some rows, in which the rows nearest to others are searched for."""

from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne._compiler import explained, numba_works
from torchdr_cne.neighbors.distances import prepare
from torchdr_cne.neighbors.exact import Points
from torchdr_cne.neighbors.faiss_index import FaissConfig, suitable_lists
from torchdr_cne.workers import Workers


def searches_lists(n_lists: int, metric: str, config: FaissConfig) -> bool:
    """Return whether ``n_lists`` inverted lists can be searched; if not, the search is exact."""
    # Lists for the city-block distance would need medians as centroids.
    return n_lists > 0 and metric != "manhattan" and config.recall < 1.0 and numba_works()


class RowIndex:
    """Consecutive rows and their index; without lists, the search is exact.

    The result for a row depends neither on the rows beside it nor on the number of threads.

    Parameters
    ----------
    rows : Tensor of shape (n, f)
        Rows that are centred and scaled.
    n_neighbors : int
        Number of neighbours to search for.
    metric : {"euclidean", "cosine", "manhattan"}
        Distance between rows.
    first : int, default=0
        Number of the first row.
    """

    def __init__(self, rows: Tensor, n_neighbors: int, metric: str, first: int = 0) -> None:
        self.metric, self.n_neighbors = metric, n_neighbors
        self._first = first
        self._rows = prepare(rows, metric).detach().cpu()
        self._lists: Any = None
        self._points: Points | None = None

    def put_in_lists(
        self, config: FaissConfig, sample: tuple[np.ndarray, np.ndarray] | None, seed: int, workers: Workers
    ) -> None:
        """Index the rows; a sample of rows with their numbers measures how many lists have to be probed."""
        from torchdr_cne.neighbors.probing import ListIndex

        n = len(self._rows)
        n_lists = suitable_lists(n) if config.n_lists is None else min(config.n_lists, n)
        with explained("the neighbour search"):
            points = _with_empty_marked(self._rows, self.metric)
            self._lists = ListIndex(points, self.n_neighbors, max(1, n_lists), seed, workers)
            if sample is None:
                self._n_probes = int(config.n_probes or 1)
            else:
                asked, numbers = map(torch.from_numpy, sample)
                self._n_probes = self._lists.probes_for(self._queries(asked, self._here(numbers)), config.recall)

    def using(self, workers: Workers) -> "RowIndex":
        """Return this index with other workers."""
        other = copy(self)
        other._lists = None if self._lists is None else self._lists.using(workers)
        return other

    def nearest(self, visitors: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return numbers and distances (q, k) of the nearest rows; −1 and infinity if there are too few.

        Parameters
        ----------
        visitors : Tensor of shape (q, f)
            Rows on the CPU, prepared for the metric.
        numbers : Tensor of shape (q,), int64
            Numbers of these rows, which are not returned as their own neighbours; −1 if they have none.
        """
        if len(visitors) == 0:
            nothing = torch.empty((0, self.n_neighbors), dtype=torch.float32)
            return nothing.long(), nothing
        known = self._here(numbers)
        if self._lists is None:
            ids, distances = self._exactly(visitors, known)
        else:
            ids, distances = self._in_lists(visitors, known)
        return torch.where(ids >= 0, ids + self._first, -1), distances

    def _exactly(self, visitors: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        if self._points is None:
            self._points = Points(self._rows, self.metric)
        return self._points.search(visitors, known, self.n_neighbors)

    def _in_lists(self, visitors: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        found = self._lists.search(self._queries(visitors, known), self._n_probes)
        ids, distances = torch.from_numpy(found[0]).long(), torch.from_numpy(found[1])
        distances = distances.div_(2) if self.metric == "cosine" else distances.sqrt_()
        if self.metric == "cosine":  # all-zero rows are at distance 1 from all rows, including each other
            distances[(visitors == 0).all(dim=1)] = 1.0
        again = torch.nonzero(ids[:, -1] < 0).squeeze(1)
        if len(again):
            exact = Points(self._rows, self.metric).search(visitors[again], known[again], self.n_neighbors)
            ids[again], distances[again] = exact[0], exact[1].to(distances.dtype)
        return ids, distances

    def _here(self, numbers: Tensor) -> Tensor:
        """Return the positions of numbered rows in this index; −1 for rows that it does not hold."""
        here = numbers - self._first
        return torch.where((here >= 0) & (here < len(self._rows)), here, -1)

    def _queries(self, rows: Tensor, known: Tensor) -> Any:
        from torchdr_cne.neighbors.list_kernels import Queries

        places = np.arange(len(rows), dtype=np.int32)
        return Queries(_with_empty_marked(rows, self.metric), places, known.numpy().astype(np.int32))


def _with_empty_marked(prepared: Tensor, metric: str) -> np.ndarray:
    """Return float32 rows; for cosine another coordinate keeps all-zero rows away from the others."""
    if metric == "cosine":
        prepared = torch.cat([prepared, (prepared == 0).all(dim=1, keepdim=True).to(prepared.dtype)], dim=1)
    return prepared.float().contiguous().numpy()
