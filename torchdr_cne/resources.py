"""Seeds, devices, threads and memory, which are set for one fit and never for the whole process."""

import numbers
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from joblib.parallel import get_active_backend
from threadpoolctl import threadpool_limits


def seed_from(random_state: Any) -> int:
    """Return an integer seed from scikit-learn's ``random_state``, without touching global state."""
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
    """Return the requested device; "auto" is that of a tensor, or else CUDA if available, or else the CPU."""
    if str(device) != "auto":
        try:
            found = torch.device(device)
        except RuntimeError as error:
            raise ValueError(f"device={device!r} is unknown; use 'auto', 'cpu' or 'cuda'.") from error
        n_gpus = torch.cuda.device_count() if found.type == "cuda" else 0
        if found.type == "cuda" and (found.index or 0) >= n_gpus:
            raise ValueError(f"device={str(device)!r} needs a GPU, and torch finds {n_gpus}; use 'auto' or 'cpu'.")
        _try(found, f"device={str(device)!r}", "use 'auto', 'cpu' or 'cuda'")
        return found
    if isinstance(X, torch.Tensor):
        _try(X.device, f"X is on the device {str(X.device)!r}, which", "move it with X.to('cpu')")
        return X.device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _try(device: torch.device, what: str, advice: str) -> None:
    """Raise a ValueError unless torch can compute numbers on a device other than the CPU and CUDA's."""
    if device.type in ("cpu", "cuda"):
        return
    try:
        float(torch.zeros(1, device=device).sum())
    except (RuntimeError, AssertionError) as error:  # the latter is torch's answer if it was built without the device
        reason = str(error).splitlines()[0]
        raise ValueError(f"{what} cannot be used: {reason.rstrip('.')}; {advice}.") from error


_MOST_THREADS = 16
"""Number of threads that are started if asked for, even on fewer cores."""


@contextmanager
def shielded() -> Iterator[None]:
    """Keep the modes of torch that the caller may have set out of the block: they would change numbers or fail.

    These are inference mode, no gradients, autocast and a default device.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


@contextmanager
def limited_threads(n_jobs: int | None) -> Iterator[None]:
    """Use ``n_jobs`` threads within the block, in torch and in all that follows it: FAISS, BLAS and our own threads.

    None keeps the number of torch, but is 1 within a thread of joblib; −1 is all cores that the process may use. More
    threads than these cores are never faster; more than `_MOST_THREADS` and the cores are not started.
    """
    if n_jobs is None and not _in_joblib_thread():
        _refuse_lost_threads(torch.get_num_threads())
        yield
        return
    if n_jobs is not None and (not isinstance(n_jobs, numbers.Integral) or isinstance(n_jobs, bool) or n_jobs == 0):
        raise ValueError(f"n_jobs={n_jobs!r} has no meaning; use None, a positive integer or -1 for all cores.")
    cores = joblib.cpu_count()  # those that the process may use: affinity and control group count
    wanted = 1 if n_jobs is None else min(int(n_jobs), max(cores, _MOST_THREADS)) if n_jobs > 0 else cores
    _refuse_lost_threads(wanted)
    with threadpool_limits(wanted, user_api="blas"), torch_threads(wanted):
        yield


_started: set[int] = set()
_lost: set[int] = set()
"""Process ids: that of this process once it has used several threads, and those of its ancestors that had at a fork."""


def _refuse_lost_threads(wanted: int) -> None:
    """Raise a RuntimeError if several threads are wanted in a process that was forked from one that had used them.

    OpenMP would wait for ever for threads that a fork does not copy.
    """
    if wanted > 1 and _lost:
        raise RuntimeError(
            "this process was forked from one that has fitted with several threads, which a fork loses; use n_jobs=1 "
            "here, or start processes by the methods 'spawn' or 'forkserver' of multiprocessing."
        )
    if wanted > 1:
        _started.add(os.getpid())


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=lambda: _lost.update(_started))


@contextmanager
def matmul_precision(wanted: str | None) -> Iterator[None]:
    """Set the precision of float32 matrix products within the block; None keeps torch's setting."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before if wanted is None else wanted)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def torch_threads(wanted: int) -> Iterator[None]:
    """Set torch's number of threads within the block.

    The number belongs to the process, so that fits in several threads have to share it: the block that began last
    decides, and the last one to end restores the number that the first one found.
    """
    limit = [wanted]
    with _lock:
        if not _limits:
            _limits.append([torch.get_num_threads()])
        _limits.append(limit)
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        with _lock:
            _limits[:] = [other for other in _limits if other is not limit]
            torch.set_num_threads(_limits[-1][0])
            if len(_limits) == 1:
                _limits.clear()


_lock = threading.Lock()
_limits: list[list[int]] = []
"""The number of threads before any block, and those of the active blocks."""


def _in_joblib_thread() -> bool:
    """Return whether joblib runs this in one of several threads; its worker processes limit torch by themselves."""
    return threading.current_thread() is not threading.main_thread() and get_active_backend()[0].nesting_level > 0


def available_memory() -> int | None:
    """Return the bytes that are available on this machine, or in this control group; None if unknown."""
    known = [value for value in (_system_memory(), _group_memory()) if value is not None]
    return min(known) if known else None


def _system_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _group_memory() -> int | None:
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)
