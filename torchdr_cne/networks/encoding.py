"""Functions that apply the fitted networks to new points."""

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from torchdr_cne.encoders import in_batches
from torchdr_cne.encoders.networks import takes_any_dtype
from torchdr_cne.inputs import OutputKind, check_finite, read_new_features
from torchdr_cne.networks.training import as_input, as_tensor, read_block


def encode(encoder: nn.Module, estimator: BaseEstimator, X: Any, dtype: torch.dtype) -> np.ndarray | Tensor:
    """Return the embedding (m, d) of new rows, in the kind of ``X``.

    Parameters
    ----------
    encoder : Module
        The fitted network.
    estimator : BaseEstimator
        The fitted estimator, which knows the number and names of the features; after a fit by pairs, a row's shape.
    X : array-like, Tensor, data frame, DataLoader or RowSource of shape (m, …)
        The rows.
    dtype : torch.dtype
        Dtype to which rows are converted, unless the network takes any dtype.
    """
    rows, kind = _read_rows(estimator, X)
    return kind.wrap(_through(encoder, rows, dtype, exact=takes_any_dtype(encoder)))


def _read_rows(estimator: BaseEstimator, X: Any) -> tuple[Any, OutputKind]:
    """Return new rows, checked against those of the fit; after a fit by pairs only their shape can be checked."""
    shape = getattr(estimator, "input_shape_", None)
    if shape is None:
        return read_new_features(estimator, X)
    rows = X if isinstance(X, Tensor) else as_tensor(np.asarray(X))
    if tuple(rows.shape[1:]) != tuple(shape):
        raise ValueError(
            f"X must have shape (m, {', '.join(map(str, shape))}), as in the fit, got {tuple(rows.shape)}."
        )
    check_finite(rows.flatten(1))
    return rows, OutputKind(X.device if isinstance(X, Tensor) else None)


def decode(decoder: nn.Module, Z: Any, width: int, dtype: torch.dtype) -> np.ndarray | Tensor:
    """Return the rows (m, f) that the decoder gives for points (m, ``width``), in the kind of ``Z``."""
    points = Z if isinstance(Z, Tensor) else torch.from_numpy(np.array(Z, dtype=np.float64))
    if points.ndim != 2 or points.shape[1] != width:
        raise ValueError(f"Z must have shape (m, {width}), as the embedding, got {tuple(points.shape)}.")
    if not bool(torch.isfinite(points).all()):
        raise ValueError("Z contains NaN or infinity; give points as transform returns them.")
    found = _through(decoder, points, dtype, exact=False)
    return found.to(Z.device) if isinstance(Z, Tensor) else found.cpu().numpy()


def _through(network: nn.Module, rows: Any, dtype: torch.dtype, *, exact: bool) -> Tensor:
    device = next(iter(network.parameters()), torch.empty(0)).device

    def read(start: int, stop: int) -> Tensor:
        return as_input(read_block(rows, start, stop), device, dtype, exact=exact)

    return in_batches(network, read, len(rows))
