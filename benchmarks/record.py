"""The JSON file of a benchmark: what it holds, and writing it so that an interrupted benchmark keeps its runs."""

import json
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.data import ROOT

SCHEMA = 1
RESULTS = Path(__file__).resolve().parent / "results"
_KEYS = ("schema", "kind", "created", "settings", "machine", "versions", "runs")
_RUN_KEYS = ("n", "d", "seconds", "stages", "memory_mb", "quality")
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "numba", "faiss-cpu", "pykeops", "pynndescent", "annoy")


def new_record(kind: str, settings: dict[str, Any], packages: list[str]) -> dict[str, Any]:
    """Return a record without runs: settings, this machine, and versions of ``packages`` and the libraries."""
    return {
        "schema": SCHEMA,
        "kind": kind,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "settings": settings,
        "machine": machine(),
        "versions": versions([*packages, *_LIBRARIES]),
        "runs": [],
    }


def machine() -> dict[str, Any]:
    """Describe the processor and the system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    return {"cpu": _cpu_model(), "cores": cores, "memory_gb": memory_gb, "system": platform.platform()}


def versions(packages: list[str]) -> dict[str, str | None]:
    """Versions of installed distributions, None for the others; also Python's and the checkout's commit."""
    found: dict[str, str | None] = {"python": platform.python_version(), "commit": _commit()}
    for package in dict.fromkeys(packages):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def save(record: dict[str, Any], path: Path) -> None:
    """Write ``record`` to ``path`` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(path)


def read(path: Path, kind: str) -> dict[str, Any]:
    """Read a record and check that it is of ``kind`` and complete."""
    record = json.loads(Path(path).read_text())
    check(record, kind, str(path))
    return record


def check(record: dict[str, Any], kind: str, name: str = "record") -> None:
    """Raise a ValueError unless ``record`` is a benchmark's of ``kind`` with complete runs."""
    missing = [key for key in _KEYS if key not in record]
    if missing:
        raise ValueError(f"{name} is no benchmark record: it lacks {', '.join(missing)}; run the benchmark again.")
    if record["schema"] != SCHEMA or record["kind"] != kind:
        raise ValueError(
            f"{name} is of kind {record['kind']!r}, schema {record['schema']}; needed are {kind!r} and {SCHEMA}."
        )
    for run in record["runs"]:
        wanted = _RUN_KEYS if run["status"] == "ok" else ("error",)
        lacking = [key for key in ("method", *wanted) if key not in run]
        if lacking:
            raise ValueError(f"a run of {run.get('method')} in {name} lacks {', '.join(lacking)}; run it again.")


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Commit of the checkout, with a + if files differ from it."""
    command = ["git", "--no-optional-locks", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
