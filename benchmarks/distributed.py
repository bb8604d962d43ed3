"""Ranks on one machine: ``python -m benchmarks.distributed --data molecules --methods NegTSNE,InfoTSNE --ranks 1,2,4``.

Each run starts one process a rank (one process with as many threads as there are cores for 1 rank), in a network of
its own where the system permits, and reports milliseconds a step, bytes a step on the wire beside the formula of
docs/distributed.md, and the peak memory that each rank's rows, index and graph, and its loop, add. ``--quality`` fits
with all iterations and judges the embedding.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, record
from benchmarks.memory import peak_mb, reset_peak, resident_mb

MAX_ITER = 120
_EARLY, _LATE = slice(30, 80), slice(90, 119)
"""Steps of the first phase with few draws, and of the last with all, without those that compile."""


def bytes_per_step(method: str, n: int, d: int, ranks: int) -> int:
    """Return the formula for what all ranks together send in a step: positions, normalisers, partial sums, signals."""
    slots = -(-n // 64) * 64
    vectors = d + (2 if method == "InfoTSNE" else 0)
    sums = 2 * 8 * -(-slots // 256) if method == "NCVis" else 0
    # Each of the rings takes every rank's part to all others; the signals are 8 bytes a rank.
    return (ranks - 1) * (4 * slots * vectors + sums + 8 * ranks)


def work(file: str, method: str, quality: bool) -> None:
    """Fit as one of the ranks and leave what was measured beside the file."""
    import torch

    import torchdr_cne
    from torchdr_cne.evaluation import knn_accuracy, knn_recall

    ranks = int(os.environ.get("WORLD_SIZE", 1))
    X = np.load(file, mmap_mode="r")
    base: type = getattr(torchdr_cne, method)
    base(max_iter=2, distributed=False).fit(np.random.default_rng(0).normal(size=(20_000, X.shape[1])))  # compiles
    start, marks, wire, peaks = resident_mb(), [], [], {}

    class Watched(base):  # type: ignore[misc,valid-type]
        def on_affinity_computation_end(self) -> None:
            peaks["rows, index and graph"] = peak_mb() - start
            reset_peak()

        def on_training_step_start(self) -> None:
            marks.append(time.perf_counter())
            wire.append(_loopback_bytes())

    reset_peak()
    began = time.perf_counter()
    settings = {} if quality else {"max_iter": MAX_ITER}
    estimator = Watched(random_state=0, distributed=ranks > 1, **settings).fit(X)
    seconds = time.perf_counter() - began
    peaks["loop"] = peak_mb() - start
    steps = np.diff(marks) * 1e3
    rank = int(os.environ.get("RANK", 0))
    found = {
        "rank": rank,
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "early_ms": float(np.median(steps[_EARLY])),
        "late_ms": float(np.median(steps[_LATE])),
        "bytes_per_step": float(np.median(np.diff(wire)[_LATE])),
        "edges": int(estimator.graph_.nnz),
        "added_mb": peaks,
    }
    if quality and rank == 0:
        y = np.load(file.replace(".npy", ".y.npy"))
        found["quality"] = [
            float(knn_recall(np.asarray(X), estimator.embedding_, n_neighbors=15)),
            float(knn_accuracy(estimator.embedding_, y, n_neighbors=10)),
        ]
    Path(f"{file}.{rank}.json").write_text(json.dumps(found))


def _loopback_bytes() -> int:
    """Return the bytes that have come in over the loopback device since it was made."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[0])
    return 0


def run(file: str, method: str, ranks: int, quality: bool) -> list[dict[str, Any]]:
    """Start ``ranks`` processes and return what they measured."""
    child = ["-m", "benchmarks.distributed", "--work", file, "--methods", method, *["--quality"] * quality]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    command = [sys.executable, *(torchrun if ranks > 1 else []), *child]
    threads = max(1, (os.cpu_count() or 1) // ranks)
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0:
        command = [*alone, *command]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [json.loads(Path(f"{file}.{rank}.json").read_text()) for rank in range(ranks)]


def table(results: dict[str, Any]) -> str:
    """Return the Markdown table of a record."""
    lines = [
        "| method | ranks × threads | step, early / late ms | rate | MB a step (formula) | added MB: graph / loop "
        "| recall / accuracy |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    base: dict[str, float] = {}
    for method, ranks in dict.fromkeys((one["method"], one["ranks"]) for one in results["runs"]):
        some = [one for one in results["runs"] if (one["method"], one["ranks"]) == (method, ranks)]
        early, late, sent = (
            statistics.median(one[key] for one in some) for key in ("early_ms", "late_ms", "bytes_per_step")
        )
        base.setdefault(method, late)
        formula = bytes_per_step(method, results["settings"]["n"], 2, ranks)
        graph, loop = (
            max(rank["added_mb"][stage] for one in some for rank in one["by_rank"])
            for stage in ("rows, index and graph", "loop")
        )
        lines.append(
            f"| {method} | {ranks} × {some[0]['by_rank'][0]['threads']} | {early:.1f} / {late:.1f} | "
            f"{base[method] / late:.2f} | {sent / 1e6:.2f} ({formula / 1e6:.2f}) | {graph:.0f} / {loop:.0f} | "
            + " / ".join(f"{score:.4f}" for score in some[0]["by_rank"][0].get("quality", []))
            + " |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark, or one rank of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="molecules")
    parser.add_argument("--n", type=int, default=None)
    parser.add_argument("--methods", default="NegTSNE,UMAP,InfoTSNE")
    parser.add_argument("--ranks", default="1,2,4")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--work", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.methods, options.quality)
        return
    dataset = data.load(options.data, options.n)
    X = dataset.X
    results = record.new_record("distributed", {"data": options.data, "n": len(X), "d": X.shape[1]}, [])
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "X.npy")
        np.save(file, X)
        np.save(file.replace(".npy", ".y.npy"), dataset.y)
        del X, dataset
        for _ in range(options.rounds):
            for method in options.methods.split(","):
                for ranks in map(int, options.ranks.split(",")):
                    by_rank = run(file, method, ranks, options.quality)
                    means = {key: by_rank[0][key] for key in ("seconds", "early_ms", "late_ms", "bytes_per_step")}
                    results["runs"].append({"method": method, "ranks": ranks, **means, "by_rank": by_rank})
                    if options.output:
                        record.save(results, options.output)
                    print(f"{method}, {ranks} rank(s): {means['late_ms']:.1f} ms a step", file=sys.stderr)
    print(table(results))


if __name__ == "__main__":
    main()
