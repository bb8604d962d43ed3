"""New points through the fitted networks."""

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from torchdr_cne.encoders import in_batches
from torchdr_cne.encoders.networks import takes_any_dtype
from torchdr_cne.inputs import OutputKind, RowSource, check_finite, read_new_features
from torchdr_cne.networks.training import as_input, as_tensor, read_block


def read_rows(estimator: Any, X: Any) -> tuple[Any, OutputKind]:
    """Check new rows against those of the fit; of a fit by pairs only their shape is known."""
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


def encode(estimator: Any, rows: np.ndarray | Tensor | RowSource) -> Tensor:
    """Return the places (m, d) of rows that are checked already."""
    encoder = estimator.encoder_
    return _through(encoder, rows, estimator._torch_dtype, exact=takes_any_dtype(encoder))


def decode(estimator: Any, Z: Any) -> Any:
    """Return the rows (m, f) that the decoder gives for places (m, d), in the kind of ``Z``."""
    check_is_fitted(estimator, "embedding_")
    if not hasattr(estimator, "decoder_"):
        raise ValueError(
            f"this {type(estimator).__name__} was fitted without a decoder; set encoder and decoder, for instance "
            "to 'mlp', and fit again."
        )
    places = Z if isinstance(Z, Tensor) else torch.from_numpy(np.array(Z, dtype=np.float64))
    width = estimator.embedding_.shape[1]
    if places.ndim != 2 or places.shape[1] != width:
        raise ValueError(f"Z must have shape (m, {width}), as the embedding, got {tuple(places.shape)}.")
    if not bool(torch.isfinite(places).all()):
        raise ValueError("Z contains NaN or infinity; give places as transform returns them.")
    found = _through(estimator.decoder_, places, estimator._torch_dtype, exact=False)
    return found.to(Z.device) if isinstance(Z, Tensor) else found.cpu().numpy()


def _through(network: nn.Module, rows: Any, dtype: torch.dtype, *, exact: bool) -> Tensor:
    device = next(iter(network.parameters()), torch.empty(0)).device

    def read(start: int, stop: int) -> Tensor:
        return as_input(read_block(rows, start, stop), device, dtype, exact=exact)

    return in_batches(network, read, len(rows))
