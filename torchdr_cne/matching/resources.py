"""Seeds, devices and threads, chosen for one fit and never for the process."""

import numbers
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_from(random_state: Any) -> int:
    """Turn scikit-learn's ``random_state`` into one integer seed without touching global state."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> 1)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**63 - 1))
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool) and random_state >= 0:
        return int(random_state)
    raise ValueError(
        f"random_state={random_state!r} must be None, an integer >= 0, or a NumPy RandomState or Generator."
    )


def resolve_device(device: str | torch.device, X: Any) -> torch.device:
    """Return the requested device; "auto" is that of a tensor, else CUDA if there is one, else the CPU."""
    if str(device) != "auto":
        try:
            return torch.device(device)
        except RuntimeError as error:
            raise ValueError(f"device={device!r} is unknown; use 'auto', 'cpu' or 'cuda'.") from error
    if isinstance(X, torch.Tensor):
        return X.device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def limited_threads(n_jobs: int | None) -> Iterator[None]:
    """Use ``n_jobs`` threads within the block (None: as many as torch uses already; −1: all cores)."""
    if n_jobs is None:
        yield
        return
    if not isinstance(n_jobs, numbers.Integral) or isinstance(n_jobs, bool) or n_jobs == 0:
        raise ValueError(f"n_jobs={n_jobs!r} has no meaning; use None, a positive integer or -1 for all cores.")
    before = torch.get_num_threads()
    torch.set_num_threads(int(n_jobs) if n_jobs > 0 else (os.cpu_count() or 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)
