"""The meaning of labels: classes with names, or numbers on a scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from torchdr_cne.evaluation._inputs import is_missing, to_numpy

Names: TypeAlias = Mapping[Any, str] | Sequence[str] | None


@dataclass(frozen=True)
class Classes:
    """Codes (n,) into ``names``, −1 for a missing label."""

    codes: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class Scale:
    """Float values (n,), NaN for a missing label."""

    values: np.ndarray


def read_labels(labels: Any, n: int, max_categories: int, names: Names = None) -> Classes | Scale:
    """Return n labels as classes or as numbers.

    Strings, booleans and categoricals are classes; floats are numbers. Integers are classes if there are at most
    ``max_categories`` different ones, or if the classes have ``names``.

    Raises
    ------
    ValueError
        If there are not n labels, if their type cannot be coloured, or if ``names`` does not name every class.
    """
    categorical = _categorical_of(labels)
    if categorical is not None:
        classes = Classes(np.array(categorical.codes), display_names(list(categorical.categories), names))
        _check_length(classes.codes, n)
        return classes
    raw = to_numpy(labels)
    _check_length(raw, n)
    missing = is_missing(raw)
    present = np.array(raw[~missing].tolist()) if raw.dtype == object else raw[~missing]
    if present.dtype.kind not in "bifuU" or present.ndim != 1:
        raise ValueError(f"labels of type {present.dtype} cannot be coloured; pass strings or numbers")
    if present.dtype.kind == "f":
        return _scale(present, missing)
    distinct, codes_of_present = np.unique(present, return_inverse=True)
    if present.dtype.kind in "iu" and len(distinct) > max_categories and names is None:
        return _scale(present, missing)
    codes = np.full(n, -1, dtype=np.int64)
    codes[~missing] = codes_of_present
    return Classes(codes, display_names(distinct.tolist(), names))


def _categorical_of(labels: Any) -> Any:
    """Return the pandas Categorical of a categorical Series, or ``labels`` if it is one itself, or else None."""
    if not hasattr(getattr(labels, "dtype", None), "categories"):
        return None
    accessor = labels if hasattr(labels, "codes") else getattr(labels, "cat", None)
    return accessor if hasattr(accessor, "codes") else None


def _check_length(labels: np.ndarray, n: int) -> None:
    if labels.shape != (n,):
        raise ValueError(f"labels has shape {labels.shape}, embedding has {n} rows; pass one label a row")


def _scale(present: np.ndarray, missing: np.ndarray) -> Scale:
    values = np.full(len(missing), np.nan)
    values[~missing] = present
    values[np.isinf(values)] = np.nan
    return Scale(values)


def display_names(classes: list[Any], names: Names) -> list[str]:
    """Return the displayed name of each class: its entry in ``names`` or, without them, the class as text."""
    if names is None:
        return [str(label) for label in classes]
    try:
        if any(not isinstance(names, Mapping) and label < 0 for label in classes):
            raise IndexError
        return [str(names[label]) for label in classes]
    except (LookupError, TypeError) as error:
        raise ValueError(
            f"names has {len(names)} entries and does not name every one of the classes {classes[:5]}…; "
            "pass a dict {label: name}, or for labels 0, 1, … a list of one name each"
        ) from error
