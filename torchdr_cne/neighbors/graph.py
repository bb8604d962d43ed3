"""The result of the neighbour search."""

from dataclasses import dataclass

from torch import Tensor

from torchdr_cne.distributed import Share


@dataclass(frozen=True)
class NeighborGraph:
    """The k nearest *other* points of each query row, nearest first.

    Attributes
    ----------
    indices : Tensor of shape (q, k), int32 (int64 from 2³¹ rows on)
        Ids of the neighbours; never the row itself.
    distances : Tensor of shape (q, k)
        Distances in the unit of the metric, never squared.
    share : Share
        The rows of each rank, if these belong to one rank; None is one rank with all rows.
    """

    indices: Tensor
    distances: Tensor
    share: Share = None  # type: ignore[assignment]  # filled in below

    def __post_init__(self) -> None:
        assert self.indices.shape == self.distances.shape
        if self.share is None:
            object.__setattr__(self, "share", Share.whole(len(self.indices)))

    @property
    def n_neighbors(self) -> int:
        """Number of neighbours of each row."""
        return self.indices.shape[1]

    def first(self, n_neighbors: int) -> "NeighborGraph":
        """Return the graph of only the ``n_neighbors`` nearest."""
        return NeighborGraph(self.indices[:, :n_neighbors], self.distances[:, :n_neighbors], self.share)
