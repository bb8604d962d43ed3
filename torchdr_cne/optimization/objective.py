"""What the loop asks of whatever it minimises."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.state import FitState


class Objective(Protocol):
    """Owns what is optimised; the loop asks it for gradients.

    With several ranks every method is called by all of them, in the same order.

    Attributes
    ----------
    n_points : int
        How many points the squared gradient is a mean over.
    own_threads : bool
        Whether it computes on threads of its own, and torch's would only compete.
    """

    n_points: int
    own_threads: bool

    @property
    def parameters(self) -> dict[str, Tensor]:
        """What the optimiser moves beside the learned scalars; the points themselves are called "embedding"."""

    @property
    def networks(self) -> Any:
        """The networks that compute the embedding, by name; none where points move themselves."""

    def epoch_length(self, phase: Phase) -> int:
        """Return the number of iterations of an epoch."""

    def begin(self, state: FitState) -> None:
        """Make ready for ``state.phase``."""

    def compute_gradients(self, state: FitState) -> None:
        """Fill ``.grad`` of the parameters and of the learned scalars for ``state.step``."""

    def gradient_sum(self) -> Tensor:
        """Return a number that is finite if the gradient is, without waiting for it."""

    def add_up(self, of_parameter: Tensor) -> Tensor:
        """Return sums over the parameter, one a step, that are sums over all points."""

    def square_sum(self) -> float:
        """Return the sum over all points of the squared gradient."""

    def to_points(self, like_parameter: Tensor) -> Tensor:
        """Return a tensor shaped as the parameter by point, (n, d)."""

    def from_points(self, values_nd: Tensor) -> Tensor:
        """Return values by point in the parameter's shape."""

    def embedding(self) -> Tensor:
        """Return the current embedding (n, d), detached."""

    def to_save(self) -> dict[str, Tensor]:
        """Return what a fit needs to go on from here, beside the optimiser's state."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `to_save` has given, as far as it was not the start."""
