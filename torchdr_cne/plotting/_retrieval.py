"""Pictures of query images beside the images that were found for them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from torchdr_cne.evaluation._inputs import is_missing, to_numpy
from torchdr_cne.plotting._images import as_images, to_rgba
from torchdr_cne.plotting._key import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE_INCHES = 0.9
_GAP_INCHES = 0.12
_LINE_INCHES = 0.14
_NAME_LENGTH = 14
_EQUAL, _DIFFERENT, _NEUTRAL = "#2ca02c", "#d62728", "lightgrey"


def retrieval(
    queries: Any,
    found: Any,
    *,
    query_labels: Any = None,
    found_labels: Any = None,
    similarities: Any = None,
) -> "Figure":
    """Draw each query and, in the columns beside it, the images that were found for it.

    The frame of a found image is green if it has the label of its query, red if it has another, and grey if either
    label is missing.

    Parameters
    ----------
    queries : array or tensor of shape (m, H, W) or (m, H, W, C)
        Images in uint8 or floats in [0, 1]; they are grey or have 1 (grey), 3 (RGB) or 4 (RGBA) channels last.
    found : array or tensor of shape (m, k, H, W) or (m, k, H, W, C)
        The k images found for each query, nearest first, such as ``images[neighbors]`` for neighbours (m, k).
    query_labels : array or tensor of shape (m,), optional
        Labels of the queries, which are written above them.
    found_labels : array or tensor of shape (m, k), optional
        Labels of the found images, which are written above them.
    similarities : array or tensor of shape (m, k), optional
        Numbers that are written above the found images, with two decimals.

    Returns
    -------
    matplotlib.figure.Figure
        A figure that pyplot does not manage; its axes are those of the first query, of the images found for it, of
        the second query, and so on. Columns are about 1 inch wide; give at most some twenty queries.

    Raises
    ------
    ValueError
        If the images have other shapes or values, or if labels or similarities do not have one entry per image.

    Examples
    --------
    >>> import numpy as np
    >>> from torchdr_cne.plotting import retrieval
    >>> images = np.random.default_rng(0).random((6, 8, 8))
    >>> neighbors = np.array([[1, 2], [0, 3]])
    >>> figure = retrieval(images[:2], images[neighbors], similarities=[[0.9, 0.4], [0.9, 0.5]])
    >>> [ax.get_title() for ax in figure.axes]
    ['query', '0.90', '0.40', 'query', '0.90', '0.50']
    """
    query_images, found_images = as_images(queries, "queries", "m"), as_images(found, "found", "m, k")
    m, k = found_images.shape[:2]
    if m != len(query_images) or found_images.shape[2:] != query_images.shape[1:]:
        needed = ", ".join(map(str, (len(query_images), "k", *query_images.shape[1:])))
        raise ValueError(
            f"found has shape {found_images.shape} and queries {query_images.shape}; "
            f"pass found of shape ({needed}), k images of the same size for each query"
        )
    labels_m = _entries(query_labels, (m,), "query_labels")
    labels_mk = _entries(found_labels, (m, k), "found_labels")
    similarities_mk = _entries(similarities, (m, k), "similarities")
    pixels_m, pixels_mk = to_rgba(query_images, "queries"), to_rgba(found_images, "found", n_leading=2)

    n_lines = max(1 + (query_labels is not None), (found_labels is not None) + (similarities is not None))
    axes = _grid(m, k, n_lines, query_images.shape[1] / query_images.shape[2])
    for i, query_label in enumerate(labels_m):
        _draw_image(axes[i, 0], pixels_m[i], ["query", query_label], _NEUTRAL)
        for j, (label, similarity) in enumerate(zip(labels_mk[i], similarities_mk[i], strict=True)):
            number = None if similarity is None else f"{similarity:.2f}"
            _draw_image(axes[i, j + 1], pixels_mk[i, j], [label, number], _frame_color(query_label, label))
    return axes[0, 0].figure


def _entries(values: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return one Python object for each image; None if there is no value."""
    entries = np.full(shape, None, dtype=object)
    if values is None:
        return entries
    given = to_numpy(values)
    if given.shape != shape:
        raise ValueError(f"{name} has shape {given.shape} and the images need {shape}; pass one entry an image")
    entries[...] = given.astype(object)
    entries[is_missing(given.ravel()).reshape(shape)] = None
    return entries


def _frame_color(query_label: Any, label: Any) -> str:
    if query_label is None or label is None:
        return _NEUTRAL
    return _EQUAL if query_label == label else _DIFFERENT


def _grid(m: int, k: int, n_lines: int, height_of_width: float) -> np.ndarray:
    """Return axes (m, 1 + k) with room for titles of ``n_lines``; the first column is set apart from the rest.

    The position of each axes is computed here, as a layout engine takes seconds for some hundred axes.
    """
    from matplotlib.figure import Figure

    width, height = _SIDE_INCHES, _SIDE_INCHES * height_of_width
    step_across, step_down = width + _GAP_INCHES, height + _GAP_INCHES + n_lines * _LINE_INCHES
    total = (k + 1) * step_across + 3 * _GAP_INCHES, m * step_down + _GAP_INCHES
    figure = Figure(figsize=total)
    axes = np.empty((m, k + 1), dtype=object)
    for i, j in np.ndindex(m, k + 1):
        left = (1 if j == 0 else 3) * _GAP_INCHES + j * step_across
        bottom = total[1] - (i + 1) * step_down
        axes[i, j] = figure.add_axes((left / total[0], bottom / total[1], width / total[0], height / total[1]))
    return axes


def _draw_image(ax: "Axes", pixels: np.ndarray, lines: list[Any], frame: str) -> None:
    ax.imshow(pixels)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set(color=frame, linewidth=1.0 if frame == _NEUTRAL else 2.5)
    title = "\n".join(shortened(str(line), _NAME_LENGTH) for line in lines if line is not None)
    ax.set_title(title, fontsize=8, pad=3).set_parse_math(False)
