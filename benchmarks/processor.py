"""Processor time of this process and of all others: a timing is only as good as the machine was idle."""

import os
import time
from pathlib import Path


class ProcessorClock:
    """Counts processor seconds from its making on."""

    def __init__(self) -> None:
        self._own, self._all = _own_seconds(), _all_seconds()

    def read(self) -> dict[str, float | None]:
        """Return ``cpu_seconds`` of this process with its children, and ``others_cpu_seconds`` (None if unknown)."""
        own, everything = _own_seconds() - self._own, _all_seconds()
        if everything is None or self._all is None:
            return {"cpu_seconds": own, "others_cpu_seconds": None}
        return {"cpu_seconds": own, "others_cpu_seconds": max(0.0, everything - self._all - own)}


def _own_seconds() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def _all_seconds() -> float | None:
    """Seconds that all processors have been busy, on Linux."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
