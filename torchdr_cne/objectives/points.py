"""Objectives that move the points themselves; one of them differentiates the loss hooks by autograd."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from torchdr_cne.distributed import Ranks
from torchdr_cne.forces import shorten_rows
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.state import FitState


class PointsObjective(ABC):
    """Base of objectives that move the points themselves, which have one parameter in a shape of their own."""

    own_threads = False
    n_points: int
    parameter: Tensor

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The one parameter, by name."""
        return {"embedding": self.parameter}

    @property
    def networks(self) -> dict[str, Any]:
        """An empty dictionary, as the points move themselves."""
        return {}

    def epoch_length(self, phase: Phase) -> int:
        """Return 1, as every step uses all points."""
        return 1

    def begin(self, state: FitState) -> None:
        """Do nothing, as all phases move all points."""
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
        """Do nothing, as the fit has started from the saved embedding."""
        return None


class AutogradObjective(PointsObjective):
    """An objective that differentiates a loss of the embedding (n, d), and shortens row gradients to ``longest``.

    Each rank has the whole embedding and differentiates the loss of its own rows; all ranks use the sum of the
    gradients.
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
        """Compute the gradients of the loss in this step."""
        wanted = [self.parameter, *state.learned.values()]
        loss = self._loss(self.parameter, state)
        gradients = torch.autograd.grad(loss, wanted)
        state.add_losses({"loss": loss})
        for gradient in gradients:
            self._ranks.add_up(gradient, "the sum of gradients")
        self.parameter.grad = gradients[0]
        if self._longest is not None:
            shorten_rows(self.parameter.grad, 1, self._longest)
        # The loss is a sum over points; a scalar common to all of them learns from their mean.
        for learned, gradient in zip(state.learned.values(), gradients[1:], strict=True):
            learned.grad = gradient / len(self.parameter)

    def add_up(self, of_parameter: Tensor) -> Tensor:
        """Return ``of_parameter`` unchanged, as every rank has all points."""
        return of_parameter

    def square_sum(self) -> float:
        """Return the sum of the squared gradient over all points."""
        assert self.parameter.grad is not None
        return float(self.parameter.grad.square().sum())

    def to_points(self, like_parameter: Tensor) -> Tensor:
        """Return ``like_parameter`` (n, d) unchanged."""
        return like_parameter

    def from_points(self, values_nd: Tensor) -> Tensor:
        """Return ``values_nd`` unchanged."""
        return values_nd

    def embedding(self) -> Tensor:
        """Return the current embedding (n, d)."""
        return self.parameter.detach()
