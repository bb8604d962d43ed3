"""The process that starts the stages' process, passes its lines on, and starts another one after a crash."""

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
    _lines: "queue.Queue[str | None]" = field(default_factory=queue.Queue)

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
        self._lines = queue.Queue()
        reader = threading.Thread(target=self._read, args=(process.stdout, self._lines), daemon=True)
        reader.start()
        ended: list[str] = []
        until = time.monotonic() + _STARTING + specs[0].seconds + _GRACE
        while True:
            try:
                line = self._lines.get(timeout=max(0.1, until - time.monotonic()))
            except queue.Empty:
                process.kill()
                process.wait()
                return ended, "hangs, and was killed"
            if line is None:
                status = process.wait()
                return ended, "" if _is_told(ended) else f"its process ended with status {status}"
            found = _parsed(line)
            if found is None:
                continue
            self.tell(found)
            if "status" in found:
                ended.append(found["status"])
                following = specs[len(ended) : len(ended) + 1]
                until = time.monotonic() + sum(spec.seconds for spec in following) + _GRACE

    @staticmethod
    def _read(stream: Any, lines: "queue.Queue[str | None]") -> None:
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
