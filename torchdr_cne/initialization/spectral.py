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
_MOST_PLACED = 1000
_MOST_STRETCH = 10.0
_FILLED = 0.9
"""Fraction of its disc that a component fills, so that neighbouring components do not touch."""


def spectral_embedding(graph: AffinityGraph, n_components: int, *, rows: Rows | None = None, seed: int = 0) -> Tensor:
    """Return the leading non-trivial eigenvectors of the normalised graph, (n, n_components), float32.

    A disconnected graph has one trivial eigenvector per component, which does not distinguish points within it. Each
    component is therefore embedded separately, in a disc whose area is proportional to its size. The centres of the
    discs are the principal components of the components' mean features, moved apart until no two discs overlap.
    Without features, or if these centres are too crowded, the discs are packed side by side. A warning states the
    number of components.
    """
    matrix = graph.to_scipy().astype(np.float64)
    n_parts, labels = scipy.sparse.csgraph.connected_components(matrix, directed=False)
    if n_parts == 1:
        return torch.from_numpy(_component(matrix, n_components, seed)).float()
    sizes = np.bincount(labels)
    radii = np.sqrt(sizes / len(labels))
    centres = None if rows is None else _drawn_apart(_mean_places(labels, sizes, n_components, rows), radii)
    warnings.warn(
        f"the input graph has {n_parts} connected components; each is laid out by itself and their relative "
        + ("places carry no information." if centres is None else "places come from their mean features."),
        UserWarning,
        stacklevel=3,
    )
    centres = _packed(radii, n_components) if centres is None else centres
    layout = np.empty((len(labels), n_components))
    order = np.argsort(labels, kind="stable")
    for part, members in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
        inner = _component(matrix[members][:, members], n_components, seed)
        reach = np.linalg.norm(inner, axis=1).max()
        layout[members] = centres[part] + inner * (_FILLED * radii[part] / (reach if reach > 0 else 1.0))
    return torch.from_numpy(layout).float()


def _mean_places(labels: np.ndarray, sizes: np.ndarray, n_components: int, rows: Rows) -> np.ndarray:
    """Return principal components (n_parts, d) of the components' mean features, scaled to unit spread."""
    values = rows.values.double().cpu()
    totals = torch.zeros((len(sizes), values.shape[1]), dtype=torch.float64)
    totals.index_add_(0, torch.from_numpy(labels).long(), values)
    places = pca_embedding(totals / torch.from_numpy(sizes).unsqueeze(1), n_components).numpy()
    spread = places.std(axis=0).max()
    return places / (spread if spread > 0 else 1.0)


def _drawn_apart(places: np.ndarray, radii: np.ndarray) -> np.ndarray | None:
    """Return centres moved apart until no two discs overlap; None if they would have to move too far."""
    if len(places) > _MOST_PLACED:
        return None
    first, second = np.triu_indices(len(places), k=1)
    distances = np.linalg.norm(places[first] - places[second], axis=1)
    needed = radii[first] + radii[second]
    if (needed > _MOST_STRETCH * distances).any():
        return None
    return places * max(1.0, float((needed / distances).max()))


def _packed(radii: np.ndarray, n_components: int) -> np.ndarray:
    """Return centres of discs that are packed on shelves, the largest first, or on a line in one dimension."""
    width = np.inf if n_components == 1 else 4 * np.sqrt((radii**2).sum())
    centres = np.zeros((len(radii), n_components))
    x = y = height = 0.0
    for part in np.argsort(-radii, kind="stable"):
        diameter = 2 * radii[part]
        if x > 0 and x + diameter > width:
            x, y, height = 0.0, y + height, 0.0
        height = max(height, diameter)
        centres[part, :2] = (x + radii[part], y + radii[part])[:n_components]
        x += diameter
    return centres


def _component(matrix: scipy.sparse.csr_array, n_components: int, seed: int) -> np.ndarray:
    """Return the eigenmap of a connected graph; columns have standard deviation 1, or 0 beyond its rank."""
    n = matrix.shape[0]
    degrees = matrix.sum(axis=1)
    scale = 1 / np.sqrt(np.where(degrees > 0, degrees, 1.0))
    normalised = scipy.sparse.diags_array(scale) @ matrix @ scipy.sparse.diags_array(scale)
    wanted = min(n_components + 1, n)
    if n <= max(_DENSE_BELOW, 2 * wanted + 1):
        vectors = np.linalg.eigh(normalised.toarray())[1][:, ::-1][:, :wanted]
    else:
        # (I + A)/2 has its spectrum in [0, 1], where Lanczos finds the largest eigenvalues well.
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
