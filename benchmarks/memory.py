"""Resident memory of this process, in MB, and its peak since a chosen moment."""

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_mb() -> float:
    """Resident memory at this moment; where the system does not tell, its peak so far."""
    return _status("VmRSS") or _lifetime_peak_mb()


def peak_mb() -> float:
    """Largest resident memory since the last `reset_peak`, or since the start where that is not possible."""
    return _status("VmHWM") or _lifetime_peak_mb()


def reset_peak() -> None:
    """Forget the peak so far, where the system (Linux) allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _status(key: str) -> float | None:
    if not _STATUS.exists():
        return None
    values = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(values[key].split()[0]) / 1024 if key in values else None


def _lifetime_peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
