"""Schedules of the learning rate that torch lacks."""

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warm_cosine(step: int, warmup: int, total: int) -> float:
    """Return the factor of the learning rate at ``step`` (from 0) of ``total``.

    It grows linearly to 1 in the first ``warmup`` steps, (step + 1)/warmup, and then falls to 0 along half a cosine.
    """
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup)))) / 2


class WarmCosine(LambdaLR):
    """Linear warm-up, then half a cosine to 0, by the iteration.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates it sets.
    total : int
        Iterations in all.
    warmup : int, default=0
        Iterations of the warm-up.
    """

    def __init__(self, optimizer: Optimizer, total: int, warmup: int = 0) -> None:
        if not 0 <= warmup < max(1, total):
            raise ValueError(f"warmup={warmup} must be at least 0 and below total={total} iterations.")
        super().__init__(optimizer, partial(warm_cosine, warmup=warmup, total=total))
