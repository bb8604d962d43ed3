"""Parametric embeddings: quality on points never seen, seconds, edges a second, and memory at a million rows.

``python -m benchmarks.parametric digits``, ``mnist``, ``million``; each prints a table, and ``--output`` keeps it.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import data, memory
from torchdr_cne import UMAP, InfoTSNE, NCVis, NegTSNE
from torchdr_cne.affinity import UnionAffinity
from torchdr_cne.similarities import CosineExp

METHODS = {"NegTSNE": NegTSNE, "UMAP": UMAP, "NCVis": NCVis, "InfoTSNE": InfoTSNE}


def accuracy(train: np.ndarray, labels: np.ndarray, test: np.ndarray, wanted: np.ndarray, k: int) -> float:
    """Share of test points whose k nearest training points are mostly of their class."""
    from sklearn.neighbors import KNeighborsClassifier

    return float(KNeighborsClassifier(k).fit(train, labels).score(test, wanted))


def digits(seeds: range) -> list[dict[str, Any]]:
    """All methods on the 1 797 digits, and on 80 % of them with 20 % held out; cosine in 8 dimensions."""
    from sklearn.datasets import load_digits
    from sklearn.manifold import trustworthiness
    from sklearn.model_selection import cross_val_score, train_test_split
    from sklearn.neighbors import KNeighborsClassifier

    X, y = load_digits(return_X_y=True)
    cases = {name: (method, {}) for name, method in METHODS.items()}
    for name, method in METHODS.items():
        cases[f"{name} cosine 8-D"] = method, {"similarity": CosineExp(), "n_components": 8}
    rows = []
    for name, (method, options) in cases.items():
        found: dict[str, list[float]] = {"seconds": [], "accuracy": [], "trustworthiness": [], "held-out": []}
        for seed in seeds:
            estimator = method(encoder="mlp", random_state=seed, **options)
            begin = time.perf_counter()
            Z = estimator.fit_transform(X)
            found["seconds"].append(time.perf_counter() - begin)
            unit = Z / np.linalg.norm(Z, axis=1, keepdims=True) if options else Z
            found["accuracy"].append(cross_val_score(KNeighborsClassifier(15), unit, y, cv=5).mean())
            found["trustworthiness"].append(trustworthiness(X, unit, n_neighbors=15))
            X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=seed, stratify=y)
            estimator.fit(X_train)
            places = [np.asarray(estimator.transform(part)) for part in (X_train, X_test)]
            if options:
                places = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in places]
            found["held-out"].append(accuracy(places[0], y_train, places[1], y_test, 15))
        rows.append({"method": name, **{key: float(np.mean(values)) for key, values in found.items()}})
        print(rows[-1], flush=True)
    return rows


def mnist(names: list[str], columns: str) -> list[dict[str, Any]]:
    """Train on 60 000 digits, place 10 000; ``columns`` is "raw" or "pca"."""
    found = data.load("mnist-raw")
    X, y = found.X / 255, found.y
    if columns == "pca":  # of the training digits
        mean = X[:60_000].mean(axis=0)
        axes = np.linalg.eigh(np.cov((X[:60_000] - mean).T))[1][:, ::-1][:, :50]
        X = np.ascontiguousarray((X - mean) @ axes.astype(np.float32))
    rows = []
    for name in names:
        estimator = METHODS[name](encoder="mlp", random_state=0)
        begin = time.perf_counter()
        estimator.fit(X[:60_000])
        seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        test = estimator.transform(X[60_000:])
        placing = time.perf_counter() - begin
        row = {
            "method": name,
            "columns": columns,
            "seconds": seconds,
            "mini-batches": estimator.n_iter_,
            "edges/s": estimator.n_iter_ * 1024 / seconds,
            "test accuracy": accuracy(estimator.embedding_, y[:60_000], test, y[60_000:], 10),
            "train accuracy": accuracy(estimator.embedding_, y[:60_000], estimator.embedding_[:5000], y[:5000], 10),
            "points/s": len(test) / placing,
        }
        rows.append(row)
        print(row, flush=True)
    return rows


def million(n_batches: int) -> list[dict[str, Any]]:
    """Peak memory beyond X, and edges a second, of a parametric fit at 1 000 000 × 50."""
    X = np.random.default_rng(0).standard_normal((1_000_000, 50), dtype=np.float32)
    X += 4 * np.random.default_rng(1).standard_normal((50, 50), dtype=np.float32)[np.arange(len(X)) % 50]
    graph = UnionAffinity(n_neighbors=15)(X[:5000])  # kernels compiled before memory is read
    del graph
    NegTSNE(encoder="mlp", max_iter=10, random_state=0).fit(X[:5000])
    memory.reset_peak()
    before = memory.resident_mb()
    begin = time.perf_counter()
    estimator = NegTSNE(encoder="mlp", max_iter=n_batches, random_state=0).fit(X)
    peak = memory.peak_mb()
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    estimator.fit(X, graph=estimator.graph_)
    loop = time.perf_counter() - begin
    row = {
        "rows": len(X),
        "MB beyond X": peak - before,
        "seconds": seconds,
        "seconds given the graph": loop,
        "mini-batches": n_batches,
        "edges/s": n_batches * 1024 / loop,
    }
    print(row)
    return [row]


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["digits", "mnist", "million"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default="NegTSNE")
    parser.add_argument("--columns", choices=["raw", "pca"], default="raw")
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.part == "digits":
        rows = digits(range(options.seeds))
    elif options.part == "mnist":
        rows = mnist(options.methods.split(","), options.columns)
    else:
        rows = million(options.batches)
    if options.output:
        kept = json.loads(options.output.read_text()) if options.output.exists() else {}
        kept[f"{options.part} {options.columns}" if options.part == "mnist" else options.part] = rows
        options.output.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
