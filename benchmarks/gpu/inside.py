"""The process that runs the stages, and says what they find, one JSON line each."""

import gc
import importlib
import json
import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.gpu.setting import Result, Setting, Stage, described
from benchmarks.gpu.table import StageSpec

LOST_DEVICE = 3
"""Exit status of a process whose device answers no more, so that another one has to do the rest."""
_LEAST_SECONDS = 2.0
_DIGITS = 5


class OutOfTime(BaseException):
    """The deadline of a stage; no ``except Exception`` of the library catches it."""


def run_stages(specs: Sequence[StageSpec], setting: Setting, seconds: float) -> int:
    """Run the stages one after the other within ``seconds``, and return the exit status of the process."""
    stop = time.monotonic() + seconds
    for spec in specs:
        left = stop - time.monotonic()
        if left < _LEAST_SECONDS:
            say({"stage": spec.name, "status": "no time", "seconds": 0.0})
            continue
        status, took = _run(spec, setting, min(spec.seconds, left))
        lives = _is_alive(setting)
        say({"stage": spec.name, "status": status if lives else f"{status}, device lost", "seconds": took})
        if not lives:
            return LOST_DEVICE
    return 0


def _run(spec: StageSpec, setting: Setting, seconds: float) -> tuple[str, float]:
    """Run one stage and say its results; return how it ended, and its seconds."""
    start = last = time.perf_counter()
    is_good = True
    try:
        with _deadline(seconds):
            module, _, name = spec.function.partition(":")
            stage: Stage = getattr(importlib.import_module(module), name)
            for found in stage(setting):
                took, last = time.perf_counter() - last, time.perf_counter()
                say({"stage": spec.name, "seconds": took, **found})
                is_good &= found["ok"] is not False
                if found["ok"] is False and not _is_alive(setting):
                    break
        status = "ok" if is_good else "failed"
    except OutOfTime as error:
        what = described(error)
        what["where"].pop()  # the alarm itself
        say({"stage": spec.name, "result": "deadline", "ok": False, "seconds": seconds, **what})
        status = "out of time"
    except Exception as error:
        say({"stage": spec.name, "result": "crash", "ok": False, **described(error)})
        status = "crashed"
    gc.collect()
    return status, time.perf_counter() - start


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the block after some seconds, once Python is at work again."""

    def ring(number: int, frame: Any) -> None:
        raise OutOfTime(f"after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _is_alive(setting: Setting) -> bool:
    """Return whether the device still computes: after an illegal access of memory it never does."""
    if not setting.on_cuda:
        return True
    import torch

    try:
        torch.cuda.set_sync_debug_mode("default")
        torch.ones(1, device=setting.device).add_(1)
        setting.wait()
        torch.cuda.empty_cache()
    except RuntimeError:
        return False
    return True


def say(found: Result) -> None:
    """Write a result as one line, at once."""
    sys.stdout.write(json.dumps(_plain(found)) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; numbers have five digits, and those that are not finite are text."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, str | int | bool) else str(value)
