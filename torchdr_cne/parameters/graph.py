"""Parameters that say what the input graph is, and how neighbours are found."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from torchdr_cne.affinity import Affinity
from torchdr_cne.checks import COUNT, Bound, check_choice
from torchdr_cne.neighbors.distances import METRICS
from torchdr_cne.neighbors.kneighbors import Backend
from torchdr_cne.parameters.group import ParameterGroup, group


@group
class Graph(ParameterGroup):
    """What the input graph is.

    Parameters
    ----------
    affinity_in : Affinity, "precomputed" or None, default=None
        Affinity of the input. None is the method's own affinity; "precomputed" takes ``X`` as a symmetric (n, n)
        affinity matrix, sparse or dense. `AffinityMatcher` itself also takes a function from rows (n, f), float64, to
        any real matrix (n, n), which is matched as it is.
    memory_budget : int or None, default=None
        Number of bytes that the rows of a `RowSource` and their index may take in a process; larger data are
        streamed. None is a third of the free memory.
    store_training_data : bool, default=True
        Whether the rows of the fit are kept, so that `transform` can compare new rows with them; they may be the
        caller's own memory. False drops them, which also makes saved estimators smaller.
    """

    affinity_in: Affinity | str | Callable[[Tensor], Any] | None = None
    memory_budget: int | None = None
    store_training_data: bool = True

    _bounds: ClassVar[dict[str, Bound]] = {"memory_budget": COUNT}

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not (
            self.affinity_in is None
            or isinstance(self.affinity_in, Affinity)
            or self._is_precomputed
            or self._matches_function
        ):
            raise ValueError(
                f"affinity_in={self.affinity_in!r} is unknown; pass an Affinity such as UnionAffinity(), one "
                "composed from Neighbors(…) to Symmetrize(…), 'precomputed' or None."
            )

    @property
    def _is_precomputed(self) -> bool:
        return isinstance(self.affinity_in, str) and self.affinity_in == "precomputed"

    @property
    def _matches_function(self) -> bool:
        """Whether ``affinity_in`` may be, and is, a function of the rows."""
        return False


@group
class Search(ParameterGroup):
    """How neighbours are found.

    Parameters
    ----------
    n_neighbors : int, default=15
        Number of neighbours of a point in the method's own affinity (ignored if ``affinity_in`` is given).
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance between rows of ``X`` in the method's own affinity.
    backend : {"auto", "torch", "keops", "faiss"} or FaissConfig, default="auto"
        How neighbours are found; see `torchdr_cne.neighbors.kneighbors`.
    """

    n_neighbors: int = 15
    metric: str = "euclidean"
    backend: Backend = "auto"

    _bounds: ClassVar[dict[str, Bound]] = {"n_neighbors": COUNT}

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("metric", self.metric, METRICS)
