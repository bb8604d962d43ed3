"""Functions that join a process group for the duration of one fit."""

import importlib
import ipaddress
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # no explicit export

from torchdr_cne.distributed.config import DistributedConfig
from torchdr_cne.distributed.ranks import RankError, Ranks
from torchdr_cne.launcher import Launch, LaunchError, launch_of, whole_number

_LOOK_AT_PARENT = 1.0
_FAREWELL = 6.0
"""Seconds between SIGTERM and exit for ranks whose launcher has died."""
_fits = itertools.count()


def is_first_process() -> bool:
    """Return whether this process is rank 0, or the only one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    launch = launch_of()
    return launch is None or launch.rank == 0


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
    elif (launch := launch_of()) is not None:
        with _group_of_launcher(config, cuda, launch) as ranks, _leaving_with_parent():
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
def _group_of_launcher(config: DistributedConfig, cuda: bool, launch: Launch) -> Iterator[Ranks]:
    rank, size = launch.rank, launch.size
    timeout = timedelta(seconds=config.timeout)
    # If imported later, this module would keep the group in default arguments, and the connections open for ever.
    importlib.import_module("torch.distributed.nn.functional")
    with _meeting(config, launch):
        dist.init_process_group(
            _backend(cuda), store=_store(launch, timeout), rank=rank, world_size=size, timeout=timeout
        )
    try:
        yield Ranks(rank, size, dist.group.WORLD, config, stages=cuda and _ranks_share_gpus())
    finally:
        dist.destroy_process_group()


@contextmanager
def _meeting(config: DistributedConfig, launch: Launch | None = None) -> Iterator[None]:
    """Raise a RankError with advice if the ranks do not find each other."""
    try:
        yield
    except RankError:
        raise
    except RuntimeError as error:
        leftovers = "" if launch is None else f" If the variables {launch} are left over from another run, unset them."
        raise RankError(
            f"the ranks have not met within {config.timeout:g} s; every rank has to call fit, in the same order. For a "
            f"fit of one rank's own set distributed=False.{leftovers}"
        ) from error


def _store(launch: Launch, timeout: timedelta) -> Any:
    """Return the store of the launcher, with a prefix for this attempt and this fit.

    The addresses of killed ranks stay in a store, where the ranks that replace them must not find them.
    """
    by_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = _connection(launch.address, launch.port, launch.size, launch.rank == 0 and not by_launcher, timeout)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"torchdr_cne/attempt-{attempt}/fit-{next(_fits)}", store)


@cache
def _connection(address: str, port: int, size: int, is_host: bool, timeout: timedelta) -> Any:
    """Return the only connection of this process to a store, or the store itself.

    It is kept for the next fit, as a rank that still finds the old store could miss a new one of rank 0.
    """
    listener = _listener(address, port) if is_host else None
    options: Any = {} if listener is None else {"master_listen_fd": listener.detach()}  # the store closes it
    try:
        return TCPStore(address, port, size, is_master=is_host, timeout=timeout, multi_tenant=True, **options)
    except RuntimeError as error:
        if is_host and "address already in use" in str(error).lower():
            raise RankError(
                f"the ranks cannot meet at port {port} of {address}, which another program uses; set MASTER_PORT to a "
                "free port, the same for all ranks."
            ) from error
        raise


def _listener(address: str, port: int) -> socket.socket | None:
    """Return a socket that listens only on the interface of ``address``; None where the store has to listen on all.

    This is so if the address belongs to another host, which hands on what it receives, or if it is the name of a
    machine that knows itself by a loopback address, where other machines do not reach it. It is also so if this process
    has a store at this port, which is then used.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        if ipaddress.ip_address(place[0]).is_loopback and not _names_loopback(address):
            return None
        listener = socket.socket(family, kind, protocol)
    except OSError:
        return None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen()
    except OSError:
        listener.close()
        return None
    return listener


def _names_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


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
    """Return the number of ranks that a launcher has started on this machine; 1 if its variables cannot be used."""
    try:
        several = launch_of() is not None and "LOCAL_WORLD_SIZE" in os.environ
        return whole_number("LOCAL_WORLD_SIZE", os.environ) if several else 1
    except LaunchError:
        return 1


def own_device(device: torch.device) -> torch.device:
    """Return the CUDA device of this rank, by LOCAL_RANK, if ``device`` has no index; otherwise ``device``.

    If there are fewer GPUs than ranks on this machine, they share them in turn.
    """
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", whole_number("LOCAL_RANK", os.environ) % max(1, torch.cuda.device_count()))
    return device
