"""The optimiser of t-SNE, which has momentum and a separate gain for every coordinate."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class DeltaBarDelta(Optimizer):
    """Gradient descent with momentum, in which the rate of each coordinate is multiplied by a gain (Jacobs, 1988).

    The gain grows by .2 if the coordinate continues in its direction, and is multiplied by .8 if the gradient opposes
    the last step. Van der Maaten's t-SNE and its successors use this optimiser.

    Parameters
    ----------
    params : iterable of Tensor or dict
        Tensors to optimise, or groups of them.
    lr : float, default=1.0
        Learning rate.
    momentum : float, default=0.8
        Fraction of the last step that is added to the next.
    min_gain : float, default=0.01
        Lower bound of the gains.
    """

    def __init__(self, params: Any, lr: float = 1.0, momentum: float = 0.8, min_gain: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "min_gain": min_gain})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # no closure: the loop gives gradients
        """Take a step down the gradients; there is no ``closure``."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["velocity"], state["gain"] = torch.zeros_like(parameter), torch.ones_like(parameter)
        velocity, gain = state["velocity"], state["gain"]
        goes_on = velocity * parameter.grad < 0
        gain.copy_(torch.where(goes_on, gain + 0.2, gain * 0.8)).clamp_(min=group["min_gain"])
        velocity.mul_(group["momentum"]).addcmul_(gain, parameter.grad, value=-group["lr"])
        parameter.add_(velocity)
