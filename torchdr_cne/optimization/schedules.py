"""Schedules of the learning rate that torch does not have."""

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warm_cosine(step: int, warmup: int, total: int) -> float:
    """Return the factor by which the learning rate is multiplied at ``step`` (from 0) of ``total``.

    It grows linearly to 1 in the first ``warmup`` steps, (step + 1)/warmup, and then falls to 0 along half a cosine.
    """
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup)))) / 2


class WarmCosine(LambdaLR):
    """A schedule with a linear warm-up and then half a cosine to 0, stepped every iteration.

    Parameters
    ----------
    optimizer : Optimizer
        The optimiser whose rates it sets.
    total : int
        Number of all iterations.
    warmup : int, default=0
        Number of iterations of the warm-up.
    """

    def __init__(self, optimizer: Optimizer, total: int, warmup: int = 0) -> None:
        if not 0 <= warmup < max(1, total):
            raise ValueError(f"warmup={warmup} must be at least 0 and below total={total} iterations.")
        super().__init__(optimizer, partial(warm_cosine, warmup=warmup, total=total))
