"""Run a function in several processes that find each other as a launcher's ranks do."""

import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
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
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", **more}


def run_ranks(size: int, function: str, *arguments: object, timeout: float = 240) -> list[str]:
    """Call ``function``, "module:name", with JSON arguments in ``size`` ranks; return what each printed.

    Raises an AssertionError with the output of a rank that fails.
    """
    module, name = function.split(":")
    where = f"import faulthandler; faulthandler.dump_traceback_later({timeout - 2})"
    code = f"{where}; import json, sys, {module} as m; m.{name}(*json.loads(sys.argv[1]))"
    port = str(free_port())
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            _started(
                [sys.executable, "-W", "error", "-c", code, json.dumps(arguments)],
                Path(folder) / str(rank),
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(size),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
            )
            for rank in range(size)
        ]
        deadline = time.monotonic() + timeout
        while any(rank.poll() is None for rank in ranks) and time.monotonic() < deadline:
            time.sleep(0.05)
            if any(rank.poll() for rank in ranks):  # the others would wait for it
                break
        codes = [rank.poll() for rank in ranks]
        for rank in ranks:
            rank.kill()
            rank.wait()
        for number, code_of_rank in enumerate(codes):
            errors = (Path(folder) / f"{number}.err").read_text()
            assert code_of_rank in (0, None), f"rank {number} of {size} ended with {code_of_rank}:\n{errors}"
            assert code_of_rank == 0, f"rank {number} of {size} is still at work after {timeout} s:\n{errors}"
        return [(Path(folder) / f"{rank}.out").read_text() for rank in range(size)]


def _started(command: list[str], output: Path, **variables: str) -> subprocess.Popen:
    with open(f"{output}.out", "w") as out, open(f"{output}.err", "w") as err:
        return subprocess.Popen(command, env=environment(**variables), cwd=ROOT, stdout=out, stderr=err)


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
