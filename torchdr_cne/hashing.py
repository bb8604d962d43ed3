"""A counter-based random number generator: 64-bit splitmix hashes of (seed, step, row, draw).

Nothing is stored and no global state is touched: the same counters give the same bits on any device, for any
number of threads or ranks. All integers wrap around as 64-bit two's complement.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def _signed(x: int) -> int:
    """Return 64 bits as a two's complement number."""
    x &= _MASK
    return x - (1 << 64) if x >> 63 else x


def mix(x: int) -> int:
    """Return a 64-bit word after splitmix's finaliser (Steele, Lea & Flood, 2014), for Python integers."""
    x &= _MASK
    x = (x ^ (x >> 30)) * _MULTIPLIERS[0] & _MASK
    x = (x ^ (x >> 27)) * _MULTIPLIERS[1] & _MASK
    return x ^ (x >> 31)


def stream_key(seed: int, step: int, purpose: int = 0) -> int:
    """Return the key of the draws in a step; ``purpose`` separates uses that share seed and step."""
    return mix(mix(mix(seed + _GOLDEN) + step * _GOLDEN) + purpose * _GOLDEN)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Return a logical shift, as torch's own shift of int64 is arithmetic."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix_tensor(x: Tensor) -> Tensor:
    """Return the result of `mix` for each element of an int64 tensor."""
    x = (x ^ _shift_right(x, 30)) * _signed(_MULTIPLIERS[0])
    x = (x ^ _shift_right(x, 27)) * _signed(_MULTIPLIERS[1])
    return x ^ _shift_right(x, 31)


def hash_counters(key: int, counters: Tensor) -> Tensor:
    """Return one 64-bit word, as int64, for each non-negative counter under ``key``."""
    return mix_tensor(counters * _signed(_GOLDEN) + _signed(key))


def hash_grid(key: int, rows: Tensor, n_draws: int) -> Tensor:
    """Return 64-bit words (len(rows), n_draws), each a hash of the draw under a key of the row."""
    row_keys = hash_counters(key, rows)
    draws = torch.arange(1, n_draws + 1, device=rows.device) * _signed(_GOLDEN)
    return mix_tensor(row_keys.unsqueeze(1) + draws)


def bounded(words: Tensor, bound: Tensor | int) -> Tensor:
    """Return uniform words mapped to [0, bound), bound < 2³¹: the high word of words · bound."""
    high, low = _shift_right(words, 32), words & 0xFFFFFFFF
    return _shift_right(high * bound + _shift_right(low * bound, 32), 32)


def bounded_int(word: int, bound: int) -> int:
    """Return the result of `bounded` for Python integers."""
    return (word * bound) >> 64


def random_permutation(n: int, key: int, device: torch.device | None = None) -> Tensor:
    """Return a permutation of range(n), int64: the order of n hashed counters."""
    return torch.argsort(hash_counters(key, torch.arange(n, device=device)), stable=True)


def row_digests(values: Tensor) -> Tensor:
    """Return a digest (n,), int64, of each row of floating-point numbers; equal rows have equal digests."""
    words = (values + 0.0).contiguous().view(torch.int32).long()  # −0 becomes 0
    odd = hash_counters(3, torch.arange(words.shape[1], device=values.device)) | 1
    return mix_tensor((words * odd).sum(dim=1))


def digest_of(values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return a digest (), int64, of float64 numbers at positions (``first``, ``second``), in any order.

    Digests of disjoint parts add up to that of the whole.
    """
    keys = hash_counters(1, first) + hash_counters(2, second)
    return mix_tensor(values.double().contiguous().view(torch.int64) ^ keys).sum()


_generators = threading.RLock()
"""Lock of the process's generators, which fits in several threads would otherwise seed under each other's hands."""


@contextmanager
def reproducible(key: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's own functions, such as dropout, by ``key``; its global generators are restored after the block.

    The generators belong to the process, so that such blocks of several threads run one after the other.
    """
    with _generators:
        yield from _seeded(key, device)


def _seeded(key: int, device: torch.device | None) -> Iterator[None]:
    generators = [torch.default_generator]
    if device is not None and device.type == "cuda":
        number = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[number])
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(key % 2**63)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
