"""Functions that join a process group for the duration of one fit."""

import importlib
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # no explicit export

from torchdr_cne.distributed.config import DistributedConfig
from torchdr_cne.distributed.ranks import RankError, Ranks

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LOOK_AT_PARENT = 1.0
_FAREWELL = 6.0
"""Seconds between SIGTERM and exit for ranks whose launcher has died."""
_fits = itertools.count()


def launched() -> bool:
    """Return whether a launcher such as torchrun has started this process as one of several."""
    return all(name in os.environ for name in _VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


def is_first_process() -> bool:
    """Return whether this process is rank 0, or the only one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return not launched() or os.environ["RANK"] == "0"


@contextmanager
def joined(distributed: bool | str | DistributedConfig, *, cuda: bool = False) -> Iterator[Ranks]:
    """Yield the ranks of this fit: those of an initialised process group or of torchrun, or a single one.

    Parameters
    ----------
    distributed : bool, "auto" or DistributedConfig
        False is one process in any case; True and a configuration require several, and True splits fits of any size.
    cuda : bool, default=False
        Whether CUDA tensors will be exchanged: by NCCL, or by gloo through the host if ranks share a GPU.
    """
    if distributed is False:
        yield Ranks()
        return
    config = distributed if isinstance(distributed, DistributedConfig) else DistributedConfig()
    if distributed is True:
        config = DistributedConfig(min_rows=0)
    if dist.is_available() and dist.is_initialized():
        with _meeting(config):
            group: Any = dist.new_group(timeout=timedelta(seconds=config.timeout), backend=_backend(cuda))
        try:
            stages = cuda and _ranks_share_gpus()
            yield Ranks(dist.get_rank(group), dist.get_world_size(group), group, config, stages=stages)
        finally:
            dist.destroy_process_group(group)
    elif launched():
        with _group_of_launcher(config, cuda, os.environ) as ranks, _leaving_with_parent():
            yield ranks
    elif distributed == "auto":
        yield Ranks()
    else:
        raise ValueError(
            f"distributed={distributed!r} needs several processes, and there is one; start the script with "
            "torchrun --nproc_per_node=N, or use distributed='auto'."
        )


def _backend(cuda: bool) -> str:
    return "cpu:gloo,cuda:nccl" if cuda and not _ranks_share_gpus() else "gloo"


def _ranks_share_gpus() -> bool:
    """Return whether there are fewer GPUs than ranks on this machine, whose tensors NCCL does not exchange then."""
    return torch.cuda.device_count() < ranks_of_this_machine()


@contextmanager
def _group_of_launcher(config: DistributedConfig, cuda: bool, environment: Mapping[str, str]) -> Iterator[Ranks]:
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    timeout = timedelta(seconds=config.timeout)
    # If imported later, this module would keep the group in default arguments, and the connections open for ever.
    importlib.import_module("torch.distributed.nn.functional")
    with _meeting(config):
        dist.init_process_group(
            _backend(cuda), store=_store(rank, size, timeout, environment), rank=rank, world_size=size, timeout=timeout
        )
    try:
        yield Ranks(rank, size, dist.group.WORLD, config, stages=cuda and _ranks_share_gpus())
    finally:
        dist.destroy_process_group()


@contextmanager
def _meeting(config: DistributedConfig) -> Iterator[None]:
    """Raise a RankError with advice if the ranks do not find each other."""
    try:
        yield
    except RuntimeError as error:
        raise RankError(
            f"the ranks have not met within {config.timeout:g} s; every rank has to call fit, in the same order. For a "
            "fit of one rank's own set distributed=False."
        ) from error


def _store(rank: int, size: int, timeout: timedelta, environment: Mapping[str, str]) -> Any:
    """Return the store of the launcher, with a prefix for this attempt and this fit.

    The addresses of killed ranks stay in a store, where the ranks that replace them must not find them.
    """
    by_launcher = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    store = _connection(address, port, size, rank == 0 and not by_launcher, timeout)
    attempt = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"torchdr_cne/attempt-{attempt}/fit-{next(_fits)}", store)


@cache
def _connection(address: str, port: int, size: int, is_host: bool, timeout: timedelta) -> Any:
    """Return the only connection of this process to a store, or the store itself.

    It is kept for the next fit, as a rank that still finds the old store could miss a new one of rank 0.
    """
    return TCPStore(address, port, size, is_master=is_host, timeout=timeout, multi_tenant=True)


@contextmanager
def _leaving_with_parent() -> Iterator[None]:
    """End this process if its launcher dies within the block: first by SIGTERM, then at once."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # started by hand, perhaps to outlive its shell
        yield
        return
    parent, done = os.getppid(), threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_AT_PARENT):
            if os.getppid() != parent:
                print("torchdr_cne: torchrun has died, and this rank leaves", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(_FAREWELL)
                os._exit(1)

    watcher = threading.Thread(target=watch, name="torchdr_cne-parent", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def ranks_of_this_machine() -> int:
    """Return the number of ranks that a launcher has started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if launched() else 1


def own_device(device: torch.device) -> torch.device:
    """Return the CUDA device of this rank, by LOCAL_RANK, if ``device`` has no index; otherwise ``device``.

    If there are fewer GPUs than ranks on this machine, they share them in turn.
    """
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % max(1, torch.cuda.device_count()))
    return device
