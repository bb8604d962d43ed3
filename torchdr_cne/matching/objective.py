"""Two ways to a gradient: autograd of the loss hooks, and declared pair forces on reciprocal blocks."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from torchdr_cne.forces import ForceEngine, StepCoefficients, shorten_rows
from torchdr_cne.matching.state import FitState
from torchdr_cne.sampling import BlockLayout, draw_shifts


class Objective(Protocol):
    """Owns the optimised tensor; the loop asks it for gradients."""

    parameter: Tensor
    n_points: int
    own_threads: bool

    def compute_gradients(self, state: FitState) -> None:
        """Fill ``.grad`` of the parameter and of the learned scalars for ``state.step``."""

    def embedding(self) -> Tensor:
        """Return the current embedding (n, d), detached."""


class AutogradObjective:
    """Differentiates a loss of the embedding (n, d); rows' gradients longer than ``longest`` are shortened to it."""

    own_threads = False

    def __init__(
        self, start_nd: Tensor, loss: Callable[[Tensor, FitState], Tensor], longest: float | None = None
    ) -> None:
        self._longest = longest
        self.parameter = start_nd.clone().requires_grad_(True)
        self.n_points = len(start_nd)
        self._loss = loss

    def compute_gradients(self, state: FitState) -> None:
        """Differentiate the loss of this step."""
        wanted = [self.parameter, *state.learned.values()]
        gradients = torch.autograd.grad(self._loss(self.parameter, state), wanted)
        self.parameter.grad = gradients[0]
        if self._longest is not None:
            shorten_rows(self.parameter.grad, 1, self._longest)
        # The loss is a sum over points; a scalar they share learns from their mean.
        for learned, gradient in zip(state.learned.values(), gradients[1:], strict=True):
            learned.grad = gradient / len(self.parameter)

    def embedding(self) -> Tensor:
        """Return the current embedding (n, d)."""
        return self.parameter.detach()


class PairwiseObjective:
    """Sums declared pair forces; positions are stored (d, slots), see `torchdr_cne.forces`."""

    def __init__(
        self,
        start_nd: Tensor,
        layout: BlockLayout,
        engine: ForceEngine,
        n_shifts: Callable[[FitState], int],
        coefficients: Callable[[FitState, list[int]], StepCoefficients],
    ) -> None:
        self.n_points = len(start_nd)
        self.parameter = layout.scatter(start_nd).t().contiguous().requires_grad_(True)
        self._layout = layout
        self._engine = engine
        self.own_threads = engine.own_threads
        self._n_shifts = n_shifts
        self._coefficients = coefficients

    @torch.no_grad()
    def compute_gradients(self, state: FitState) -> None:
        """Draw this step's shifts and sum the forces."""
        shifts = draw_shifts(self._layout.n_blocks, self._n_shifts(state), seed=state.seed, step=state.step)
        gradient, scalar = self._engine.gradient(self.parameter.detach(), self._coefficients(state, shifts))
        self.parameter.grad = gradient
        for learned in state.learned.values():
            assert scalar is not None
            learned.grad = (scalar / self._layout.n_points).to(learned.dtype)

    def embedding(self) -> Tensor:
        """Return the current embedding (n, d)."""
        return self._layout.gather(self.parameter.detach().t()).contiguous()
