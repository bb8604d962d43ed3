"""A process that has imported what ranks need, and forks them, so that no rank imports it again.

``python server.py warm N`` or ``python server.py fresh N`` serves launches that come through the connection with file
descriptor N, one after another, until it is closed. A launch is a dictionary; the answers are the processes' ids, and
then, as each ends, its number and its exit code.
"""

import faulthandler
import gc
import importlib
import os
import sys
import warnings
from multiprocessing.connection import Connection

import numba

PRELOADED = {
    "warm": ("torch.distributed.nn.functional", "tests.distributed.cases", "tests.distributed.encoder_cases"),
    "fresh": ("torchdr_cne.fitting", "torchdr_cne.methods", "torchdr_cne.forces.compiled", "sklearn.datasets"),
}


def serve(how: str, connection: Connection) -> None:
    """Fork processes as asked for; a forked one returns when it has done its work."""
    for module in PRELOADED[how]:
        importlib.import_module(module)
    if how == "warm":
        cases = sys.modules["tests.distributed.cases"]
        for method in cases.METHODS:  # what a fit imports, and the kernels
            cases.make(method, max_iter=1).fit(cases.digits()[:300])
    else:
        numba.njit(lambda x: x + 1)(1)  # the compiler itself is ready, and has compiled nothing of the library
    gc.freeze()
    while True:
        try:
            launch = connection.recv()
        except EOFError:
            return
        ranks = {}
        for rank in range(launch["size"]):
            with warnings.catch_warnings():
                # Threads of libraries, which are idle: all numbers of threads are 1.
                warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                connection.close()
                be_rank(rank, **launch)
                return
            ranks[pid] = rank
        connection.send(list(ranks))
        while ranks:
            pid, status = os.wait()
            connection.send((ranks.pop(pid), os.waitstatus_to_exitcode(status)))


def be_rank(
    rank: int, size: int, function: str, arguments: tuple, folder: str, environment: dict[str, str], timeout: float
) -> None:
    """Call the function as one of the ranks, with an environment of its own and output into files of its own."""
    for descriptor, ending in ((1, "out"), (2, "err")):
        file = os.open(f"{folder}/{rank}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    faulthandler.dump_traceback_later(timeout - 2)
    os.environ.clear()
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    module, name = function.split(":")
    getattr(importlib.import_module(module), name)(*arguments)


if __name__ == "__main__":
    serve(sys.argv[1], Connection(int(sys.argv[2])))
