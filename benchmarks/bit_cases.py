"""The fits whose bits `benchmarks.bits` keeps: small, seeded, and by public names only.

A case is a function without arguments that returns what it found by the name of its part: arrays, numbers, lists.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import torchdr_cne

Found = dict[str, Any]
Cases = dict[str, Callable[[], Found]]

SAMPLED = ("NegTSNE", "UMAP", "NCVis", "InfoTSNE", "LargeVis")
GRADIENTS = (*SAMPLED, "PACMAP")
EXACT = ("TSNE", "SNE", "TSNEkhorn")

_NOT_COMPARED = {"training_rows_", "encoder_", "decoder_", "classifier_"}
"""Fitted objects of our own kinds; networks count by their weights."""
_COMMON = {"random_state": 0, "n_jobs": 1, "max_iter": 40, "check_interval": 10}
_BATCHES = {"encoder": "mlp", "batch_size": 128}


# ---- data -------------------------------------------------------------------------------------------------


@functools.cache
def digits(n: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``n`` digits (n, 64), their classes (n,), and 50 others (50, 64)."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X[:n].astype(np.float32), y[:n], X[n : n + 50].astype(np.float32)


@functools.cache
def clouds(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``n`` rows of 20 clouds of noise in 16 dimensions, and 50 others of them."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n + 50, 16)) + 3 * rng.normal(size=(20, 16))[rng.integers(20, size=n + 50)]
    return X[:n].astype(np.float32), X[n:].astype(np.float32)


@functools.cache
def given_graph() -> Any:
    """Return the union graph of the digits, which fits of other methods are given."""
    return torchdr_cne.NegTSNE(**{**_COMMON, "max_iter": 1}).fit(digits()[0]).graph_


def start(n_components: int = 2) -> np.ndarray:
    """Return a first embedding of the digits, by a seed."""
    return np.random.default_rng(1).normal(size=(600, n_components)).astype(np.float32)


# ---- what is found ----------------------------------------------------------------------------------------


def described(estimator: Any, new: Any = None) -> Found:
    """Return all that a fitted estimator shows, and where it places ``new`` rows."""
    names = [name for name in dir(estimator) if name.endswith("_") and not name.startswith("_")]
    found = {name: getattr(estimator, name) for name in names if name not in _NOT_COMPARED}
    for name in ("encoder_", "decoder_", "classifier_"):
        if getattr(estimator, name, None) is not None:
            found[name] = dict(getattr(estimator, name).state_dict())
    return found if new is None else found | {"transform": estimator.transform(new)}


def fitted(method: str, parameters: dict[str, Any], X: Any = None, y: Any = None, **given: Any) -> Found:
    """Fit the digits, or ``X``, by a method's name and place rows that were not in the fit."""
    rows, _, new = digits()
    estimator = getattr(torchdr_cne, method)(**{**_COMMON, **parameters})
    estimator.fit(rows if X is None else X, y, **given)
    if X is not None or method in ("TSNEkhorn", "AffinityMatcher", "COSNE"):
        new = None
    return described(estimator, new)


# ---- cases ------------------------------------------------------------------------------------------------


def of_methods() -> Iterator[tuple[str, Callable[[], Found]]]:
    """Give every method on each of its paths."""
    paths = {
        "default": (*GRADIENTS, *EXACT, "COSNE"),
        "autograd": GRADIENTS,
        "dense": EXACT,
        "float64": (*GRADIENTS, *EXACT, "COSNE"),
        "encoder": (*SAMPLED, "TSNE", "SNE"),
        "3-D": (*GRADIENTS, *EXACT),
        "4-D": ("UMAP", "InfoTSNE", "TSNE"),
    }
    settings: dict[str, dict[str, Any]] = {
        "default": {},
        "autograd": {"gradient": "autograd"},
        "dense": {"repulsion": "dense"},
        "float64": {"dtype": "float64", "max_iter": 20},
        "encoder": _BATCHES,
        "3-D": {"n_components": 3},
        "4-D": {"n_components": 4},
    }
    for path, methods in paths.items():
        for method in methods:
            yield f"{method}, {path}", functools.partial(fitted, method, settings[path])
    for method in paths["default"]:
        yield f"{method}, 3 threads", functools.partial(fitted, method, {"n_jobs": 3})


def cases() -> Cases:
    """Return all cases by their names."""
    return dict(of_methods())
