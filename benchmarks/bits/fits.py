"""The fits whose bits `benchmarks.bits` keeps: small, seeded, and by public names only.

A case is a function without arguments that returns what it found by the name of its part: arrays, numbers, lists.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import torchdr_cne

Found = dict[str, Any]
Cases = dict[str, Callable[[], Found]]
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]

SAMPLED = ("NegTSNE", "UMAP", "NCVis", "InfoTSNE", "LargeVis")
GRADIENTS = (*SAMPLED, "PACMAP")
EXACT = ("TSNE", "SNE", "TSNEkhorn")
COMMON = {"random_state": 0, "n_jobs": 1, "max_iter": 40, "check_interval": 10}
BATCHES = {"encoder": "mlp", "batch_size": 128}

_NETWORKS = ("encoder_", "decoder_", "classifier_")


# ---- data -------------------------------------------------------------------------------------------------


@functools.cache
def digits(n: int = 600) -> Rows:
    """Return ``n`` digits (n, 64), their classes (n,), and 50 others (50, 64)."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X[:n].astype(np.float32), y[:n], X[n : n + 50].astype(np.float32)


@functools.cache
def clouds(n: int) -> Rows:
    """Return ``n`` rows of 20 clouds of noise in 16 dimensions, their clouds, and 50 others."""
    rng = np.random.default_rng(0)
    y = rng.integers(20, size=n + 50)
    X = (rng.normal(size=(n + 50, 16)) + 3 * rng.normal(size=(20, 16))[y]).astype(np.float32)
    return X[:n], y[:n], X[n:]


@functools.cache
def given_graph() -> Any:
    """Return the union graph of the digits, for the methods that are given one."""
    return make("NegTSNE", max_iter=1).fit(digits()[0]).graph_


def start(n_components: int = 2) -> np.ndarray:
    """Return a first embedding of the digits, by a seed."""
    return np.random.default_rng(1).normal(size=(600, n_components)).astype(np.float32)


# ---- fits -------------------------------------------------------------------------------------------------


def make(method: str | type, **parameters: Any) -> Any:
    """Return an estimator, by name or class, of few iterations."""
    kind: Any = getattr(torchdr_cne, method) if isinstance(method, str) else method
    return kind(**{**COMMON, **parameters})


def described(estimator: Any, new: Any = None) -> Found:
    """Return all that a fitted estimator shows, its networks' weights, and where it places ``new`` rows."""
    names = [name for name in dir(estimator) if name.endswith("_") and not name.startswith("_")]
    found = {name: getattr(estimator, name) for name in names if name not in (*_NETWORKS, "training_rows_")}
    for name in _NETWORKS:
        if getattr(estimator, name, None) is not None:
            found[name] = dict(getattr(estimator, name).state_dict())
    return found if new is None else found | {"transform": estimator.transform(new)}


def fitted(
    method: str | type,
    data: Callable[[], Rows] = digits,
    labels: bool = False,
    graph: Callable[[], Any] | None = None,
    **parameters: Any,
) -> Found:
    """Fit ``data`` and place rows that were not in the fit."""
    X, y, new = data()
    given = {} if graph is None else {"graph": graph()}
    estimator = make(method, **parameters).fit(X, y if labels else None, **given)
    return described(estimator, new)


def case(method: str | type, **options: Any) -> Callable[[], Found]:
    """Return the case of a fit; see `fitted`."""
    return functools.partial(fitted, method, **options)


def of_methods() -> Cases:
    """Return every method on each of its paths."""
    everyone = (*GRADIENTS, *EXACT, "COSNE")
    paths: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
        "default": (everyone, {}),
        "3 threads": (everyone, {"n_jobs": 3}),
        "autograd": (GRADIENTS, {"gradient": "autograd"}),
        "dense": (EXACT, {"repulsion": "dense"}),
        "float64": (everyone, {"dtype": "float64", "max_iter": 20}),
        "encoder": ((*SAMPLED, "TSNE", "SNE"), BATCHES),
        "3-D": ((*GRADIENTS, *EXACT), {"n_components": 3}),
        "4-D": (("UMAP", "InfoTSNE", "TSNE"), {"n_components": 4}),
        "Adam": (("NegTSNE", "NCVis", "TSNE"), {"optimizer": "Adam", "learning_rate": 0.1}),
        "given graph": (everyone, {"graph": given_graph}),
        "given start": (("NegTSNE", "TSNE"), {"init": start()}),
        "spectral start": (("UMAP", "TSNE"), {"init": "spectral"}),
        "random start": (("UMAP", "TSNE"), {"init": "random"}),
        "cosine": ((*GRADIENTS, "TSNE"), {"metric": "cosine"}),
        "manhattan": ((*GRADIENTS, "TSNE"), {"metric": "manhattan"}),
        "no neighbour repels": (("NegTSNE", "InfoTSNE"), {"discard_neighbors": True}),
        "no neighbour repels, autograd": (
            ("NegTSNE", "InfoTSNE"),
            {"discard_neighbors": True, "gradient": "autograd"},
        ),
    }
    return {f"{name}, {path}": case(name, **options) for path, (names, options) in paths.items() for name in names}


def of_sizes() -> Cases:
    """Return fits of so many rows that grids and lists serve them: above 4 096, 6 000 and 16 384."""
    some, many = functools.partial(clouds, 7000), functools.partial(clouds, 17_000)
    return {
        "7 000 rows, TSNE": case("TSNE", data=some),
        "7 000 rows, TSNE, 3 threads": case("TSNE", data=some, n_jobs=3),
        "7 000 rows, UMAP, cosine": case("UMAP", data=some, metric="cosine"),
        "7 000 rows, NegTSNE, manhattan": case("NegTSNE", data=some, metric="manhattan"),
        "7 000 rows, PACMAP": case("PACMAP", data=some),
        "17 000 rows, NegTSNE": case("NegTSNE", data=many),
        "17 000 rows, NegTSNE, 3 threads": case("NegTSNE", data=many, n_jobs=3),
        "17 000 rows, UMAP, cosine": case("UMAP", data=many, metric="cosine"),
        "17 000 rows, InfoTSNE": case("InfoTSNE", data=many, max_iter=20),
    }
