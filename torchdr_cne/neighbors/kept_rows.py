"""The rows of a fit, which are kept so that new rows can be compared with them."""

from typing import Any

import torch
from torch import Tensor

from torchdr_cne.hashing import row_digests
from torchdr_cne.inputs import Rows
from torchdr_cne.neighbors.graph import NeighborGraph
from torchdr_cne.neighbors.kneighbors import Backend, index_of_rows, neighbors_of_others
from torchdr_cne.neighbors.row_index import RowIndex


class KeptRows:
    """The kept rows, in which the rows nearest or equal to new ones are found; indexes are built when first needed.

    The result for a row does not depend on other new rows. Copies and pickles contain only the rows.

    Parameters
    ----------
    rows : Rows
        All rows of a fit, in memory.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._index: tuple[Any, RowIndex] | None = None
        self._digests: tuple[Tensor, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(KeptRows(self.rows))

    def nearest(self, others: Tensor, n_neighbors: int, metric: str, backend: Backend) -> NeighborGraph:
        """Return the ``n_neighbors`` rows nearest to each of ``others`` (m, f), which are centred and scaled alike."""
        request = n_neighbors, metric, backend
        if self._index is None or self._index[0] != request:
            self._index = request, index_of_rows(self.rows, n_neighbors, metric=metric, backend=backend)
        return neighbors_of_others(self._index[1], self.rows, others)

    def equal(self, others: Tensor) -> Tensor:
        """Return the number of the first row that equals each of ``others`` in all columns; −1 if there is none."""
        digests, numbers = self._sorted_digests()
        wanted = row_digests(others)
        place = torch.searchsorted(digests, wanted)
        found = torch.full_like(place, -1)
        asked = torch.arange(len(others), device=place.device)
        while True:  # rows with the same digest are adjacent, and need not be equal
            asked = asked[place[asked] < len(digests)]
            asked = asked[digests[place[asked]] == wanted[asked]]
            if not len(asked):
                return found
            candidates = numbers[place[asked]]
            same = (self.rows.values[candidates] == others[asked]).all(dim=1)
            found[asked[same]] = candidates[same]
            asked = asked[~same]
            place[asked] += 1

    def _sorted_digests(self) -> tuple[Tensor, Tensor]:
        if self._digests is None:
            digests = torch.cat([row_digests(block) for block in self.rows.blocks(_BLOCK_ELEMENTS)])
            ordered = torch.sort(digests, stable=True)
            self._digests = ordered.values, ordered.indices
        return self._digests


_BLOCK_ELEMENTS = 1 << 20
