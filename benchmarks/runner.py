"""Start one run in a process of its own and collect what it leaves."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import ROOT
from benchmarks.quality import N_SAMPLES, Judge

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)
_SHORTEST = 5.0
"""Seconds below which a run is not started: imports alone take that long."""


@dataclass(frozen=True)
class Job:
    """What one run does; ``n`` None is all rows, ``n_samples`` the number of judged rows."""

    method: str
    data: str
    n: int | None = None
    seed: int = 0
    threads: int = 2
    n_samples: int = N_SAMPLES


def run(job: Job, judge: Judge, timeout: float) -> dict[str, Any]:
    """Run ``job`` and return its record: status, seconds, stages, memory and quality.

    The status is "ok", "missing" (an import failed), "failed", "timeout" or "skipped" (too little time left); all
    but "ok" carry an ``error``. The embedding is judged here, after the run's process has ended.
    """
    if timeout < _SHORTEST:
        return {"method": job.method, "status": "skipped", "error": "no time was left for it"}
    record: dict[str, Any] = {
        "method": job.method,
        "seed": job.seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    with tempfile.TemporaryDirectory(prefix="torchdr_cne_bench_") as name:
        folder = Path(name)
        record |= _run_child(job, folder, timeout)
        if record["status"] == "ok":
            embedding = np.load(folder / "embedding.npy")
            if np.isfinite(embedding).all():
                record["quality"] = judge.scores(embedding)
            else:
                record |= {"status": "failed", "error": "the embedding holds NaN or infinite values"}
            if (folder / "neighbors.npy").exists():
                record["search_recall"] = judge.search_recall(np.load(folder / "neighbors.npy"))
    return record


def describe(record: dict[str, Any]) -> str:
    """Return one line for the terminal."""
    if record["status"] != "ok":
        return f"{record['method']:15s} {record['status']}: {record['error']}"
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in record["stages"].items())
    quality = record["quality"]
    return (
        f"{record['method']:15s} {record['seconds']:8.2f} s  {record['memory_mb']['added']:6.0f} MB  "
        f"recall@15 {quality['recall_15']:.3f}  accuracy {quality['accuracy']:.3f}"
        + (f"  ({stages})" if stages else "")
    )


def _run_child(job: Job, folder: Path, timeout: float) -> dict[str, Any]:
    environment = {**os.environ, **{name: str(job.threads) for name in _THREAD_VARIABLES}}
    with open(folder / "output.txt", "w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", json.dumps(asdict(job)), str(folder)],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return {"status": "timeout", "error": f"not done after {timeout:.0f} s, warm-up included"}
        finally:
            _end(process)
    result = folder / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    lines = (folder / "output.txt").read_text(errors="replace").strip().splitlines()
    return {"status": "failed", "error": f"exit code {code}: {lines[-1] if lines else 'no output'}"}


def _end(process: subprocess.Popen) -> None:
    """End the run's process group if it still runs, for instance after a timeout or Ctrl-C."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
