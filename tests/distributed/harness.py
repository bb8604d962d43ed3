"""Run functions and scripts in processes that have imported the library already: ranks, or one process alone."""

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
    """The process that forks others, started when the first are needed and kept until the tests end.

    Parameters
    ----------
    how : str
        "warm" has fitted every method, so that a rank need not load their kernels; "fresh" has done nothing.
    """

    def __init__(self, how: str) -> None:
        self._connection, theirs = Pipe()
        command = [sys.executable, "-W", "error", "-m", "tests.distributed.server", how, str(theirs.fileno())]
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
def _server(how: str) -> Server:
    server = Server(how)
    atexit.register(server.stop)
    return server


def run_ranks(size: int, function: str, *arguments: object, timeout: float = 240) -> list[str]:
    """Call ``function``, "module:name", in ``size`` ranks, each a process of its own; return what each printed.

    Raises an AssertionError with the output of a rank that fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        codes = codes_of_ranks(size, Path(folder), function, *arguments, timeout=timeout)
        return _outputs(codes, Path(folder), timeout)


def codes_of_ranks(
    size: int, folder: Path, function: str, *arguments: object, timeout: float = 240
) -> list[int | None]:
    """Do as `run_ranks`, with output in ``folder``/N.out and N.err; return exit codes.

    Those of ranks that are still at work when one has failed are None.
    """
    variables = environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    launch = {"function": function, "arguments": arguments, "folder": str(folder), "environment": variables}
    return _server("warm").run(timeout, size=size, **launch)


def run_script(script: str, *arguments: object, timeout: float = 240, **variables: str) -> str:
    """Run a Python script, with arguments, in a process that has the library's imports behind it and nothing else.

    Returns what it printed; raises an AssertionError with its errors if it fails.
    """
    return run_scripts(1, script, *arguments, timeout=timeout, **variables)[0]


def run_scripts(n: int, script: str, *arguments: object, timeout: float = 240, **variables: str) -> list[str]:
    """Run a script in ``n`` processes at the same time, which read their numbers from NUMBER; return their outputs."""
    with tempfile.TemporaryDirectory() as folder:
        launch = {"function": f"{__name__}:execute", "arguments": (script, [str(argument) for argument in arguments])}
        codes = _server("fresh").run(timeout, size=n, folder=folder, environment=environment(**variables), **launch)
        return _outputs(codes, Path(folder), timeout)


def execute(script: str, arguments: list[str]) -> None:
    """Be a script, in a process that was forked for it."""
    from numba.core import config

    os.environ["NUMBER"] = os.environ.pop("RANK")
    for name in ("LOCAL_RANK", "WORLD_SIZE"):
        del os.environ[name]
    config.reload_config()  # from this environment
    warnings.resetwarnings()
    sys.dont_write_bytecode = True
    sys.argv = ["-c", *arguments]
    exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
    sys.stdout.flush()
    os._exit(0)  # to end in Python's way would touch, and thus copy, all that was imported


def _outputs(codes: list[int | None], folder: Path, timeout: float) -> list[str]:
    size = len(codes)
    errors = [(folder / f"{rank}.err").read_text() for rank in range(size)]
    for rank, code in enumerate(codes):
        assert code in (0, None), f"rank {rank} of {size} ended with {code}:\n{errors[rank]}"
    assert None not in codes, "\n".join([f"still at work after {timeout} s, by rank:", *errors])
    return [(folder / f"{rank}.out").read_text() for rank in range(size)]


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
