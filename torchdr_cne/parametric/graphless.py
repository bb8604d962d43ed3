"""Learned maps that need no graph, as their pairs come from views or from labels."""

from typing import Any, ClassVar, Self

from torchdr_cne.matching import EmbeddingEstimator
from torchdr_cne.networks.encoding import encode
from torchdr_cne.networks.loss import Loss


class GraphlessMap(EmbeddingEstimator):
    """A learned map that makes its own pairs and phases."""

    _base_learning_rate: ClassVar[float] = 3e-3

    def fit(self, X: Any, y: Any = None, *, graph: Any = None) -> Self:
        """Train the network; ``graph`` is refused."""
        self._refuse(graph)
        return super().fit(X, y)

    def _refuse(self, graph: Any) -> None:
        if graph is not None:
            raise ValueError(f"{type(self).__name__} takes no graph: it has pairs of its own; leave graph= out.")

    def _transformed(self, X: Any) -> Any:
        encoder: Any = vars(self)["encoder_"]
        return encode(encoder, self, X, self._torch_dtype)

    def _batch_loss(self) -> Loss:
        """Return the loss of a mini-batch."""
        raise TypeError(f"{type(self).__name__} states no _batch_loss.")
