"""A plot of one embedding with small images at its points."""

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from torchdr_cne.plotting._colors import Coloring, color_points
from torchdr_cne.plotting._images import as_images, to_rgba
from torchdr_cne.plotting._key import LegendPlace, add_key, check_legend, key_width
from torchdr_cne.plotting._labels import Names
from torchdr_cne.plotting._palette import MISSING
from torchdr_cne.plotting._scatter import area_of, as_planar, default_point_size, draw_points, own_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

_SIDE_INCHES = 8.0
_DOT_ALPHA = 0.3
_GAP = 0.1  # between thumbnails, relative to their sides, as room for the frames
_PARTS = 8  # of a cell in each direction


def thumbnails(
    embedding: Any,
    images: Any,
    labels: Any = None,
    *,
    size: float = 0.03,
    max_images: int = 400,
    ax: "Axes | None" = None,
    title: str | None = None,
    cmap: "str | Colormap | None" = None,
    legend: LegendPlace = "auto",
    max_categories: int = 40,
    names: Names = None,
) -> "Axes":
    """Draw a 2-D embedding with images of some of its points, chosen so that no two images overlap.

    Each image is centred at its point and has a frame in the colour of its label; the other points are faint dots
    below the images. The choice is the same on every call.

    Parameters
    ----------
    embedding : array or tensor of shape (n, 2)
        The embedding; tensors may be on any device.
    images : array or tensor of shape (n, H, W) or (n, H, W, C)
        Images of the points, in uint8 or floats in [0, 1]; they are grey or have 1 (grey), 3 (RGB) or 4 (RGBA)
        channels last.
    labels : array, tensor or pandas Series of shape (n,), optional
        As in `scatter`. Without labels the frames are grey.
    size : float, default=0.03
        Longer side of an image, relative to the longer side of the embedding; from 0.001 to 1.
    max_images : int, default=400
        Largest number of images; if there is room for more, those that are drawn are farther apart.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default axes of 8 × 8 inches in a separate figure, which pyplot does not manage.
    title, cmap, legend, max_categories, names
        As in `scatter`.

    Returns
    -------
    matplotlib.axes.Axes
        The axes. Its ``images`` are the thumbnails, its first collection holds the dots, and its second the frames.

    Raises
    ------
    ValueError
        If the embedding is not (n, 2) or not finite, if there are not n images of such shapes and values, or if
        labels, names or an option are not valid.

    Notes
    -----
    A grid has cells of the size of an image. Points are tried in the order of their distance from the centres of
    their cells, and an image is drawn if it overlaps none before it. In each sixty-fourth of a cell only the first
    point is tried, so that a million points take about a second.

    Examples
    --------
    >>> import numpy as np
    >>> from torchdr_cne.plotting import thumbnails
    >>> rng = np.random.default_rng(0)
    >>> ax = thumbnails(rng.normal(size=(50, 2)), rng.random((50, 8, 8)), np.arange(50) % 3, max_images=10)
    >>> len(ax.images) <= 10
    True
    """
    points, pictures = as_planar(embedding, "embedding"), as_images(images, "images", "n")
    _check(len(points), pictures, size, max_images)
    check_legend(legend)
    coloring = color_points(len(points), labels, cmap, max_categories, names)
    sides = _sides(points, pictures.shape[1:3], size)
    chosen = choose_apart(points / (sides * (1 + _GAP)), max_images)
    pixels = to_rgba(pictures[chosen], "images")

    ax = own_axes(key_width(coloring, legend), _SIDE_INCHES) if ax is None else ax
    frames = np.tile(MISSING, (len(chosen), 1)) if labels is None else coloring.rgba_n4[chosen]
    _draw_dots(ax, points, coloring, chosen)
    _draw_images(ax, points[chosen], pixels, sides, frames)
    if title is not None:
        ax.set_title(title)
    add_key(ax.figure, [ax], coloring, legend)
    return ax


def choose_apart(points: np.ndarray, max_points: int) -> np.ndarray:
    """Return ids of at most ``max_points`` points, in rising order, whose unit squares are disjoint."""
    distance = 1.0
    while len(chosen := _choose_unit_apart(points / distance)) > max_points:
        distance *= max(1.05, float(np.sqrt(len(chosen) / max_points)))
    return np.array(chosen)


def _choose_unit_apart(points: np.ndarray) -> list[int]:
    """Return points whose unit squares are disjoint; those nearest to the centres of their unit cells come first."""
    places = points - points.min(axis=0)
    distances = ((places % 1 - 0.5) ** 2).sum(axis=1)
    taken: dict[tuple[int, int], list[int]] = {}
    for i in _candidates(places, distances):
        x, y = np.floor(places[i]).astype(int).tolist()
        near = [j for cell in product((x - 1, x, x + 1), (y - 1, y, y + 1)) for j in taken.get(cell, ())]
        if (np.abs(points[near] - points[i]).max(axis=1, initial=0.0) >= 1.0).all():
            taken.setdefault((x, y), []).append(i)
    return sorted(i for ids in taken.values() for i in ids)


def _candidates(places: np.ndarray, distances: np.ndarray) -> list[int]:
    """Return the id of the nearest point in each part of each cell, in order of distance and then of id."""
    by_distance = np.argsort(distances, kind="stable")
    parts = np.floor(places[by_distance] * _PARTS).astype(np.int64)
    firsts = np.unique(parts[:, 0] * (parts[:, 1].max() + 1) + parts[:, 1], return_index=True)[1]
    return by_distance[np.sort(firsts)].tolist()


def _check(n: int, pictures: np.ndarray, size: float, max_images: int) -> None:
    if len(pictures) != n:
        raise ValueError(f"images has shape {pictures.shape}, embedding has {n} rows; pass one image a row")
    if not 0.001 <= size <= 1:
        raise ValueError(f"size={size} is a share of the embedding's longer side; pass 0.001 to 1")
    if max_images < 1:
        raise ValueError(f"max_images={max_images} must be at least 1")


def _sides(points: np.ndarray, shape: tuple[int, ...], size: float) -> np.ndarray:
    """Return width and height of a thumbnail in units of the embedding."""
    height, width = shape
    extent = float(np.ptp(points, axis=0).max()) or 1.0
    return size * extent * np.array([width, height]) / max(width, height)


def _draw_dots(ax: "Axes", points: np.ndarray, coloring: Coloring, chosen: np.ndarray) -> None:
    rest = np.delete(np.arange(len(points)), chosen)
    of_rest = replace(coloring, rgba_n4=coloring.rgba_n4[rest], missing_n=coloring.missing_n[rest])
    dot_size = default_point_size(len(points), area_of(ax))
    draw_points(ax, points[rest], of_rest, dot_size, _DOT_ALPHA, "auto")


def _draw_images(ax: "Axes", centers: np.ndarray, pixels: np.ndarray, sides: np.ndarray, frames: np.ndarray) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.image import AxesImage

    lows, highs = centers - sides / 2, centers + sides / 2
    for (left, bottom), (right, top), picture in zip(lows, highs, pixels, strict=True):
        image = AxesImage(ax, extent=(left, right, bottom, top), origin="upper", zorder=2)
        image.set_data(picture)
        ax.add_image(image)
    unit = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    corners = lows[:, None] + unit * sides
    ax.add_collection(PolyCollection(corners, facecolors="none", edgecolors=frames, linewidths=1.5, zorder=2.1))
    ax.update_datalim(corners.reshape(-1, 2))
    ax.autoscale_view()
