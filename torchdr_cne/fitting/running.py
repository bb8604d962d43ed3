"""The environment of a fit: its device, its threads and its ranks."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import joblib
import torch

from torchdr_cne.distributed import Ranks, joined
from torchdr_cne.distributed.group import own_device, ranks_of_this_machine
from torchdr_cne.fitting.plan import FitPlan
from torchdr_cne.resources import limited_threads, resolve_device, shielded


@dataclass(frozen=True)
class Run:
    """The environment in which a fit runs.

    Attributes
    ----------
    ranks : Ranks
        The processes that take part.
    device : torch.device
        Device on which the embedding is computed.
    n_ranks : int
        Number of processes, including those that wait while rank 0 works alone.
    """

    ranks: Ranks
    device: torch.device
    n_ranks: int


def threads_of_rank(n_jobs: int | None, device: torch.device) -> int | None:
    """Return ``n_jobs``, or this rank's part of the cores if ranks on GPUs were started without a number of threads.

    torchrun gives each rank one thread. While its GPU waits for a stage on the host, the other cores would do nothing.
    """
    n_ranks = ranks_of_this_machine()
    if n_jobs is not None or device.type == "cpu" or n_ranks == 1:
        return n_jobs
    return max(1, joblib.cpu_count() // n_ranks)


@contextmanager
def running(plan: FitPlan, X: Any) -> Iterator[Run]:
    """Yield the environment of a fit: the device is chosen, the threads are limited and the ranks are joined."""
    device = own_device(resolve_device(plan.options.device, X))
    with (
        shielded(),
        torch.cuda.device(device) if device.type == "cuda" else nullcontext(),
        limited_threads(threads_of_rank(plan.options.n_jobs, device)),
        joined(plan.options.distributed, cuda=device.type == "cuda") as ranks,
    ):
        yield Run(ranks, device, ranks.size)
