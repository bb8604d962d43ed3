"""log(1 + x) and softplus for float32 on a CPU, where torch's own are ten times slower than its logarithm."""

from typing import Any

import torch
from torch import Tensor

_LARGEST = torch.finfo(torch.float32).max / 4


def log1p(x: Any) -> Any:
    """Return log(1 + x) for x ≥ 0, accurate also for small x; for symbolic tensors (KeOps) log of the rounded sum."""
    if not isinstance(x, Tensor):
        return (1 + x).log()
    return _Log1p.apply(x) if _slow_there(x) else torch.log1p(x)


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + eˣ), accurate at both ends."""
    return _Softplus.apply(x) if _slow_there(x) else torch.nn.functional.softplus(x)


def _slow_there(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()


def _log_of_sum(x: Tensor, u: Tensor) -> Tensor:
    """Return log(1 + x) from the rounded u = 1 + x, whose rounding error is corrected to first order."""
    return u.log().add_((x - (u - 1)).div_(u))


class _Log1p(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clamp_max(_LARGEST)
        u = x + 1
        ctx.save_for_backward(u)
        return _log_of_sum(x, u)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient / ctx.saved_tensors[0]


class _Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        small = x.abs().neg_().exp_()
        ctx.save_for_backward(x)
        return _log_of_sum(small, small + 1).add_(x.clamp_min(0))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.sigmoid(ctx.saved_tensors[0])
