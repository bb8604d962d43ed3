"""The first embedding that the ``init`` parameter describes, at the requested scale."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.affinity.graph import gathered
from torchdr_cne.distributed import Share
from torchdr_cne.initialization.comparison import better_start, is_comparable
from torchdr_cne.initialization.pca import pca_embedding
from torchdr_cne.initialization.spectral import spectral_embedding
from torchdr_cne.inputs import Rows, check_finite

INITIALIZATIONS = ("pca", "spectral", "random", "auto")
_FLAT_NOISE = 0.01


def initial_embedding(
    init: Any,
    rows: Rows | None,
    graph: AffinityGraph | None,
    n_components: int,
    scaling: float,
    seed: int,
    share: Share | None = None,
) -> Tensor:
    """Return the first embedding (n, d), float32, or float64 if ``init`` is such an array.

    Parameters
    ----------
    init : {"pca", "spectral", "random", "auto"} or array of shape (n, d)
        "auto" is "spectral" where this shows the shape of the data clearly better, and "pca" otherwise, see
        `torchdr_cne.initialization.comparison`. An array is used as it is; the others are scaled. A direction in which
        the data have no spread starts with a little noise, since forces never leave the subspace of a flat start.
    rows : Rows or None
        The features; without them (for a precomputed graph) "pca" becomes "spectral".
    graph : AffinityGraph or None
        The input graph, or this rank's rows of it; a spectral start needs it.
    n_components : int
        Dimension d.
    scaling : float
        Standard deviation of the widest column.
    seed : int
        Seed of the random numbers and of starting vectors.
    share : Share, default=None
        The rows of each rank; None is one rank with all rows.
    """
    if share is None:
        assert graph is not None
        share = Share.whole(graph.n_points)
    n = share.n
    if not isinstance(init, str):
        return _given(init, n, n_components)
    if init not in INITIALIZATIONS:
        raise ValueError(f"init={init!r} is unknown; choose one of {INITIALIZATIONS} or pass an array (n, d).")
    generator = torch.Generator().manual_seed(seed % 2**63)
    noise = torch.randn((n, n_components), generator=generator, dtype=torch.float32)
    if init == "random":
        return _scaled(noise, scaling)
    if rows is not None and rows.is_constant:
        warnings.warn(
            "all rows of X are equal, so there is no direction to start from: a random start is used and the "
            "embedding carries no information.",
            UserWarning,
            stacklevel=2,
        )
        return _scaled(noise, scaling)
    if rows is None or init == "spectral":
        assert graph is not None
        layout = _spectral(graph, share, n_components, rows, seed)
    else:
        layout = pca_embedding(rows, n_components).float().cpu()
        if init == "auto" and graph is not None and is_comparable(graph, rows, share):
            # Without weights, so that edges pull alike where points lie densely and where they do not.
            alike = replace(graph, weights=torch.ones_like(graph.weights))
            layout = better_start(graph, rows, layout, _spectral(alike, share, n_components, rows, seed))
    flat = layout.std(dim=0, correction=0) == 0
    return torch.where(flat, _scaled(noise, _FLAT_NOISE * scaling), _scaled(layout, scaling))


def _spectral(graph: AffinityGraph, share: Share, n_components: int, rows: Rows | None, seed: int) -> Tensor:
    """Return the spectral embedding, computed on rank 0, which gathers the whole graph."""
    whole = gathered(graph, share)
    layout = torch.empty((graph.n_points, n_components), dtype=torch.float32)
    with share.ranks.all_or_none("the spectral start"):
        if whole is not None:
            rows = rows if rows is not None and rows.in_memory and share.ranks.size == 1 else None
            layout = spectral_embedding(whole, n_components, rows=rows, seed=seed)
    return share.ranks.copy_from(0, layout, "the first embedding")


def _given(init: Any, n: int, n_components: int) -> Tensor:
    array = init.detach().cpu().double().numpy() if isinstance(init, Tensor) else np.asarray(init)
    if array.shape != (n, n_components):
        raise ValueError(
            f"the init array must have shape (n_samples, n_components) = {(n, n_components)}, got {array.shape}."
        )
    check_finite(array, "init")
    if n > 1 and (array == array[0]).all():
        raise ValueError("all rows of the init array are equal, and forces between equal points vanish; add noise.")
    return torch.from_numpy(array.astype(np.float64 if array.dtype == np.float64 else np.float32))


def _scaled(layout: Tensor, scaling: float) -> Tensor:
    """Return the embedding centred and scaled so that the widest column has standard deviation ``scaling``."""
    centred = layout - layout.mean(dim=0)
    return centred * (scaling / centred.std(dim=0, correction=0).max())
