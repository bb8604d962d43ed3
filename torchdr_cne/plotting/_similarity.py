"""Heatmaps of the mean cosine between classes."""

from typing import TYPE_CHECKING, Any

import numpy as np

from torchdr_cne.evaluation.similarity import class_similarity_matrix
from torchdr_cne.plotting._key import shortened
from torchdr_cne.plotting._labels import Names, display_names
from torchdr_cne.plotting._palette import MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_MOST_NUMBERED = 12
_MOST_NAMED = 100
_SIDE_INCHES = 3.4, 8.0
_CELL_INCHES = 0.42
_NAME_LENGTH = 16


def class_similarity(
    before: Any,
    labels: Any,
    after: Any = None,
    *,
    names: Names = None,
    cmap: "str | Colormap" = "viridis",
) -> "Figure":
    """Draw the similarity of classes, the mean cosine between their points, for one or two sets of features.

    Below each heatmap is its mean within classes (over the diagonal, where each class counts once) minus its mean
    between classes (over the rest). The larger this is, the better the features keep classes apart.

    Parameters
    ----------
    before : array or tensor of shape (n, f)
        Features, such as the data or the output of an untrained encoder.
    labels : array or tensor of shape (n,)
        Classes: integers, strings, booleans or whole floats, none missing.
    after : array or tensor of shape (n, g), optional
        Other features of the same rows, of any width, which are drawn beside the first on the same colour scale.
    names : sequence or mapping of str, optional
        Names of the classes: a list for labels 0, 1, …, or a dict ``{label: name}``.
    cmap : str or matplotlib colour map, default="viridis"
        Colour map, whose scale ends at 1 and begins at 0 or, if there is one, at the lowest negative mean.

    Returns
    -------
    matplotlib.figure.Figure
        A figure that pyplot does not manage. Up to 12 classes have their numbers in the cells, and up to 100 their
        names at the sides. A class of one point has no similarity within itself: its cell on the diagonal is grey
        and says "NaN" if there are numbers.

    Raises
    ------
    ValueError
        In the same cases as `torchdr_cne.evaluation.class_similarity_matrix`, which computes the numbers, or if
        ``names`` does not name a class.

    Examples
    --------
    >>> import numpy as np
    >>> from torchdr_cne.plotting import class_similarity
    >>> labels = np.arange(90) % 3
    >>> noise = np.random.default_rng(0).normal(size=(90, 3))
    >>> figure = class_similarity(noise, labels, noise + 5 * np.eye(3)[labels])
    >>> [ax.get_title() for ax in figure.axes[:2]]
    ['before', 'after']
    """
    from matplotlib.figure import Figure

    features = {"before": before} if after is None else {"before": before, "after": after}
    matrices = {}
    for title, data in features.items():
        matrices[title], classes = class_similarity_matrix(data, labels)
    shown = [shortened(name, _NAME_LENGTH) for name in display_names(classes.tolist(), names)]

    side = float(np.clip(_CELL_INCHES * len(classes), *_SIDE_INCHES))
    figure = Figure(figsize=(len(matrices) * (side + 0.6) + 0.8, side + 1.1), layout="constrained")
    axes = list(figure.subplots(1, len(matrices), squeeze=False)[0])
    scale = _common_scale(list(matrices.values()), cmap)
    for ax, (title, matrix) in zip(axes, matrices.items(), strict=True):
        _draw_heatmap(ax, matrix, scale)
        _name_rows_and_columns(ax, shown, side)
        ax.set_title(title)
        ax.set_xlabel(_contrast(matrix))
    figure.colorbar(scale, ax=axes, label="mean cosine", fraction=0.05, pad=0.02, shrink=0.8).outline.set_visible(False)
    return figure


def _common_scale(matrices: list[np.ndarray], cmap: "str | Colormap") -> "ScalarMappable":
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    chosen = (colormaps[cmap] if isinstance(cmap, str) else cmap).with_extremes(bad=MISSING)
    defined = np.concatenate([matrix[~np.isnan(matrix)] for matrix in matrices])
    return ScalarMappable(Normalize(defined.min(initial=0.0), 1.0), chosen)


def _draw_heatmap(ax: "Axes", matrix: np.ndarray, scale: "ScalarMappable") -> None:
    ax.imshow(matrix, cmap=scale.cmap, clim=scale.get_clim(), interpolation="nearest")
    ax.spines[:].set_visible(False)
    if len(matrix) > _MOST_NUMBERED:
        return
    colors = scale.to_rgba(np.ma.masked_invalid(matrix))
    for (row, column), value in np.ndenumerate(matrix):
        ink = "black" if colors[row, column, :3] @ (0.299, 0.587, 0.114) > 0.5 else "white"
        ax.text(column, row, _decimals(value), ha="center", va="center", fontsize=7, color=ink)


def _name_rows_and_columns(ax: "Axes", names: list[str], side_inches: float) -> None:
    if len(names) > _MOST_NAMED:
        ax.set_xticks([])
        ax.set_yticks([])
        return
    cell_points = 72 * side_inches / len(names)
    size = min(9.0, 0.8 * cell_points)
    turned = 90.0 if 0.65 * size * max(map(len, names)) > 0.9 * cell_points else 0.0
    ticks = range(len(names))
    texts = ax.set_xticks(ticks, names, fontsize=size, rotation=turned) + ax.set_yticks(ticks, names, fontsize=size)
    for tick in texts:
        for text in (tick.label1, tick.label2):
            text.set_parse_math(False)  # a name is shown as it is, with any $
    ax.tick_params(length=0)


def _contrast(matrix: np.ndarray) -> str:
    """Return the mean within minus the mean between classes, as text; a mean of nothing is NaN."""
    within = matrix.diagonal()[~np.isnan(matrix.diagonal())]
    between = matrix[~np.eye(len(matrix), dtype=bool)]
    low, high = (values.mean() if len(values) else np.nan for values in (between, within))
    return f"within {_decimals(high)} − between {_decimals(low)} = {_decimals(high - low)}"


def _decimals(value: float) -> str:
    return "NaN" if np.isnan(value) else f"{value:z.2f}".replace("-", "−")
