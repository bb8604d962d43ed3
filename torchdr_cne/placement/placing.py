"""Where new rows belong among the embedded rows of a fit: beside their neighbours, then down the method's loss."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.affinity import Affinity
from torchdr_cne.inputs import RowSource, check_finite
from torchdr_cne.neighbors import NeighborGraph
from torchdr_cne.placement.refinement import ROWS
from torchdr_cne.resources import torch_threads
from torchdr_cne.workers import Workers

_BLOCK = 1 << 13
"""Rows that are read, searched for and placed together."""


def check_placeable(estimator: Any) -> None:
    """Raise a ValueError if a fitted estimator has no rows to compare new ones with."""
    if getattr(estimator, "training_rows_", None) is not None:
        return
    if isinstance(estimator.affinity_in, str):
        raise ValueError(
            "transform needs the rows of the fit, and affinity_in='precomputed' has none; fit rows with "
            "affinity_in=None, or with graph=."
        )
    if not estimator.store_training_data:
        raise ValueError(
            "transform needs the rows of the fit, which store_training_data=False has dropped; fit with "
            "store_training_data=True."
        )
    raise ValueError(
        "transform needs the rows of the fit in memory, and they have stayed in their file, were divided among ranks, "
        "or were not kept; fit in one process on an array, with store_training_data=True."
    )


def place(estimator: Any, X: np.ndarray | Tensor | RowSource) -> Tensor:
    """Return the places (m, d) of checked rows (m, f) in the embedding of ``estimator``.

    Parameters
    ----------
    estimator : AffinityMatcher
        A fitted one that has kept its rows.
    X : ndarray, Tensor or RowSource of shape (m, f)
        Rows with the features of the fit; a source is read block by block.
    """
    with torch.inference_mode(False), torch.enable_grad():  # losses are differentiated whatever the caller's mode is
        embedding_nd = torch.as_tensor(estimator.embedding_).detach()
        places = embedding_nd.new_empty((len(X), embedding_nd.shape[1]))
        placement = _Placement(estimator, embedding_nd)
        for start in range(0, len(X), _BLOCK):
            block = slice(start, min(start + _BLOCK, len(X)))
            places[block] = placement.places(_read(X, block))
        return places


def _read(X: np.ndarray | Tensor | RowSource, block: slice) -> np.ndarray | Tensor:
    if not isinstance(X, RowSource):
        return X[block]
    found = X.read(block.start, block.stop)
    check_finite(found, f"{X.origin}, from row {block.start} on,")
    return found


class _Placement:
    """Places rows in one embedding, none of them looking at another."""

    def __init__(self, estimator: Any, embedding_nd: Tensor) -> None:
        self._kept, self._embedding_nd = estimator.training_rows_, embedding_nd
        self._affinity: Affinity = estimator._input_affinity()
        self._refinement = estimator._refinement(embedding_nd)

    def places(self, X: np.ndarray | Tensor) -> Tensor:
        """Return the places of rows: those of equal rows of the fit, else beside their neighbours."""
        rows = self._kept.rows.alike(X)
        equal = self._kept.equal(rows)
        is_new = equal < 0
        places = self._embedding_nd[equal.clamp_min(0).to(self._embedding_nd.device)]
        if bool(is_new.any()):
            places[is_new.to(places.device)] = self._beside_neighbors(rows[is_new])
        return places

    def _beside_neighbors(self, rows: Tensor) -> Tensor:
        n = self._kept.rows.n_points
        n_neighbors = min(self._affinity._n_neighbors_needed(n), n)
        neighbors = _in_whole_chunks(
            self._kept.nearest(rows, n_neighbors, self._affinity.metric, self._affinity.backend)
        )
        with Workers() as workers, torch_threads(1):  # where an operation is split must not depend on the threads
            weights_mk = _shares(self._affinity.weights_of_new(neighbors).to(self._embedding_nd))
            ends_mkd = self._embedding_nd[neighbors.indices.long().to(self._embedding_nd.device)]
            places = (weights_mk.unsqueeze(2) * ends_mkd).sum(dim=1)
            if self._refinement is not None:
                places = self._refinement.refine(places, ends_mkd, weights_mk, workers)
        return places[: len(rows)]


def _in_whole_chunks(neighbors: NeighborGraph) -> NeighborGraph:
    """Repeat the last row up to a whole number of chunks: no row then is in the remainder of a vector operation."""
    rows = torch.arange(-(-len(neighbors.indices) // ROWS) * ROWS).clamp_max(len(neighbors.indices) - 1)
    return NeighborGraph(neighbors.indices[rows], neighbors.distances[rows])


def _shares(weights_mk: Tensor) -> Tensor:
    """Return each row's weights with sum 1; uniform where there are none."""
    weights_mk = weights_mk.nan_to_num(nan=0.0, posinf=0.0).clamp_min(0)
    weights_mk = torch.where(weights_mk.amax(dim=1, keepdim=True) > 0, weights_mk, 1.0)
    return weights_mk / weights_mk.sum(dim=1, keepdim=True)
