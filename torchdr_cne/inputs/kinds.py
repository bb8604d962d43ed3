"""Checks of data of all kinds (NumPy, torch, pandas, polars, memmap, DataLoader), and the kind of results."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_n_features, check_array, validate_data
from torch import Tensor

from torchdr_cne.inputs.columns import Columns
from torchdr_cne.inputs.frames import check_container
from torchdr_cne.inputs.rows import check_finite
from torchdr_cne.inputs.sources import RowSource

_SHUFFLING_SAMPLERS = (
    torch.utils.data.RandomSampler,
    torch.utils.data.SubsetRandomSampler,
    torch.utils.data.WeightedRandomSampler,
)


_DATASET_BATCH = 1024


@dataclass(frozen=True)
class OutputKind:
    """The form in which the embedding is returned: a tensor on ``device``, or a NumPy array if that is None."""

    device: torch.device | None = None

    def wrap(self, embedding_nd: Tensor) -> np.ndarray | Tensor:
        """Return a copy of ``embedding_nd`` that shares no memory with the fit."""
        detached = embedding_nd.detach()
        if self.device is not None:
            return detached.to(self.device, copy=True)
        return np.array(detached.cpu().numpy(), order="C")


def read_features(X: Any, name: str) -> tuple[np.ndarray | Tensor | RowSource, OutputKind, Columns]:
    """Return the table of a fit as an array, after checking it.

    Parameters
    ----------
    X : array-like, Tensor, data frame, Dataset, DataLoader or RowSource of shape (n, f)
        A torch Dataset or DataLoader is read once, in batches; of a tuple or list batch only the first entry is used.
    name : str
        Name of the estimator, for error messages.

    Returns
    -------
    features : ndarray, Tensor or RowSource of shape (n, f)
        Finite real numbers in the caller's dtype and, if possible, the caller's memory. A source is returned unread.
    kind : OutputKind
        The kind in which the embedding is returned.
    columns : Columns
        Number of features and, for data frames, their names.
    """
    if isinstance(X, RowSource):
        return X, OutputKind(), _columns_of_source(X)
    recorder = _Recorder()
    features, kind = _read_table_of(recorder, X, is_new=False, name=name)
    return features, kind, Columns(recorder.n_features_in_, getattr(recorder, "feature_names_in_", None))


class _Recorder(BaseEstimator):
    """An object on which the validation of scikit-learn records the columns of a table."""

    n_features_in_: int


def read_new_features(estimator: BaseEstimator, X: Any) -> tuple[np.ndarray | Tensor | RowSource, OutputKind]:
    """Return new rows as `read_features` does, checked against the number and names of the features of the fit."""
    if isinstance(X, RowSource):
        names = X.names if X.names is None else np.asarray(X.names, dtype=object)
        known = getattr(estimator, "feature_names_in_", None)
        if names is not None and known is not None and not np.array_equal(names, known):
            raise ValueError(f"{X.origin} has other columns than the table of the fit; pass {list(known[:5])}, ….")
        _check_n_features(estimator, X, reset=False)
        return X, OutputKind()
    return _read_table_of(estimator, X, is_new=True, name=type(estimator).__name__)


def _read_table_of(
    estimator: BaseEstimator, X: Any, *, is_new: bool, name: str
) -> tuple[np.ndarray | Tensor, OutputKind]:
    kind, at_least = OutputKind(), 1 if is_new else 2
    check_container(X)
    if isinstance(X, torch.utils.data.Dataset):
        X = torch.utils.data.DataLoader(X, batch_size=_DATASET_BATCH)
    if isinstance(X, torch.utils.data.DataLoader):
        X = _stack_batches(X)
    if isinstance(X, Tensor):
        kind = OutputKind(X.device)
        if X.device.type != "cpu":
            X = _checked_device_tensor(X.detach(), at_least)
            _check_n_features(estimator, X, reset=not is_new)
            return X, kind
        X = _as_numpy(X)
    checks = {"reset": not is_new, "ensure_all_finite": False, "ensure_min_samples": at_least, "estimator": name}
    X = validate_data(estimator, X, dtype="numeric", **checks)
    check_finite(X)
    return X, kind


def read_table(X: Any) -> np.ndarray | Tensor:
    """Return ``X``, checked as by `read_features`, if there is no estimator to record anything on."""
    check_container(X)
    if isinstance(X, Tensor):
        if X.device.type != "cpu":
            return _checked_device_tensor(X.detach(), 2)
        X = _as_numpy(X)
    X = check_array(X, dtype="numeric", ensure_all_finite=False, ensure_min_samples=2)
    check_finite(X)
    return X


def _columns_of_source(X: RowSource) -> Columns:
    if len(X) < 2:
        raise ValueError(f"{X.origin} has {len(X)} row(s); at least two are needed.")
    return Columns(X.shape[1], None if X.names is None else np.asarray(X.names, dtype=object))


def _as_numpy(X: Tensor) -> np.ndarray:
    """Return a CPU tensor as an array, in the same memory if NumPy has its dtype."""
    if X.layout != torch.strided:
        raise TypeError(f"X is a sparse tensor ({X.layout}), but dense data are required; pass X.to_dense().")
    X = X.detach()
    if X.dtype == torch.bfloat16:
        X = X.to(torch.float32)
    return X.resolve_conj().resolve_neg().numpy()


def _checked_device_tensor(X: Tensor, at_least: int) -> Tensor:
    """Return a tensor, checked here because scikit-learn can only validate tensors on the CPU."""
    if X.ndim != 2 or X.shape[0] < at_least or X.shape[1] < 1 or X.is_complex():
        raise ValueError(
            f"X must be a real tensor of shape (n_samples >= {at_least}, n_features >= 1), got shape {tuple(X.shape)} "
            f"and dtype {X.dtype}; reshape or convert it."
        )
    check_finite(X)
    return X


def _stack_batches(loader: Iterable[Any]) -> np.ndarray:
    """Return the rows of a DataLoader as one array, which doubles when it is full if the length is unknown.

    The array is float64 if the first batch is, and float32 otherwise.
    """
    batch_sampler = getattr(loader, "batch_sampler", None)
    if isinstance(getattr(batch_sampler, "sampler", None), _SHUFFLING_SAMPLERS):
        warnings.warn(
            "the DataLoader shuffles, so row i of the embedding is the i-th row it yielded, not dataset[i]; "
            "pass DataLoader(..., shuffle=False) to keep the data set's order.",
            UserWarning,
            stacklevel=4,
        )
    stacked: np.ndarray | None = None
    n_rows = 0
    for batch in loader:
        features = batch[0] if isinstance(batch, (tuple, list)) else batch
        if not isinstance(features, (Tensor, np.ndarray)):
            raise TypeError(
                f"each DataLoader batch must be a tensor, or a tuple or list that starts with one, "
                f"got {type(features).__name__}; return the features first in the data set or a collate_fn."
            )
        block = torch.as_tensor(features).detach().cpu()
        if block.ndim != 2 or block.is_complex():
            raise ValueError(
                f"each DataLoader batch must be real and 2-D (rows, features), got shape "
                f"{tuple(block.shape)} and dtype {block.dtype}; flatten the items in the data set or a "
                "collate_fn."
            )
        if stacked is None:
            dtype = np.float64 if block.dtype == torch.float64 else np.float32
            stacked = np.empty((_expected_rows(loader, len(block)), block.shape[1]), dtype=dtype)
        if block.shape[1] != stacked.shape[1]:
            raise ValueError(
                f"the DataLoader's batches differ in width: {stacked.shape[1]} features at first, then "
                f"{block.shape[1]}; every row needs the same features."
            )
        while n_rows + len(block) > len(stacked):
            stacked = np.concatenate([stacked, np.empty_like(stacked)])
        stacked[n_rows : n_rows + len(block)] = block.to(torch.from_numpy(stacked).dtype).numpy()
        n_rows += len(block)
    if stacked is None:
        raise ValueError("the DataLoader yielded no batch; it needs at least two rows.")
    return stacked[:n_rows]


def _expected_rows(loader: Iterable[Any], batch_rows: int) -> int:
    """Return the length of the data set if it is known, or else that of a batch."""
    try:
        return max(batch_rows, len(loader.dataset))  # type: ignore[attr-defined]  # the except below
    except (AttributeError, TypeError):
        return max(1, batch_rows)
