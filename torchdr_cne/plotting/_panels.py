"""Several embeddings of the same points side by side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from torchdr_cne.plotting._colors import color_points
from torchdr_cne.plotting._key import LegendPlace, add_key, check_legend, key_width
from torchdr_cne.plotting._labels import Names
from torchdr_cne.plotting._scatter import as_planar, default_point_size, draw_points

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_SIDE_INCHES = 3.2
_TITLE_INCHES = 0.3


def panels(
    embeddings: Mapping[str, Any],
    labels: Any = None,
    *,
    columns: int = 4,
    point_size: float | None = None,
    alpha: float | None = None,
    cmap: "str | Colormap | None" = None,
    legend: LegendPlace = "auto",
    rasterized: bool | Literal["auto"] = "auto",
    max_categories: int = 40,
    names: Names = None,
) -> "Figure":
    """Draw several embeddings of the same points, with their keys as titles and one legend for all.

    Parameters
    ----------
    embeddings : mapping of str to array or tensor of shape (n, 2)
        Title and embedding of each panel, with the same n rows in the same order.
    labels : array, tensor or pandas Series of shape (n,), optional
        As in `scatter`.
    columns : int, default=4
        Largest number of panels in a row; four are as wide as a page.
    point_size, alpha, cmap, legend, rasterized, max_categories, names
        As in `scatter`. With ``legend="inside"`` the legend is in the last panel.

    Returns
    -------
    matplotlib.figure.Figure
        A figure that pyplot does not manage; ``figure.savefig("maps.png")`` writes it.

    Raises
    ------
    ValueError
        If there is no embedding, if one is not (n, 2) or not finite, if they differ in n, or if an option is not
        valid.
    """
    from matplotlib.figure import Figure

    check_legend(legend)
    if not embeddings or columns < 1:
        raise ValueError(f"got {len(embeddings)} embeddings and columns={columns}; pass at least one of each")
    planar = {name: as_planar(points, f"embeddings[{name!r}]") for name, points in embeddings.items()}
    n = _common_length({name: len(points) for name, points in planar.items()})
    if point_size is None:
        point_size = default_point_size(n, _SIDE_INCHES**2)
    coloring = color_points(n, labels, cmap, max_categories, names)

    n_rows = -(-len(planar) // columns)
    n_columns = -(-len(planar) // n_rows)  # five panels become three and two
    width = n_columns * _SIDE_INCHES + key_width(coloring, legend)
    figure = Figure(figsize=(width, n_rows * (_SIDE_INCHES + _TITLE_INCHES)), layout="constrained")
    axes = [figure.add_subplot(n_rows, n_columns, i + 1) for i in range(len(planar))]
    for ax, (name, points) in zip(axes, planar.items(), strict=True):
        draw_points(ax, points, coloring, point_size, alpha, rasterized)
        ax.set_title(name)
    add_key(figure, axes, coloring, legend)
    return figure


def _common_length(lengths: Mapping[str, int]) -> int:
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the embeddings have different numbers of rows, {dict(lengths)}; pass the same points")
    return next(iter(lengths.values()))
