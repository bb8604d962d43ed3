"""A scatter plot of one embedding."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from torchdr_cne.evaluation._inputs import as_points
from torchdr_cne.plotting._colors import Coloring, color_points
from torchdr_cne.plotting._key import LegendPlace, add_key, check_legend, key_width
from torchdr_cne.plotting._labels import Names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

_SIDE_INCHES = 5.0
_RASTERIZED_FROM = 5_000


def scatter(
    embedding: Any,
    labels: Any = None,
    *,
    ax: "Axes | None" = None,
    title: str | None = None,
    point_size: float | None = None,
    alpha: float | None = None,
    cmap: "str | Colormap | None" = None,
    legend: LegendPlace = "auto",
    rasterized: bool | Literal["auto"] = "auto",
    max_categories: int = 40,
    names: Names = None,
) -> "Axes":
    """Draw a 2-D embedding, coloured by classes or by numbers.

    Points are drawn in a fixed random order, so that no class hides another. Points without a label are grey and
    lie below the others.

    Parameters
    ----------
    embedding : array or tensor of shape (n, 2)
        The embedding; tensors may be on any device.
    labels : array, tensor or pandas Series of shape (n,), optional
        Labels of the points. Strings, booleans and categoricals are classes, and so are integers if there are at most
        ``max_categories`` different ones or if they have ``names``. Other integers and floats are numbers on a colour
        map. Points with NaN or None are drawn in grey.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a separate figure, which pyplot does not manage:
        ``scatter(embedding).figure.savefig("map.png")``.
    title : str, optional
        Title of the axes.
    point_size : float, optional
        Area of a point in points² (1/72 inch squared), as in matplotlib. The default is ``250 n**-0.55`` on axes of
        5 × 5 inches (8.2 for 500 points, 0.54 for 70 000, 0.13 for a million) and in proportion to the area of
        the axes.
    alpha : float, optional
        Opacity of a point. The default is ``(n / 1000)**-0.12``, at most 0.9: 0.9 for 500 points, 0.60 for 70 000,
        0.44 for a million.
    cmap : str or matplotlib colour map, optional
        Colour map. The default is viridis for numbers and, for classes, a palette that extends Tableau's to any
        number of colours.
    legend : {"auto", "outside", "inside", "none"}, default="auto"
        Where the legend of classes is. ``"auto"`` is outside, to the right, which needs room beside your own axes
        (``layout="constrained"`` makes it). Numbers get a colour bar unless this is ``"none"``.
    rasterized : bool or "auto", default="auto"
        Whether PDF and SVG files hold the points as an image. ``"auto"`` does so from 5 000 points on, as the files
        would otherwise be large and slow.
    max_categories : int, default=40
        Largest number of classes in the legend (if there are more, the largest classes are listed), and of different
        integers that count as classes.
    names : sequence or mapping of str, optional
        Names of the classes in the legend: a list for labels 0, 1, …, or a dict ``{label: name}``.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, whose first collection holds the points.

    Raises
    ------
    ValueError
        If the embedding is not (n, 2) or not finite, or if labels, names or an option are not valid.

    Examples
    --------
    >>> import numpy as np
    >>> from torchdr_cne.plotting import scatter
    >>> ax = scatter(np.random.default_rng(0).normal(size=(100, 2)), np.arange(100) % 3, title="Noise")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['0', '1', '2']
    """
    points = as_planar(embedding, "embedding")
    check_legend(legend)
    coloring = color_points(len(points), labels, cmap, max_categories, names)
    axes_inches2 = _SIDE_INCHES**2
    if ax is None:
        ax = own_axes(key_width(coloring, legend), _SIDE_INCHES)
    else:
        axes_inches2 = area_of(ax)
    if point_size is None:
        point_size = default_point_size(len(points), axes_inches2)
    draw_points(ax, points, coloring, point_size, alpha, rasterized)
    if title is not None:
        ax.set_title(title)
    add_key(ax.figure, [ax], coloring, legend)
    return ax


def as_planar(embedding: Any, name: str) -> np.ndarray:
    """Return the embedding as an array (n, 2); raise a ValueError if it has other columns or no rows."""
    points = as_points(embedding, name)
    if points.shape[1] != 2 or len(points) == 0:
        raise ValueError(
            f"{name} has shape {points.shape} and a plot needs (n, 2) with n ≥ 1; choose two columns, "
            f"as in {name}[:, :2], or embed with n_components=2"
        )
    return points


def default_point_size(n: int, axes_inches2: float = _SIDE_INCHES**2) -> float:
    """Return the area of a point in points²: it falls with n, slower than 1 / n, and grows with the axes."""
    return 250.0 * n**-0.55 * axes_inches2 / _SIDE_INCHES**2


def area_of(ax: "Axes") -> float:
    """Return the area of the axes in square inches."""
    box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    return box.width * box.height


def default_alpha(n: int) -> float:
    """Return the opacity of a point, which falls slowly with n."""
    return min(0.9, (n / 1000) ** -0.12)


def draw_points(
    ax: "Axes",
    points: np.ndarray,
    coloring: Coloring,
    point_size: float,
    alpha: float | None,
    rasterized: bool | Literal["auto"],
) -> None:
    """Draw points on bare axes of equal aspect: first those without a label, then the rest in random order."""
    n = len(points)
    order = np.random.default_rng(0).permutation(n)
    order = order[np.argsort(~coloring.missing_n[order], kind="stable")]
    colors = coloring.rgba_n4[order]
    colors[:, 3] = default_alpha(n) if alpha is None else alpha
    ax.scatter(
        points[order, 0],
        points[order, 1],
        s=point_size,
        c=colors,
        linewidths=0,
        rasterized=n >= _RASTERIZED_FROM if rasterized == "auto" else rasterized,
    )
    shared = all(len(group.get_siblings(ax)) > 1 for group in (ax.get_shared_x_axes(), ax.get_shared_y_axes()))
    ax.set_aspect("equal", adjustable="box" if shared else "datalim")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color("lightgrey")


def own_axes(key_inches: float, side_inches: float) -> "Axes":
    """Return square axes in a separate figure, with room for the key to their right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side_inches + key_inches, side_inches), layout="constrained")
    return figure.subplots()
