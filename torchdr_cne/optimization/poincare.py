"""Gradient descent in the Poincaré ball (Nickel & Kiela, 2017; Guo et al., 2022)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

LARGEST_RADIUS = 0.975
"""Euclidean radius within which points stay; it is a hyperbolic distance of 4.37 from the centre."""
_LONGEST_STEP = 0.5
"""Upper bound of the length of a step, in units of hyperbolic distance."""


class PoincareSGD(Optimizer):
    """Riemannian gradient descent with momentum on rows (n, d) inside the unit ball.

    The gradient is scaled by the inverse metric, (1 − ‖z‖²)²/4; a step follows the geodesic for a distance of at most
    .5, and ends at a radius of at most .975.

    Parameters
    ----------
    params : iterable of Tensor or dict
        Tensors to optimise, or groups of them; the last axis is that of the ball.
    lr : float, default=1.0
        Learning rate.
    momentum : float, default=0.0
        Fraction of the last step that is added to the next.
    """

    def __init__(self, params: Any, lr: float = 1.0, momentum: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # no closure: the loop gives gradients
        """Take a step down the gradients; there is no ``closure``."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"], group["momentum"])

    def _move(self, z: Tensor, gradient: Tensor, lr: float, momentum: float) -> None:
        room = 1 - z.square().sum(dim=-1, keepdim=True)
        velocity = self.state[z].setdefault("velocity", torch.zeros_like(z))
        velocity.mul_(momentum).add_(gradient * (room / 2).square(), alpha=lr)
        z.copy_(inside_ball(_along_geodesic(z, -velocity, room)))


def _along_geodesic(z: Tensor, step: Tensor, room: Tensor) -> Tensor:
    """Return the end of the geodesic that starts at ``z`` with the tangent ``step``."""
    length = step.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    way = (length / room).clamp_max(_LONGEST_STEP / 2)  # half the hyperbolic length
    moved = torch.tanh(way) * step / length
    return _mobius_sum(z, moved)


def _mobius_sum(u: Tensor, v: Tensor) -> Tensor:
    inner = (u * v).sum(dim=-1, keepdim=True)
    of_u, of_v = u.square().sum(dim=-1, keepdim=True), v.square().sum(dim=-1, keepdim=True)
    return ((1 + 2 * inner + of_v) * u + (1 - of_u) * v) / (1 + 2 * inner + of_u * of_v)


def inside_ball(z: Tensor, radius: float = LARGEST_RADIUS) -> Tensor:
    """Return the points (…, d), of which those beyond ``radius`` are moved back to it."""
    return z * (radius / z.norm(dim=-1, keepdim=True).clamp_min(radius))
