"""The legend or colour bar beside one or several axes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from torchdr_cne.plotting._colors import Coloring

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LegendPlace: TypeAlias = Literal["auto", "outside", "inside", "none"]

_ROWS = 20
_NAME_LENGTH = 28


def check_legend(legend: str) -> None:
    """Raise a ValueError unless ``legend`` is one of the known places."""
    if legend not in get_args(LegendPlace):
        raise ValueError(f"legend={legend!r} is not known; choose one of {', '.join(get_args(LegendPlace))}")


def key_width(coloring: Coloring, legend: LegendPlace) -> float:
    """Return the inches that the key needs beside the axes, from the number of legend columns and the name lengths."""
    if legend == "none":
        return 0.0
    if coloring.scale is not None:
        return 0.8
    if not coloring.entries or legend == "inside":
        return 0.0
    longest = max(len(shortened(name)) for name, _ in coloring.entries)
    return _n_columns(coloring) * (0.4 + 0.085 * longest)


def add_key(figure: Any, axes: Sequence["Axes"], coloring: Coloring, legend: LegendPlace) -> None:
    """Add the colour bar and the legend of ``coloring``, common to all ``axes`` of the figure."""
    if legend == "none":
        return
    if coloring.scale is not None:
        figure.colorbar(coloring.scale, ax=axes, fraction=0.05, pad=0.02).outline.set_visible(False)
    if coloring.entries:
        _add_legend(figure, axes, coloring, legend)


def _add_legend(figure: Any, axes: Sequence["Axes"], coloring: Coloring, legend: LegendPlace) -> None:
    from matplotlib.lines import Line2D

    markers = [
        Line2D([], [], linestyle="", marker="o", markersize=6, markeredgewidth=0, color=color)
        for _, color in coloring.entries
    ]
    style: dict[str, Any] = {"ncols": _n_columns(coloring), "fontsize": 9, "handletextpad": 0.2}
    style |= {"loc": "upper right", "framealpha": 0.8} if legend == "inside" else {"frameon": False}
    below = coloring.scale is not None  # the colour bar takes its place at the side
    owner: Any = axes[-1]
    if legend != "inside" and len(axes) > 1:
        owner = figure
        style["loc"] = "outside lower right" if below else "outside right center"
    elif legend != "inside":
        style["loc"] = "upper right" if below else "center left"
        style["bbox_to_anchor"] = (1.0, 0.0) if below else (1.0, 0.5)
    box = owner.legend(markers, [str(i) for i in range(len(markers))], **style)
    for text, (name, _) in zip(box.get_texts(), coloring.entries, strict=True):
        text.set_parse_math(False)  # a name is shown as it is, with any $ and leading _
        text.set_text(shortened(name))


def _n_columns(coloring: Coloring) -> int:
    return -(-len(coloring.entries) // _ROWS)


def shortened(name: str, length: int = _NAME_LENGTH) -> str:
    """Return at most ``length`` characters of the name; the last is an ellipsis if some are left out."""
    return name if len(name) <= length else name[: length - 1] + "…"
