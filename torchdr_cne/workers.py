"""Threads for compiled kernels that release the interpreter's lock; they are not those of torch or OpenMP."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import TracebackType
from typing import Any

import numpy as np
import torch

_RANGES_PER_THREAD = 8


class Workers:
    """A few threads that divide ranges of work among them; the calling thread is one of them.

    Parameters
    ----------
    n_threads : int, default=None
        Number of threads; None takes as many as torch is set to use.
    """

    def __init__(self, n_threads: int | None = None) -> None:
        self.n_threads = torch.get_num_threads() if n_threads is None else n_threads
        self._pool = ThreadPoolExecutor(self.n_threads - 1) if self.n_threads > 1 else None

    def parallel_for(self, kernel: Callable[..., Any], n_items: int, *arguments: Any, multiple_of: int = 1) -> None:
        """Call ``kernel(first, last, *arguments)`` on ranges that cover [0, n_items), several per thread.

        The result must not depend on how the items are split. Bounds are multiples of ``multiple_of``.
        """
        if self._pool is None:
            kernel(0, n_items, *arguments)
            return
        n_units = -(-n_items // multiple_of)
        n_ranges = min(n_units, _RANGES_PER_THREAD * self.n_threads)
        bounds = np.linspace(0, n_units, n_ranges + 1).astype(int) * multiple_of
        ranges = iter(list(pairwise(np.minimum(bounds, n_items).tolist())))
        pending = [self._pool.submit(_take, ranges, kernel, arguments) for _ in range(self.n_threads - 1)]
        try:
            _take(ranges, kernel, arguments)
        finally:
            for future in pending:
                future.result()

    def together(self, kernel: Callable[..., Any], *arguments: Any) -> None:
        """Call ``kernel(*arguments)`` in every thread at the same time; the kernel itself divides the work."""
        pending = [self._pool.submit(kernel, *arguments) for _ in range(self.n_threads - 1)] if self._pool else []
        try:
            kernel(*arguments)
        finally:
            for future in pending:
                future.result()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def _take(ranges: Iterator[tuple[int, int]], kernel: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Process ranges until none is left; taking a range is atomic under the interpreter's lock."""
    for first, last in ranges:
        kernel(first, last, *arguments)
