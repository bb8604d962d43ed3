"""Functions that start several processes on one machine under torchrun, or tell that this is one of them."""

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torchdr_cne.cli.messages import UsageError, tell
from torchdr_cne.launcher import Launch, LaunchError, launch_of

_HANDLED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")


def is_worker() -> bool:
    """Return whether a launcher such as torchrun has started this process as one of several."""
    return _launch() is not None


def rank() -> int:
    """Return the number of this process among those of its launcher; 0 if it has no launcher."""
    found = _launch()
    return 0 if found is None else found.rank


def world_size() -> int:
    """Return the number of processes that the launcher has started; 1 if there is no launcher."""
    found = _launch()
    return 1 if found is None else found.size


def _launch() -> Launch | None:
    try:
        return launch_of()
    except LaunchError as error:
        raise UsageError(str(error).removesuffix(".")) from error


def launch(arguments: Sequence[str], n_processes: int, max_restarts: int) -> int:
    """Run ``torchdr-cne arguments`` in several processes; return the exit code of the first that failed, or else 0.

    The agent of torchrun runs in this process. It passes SIGTERM and Ctrl-C on to the workers, and waits until they
    have saved their work.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = ["--standalone", "--nnodes=1", f"--nproc-per-node={n_processes}", f"--max-restarts={max_restarts}"]
    configuration = torchrun.parse_args([*options, "-m", "torchdr_cne.cli"])
    configuration.training_script_args = list(arguments)  # not parsed, as --s would count as --standalone
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
    """Give each worker its part of the cores; torchrun would give it only one."""
    import joblib

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, joblib.cpu_count() // n_processes)))


def _exit_code(failed_rank: int, failure: object) -> int:
    """Return the exit code of a failed worker, and report one that a signal has ended, as it could not do so itself."""
    code = int(getattr(failure, "exitcode", 1))
    if code >= 0:
        return code
    name = signal.Signals(-code).name
    cause = "; memory may have run out" if name == "SIGKILL" else ""
    tell(f"error: the process of rank {failed_rank} was ended by {name}{cause}")
    return 1


@contextmanager
def _launcher_kept_apart() -> Iterator[None]:
    """Silence the log of torchrun, as workers report their own errors, and restore the signal handlers it replaces."""
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
