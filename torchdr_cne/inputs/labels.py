"""Functions that turn class labels of any kind into codes."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.checks import check_unmasked

UNLABELLED = -1
_SMALL, _MANY = 2, 50
"""Number of rows of a small class, and number of small classes of which there is a warning."""


def read_labels(y: Any, n: int, otherwise: str = "leave y out") -> Tensor | None:
    """Return the codes of class labels, after checking them.

    Parameters
    ----------
    y : array-like, Series or Tensor of shape (n,)
        Integers, booleans, strings or floats that are whole numbers; −1, or "-1", marks a row without a label.
    n : int
        Number of rows of the data.
    otherwise : str, default="leave y out"
        Advice that the error gives if ``y`` holds no classes.

    Returns
    -------
    Tensor of shape (n,) or None
        Codes 0, 1, … of the sorted classes, int64, and −1 for unlabelled rows; None if all rows are unlabelled.

    Raises
    ------
    ValueError
        If ``y`` has the wrong length, missing values, continuous numbers, or labels that are not numbers or strings.
    """
    check_unmasked(y, "y", "mark them by y.filled(-1)")
    values = _as_array(y)
    if values.ndim != 1:
        raise ValueError(f"y has shape {values.shape}; give one label a row in 1-D, for instance with y.ravel().")
    if len(values) != n:
        raise ValueError(f"y has {len(values)} labels but X has {n} rows; give one label a row, -1 if unknown.")
    if values.dtype.kind == "O":
        _check_known(np.array([not isinstance(value, str) and str(value) in _MISSING for value in values], dtype=bool))
        values = np.array(values.tolist())
    if values.ndim != 1 or values.dtype.kind not in "biufUS":
        raise ValueError(f"y has labels that are neither numbers nor strings (dtype {values.dtype}); number classes.")
    if values.dtype.kind == "f":
        _check_known(np.isnan(values))
        continuous = values[~np.isfinite(values) | (values != np.rint(values))]
        if len(continuous):
            raise ValueError(f"y has values such as {continuous[0]:g}, which are no classes; bin them, or {otherwise}.")
    values = values.astype(str) if values.dtype.kind == "S" else values
    unlabelled = values == (str(UNLABELLED) if values.dtype.kind == "U" else UNLABELLED)
    codes = np.full(n, UNLABELLED, dtype=np.int64)
    codes[~unlabelled] = np.unique(values[~unlabelled], return_inverse=True)[1]
    if values.dtype.kind in "iuf":
        _warn_of_regression(codes[~unlabelled], otherwise)
    return None if unlabelled.all() else torch.from_numpy(codes)


def _warn_of_regression(codes: np.ndarray, otherwise: str) -> None:
    """Warn of so many numbers that have almost no rows in common that they are rather measured than classes."""
    counts = np.bincount(codes)
    n_small = int((counts <= _SMALL).sum())
    if n_small > _MANY:
        warnings.warn(
            f"y has {len(counts)} classes, of which {n_small} have one or two rows, as a regression target has; bin "
            f"it, or {otherwise}.",
            UserWarning,
            stacklevel=2,
        )


_MISSING = {"nan", "None", "<NA>", "NaT"}
"""Texts of missing values in object arrays, by which these are recognised without importing pandas."""


def _as_array(y: Any) -> np.ndarray:
    if isinstance(y, (list, tuple)):
        return np.asarray(y, dtype=object)  # so that NaN among strings stays NaN
    if not isinstance(y, Tensor):
        return np.asarray(y)
    y = y.detach().cpu()
    return (y.double() if y.is_floating_point() else y).numpy()


def _check_known(missing: np.ndarray) -> None:
    if missing.any():
        first = int(missing.argmax())
        raise ValueError(
            f"y is NaN or None in {int(missing.sum())} rows, first in row {first}; mark unlabelled rows by -1."
        )
