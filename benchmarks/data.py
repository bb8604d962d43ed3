"""Feature matrices by name, from files beside the project or, for MNIST, from OpenML."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
CACHE = Path(__file__).resolve().parent / ".cache"
N_PCS = 50
_BLOCK_ROWS = 10_000


@dataclass(frozen=True)
class Dataset:
    """Features X (n, d) float32 and class labels y (n,)."""

    name: str
    X: np.ndarray
    y: np.ndarray


def load(name: str, n: int | None = None, seed: int = 0) -> Dataset:
    """Load a data set, or ``n`` of its rows drawn by ``seed`` (in their original order).

    Parameters
    ----------
    name : {"mnist", "mnist-raw", "molecules", "digits"}
        50 principal components of MNIST / 255; its 784 columns; 50 components of the molecules' fingerprints;
        scikit-learn's digits.
    n : int, optional
        Number of rows; None, or more than there are, takes all.
    seed : int, default=0
        Draws the rows.
    """
    if name not in LOADERS:
        raise ValueError(f"data {name!r} is unknown; choose one of {', '.join(LOADERS)}.")
    X, y = LOADERS[name]()
    if n is not None and n < len(X):
        rows = np.sort(np.random.default_rng(seed).choice(len(X), n, replace=False))
        X, y = X[rows], y[rows]
    return Dataset(name, np.array(X, dtype=np.float32), np.array(y, dtype=np.int64))


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def _mnist_pixels() -> tuple[np.ndarray, np.ndarray]:
    path = SHARED / "mnist.npz"
    if path.exists():
        with np.load(path) as archive:
            return archive["X"], archive["y"]
    from sklearn.datasets import fetch_openml

    try:
        X, y = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False, parser="liac-arff")
    except OSError as error:
        raise FileNotFoundError(
            f"MNIST is neither at {path} nor can it be fetched from OpenML ({error}); put mnist.npz with arrays X "
            "(70000, 784) and y there, or use --data digits."
        ) from error
    return X.astype(np.uint8), y.astype(np.int64)


def _mnist_raw() -> tuple[np.ndarray, np.ndarray]:
    return _cached("mnist-raw", _mnist_pixels)


def _mnist() -> tuple[np.ndarray, np.ndarray]:
    def compute() -> tuple[np.ndarray, np.ndarray]:
        X, y = _mnist_pixels()
        return principal_components(len(X), lambda rows: X[rows].astype(np.float32) / 255), y

    return _cached(f"mnist-pca{N_PCS}", compute)


def _molecules() -> tuple[np.ndarray, np.ndarray]:
    def compute() -> tuple[np.ndarray, np.ndarray]:
        path = SHARED / "molecules_1m.npz"
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing; put molecules_1m.npz with arrays packed_bits (1000000, 128) and y there, or use "
                "--data mnist."
            )
        with np.load(path) as archive:
            packed, y = archive["packed_bits"], archive["y"]
        return principal_components(len(packed), lambda rows: np.unpackbits(packed[rows], axis=1).astype(np.float32)), y

    return _cached(f"molecules-pca{N_PCS}", compute)


LOADERS: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "mnist": _mnist,
    "mnist-raw": _mnist_raw,
    "molecules": _molecules,
    "digits": _digits,
}


def principal_components(n: int, block: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Project ``n`` rows on their first 50 principal axes, holding one block of rows at a time.

    ``block`` maps a slice of rows to a float32 array. Each axis is signed so that its largest entry is positive.
    """
    slices = [slice(start, min(start + _BLOCK_ROWS, n)) for start in range(0, n, _BLOCK_ROWS)]
    total, products = 0.0, 0.0
    for rows in slices:
        values = block(rows)
        total = total + values.sum(axis=0, dtype=np.float64)
        products = products + (values.T @ values).astype(np.float64)
    mean = total / n
    axes = np.linalg.eigh(products / n - np.outer(mean, mean))[1][:, ::-1][:, :N_PCS]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    offset, axes = (mean @ axes).astype(np.float32), axes.astype(np.float32)
    projected = np.empty((n, axes.shape[1]), dtype=np.float32)
    for rows in slices:
        projected[rows] = block(rows) @ axes - offset
    return projected


def _cached(key: str, compute: Callable[[], tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return X and y from the cache, mapped from disk, computing them the first time."""
    paths = [CACHE / f"{key}-{part}.npy" for part in "Xy"]
    if not all(path.exists() for path in paths):
        CACHE.mkdir(exist_ok=True)
        for path, array in zip(paths, compute(), strict=True):
            partial = path.with_suffix(".tmp.npy")
            np.save(partial, array)
            partial.replace(path)
    X, y = (np.load(path, mmap_mode="r") for path in paths)
    return X, y
