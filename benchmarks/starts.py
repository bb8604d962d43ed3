"""What the start of a fit decides, by methods, first embeddings and scales on nine data sets.

Run it as ``python -m benchmarks.starts``.

Each run is judged by recall, accuracy, trustworthiness, the rank correlation of distances, and the number of classes
that are whole. ``--show`` prints a table of a record instead, means over the seeds.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, record

METHODS = ("UMAP", "NegTSNE", "NCVis", "InfoTSNE")
SEEDS = {"iris": range(10)}
_OTHER_SEEDS = range(3)
_PART, _FEWEST = 0.05, 30
"""A second part of a class counts from this share of its points on, in classes of this size or more."""
_NEIGHBORS_IN_CLASS = 10
_MOST_OF_MOLECULES = 100_000
_SCORES = ("recall_15", "accuracy", "trustworthiness", "spearman", "whole", "seconds")


def _swiss_roll() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return 3 000 points, tenths of the roll as classes, and the coordinates on the unrolled surface."""
    from sklearn.datasets import make_swiss_roll

    X, t = make_swiss_roll(3000, random_state=0)
    length = (t * np.sqrt(1 + t**2) + np.arcsinh(t)) / 2
    return X, np.digitize(t, np.quantile(t, np.linspace(0, 1, 11)[1:-1])), np.stack([length, X[:, 1]], axis=1)


def _iris() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_iris

    return load_iris(return_X_y=True)


def _blobs() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import make_blobs

    return make_blobs(2000, n_features=50, centers=10, random_state=0)


def _shared(name: str, scale: float = 1.0, project: bool = False) -> tuple[np.ndarray, np.ndarray]:
    with np.load(data.SHARED / f"{name}.npz") as archive:
        X, y = archive["X"].astype(np.float32) / scale, archive["y"]
    return (data.principal_components(len(X), lambda rows: X[rows]) if project else X), y


DATA: dict[str, Callable[[], tuple[np.ndarray, ...]]] = {
    "swiss-roll": _swiss_roll,
    "iris": _iris,
    "blobs": _blobs,
    "digits": data.LOADERS["digits"],
    "coil20": lambda: _shared("coil20", 255, project=True),
    "cite": lambda: _shared("cite_cbmc"),
    "snare": lambda: _shared("snare_cortex"),
    "mnist": data.LOADERS["mnist"],
    "molecules": lambda: tuple(part[:: len(part) // _MOST_OF_MOLECULES] for part in data.LOADERS["molecules"]()),
}


def whole_classes(embedding: np.ndarray, y: np.ndarray) -> int:
    """Return the number of classes whose graph of 10 neighbours within the class has no second large component."""
    from scipy.sparse.csgraph import connected_components
    from sklearn.neighbors import kneighbors_graph

    n_whole = 0
    for label in np.unique(y):
        points = embedding[y == label]
        if len(points) >= _FEWEST:
            sizes = np.bincount(connected_components(kneighbors_graph(points, _NEIGHBORS_IN_CLASS), directed=False)[1])
            n_whole += int(len(sizes) == 1 or np.sort(sizes)[-2] < _PART * len(points))
        else:
            n_whole += 1
    return n_whole


def runs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a result for each data set, method, start, scale and seed."""
    import torchdr_cne
    from benchmarks.quality import Judge
    from torchdr_cne.evaluation import distance_correlation

    starts: list[dict[str, Any]] = [
        {},
        *({"init": i, "init_scaling": s} for i, s in product(("pca", "spectral"), options.scales)),
    ]
    for name in options.data:
        X, y, *truth = DATA[name]()
        judge = Judge(data.Dataset(name, np.array(X, dtype=np.float32), np.asarray(y)))
        for method, start in product(options.methods, starts):
            if start.get("init") == "spectral" and len(X) > options.most_spectral:
                continue
            for seed in SEEDS.get(name, _OTHER_SEEDS) if not start or name == "iris" else (0,):
                begin = time.process_time()
                estimator = getattr(torchdr_cne, method)(random_state=seed, n_jobs=options.threads, **start)
                embedding = estimator.fit_transform(np.array(X, dtype=np.float32))
                seconds = time.process_time() - begin
                scores = judge.scores(embedding) | {"whole": whole_classes(embedding, y), "seconds": seconds}
                if truth:
                    scores["spearman"] = distance_correlation(truth[0], embedding)
                yield {
                    "data": name,
                    "method": method,
                    "init": "default",
                    "init_scaling": None,
                    **start,
                    "seed": seed,
                    **scores,
                }


def table(results: list[dict[str, Any]]) -> str:
    """Return a line of means for each data set, method and start."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(tuple(result[key] for key in ("data", "method", "init", "init_scaling")), []).append(result)
    lines = [f"{'data':<11}{'method':<9}{'start':<9}{'scale':>5}  " + " ".join(f"{score[:9]:>9}" for score in _SCORES)]
    for (name, method, init, scale), found in groups.items():
        means = [np.mean([result[score] for result in found]) for score in _SCORES]
        least = min(result["spearman"] for result in found)
        scores = " ".join(f"{mean:9.3f}" for mean in means)
        lines.append(f"{name:<11}{method:<9}{init:<9}{scale or '':>5}  {scores}  (correlation ≥ {least:.3f})")
    return "\n".join(lines)


def main() -> None:
    """Run what is asked for and save each result, or print the table of a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=lambda text: text.split(","), default=list(DATA))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument(
        "--scales", type=lambda text: [float(s) for s in text.split(",")], default=[1.0, 3.0, 6.0, 10.0]
    )
    parser.add_argument("--most-spectral", type=int, default=20_000, help="points up to which starts are spectral")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=record.RESULTS / "starts.json")
    parser.add_argument("--show", action="store_true", help="print the table of the output file")
    options = parser.parse_args()
    if options.show:
        print(table(json.loads(options.output.read_text())["runs"]))
        return
    warnings.simplefilter("ignore")  # components and scales are what is compared here
    found = record.new_record("starts", {"scales": options.scales, "threads": options.threads}, ["scikit-learn"])
    for result in runs(options):
        found["runs"].append(result)
        record.save(found, options.output)
        print(table([result]).splitlines()[1], flush=True)


if __name__ == "__main__":
    main()
