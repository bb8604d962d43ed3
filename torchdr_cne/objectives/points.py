"""Two ways to a gradient: autograd of the loss hooks, and declared pair forces on reciprocal blocks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from torchdr_cne.distributed import Ranks, Share
from torchdr_cne.forces import ForceEngine, StepCoefficients, shorten_rows
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.state import FitState
from torchdr_cne.sampling import BlockLayout, draw_shifts


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
        """What the optimiser moves beside the learned scalars; the places of the points are called "embedding"."""

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


class PlacesObjective(ABC):
    """What objectives that move the points themselves have in common: one parameter, in a shape of their own."""

    own_threads = False
    n_points: int
    parameter: Tensor

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The one parameter."""
        return {"embedding": self.parameter}

    @property
    def networks(self) -> dict[str, Any]:
        """None: points move themselves."""
        return {}

    def epoch_length(self, phase: Phase) -> int:
        """Return 1: a step sees all points."""
        return 1

    def begin(self, state: FitState) -> None:
        """Change nothing: all phases move all points."""
        return None

    def gradient_sum(self) -> Tensor:
        """Return the sum of the gradient."""
        assert self.parameter.grad is not None
        return self.parameter.grad.sum()

    @abstractmethod
    def embedding(self) -> Tensor:
        """Return the current embedding (n, d)."""

    def to_save(self) -> dict[str, Tensor]:
        """Return the current embedding."""
        return {"embedding": self.embedding()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Change nothing: the fit has started from them."""
        return None


class AutogradObjective(PlacesObjective):
    """Differentiates a loss of the embedding (n, d); rows' gradients longer than ``longest`` are shortened to it.

    Each rank has the whole embedding and differentiates the loss of its own rows; the sum of the gradients is
    everyone's.
    """

    def __init__(
        self,
        start_nd: Tensor,
        loss: Callable[[Tensor, FitState], Tensor],
        longest: float | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self._longest = longest
        self.parameter = start_nd.clone().requires_grad_(True)
        self.n_points = len(start_nd)
        self._loss = loss
        self._ranks = Ranks() if ranks is None else ranks

    def compute_gradients(self, state: FitState) -> None:
        """Differentiate the loss of this step."""
        wanted = [self.parameter, *state.learned.values()]
        loss = self._loss(self.parameter, state)
        gradients = torch.autograd.grad(loss, wanted)
        state.add_losses({"loss": loss})
        for gradient in gradients:
            self._ranks.add_up(gradient, "the sum of gradients")
        self.parameter.grad = gradients[0]
        if self._longest is not None:
            shorten_rows(self.parameter.grad, 1, self._longest)
        # The loss is a sum over points; a scalar they share learns from their mean.
        for learned, gradient in zip(state.learned.values(), gradients[1:], strict=True):
            learned.grad = gradient / len(self.parameter)

    def add_up(self, of_parameter: Tensor) -> Tensor:
        """Return ``of_parameter`` as it is: every rank has all points."""
        return of_parameter

    def square_sum(self) -> float:
        """Return the sum over all points of the squared gradient."""
        assert self.parameter.grad is not None
        return float(self.parameter.grad.square().sum())

    def to_points(self, like_parameter: Tensor) -> Tensor:
        """Return ``like_parameter``, (n, d)."""
        return like_parameter

    def from_points(self, values_nd: Tensor) -> Tensor:
        """Return ``values_nd``."""
        return values_nd

    def embedding(self) -> Tensor:
        """Return the current embedding (n, d)."""
        return self.parameter.detach()


class PairwiseObjective(PlacesObjective):
    """Sums declared pair forces; positions are stored (d, slots), see `torchdr_cne.forces`.

    A rank moves the points in its own slots and, before each step, receives where the others' have gone.
    """

    def __init__(
        self,
        start_nd: Tensor,
        layout: BlockLayout,
        share: Share,
        engine: ForceEngine,
        n_shifts: Callable[[FitState], int],
        coefficients: Callable[[FitState, list[int]], StepCoefficients],
    ) -> None:
        self.n_points = len(start_nd)
        self._layout, self._share = layout, share
        self._positions = layout.scatter(start_nd).t().contiguous()
        self.parameter = self.from_points(start_nd).requires_grad_(True)
        self._have_moved = False
        self._engine = engine
        self.own_threads = engine.own_threads
        self._n_shifts = n_shifts
        self._coefficients = coefficients

    @torch.no_grad()
    def compute_gradients(self, state: FitState) -> None:
        """Draw this step's shifts and sum the forces."""
        shifts = draw_shifts(self._layout.n_blocks, self._n_shifts(state), seed=state.seed, step=state.step)
        gradient, scalar = self._engine.gradient(self._all_positions(), self._coefficients(state, shifts))
        self.parameter.grad = gradient
        for learned in state.learned.values():
            assert scalar is not None
            learned.grad = (scalar / self._layout.n_points).to(learned.dtype)
        self._have_moved = True  # by the time anyone asks

    def _all_positions(self) -> Tensor:
        """Return the positions (d, slots) of all ranks, exchanged if they have changed."""
        if self._share.ranks.size == 1:
            return self.parameter.detach()
        if self._have_moved:
            self._positions[:, self._share.own] = self.parameter.detach()
            self._share.gather_(self._positions, "the exchange of positions")
            self._have_moved = False
        return self._positions

    def add_up(self, of_parameter: Tensor) -> Tensor:
        """Return the sum over all ranks."""
        return self._share.ranks.add_up(of_parameter, "the check of the gradients")

    def square_sum(self) -> float:
        """Return the sum over all points of the squared gradient."""
        assert self.parameter.grad is not None
        return float(self._share.total(self.parameter.grad.square().sum(dim=0), "the check of the gradients"))

    def to_points(self, like_parameter: Tensor) -> Tensor:
        """Return a tensor of own slots, (d, own), by point, (n, d)."""
        if self._share.ranks.size > 1:
            everyone = like_parameter.new_empty((len(like_parameter), self._layout.n_slots))
            everyone[:, self._share.own] = like_parameter
            like_parameter = self._share.gather_(everyone, "the exchange of the optimiser's state")
        return self._layout.gather(like_parameter.t()).contiguous()

    def from_points(self, values_nd: Tensor) -> Tensor:
        """Return values by point, (n, d), of own slots, (d, own)."""
        return self._layout.scatter(values_nd)[self._share.own].t().contiguous()

    def embedding(self) -> Tensor:
        """Return the current embedding (n, d)."""
        return self._layout.gather(self._all_positions().t()).contiguous()
