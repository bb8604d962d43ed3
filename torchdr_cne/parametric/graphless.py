"""Learned maps that need no graph: their pairs come from views or from labels."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torchdr_cne.checks import Bound, without
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.parametric.learned_map import LearnedMap


class GraphlessMap(LearnedMap):
    """A learned map whose phases are its own, and which has no use for parameters of graphs and of first places.

    Parameters are those of its subclasses.
    """

    phases: ClassVar[tuple[Phase, ...]] = ()  # type: ignore[misc]
    n_neighbors: ClassVar[int] = 15  # type: ignore[misc]
    metric: ClassVar[str] = "euclidean"  # type: ignore[misc]
    backend: ClassVar[str] = "auto"  # type: ignore[misc]
    affinity_in: ClassVar[None] = None  # type: ignore[misc]
    init: ClassVar[str] = "pca"  # type: ignore[misc]
    init_scaling: ClassVar[float] = 1.0  # type: ignore[misc]
    max_iter: ClassVar[None] = None  # type: ignore[misc]
    scheduler: ClassVar[None] = None  # type: ignore[misc]
    scheduler_kwargs: ClassVar[str] = "auto"  # type: ignore[misc]
    min_grad_norm: ClassVar[float] = 0.0  # type: ignore[misc]
    compile: ClassVar[bool] = False  # type: ignore[misc]
    decoder: ClassVar[None] = None  # type: ignore[misc]
    extra_loss: ClassVar[None] = None  # type: ignore[misc]
    memory_budget: ClassVar[Any] = None  # type: ignore[misc]
    store_training_data: ClassVar[bool] = False  # type: ignore[misc]

    _bounds: ClassVar[dict[str, Bound]] = without(
        LearnedMap._bounds, "n_neighbors", "max_iter", "init_scaling", "min_grad_norm", "memory_budget"
    )

    def fit(self, X: Any, y: Any = None, *, graph: Any = None) -> Any:
        """Train the network; ``graph`` is refused."""
        if graph is not None:
            raise ValueError(f"{type(self).__name__} takes no graph: it has pairs of its own; leave graph= out.")
        return super().fit(X, y)

    def _needs_graph(self, phases: Sequence[Phase]) -> bool:
        return False
