"""Held-out digits placed in an embedding of the others: ``python -m benchmarks.placement --data mnist,mnist-raw``.

Each method is fitted to the first 60 000 digits of MNIST (its training part) and places the last 10 000. Reported are
how many of these the ten nearest training points name right, for the places and for the weighted means they begin at,
and points a second of wall time and of processor time, the same on a busy machine: two threads share the work. The
first call, with one row, makes the index. ``umap-learn`` among the methods sets its transform beside it.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import data, record

N_TRAIN = 60_000
_SINGLES = 20


def split(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training rows, new rows and their labels; components are those of the training rows."""
    pixels = data.load("mnist-raw")
    X, y = pixels.X / np.float32(255), pixels.y
    if name == "mnist":
        from sklearn.decomposition import PCA

        pca = PCA(data.N_PCS, svd_solver="covariance_eigh", random_state=0).fit(X[:N_TRAIN])
        X = pca.transform(X).astype(np.float32)
    return X[:N_TRAIN], X[N_TRAIN:], y[:N_TRAIN], y[N_TRAIN:]


def measure(name: str, rows: tuple[np.ndarray, ...], pictures: Path | None) -> dict[str, Any]:
    """Fit one method and place the new rows."""
    train, new, y_train, y_new = rows
    began = time.perf_counter()
    estimator = _estimator(name).fit(train)
    found: dict[str, Any] = {"fit_seconds": time.perf_counter() - began}
    found["first_seconds"], _, _ = _timed(lambda: estimator.transform(new[:1]))
    singles = [_timed(lambda row=row: estimator.transform(row[None]))[:2] for row in new[1 : _SINGLES + 1]]
    found["single_ms"], found["single_cpu_ms"] = (
        1e3 * float(np.median(column)) for column in zip(*singles, strict=True)
    )
    found["seconds"], found["cpu_seconds"], placed = _timed(lambda: estimator.transform(new))
    found["accuracy"] = accuracy(estimator.embedding_, y_train, placed, y_new)
    if name != "umap-learn":
        from torchdr_cne.placement.refinement import Refinement

        with mock.patch.object(Refinement, "refine", lambda self, start, *rest: start):
            found["mean_seconds"], _, means = _timed(lambda: estimator.transform(new))
        found["mean_accuracy"] = accuracy(estimator.embedding_, y_train, means, y_new)
    if pictures is not None:
        picture(estimator.embedding_, placed, y_new, f"{name}, {train.shape[1]} columns", pictures)
    return found


def accuracy(embedding: np.ndarray, y_train: np.ndarray, placed: np.ndarray, y_new: np.ndarray) -> float:
    """Return the share of placed points whose ten nearest training points name them right."""
    from sklearn.neighbors import KNeighborsClassifier

    return float(KNeighborsClassifier(10).fit(embedding, y_train).score(placed, y_new))


def picture(embedding: np.ndarray, placed: np.ndarray, y_new: np.ndarray, title: str, folder: Path) -> None:
    """Draw the training points faint and the placed ones coloured on top."""
    from matplotlib.figure import Figure

    axes = Figure(figsize=(9, 9), layout="constrained").subplots()
    axes.scatter(*embedding.T, s=1, color="0.85", linewidths=0)
    axes.scatter(*placed.T, s=3, c=y_new, cmap="tab10", linewidths=0)
    axes.set(title=title, aspect="equal", xticks=[], yticks=[])
    folder.mkdir(parents=True, exist_ok=True)
    axes.figure.savefig(folder / f"{title.replace(', ', '-').replace(' ', '-')}.png", dpi=110)


def _estimator(name: str) -> Any:
    if name == "umap-learn":
        import umap

        return umap.UMAP(n_jobs=-1)  # a seed would leave it one thread
    import torchdr_cne

    return getattr(torchdr_cne, name)(random_state=0)


def _timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return wall and processor seconds, and the result."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - processor, result


def table(results: dict[str, Any]) -> str:
    """Return the Markdown table of a record."""
    lines = [
        "| data | method | accuracy | of the means | points/s | per processor second | one point, ms (processor) "
        "| first call, s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for run in results["runs"]:
        n = results["settings"]["n_new"]
        means = f"{run['mean_accuracy']:.4f}" if "mean_accuracy" in run else ""
        lines.append(
            f"| {run['data']} | {run['method']} | {run['accuracy']:.4f} | {means} | {n / run['seconds']:,.0f} "
            f"| {n / run['cpu_seconds']:,.0f} | {run['single_ms']:.0f} ({run['single_cpu_ms']:.0f}) "
            f"| {run['first_seconds']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist,mnist-raw")
    parser.add_argument("--methods", default="NegTSNE,UMAP,NCVis,InfoTSNE")
    parser.add_argument("--pictures", type=Path, default=None, help="folder for a picture of each run")
    parser.add_argument("--output", type=Path, default=record.RESULTS / "placement.json")
    options = parser.parse_args()
    results = record.new_record("placement", {"n_train": N_TRAIN, "n_new": 10_000}, ["torchdr_cne", "umap-learn"])
    for name in options.data.split(","):
        rows = split(name)
        for method in options.methods.split(","):
            run = {"data": name, "method": method, **measure(method, rows, options.pictures)}
            results["runs"].append(run)
            record.save(results, options.output)
            print(f"{name}, {method}: {run['accuracy']:.4f}", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
