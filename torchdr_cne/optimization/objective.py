"""The interface of the objectives that the loop minimises."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.state import FitState


class Objective(Protocol):
    """An objective: it owns the parameters that are optimised, and computes their gradients for the loop.

    With several ranks every method is called by all of them, in the same order.

    Attributes
    ----------
    n_points : int
        Number of points over which the squared gradient is averaged.
    own_threads : bool
        Whether the objective computes on threads of its own, with which torch's would only compete.
    """

    n_points: int
    own_threads: bool

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The tensors that the optimiser moves besides the learned scalars; the points are called "embedding"."""

    @property
    def networks(self) -> Any:
        """The networks that compute the embedding, by name; there are none if points move themselves."""

    def epoch_length(self, phase: Phase) -> int:
        """Return the number of iterations in an epoch."""

    def begin(self, state: FitState) -> None:
        """Prepare for ``state.phase``."""

    def compute_gradients(self, state: FitState) -> None:
        """Fill ``.grad`` of the parameters and of the learned scalars for ``state.step``."""

    def gradient_sum(self) -> Tensor:
        """Return a tensor of one number, which is finite if the gradient is, without waiting for the device."""

    def add_up(self, of_parameter: Tensor) -> Tensor:
        """Return sums over all points, from sums over this rank's parameter, one per step."""

    def square_sum(self) -> float:
        """Return the sum of the squared gradient over all points."""

    def to_points(self, like_parameter: Tensor) -> Tensor:
        """Return a tensor with the shape of the parameter as values by point, (n, d)."""

    def from_points(self, values_nd: Tensor) -> Tensor:
        """Return values by point, (n, d), as a tensor with the shape of the parameter."""

    def embedding(self) -> Tensor:
        """Return the current embedding (n, d), detached."""

    def to_save(self) -> dict[str, Tensor]:
        """Return the tensors that a fit needs to continue from here, besides the state of the optimiser."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the tensors of `to_save`, except for those with which the fit has started."""
