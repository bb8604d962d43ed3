"""Several processes of one machine: starting them under torchrun, and knowing that one is among them."""

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torchdr_cne.cli.messages import tell

_HANDLED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")


def is_worker() -> bool:
    """Tell whether torchrun, or a launcher that sets the same variables, has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank() -> int:
    """Return this process's number among those of its launcher; 0 if it has none."""
    return int(os.environ["RANK"]) if is_worker() else 0


def world_size() -> int:
    """Return how many processes the launcher has started; 1 if there is none."""
    return int(os.environ["WORLD_SIZE"]) if is_worker() else 1


def launch(arguments: Sequence[str], n_processes: int, max_restarts: int) -> int:
    """Run ``torchdr-cne arguments`` in processes of this machine and return the exit code of the first that failed.

    torchrun's agent runs in this process: it passes SIGTERM and Ctrl-C on to the workers and waits until they have
    saved what they have to.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = ["--standalone", "--nnodes=1", f"--nproc-per-node={n_processes}", f"--max-restarts={max_restarts}"]
    configuration = torchrun.parse_args([*options, "-m", "torchdr_cne.cli"])
    configuration.training_script_args = list(arguments)  # unparsed: --s would pass for a short form of --standalone
    _share_threads(n_processes)
    with _launcher_kept_apart():
        try:
            torchrun.run(configuration)
        except ChildFailedError as error:
            return _exit_code(*error.get_first_failure())
        except SignalException as error:
            return 128 + error.sigval
    return 0


def _share_threads(n_processes: int) -> None:
    """Give each worker its part of the cores; torchrun would leave it one."""
    import joblib

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, joblib.cpu_count() // n_processes)))


def _exit_code(failed_rank: int, failure: object) -> int:
    """Return a failed worker's exit code; of one that a signal has ended, nobody has said anything yet."""
    code = int(getattr(failure, "exitcode", 1))
    if code >= 0:
        return code
    name = signal.Signals(-code).name
    cause = "; memory may have run out" if name == "SIGKILL" else ""
    tell(f"error: the process of rank {failed_rank} was ended by {name}{cause}")
    return 1


@contextmanager
def _launcher_kept_apart() -> Iterator[None]:
    """Silence torchrun's log, since the workers speak for themselves, and give back the signals it takes over."""
    before = {
        number: signal.getsignal(number) for number in (getattr(signal, name, None) for name in _HANDLED) if number
    }
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(disabled)
        for number, handler in before.items():
            signal.signal(number, handler)
