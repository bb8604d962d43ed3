"""The process that starts the stages' process, passes its lines on, and starts another one after a crash."""

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.table import StageSpec

_GRACE = 15.0
"""Seconds after its deadline that a stage may take to notice it; then its process is killed."""
_STARTING = 60.0
"""Seconds that a process has for its imports."""


@dataclass
class Relay:
    """Runs stages in processes of their own: one for all of them, unless one crashes or hangs.

    Attributes
    ----------
    command : callable
        From the names of stages and the seconds left to the command that runs them.
    tell : callable
        Receives each result.
    """

    command: Callable[[Sequence[str], float], list[str]]
    tell: Callable[[dict[str, Any]], None]

    def run(self, specs: Sequence[StageSpec], seconds: float) -> bool:
        """Run all stages within ``seconds``; return whether every one of them has ended well."""
        stop, left, is_good = time.monotonic() + seconds, list(specs), True
        while left:
            ended, reason = self._process(left, stop)
            is_good &= all(status == "ok" for status in ended)
            left = left[len(ended) :]
            if left and reason:
                self.tell({"stage": left[0].name, "result": "process", "ok": False, "error": reason})
                self.tell({"stage": left[0].name, "status": "crashed", "seconds": 0.0})
                left, is_good = left[1:], False
            if left and time.monotonic() >= stop:
                for spec in left:
                    self.tell({"stage": spec.name, "status": "no time", "seconds": 0.0})
                return False
        return is_good

    def _process(self, specs: Sequence[StageSpec], stop: float) -> tuple[list[str], str]:
        """Run stages in one process; return how each ended, and why the process broke off in the next one, or ""."""
        command = self.command([spec.name for spec in specs], max(0.0, stop - time.monotonic()))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
        reader.start()
        ended: list[str] = []
        is_at_end = False
        try:
            is_at_end = self._follow(specs, lines, stop, ended)
        finally:
            status = _end(process, _GRACE if is_at_end else 0.0)
            reader.join(timeout=_GRACE)
        if not is_at_end:
            return ended, "hangs, and was killed"
        return ended, "" if _is_told(ended) else f"its process ended with status {status}"

    def _follow(
        self, specs: Sequence[StageSpec], lines: "queue.Queue[str | None]", stop: float, ended: list[str]
    ) -> bool:
        """Pass on what a process says, and note how its stages end; return whether it has said its last word."""
        until = time.monotonic() + _STARTING + specs[0].seconds + _GRACE
        while True:
            patience = min(until, stop + _GRACE) - time.monotonic()
            try:
                line = lines.get(timeout=max(0.1, patience))
            except queue.Empty:
                return False
            if line is None:
                return True
            found = _parsed(line)
            if found is not None:
                self.tell(found)
            if found is not None and "status" in found:
                ended.append(found["status"])
                following = specs[len(ended) : len(ended) + 1]
                until = time.monotonic() + sum(spec.seconds for spec in following) + _GRACE


def _end(process: subprocess.Popen[str], patience: float) -> int:
    """Return the exit status of a process, which is killed after some seconds."""
    try:
        return process.wait(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _read(stream: Any, lines: "queue.Queue[str | None]") -> None:
    """Pass on the lines of a stream, and None at its end."""
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _is_told(ended: Sequence[str]) -> bool:
    """Return whether the process has itself said that it cannot go on."""
    return bool(ended) and "device lost" in ended[-1]


def _parsed(line: str) -> dict[str, Any] | None:
    """Return a line's result; None if it is something else that was printed."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) and "stage" in found else None
