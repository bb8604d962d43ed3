"""One timed run in a fresh interpreter: ``python -m benchmarks.child JOB_JSON FOLDER``.

Leaves ``result.json`` and ``embedding.npy`` in FOLDER. Imports and a warm-up fit come before the clock.
"""

import contextlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import memory
from benchmarks.data import load
from benchmarks.methods import METHODS, Method
from benchmarks.processor import ProcessorClock
from benchmarks.quality import sample_rows
from benchmarks.stages import StageClock


def main() -> None:
    job, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    with contextlib.redirect_stdout(sys.stderr):
        try:
            result = timed_run(job, folder)
        except ImportError as error:
            result = {"status": "missing", "error": str(error)}
        except Exception as error:
            traceback.print_exc()
            result = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    (folder / "result.json").write_text(json.dumps(result))


def timed_run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Warm up, embed under the clock, save the embedding, and return seconds, stages and memory."""
    use_cores(job["threads"])
    method = METHODS[job["method"]]
    data = load(job["data"], job["n"])
    warm_up(method, data.X, job)
    clock = StageClock(rows=sample_rows(len(data.X), job["n_samples"]))
    memory.reset_peak()
    before = memory.resident_mb()
    with clock.watching() if method.ours else contextlib.nullcontext():
        processor, start = ProcessorClock(), time.perf_counter()
        embedding = method.fit(data.X, job["seed"], job["threads"])
        seconds, used = time.perf_counter() - start, processor.read()
    peak = memory.peak_mb()
    np.save(folder / "embedding.npy", np.asarray(embedding, dtype=np.float32))
    if clock.neighbors_rk is not None:
        np.save(folder / "neighbors.npy", clock.neighbors_rk)
    return {
        "status": "ok",
        "n": len(data.X),
        "d": data.X.shape[1],
        "seconds": seconds,
        **used,
        "stages": clock.seconds,
        "memory_mb": {"before": before, "peak": peak, "added": peak - before},
    }


def warm_up(method: Method, X: np.ndarray, job: dict[str, Any]) -> None:
    """Fit some rows, so that imports and compilation are done."""
    method.fit(np.ascontiguousarray(X[: method.warm_up_rows]), job["seed"], job["threads"])


def use_cores(threads: int) -> None:
    """Keep to ``threads`` cores where the system allows it: some peers take all they see."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


if __name__ == "__main__":
    main()
