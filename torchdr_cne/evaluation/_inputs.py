"""Checks of the input of all metrics, and the choice of the rows or pairs that a metric looks at."""

import operator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from torchdr_cne.checks import check_unmasked

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike

    Data: TypeAlias = ArrayLike | torch.Tensor

RandomState: TypeAlias = int | np.random.Generator | None


def to_numpy(data: Any) -> np.ndarray:
    """Return ``data`` as a NumPy array; tensors are moved to the CPU, and bfloat16 becomes float64."""
    if hasattr(data, "detach"):
        data = data.detach().cpu()
        data = (data.double() if data.is_floating_point() else data).numpy()
    return np.asarray(data)


def as_points(data: Any, name: str) -> np.ndarray:
    """Return ``data`` as a finite numeric array (n, features) in its own dtype.

    Raises
    ------
    ValueError
        If ``data`` is sparse, not numeric or not 2-D, has no columns, or holds NaN or infinite values.
    """
    check_unmasked(data, name, f"fill them with {name}.filled(…), or drop their rows")
    if hasattr(data, "toarray"):
        raise ValueError(f"{name} is a sparse {type(data).__name__}; pass {name}.toarray(), a dense array")
    points = to_numpy(data)
    if points.dtype == object:
        points = points.astype(np.float64)
    if points.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {points.dtype}; pass an array of real numbers")
    if points.ndim != 2 or points.shape[1] == 0:
        raise ValueError(
            f"{name} has shape {points.shape}; pass a 2-D array (points, features), "
            f"for one feature {name}.reshape(-1, 1)"
        )
    n_bad = int((~np.isfinite(points)).any(axis=1).sum()) if points.dtype.kind == "f" else 0
    if n_bad:
        raise ValueError(f"{name} has NaN or infinite values in {n_bad} rows; drop or impute these rows")
    return points


def as_pair(X: Any, embedding: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return both as points; raise ValueError unless they have the same number of rows."""
    points, embedded = as_points(X, "X"), as_points(embedding, "embedding")
    if len(points) != len(embedded):
        raise ValueError(
            f"X has {len(points)} rows and embedding has {len(embedded)}; "
            "pass the embedding of exactly these rows, in the same order"
        )
    return points, embedded


def is_missing(values: np.ndarray) -> np.ndarray:
    """Return a mask of NaN, None and the missing values of table libraries in a 1-D array."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype != object:
        return np.zeros(len(values), dtype=bool)
    marks = ("NAType", "NaTType")
    return np.fromiter((v is None or type(v).__name__ in marks or v != v for v in values), bool, len(values))


def as_class_codes(labels: Any, n: int) -> np.ndarray:
    """Return the n labels of an embedding as integers 0, 1, … in the sorted order of the classes."""
    return as_classes(labels, n, "labels", "embedding")[1]


def as_classes(labels: Any, n: int, name: str, data_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted classes of n labels, and the position (n,) of each label among them.

    Raises
    ------
    ValueError
        If there are not n labels, or if some are missing or are fractions instead of classes.
    """
    values = to_numpy(labels)
    if values.shape != (n,):
        raise ValueError(f"{name} has shape {values.shape}, {data_name} has {n} rows; pass one label a row")
    n_missing = int(is_missing(values).sum())
    if n_missing:
        raise ValueError(f"{name} has {n_missing} missing values; drop these rows from {name} and from all data")
    if values.dtype.kind == "f" and (values != np.floor(values)).any():
        raise ValueError(f"{name} holds fractions and the metric needs classes; bin the values first")
    classes, codes = np.unique(values, return_inverse=True)
    return classes, codes


def check_n_neighbors(n_neighbors: int, n: int, name: str = "n_neighbors") -> int:
    """Return ``n_neighbors`` as an int; raise a ValueError about ``name`` unless 1 ≤ n_neighbors < n."""
    k = operator.index(n_neighbors)
    if k < 1:
        raise ValueError(f"{name}={k} is too small; it must be at least 1")
    if k >= n:
        raise ValueError(f"{name}={k} needs more than {k} samples, got {n}; lower {name} or pass more rows")
    return k


def sample_rows(n: int, n_samples: int | None, random_state: RandomState) -> np.ndarray:
    """Return ``n_samples`` of n row ids without repetition, or all ids if there are no more, or with None."""
    if n_samples is not None and n_samples < 1:
        raise ValueError(f"n_samples={n_samples} must be at least 1; None takes all rows")
    if n_samples is None or n <= n_samples:
        return np.arange(n)
    return np.random.default_rng(random_state).choice(n, n_samples, replace=False)


def sample_pairs(n: int, n_pairs: int | None, random_state: RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Return ids (i, j), i > j, of ``n_pairs`` different pairs of n points, or of all pairs if there are fewer.

    The pairs are numbered along the rows of the lower triangle: pair t = i (i − 1) / 2 + j. The square root that
    is used here is exact in float64 for n up to 40 million.
    """
    if n < 2:
        raise ValueError(f"a pair needs at least 2 rows, got {n}; pass more rows")
    if n_pairs is not None and n_pairs < 1:
        raise ValueError(f"n_pairs={n_pairs} must be at least 1; None takes all pairs")
    total = n * (n - 1) // 2
    if n_pairs is None or total <= n_pairs:
        numbers = np.arange(total)
    else:
        numbers = np.random.default_rng(random_state).choice(total, n_pairs, replace=False, shuffle=False)
    i = ((1.0 + np.sqrt(1.0 + 8.0 * numbers)) // 2.0).astype(np.int64)
    return i, numbers - i * (i - 1) // 2
