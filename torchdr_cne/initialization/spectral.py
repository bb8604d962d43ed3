"""Laplacian eigenmaps of the input graph, component by component (Belkin & Niyogi, 2003)."""

import warnings

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.initialization.pca import pca_embedding
from torchdr_cne.inputs import Rows

_DENSE_BELOW = 400
_TOLERANCE = 1e-3


def spectral_embedding(
    graph: AffinityGraph, n_components: int, *, rows: Rows | None = None, seed: int = 0
) -> Tensor:
    """Return the leading non-trivial eigenvectors of the normalised graph, (n, n_components), float32.

    A disconnected graph has one trivial eigenvector a component, which says nothing within components. Each
    component is therefore laid out by itself, with width in proportion to the root of its size, around
    centres that are the principal components of the components' mean features (on a line where
    there are no features); a warning names the number of components.
    """
    matrix = graph.to_scipy().astype(np.float64)
    n_parts, labels = scipy.sparse.csgraph.connected_components(matrix, directed=False)
    if n_parts == 1:
        return torch.from_numpy(_component(matrix, n_components, seed)).float()
    warnings.warn(
        f"the input graph has {n_parts} connected components; each is laid out by itself and their relative "
        "places come from the components' mean features.",
        UserWarning,
        stacklevel=3,
    )
    centres, sizes = _component_centres(labels, n_parts, n_components, rows)
    layout = np.empty((len(labels), n_components))
    order = np.argsort(labels, kind="stable")
    for part, members in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
        inner = _component(matrix[members][:, members], n_components, seed)
        width = 0.5 * np.sqrt(len(members) / len(labels))
        layout[members] = centres[part] + width * inner
    return torch.from_numpy(layout).float()


def _component_centres(
    labels: np.ndarray, n_parts: int, n_components: int, rows: Rows | None
) -> tuple[np.ndarray, np.ndarray]:
    """Centres (n_parts, d) of unit spread, and component sizes."""
    sizes = np.bincount(labels, minlength=n_parts)
    if rows is None:
        centres = np.zeros((n_parts, n_components))
        centres[:, 0] = np.arange(n_parts)
    else:
        values = rows.values.double().cpu()
        totals = torch.zeros((n_parts, values.shape[1]), dtype=torch.float64)
        totals.index_add_(0, torch.from_numpy(labels).long(), values)
        means = totals / torch.from_numpy(sizes).unsqueeze(1)
        centres = pca_embedding(means, n_components).numpy()
    spread = centres.std(axis=0).max()
    return centres / (spread if spread > 0 else 1.0), sizes


def _component(matrix: scipy.sparse.csr_array, n_components: int, seed: int) -> np.ndarray:
    """Eigenmap of one connected graph, columns of standard deviation 1 (0 beyond its rank)."""
    n = matrix.shape[0]
    degrees = matrix.sum(axis=1)
    scale = 1 / np.sqrt(np.where(degrees > 0, degrees, 1.0))
    normalised = scipy.sparse.diags_array(scale) @ matrix @ scipy.sparse.diags_array(scale)
    wanted = min(n_components + 1, n)
    if n <= max(_DENSE_BELOW, 2 * wanted + 1):
        vectors = np.linalg.eigh(normalised.toarray())[1][:, ::-1][:, :wanted]
    else:
        # Half of (I + A) has its spectrum in [0, 1]: large eigenvalues only, as Lanczos likes them.
        shifted = (scipy.sparse.eye_array(n, format="csr") + normalised) / 2
        start = np.random.default_rng(seed).standard_normal(n)
        values, vectors = scipy.sparse.linalg.eigsh(
            shifted, k=wanted, which="LA", v0=start, tol=_TOLERANCE, maxiter=20 * n, ncv=max(32, 4 * wanted)
        )
        vectors = vectors[:, np.argsort(-values)]
    vectors = vectors[:, 1:] * scale[:, None]
    layout = np.zeros((n, n_components))
    deviation = vectors.std(axis=0)
    keep = deviation > 1e-12 * np.abs(vectors).max(initial=0.0)
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None, :], axis=0)
    signs = np.where(largest < 0, -1.0, 1.0)
    oriented = signs * (vectors - vectors.mean(axis=0)) / np.where(keep, deviation, 1.0)
    layout[:, : vectors.shape[1]] = np.where(keep, oriented, 0.0)
    return layout
