"""The result of a fit, or of the part of it that is done."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from torchdr_cne.inputs.columns import Columns
from torchdr_cne.neighbors import KeptRows

_OWN_NAMES = ("columns", "learned", "networks", "extras")


@dataclass(frozen=True)
class FitResult:
    """The fitted attributes, without the underscore at the end of their names; those that do not exist are None.

    Attributes
    ----------
    columns : Columns
        Number and names of the features of the data.
    n_ranks : int
        Number of processes that take part.
    embedding : ndarray or Tensor of shape (n, d) or None
        The embedding, in the kind of the data.
    graph : csr_array of shape (n, n) or None
        This rank's rows of the input graph.
    graph_start : int or None
        Number of the point that the first of these rows belongs to.
    n_connected_components : int or None
        Number of connected components of the graph.
    training_rows : KeptRows or None
        The rows of the fit, if they are kept.
    n_iter : int or None
        Number of iterations done.
    learning_rate : float or None
        Learning rate of the last phase before the scheduler.
    history : dict of str to list or None
        The values recorded at every check, by name.
    learned : mapping of str to float
        Scalars that are learned with the embedding.
    networks : mapping of str to Module
        Networks that compute the embedding.
    extras : mapping of str to Any
        Further fitted attributes of a method.
    """

    columns: Columns
    n_ranks: int = 1
    embedding: Any = None
    graph: Any = None
    graph_start: int | None = None
    n_connected_components: int | None = None
    training_rows: KeptRows | None = None
    n_iter: int | None = None
    learning_rate: float | None = None
    history: dict[str, list[float]] | None = None
    learned: Mapping[str, float] = field(default_factory=dict)
    networks: Mapping[str, nn.Module] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)

    def attributes(self) -> dict[str, Any]:
        """Return the fitted attributes by name; ``training_rows_`` is None where rows are not kept."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _OWN_NAMES}
        found = {name: value for name, value in found.items() if value is not None}
        if self.embedding is not None:
            found["training_rows"] = self.training_rows
        found |= {**self.columns.attributes(), **self.learned, **self.networks, **self.extras}
        return {f"{name}_": value for name, value in found.items()}
