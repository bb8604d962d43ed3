"""Run a function in several processes that find each other as a launcher's ranks do."""

import atexit
import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from functools import cache
from multiprocessing import Pipe
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**more: str) -> dict[str, str]:
    """Return a child's environment: one thread, and none of the variables of a launcher around the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHELASTIC", "PYTEST"))}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        kept.pop(name, None)
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {**kept, **threads, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", **more}


class Server:
    """The process that forks ranks, started when the first are needed and kept until the tests end."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        command = [sys.executable, "-W", "error", "-m", "tests.distributed.server", str(theirs.fileno())]
        self._process = subprocess.Popen(command, env=environment(), cwd=ROOT, pass_fds=[theirs.fileno()])
        theirs.close()

    def run(self, timeout: float, **launch: object) -> list[int | None]:
        """Start ranks; return their exit codes, None for those at work when one has failed or the time is over."""
        self._connection.send({**launch, "timeout": timeout})
        pids = self._connection.recv()
        codes: list[int | None] = [None] * len(pids)
        deadline = time.monotonic() + timeout
        while None in codes and not any(codes):  # where one has failed the others would wait for it
            if not self._connection.poll(max(0.0, deadline - time.monotonic())):
                break
            rank, code = self._connection.recv()
            codes[rank] = code
        at_work = [rank for rank, code in enumerate(codes) if code is None]
        for rank in at_work:
            os.kill(pids[rank], signal.SIGKILL)
        for _ in at_work:
            self._connection.recv()
        return codes

    def stop(self) -> None:
        """End the process; it has no ranks at work."""
        self._connection.close()
        self._process.wait()


@cache
def _server() -> Server:
    server = Server()
    atexit.register(server.stop)
    return server


def run_ranks(size: int, function: str, *arguments: object, timeout: float = 240) -> list[str]:
    """Call ``function``, "module:name", in ``size`` ranks, each a process of its own; return what each printed.

    Raises an AssertionError with the output of a rank that fails.
    """
    variables = environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    with tempfile.TemporaryDirectory() as folder:
        codes = _server().run(
            timeout, size=size, function=function, arguments=arguments, folder=folder, environment=variables
        )
        errors = [(Path(folder) / f"{rank}.err").read_text() for rank in range(size)]
        for rank, code in enumerate(codes):
            assert code in (0, None), f"rank {rank} of {size} ended with {code}:\n{errors[rank]}"
        assert None not in codes, "\n".join([f"still at work after {timeout} s, by rank:", *errors])
        return [(Path(folder) / f"{rank}.out").read_text() for rank in range(size)]


def found_by_ranks(size: int, folder: Path, case: str, *arguments: object) -> list[dict[str, np.ndarray]]:
    """Return the arrays by name that the function ``case``, "module:name", returns in each rank."""
    run_ranks(size, f"{__name__}:save", case, str(folder), *arguments)
    return [dict(np.load(folder / f"{case.split(':')[1]}-{rank}.npz")) for rank in range(size)]


def save(case: str, folder: str, *arguments: object) -> None:
    """Save what a case returns in this rank."""
    warnings.filterwarnings("ignore", "1 rows of the input graph have no edge|interrupted after")
    module, name = case.split(":")
    found = getattr(importlib.import_module(module), name)(*arguments)
    np.savez(Path(folder) / f"{name}-{os.environ['RANK']}.npz", **found)
