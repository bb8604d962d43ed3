"""Whether fitted attributes in a file can be those of a fit: names, kinds and shapes, held against each other.

Compiled kernels trust sizes and ids, so nothing is used before it has been checked here.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from torchdr_cne.inputs import Rows
from torchdr_cne.neighbors import KeptRows
from torchdr_cne.storage.folders import FormatError

_NETWORKS = ("encoder_", "decoder_", "classifier_")
_LARGEST_SIDE, _LARGEST_ROW = 1 << 16, 1 << 30
"""The largest height, width or number of channels of a row that is not flat, and the largest number of its values."""


def check_names(owner: type, fitted: Mapping[str, Any]) -> None:
    """Raise a FormatError unless all names are those of fitted attributes: they end in one underscore, as in `fit`.

    Names of a class's own, such as methods, and names that Python or this library uses by itself are refused.
    """
    for name in fitted:
        is_name = name.isidentifier() and name.endswith("_") and not name.startswith("_") and not name.endswith("__")
        if not is_name or hasattr(owner, name):
            raise FormatError(f"{name!r} is no name of a fitted attribute of {owner.__name__}.")


def check_results(fitted: Mapping[str, Any], n_components: Any) -> None:
    """Raise a FormatError, which names the attribute, unless fitted attributes can be those of one fit."""
    for name, (is_valid, needed) in _KINDS.items():
        if name in fitted and not is_valid(fitted[name]):
            raise FormatError(f"{name} is not {needed}.")
    if "embedding_" not in fitted:
        raise FormatError("there is no embedding_.")
    n, width = fitted["embedding_"].shape
    if width != n_components:
        raise FormatError(f"embedding_ has {width} columns, and n_components is {str(n_components)[:60]}.")
    _check_rows(fitted, n)
    graph = fitted.get("graph_")
    if graph is not None and graph.shape != (n, n):
        raise FormatError(f"graph_ has shape {graph.shape}, and embedding_ has {n} rows.")


def check_networks(fitted: Mapping[str, Any]) -> None:
    """Raise a FormatError unless just those attributes are networks that are networks in a fit."""
    for name, value in fitted.items():
        if isinstance(value, nn.Module) != (name in _NETWORKS):
            raise FormatError(f"{name} is {'' if name in _NETWORKS else 'not '}to be a network.")


def _check_rows(fitted: Mapping[str, Any], n: int) -> None:
    """Raise a FormatError unless rows, columns and names of columns fit each other and the embedding."""
    columns, names, shape = (fitted.get(name) for name in ("n_features_in_", "feature_names_in_", "input_shape_"))
    if columns is not None and names is not None and len(names) != columns:
        raise FormatError(f"feature_names_in_ has {len(names)} names, and n_features_in_ is {columns}.")
    if columns is not None and shape is not None and math.prod(shape) != columns:
        raise FormatError(f"input_shape_ is {shape}, and n_features_in_ is {columns}.")
    kept = fitted.get("training_rows_")
    if kept is not None and kept.rows.values.shape != (n, columns):
        raise FormatError(
            f"training_rows_ has shape {tuple(kept.rows.values.shape)}, and ({n}, {columns}) is needed by embedding_ "
            "and n_features_in_."
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_table(value: Any) -> bool:
    """Return whether a value is a finite table with at least one row."""
    if not isinstance(value, (np.ndarray, Tensor)) or value.ndim != 2 or not len(value):
        return False
    table = torch.as_tensor(value)
    return table.is_floating_point() and bool(torch.isfinite(table).all())


def _are_kept_rows(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, KeptRows) and are_rows(value.rows)


def are_rows(rows: Rows) -> bool:
    """Return whether rows are finite, and their centre and scale can be those of a table."""
    values, centre, scale = rows.values, rows.centre, rows.scale
    if not (_is_table(values) and isinstance(values, Tensor) and values.dtype in (torch.float32, torch.float64)):
        return False
    is_centre = isinstance(centre, Tensor) and centre.dtype == torch.float64 and centre.shape == values.shape[1:]
    is_scale = isinstance(scale, float) and math.isfinite(scale) and scale > 0
    return is_centre and is_scale and bool(torch.isfinite(centre).all()) and isinstance(rows.is_constant, bool)


def _is_graph(value: Any) -> bool:
    return isinstance(value, scipy.sparse.csr_array) and value.dtype.kind == "f" and bool(np.isfinite(value.data).all())


def _is_history(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, list) and all(map(_is_number, v)) for v in value.values())


def _is_shape(value: Any) -> bool:
    if not isinstance(value, (tuple, list)) or not all(_is_count(side) and 0 < side for side in value):
        return False
    return math.prod(value) <= _LARGEST_ROW and (len(value) == 1 or all(side <= _LARGEST_SIDE for side in value))


_COUNT = (_is_count, "a whole number >= 0")
_NUMBER = (_is_number, "a number")
_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "embedding_": (_is_table, "a finite table"),
    "training_rows_": (_are_kept_rows, "a finite table with a centre and a positive scale"),
    "graph_": (_is_graph, "a sparse matrix of finite numbers"),
    "history_": (_is_history, "lists of numbers by name"),
    "input_shape_": (_is_shape, "the shape of a row"),
    "feature_names_in_": (lambda value: isinstance(value, np.ndarray) and value.dtype == object, "names"),
    "n_features_in_": _COUNT,
    "n_iter_": _COUNT,
    "n_ranks_": _COUNT,
    "graph_start_": _COUNT,
    "n_connected_components_": _COUNT,
    "learning_rate_": _NUMBER,
    "log_z_": _NUMBER,
    "kl_divergence_": _NUMBER,
}
"""Name of a fitted attribute → whether a value can be it, and what is needed, in words."""
