"""Embedding of new rows among those of a fit: first beside their neighbours, then by descent on the method's loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from torchdr_cne.affinity import Affinity
from torchdr_cne.inputs import RowSource, check_finite, read_new_features
from torchdr_cne.neighbors import KeptRows, NeighborGraph
from torchdr_cne.placement.refinement import ROWS, Refinement
from torchdr_cne.resources import shielded, torch_threads
from torchdr_cne.workers import Workers

_BLOCK = 1 << 13
"""Number of rows that are read, searched for and placed together."""


@dataclass(frozen=True)
class FittedPoints:
    """The embedded points of a fit, among which new ones are placed.

    Attributes
    ----------
    rows : KeptRows or None
        The rows of the fit; None if they were not kept.
    embedding : ndarray or Tensor of shape (n, d)
        Embedding of the rows.
    affinity : Affinity
        The affinity that relates new rows to those of the fit.
    refinement : callable
        Function from the embedding (n, d) to the descent of new points on the loss, or to None, which leaves them
        beside their neighbours.
    is_precomputed : bool
        Whether the fit was given a graph instead of rows.
    keeps_rows : bool
        Whether the fit was asked to keep its rows.
    """

    rows: KeptRows | None
    embedding: np.ndarray | Tensor
    affinity: Affinity
    refinement: Callable[[Tensor], Refinement | None]
    is_precomputed: bool
    keeps_rows: bool

    def check(self) -> None:
        """Raise a ValueError if there are no rows to compare new ones with."""
        if self.rows is not None:
            return
        if self.is_precomputed:
            raise ValueError(
                "transform needs the rows of the fit, and affinity_in='precomputed' has none; fit rows with "
                "affinity_in=None, or with graph=."
            )
        if not self.keeps_rows:
            raise ValueError(
                "transform needs the rows of the fit, which store_training_data=False has dropped; fit with "
                "store_training_data=True."
            )
        raise ValueError(
            "transform needs the rows of the fit in memory, and they have stayed in their file, were divided among "
            "ranks, or were not kept; fit in one process on an array, with store_training_data=True."
        )


def transform_points(fitted: FittedPoints, estimator: BaseEstimator, X: Any) -> np.ndarray | Tensor:
    """Return the embedding (m, d) of new rows, in the kind of ``X``.

    Parameters
    ----------
    fitted : FittedPoints
        The points of the fit.
    estimator : BaseEstimator
        The fitted estimator, which knows the number and names of the features.
    X : array-like, Tensor, data frame, DataLoader or RowSource of shape (m, f)
        Rows with the features of the fit; a source is read block by block.
    """
    fitted.check()
    rows, kind = read_new_features(estimator, X)
    with shielded():
        given = fitted.embedding
        # A copy if it is read-only, such as a memory map, of which torch warns.
        embedding_nd = given.detach() if isinstance(given, Tensor) else torch.from_numpy(np.require(given, None, "W"))
        found_md = embedding_nd.new_empty((len(rows), embedding_nd.shape[1]))
        placement = _Placement(fitted, embedding_nd)
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, min(start + _BLOCK, len(rows)))
            found_md[block] = placement.embedded(_read(rows, block))
        return kind.wrap(found_md)


def _read(X: np.ndarray | Tensor | RowSource, block: slice) -> np.ndarray | Tensor:
    if not isinstance(X, RowSource):
        return X[block]
    found = X.read(block.start, block.stop)
    check_finite(found, f"{X.origin}, from row {block.start} on,")
    return found


class _Placement:
    """Places new rows in an embedding, each independently of the others."""

    def __init__(self, fitted: FittedPoints, embedding_nd: Tensor) -> None:
        assert fitted.rows is not None
        self._kept, self._embedding_nd = fitted.rows, embedding_nd
        self._affinity = fitted.affinity
        self._refinement = fitted.refinement(embedding_nd)

    def embedded(self, X: np.ndarray | Tensor) -> Tensor:
        """Return the embedding of rows: that of an equal row of the fit, or else points beside their neighbours."""
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
        with Workers() as workers, torch_threads(1):  # the result must not depend on how threads split an operation
            weights_mk = _shares(self._affinity.weights_of_new(neighbors).to(self._embedding_nd))
            ends_mkd = self._embedding_nd[neighbors.indices.long().to(self._embedding_nd.device)]
            places = (weights_mk.unsqueeze(2) * ends_mkd).sum(dim=1)
            if self._refinement is not None:
                places = self._refinement.refine(places, ends_mkd, weights_mk, workers)
        return places[: len(rows)]


def _in_whole_chunks(neighbors: NeighborGraph) -> NeighborGraph:
    """Return whole chunks by repeating the last row, so that none is in the remainder of a vector operation."""
    rows = torch.arange(-(-len(neighbors.indices) // ROWS) * ROWS).clamp_max(len(neighbors.indices) - 1)
    return NeighborGraph(neighbors.indices[rows], neighbors.distances[rows])


def _shares(weights_mk: Tensor) -> Tensor:
    """Return the weights of each row scaled to sum 1; they are uniform if all of them are 0."""
    weights_mk = weights_mk.nan_to_num(nan=0.0, posinf=0.0).clamp_min(0)
    weights_mk = torch.where(weights_mk.amax(dim=1, keepdim=True) > 0, weights_mk, 1.0)
    return weights_mk / weights_mk.sum(dim=1, keepdim=True)
