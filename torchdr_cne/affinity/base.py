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
        """Return the number of neighbours needed, or fewer with a warning that names the user's parameter."""
        needed = self._n_neighbors_needed(n)
        n_least = self._n_least(needed)
        if n > n_least:
            return needed
        n_used, used = self._lowered(n)
        warnings.warn(
            f"{self.size_parameter}={getattr(self, self.size_parameter)} needs more than {n_least} samples, got {n}; "
            f"{used}.",
            UserWarning,
            stacklevel=3,
        )
        return n_used

    def _n_least(self, n_neighbors: int) -> int:
        """Return the number of points that is just too small for so many neighbours."""
        return n_neighbors

    def _lowered(self, n: int) -> tuple[int, str]:
        """Return the number of neighbours used instead of a larger one, and text that says so."""
        return n - 1, f"all {n - 1} other points are used"

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


class FewNeighbors(Affinity):
    """An affinity of so few neighbours that the graph has a structure, however few the points are.

    If half of the points were neighbours of each point, every group of points would be joined to every other.
    """

    def _n_least(self, n_neighbors: int) -> int:
        return 2 * n_neighbors if n_neighbors > 1 else 1

    def _lowered(self, n: int) -> tuple[int, str]:
        n_used = max(1, (n - 1) // 3)
        neighbors = "1 neighbour is" if n_used == 1 else f"{n_used} neighbours are"
        return n_used, f"{neighbors} used, a third of the other points, so that groups stay apart"
