"""Parametric UMAP fitted to 5 000 digits of MNIST and applied to all 70 000: in three lines, and from building blocks.

Run with ``python examples/parametric_umap.py [mnist.npz]``, a file with arrays X (70 000, 784) and y; without one the
digits come from OpenML. It writes ``parametric_umap.png``.
"""

import sys
import time

import numpy as np
from torch import nn

from torchdr_cne import UMAP, LearnedMap, ParametricUMAP, Phase
from torchdr_cne.affinity import Connectivity, Neighbors, Symmetrize
from torchdr_cne.evaluation import knn_accuracy
from torchdr_cne.parametric import Position, Relation
from torchdr_cne.plotting import panels


def ready_made(X, X_all):
    """Three lines."""
    estimator = ParametricUMAP(random_state=0)
    estimator.fit(X)
    return estimator.transform(X_all)


def from_building_blocks(X, X_all):
    """The same map, every part of it in sight and open to change."""
    # Distances to the 14 nearest others, rescaled by connectivity and made symmetric: P + Pᵀ − P∘Pᵀ.
    affinity = Neighbors(n_neighbors=14) | Connectivity() | Symmetrize("union")

    # A network of your own takes rows as they are: it has to scale them itself.
    layers = [nn.Linear(784, 100), nn.BatchNorm1d(100), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Linear(100, 100), nn.BatchNorm1d(100), nn.ReLU()]
    encoder = nn.Sequential(nn.Dropout(0.1), *layers, nn.Linear(100, 2))

    # First towards the spectral embedding, then the cross-entropy over edges and sampled negatives, whose similarity is
    # the modified Cauchy kernel 1 / (1 + a d^(2b)) of min_dist and spread.
    relation = Relation(UMAP(min_dist=0.1, spread=1.0, n_negatives=5))
    phases = [
        Phase(500, Position("spectral"), sampling="items", batch_size=512),
        Phase(2000, relation, sampling="edges", batch_size=512, negatives="batch"),
    ]
    estimator = LearnedMap(encoder=encoder, affinity_in=affinity, phases=phases, random_state=0)
    estimator.fit(X)
    return estimator.transform(X_all)


def all_digits(path=None):
    """Return the 70 000 digits, in [0, 1], and their classes."""
    if path is not None:
        with np.load(path) as file:
            X, y = file["X"], file["y"]
    else:
        from sklearn.datasets import fetch_openml

        X, y = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False)
    return np.asarray(X, dtype=np.float32) / 255, np.asarray(y, dtype=np.int64)


def main(path=None):
    X, y = all_digits(path)
    some = np.sort(np.random.default_rng(0).choice(len(X), 5000, replace=False))
    rest = np.setdiff1d(np.arange(len(X)), some)
    maps = {}
    for name, make in {"ready made": ready_made, "building blocks": from_building_blocks}.items():
        begin = time.perf_counter()
        Z = maps[name] = make(X[some], X)
        seconds = time.perf_counter() - begin
        print(f"{name}: {seconds:.0f} s, accuracy among the {len(rest)} unseen {knn_accuracy(Z[rest], y[rest]):.3f}")
    panels(maps, y).savefig("parametric_umap.png", dpi=150)


if __name__ == "__main__":
    main(*sys.argv[1:])
