"""A random order of n numbers that is never stored: each entry is computed when it is needed."""

import math

import torch
from torch import Tensor

from torchdr_cne.hashing import bounded, hash_counters, stream_key

_ROUNDS = 6


def permuted(places: Tensor, n: int, key: int) -> Tensor:
    """Return the numbers at some ``places`` in a random order of range(n).

    This is a Feistel network on an a × b grid of at least n cells (Black & Rogaway, 2002), with rounds keyed by hashes.
    Numbers outside range(n) pass through it again until they are inside. Every key gives a bijection of range(n).

    Parameters
    ----------
    places : Tensor of shape (B,), int64
        Places in the order, from 0 to n − 1.
    n : int
        Length of the order.
    key : int
        Key of the order; each key gives a different one.

    Returns
    -------
    Tensor of shape (B,), int64
    """
    a = math.isqrt(n - 1) + 1 if n > 1 else 1
    b = -(-n // a)
    numbers = _shuffled(places, a, b, key)
    while True:
        outside = torch.nonzero(numbers >= n).squeeze(1)
        if len(outside) == 0:
            return numbers
        numbers[outside] = _shuffled(numbers[outside], a, b, key)


def _shuffled(numbers: Tensor, a: int, b: int, key: int) -> Tensor:
    u, v = torch.div(numbers, b, rounding_mode="floor"), numbers % b
    for round_ in range(_ROUNDS):
        step = stream_key(key, round_)
        if round_ % 2:
            v = (v + bounded(hash_counters(step, u), b)) % b
        else:
            u = (u + bounded(hash_counters(step, v), a)) % a
    return u * b + v
