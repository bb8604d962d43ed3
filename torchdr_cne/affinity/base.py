"""The base class of affinities, which define a number of neighbours and how these become a graph."""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from torchdr_cne.affinity.graph import AffinityGraph
from torchdr_cne.inputs import Rows, as_rows, read_table
from torchdr_cne.neighbors import NeighborGraph, neighbors_of_rows
from torchdr_cne.neighbors.copies import spread_over_copies
from torchdr_cne.neighbors.kneighbors import Backend
from torchdr_cne.storable import Storable


@dataclass(kw_only=True, eq=False, repr=False)
class Affinity(Storable, BaseEstimator, ABC):
    """Similarities of the input points, as a symmetric sparse graph.

    A subclass defines how many neighbours it needs and how they become weights. Subclasses become dataclasses
    automatically: annotated class attributes are their parameters.

    Parameters
    ----------
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance between rows.
    backend : {"auto", "torch", "keops", "faiss"} or FaissConfig, default="auto"
        How neighbours are found; see `torchdr_cne.neighbors.kneighbors`.
    """

    metric: str = "euclidean"
    backend: Backend = "auto"

    needs_all_rows: ClassVar[bool] = False
    """Whether a rank needs all rows of the data to compute its rows of the graph."""
    size_parameter: ClassVar[str] = "n_neighbors"
    """Name of the parameter that says how many neighbours a row has."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(kw_only=True, eq=False, repr=False)(cls)

    def __call__(self, X: Any, *, random_state: int = 0) -> AffinityGraph:
        """Return the graph of ``X``, an array or tensor of shape (n, f)."""
        if not isinstance(X, Rows):
            X = as_rows(read_table(X), center=self.metric != "cosine")
        neighbors = neighbors_of_rows(
            X,
            self._n_neighbors_available(X.n_points),
            metric=self.metric,
            backend=self.backend,
            random_state=random_state,
        )
        return self.from_neighbors(spread_over_copies(neighbors, X))

    def _n_neighbors_available(self, n: int) -> int:
        """Return the number of neighbours needed, or n − 1 with a warning that names the user's parameter."""
        needed = self._n_neighbors_needed(n)
        if needed < n:
            return needed
        warnings.warn(
            f"{self.size_parameter}={getattr(self, self.size_parameter)} needs more than {needed} samples, "
            f"got {n}; all {n - 1} other points are used.",
            UserWarning,
            stacklevel=3,
        )
        return n - 1

    @abstractmethod
    def _n_neighbors_needed(self, n: int) -> int:
        """Return the number of other points, among ``n``, that each row needs as neighbours."""

    @abstractmethod
    def from_neighbors(self, neighbors: NeighborGraph) -> AffinityGraph:
        """Return the affinity graph of a neighbour graph, which is left unchanged and can be reused."""

    def directed_weights(self, neighbors: NeighborGraph) -> Tensor:
        """Return each row's weights (q, k) of its neighbours, before any symmetrisation; all 1 unless overridden."""
        return torch.ones_like(neighbors.indices, dtype=torch.float32)

    def weights_of_new(self, neighbors: NeighborGraph) -> Tensor:
        """Return weights (q, k) of new rows, which no other row lists; those of a row must not depend on other rows."""
        return self.directed_weights(neighbors)
