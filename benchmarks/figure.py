"""The figure of quality against time."""

from pathlib import Path
from typing import Any

from benchmarks.methods import METHODS
from benchmarks.report import summarise

_PANELS = {"recall_15": "recall@15", "accuracy": "10-NN accuracy"}
_OURS, _PEERS = "#c1442e", "#4a6070"
_LABEL_SIZE = 8
_ROW_POINTS = 9.5


def draw(results: dict[str, Any], path: Path) -> Path:
    """Draw recall@15 and accuracy of a record against seconds, save it as PNG, and return the path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    rows = summarise(results)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (quality, title) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
        for row in rows:
            color = _OURS if row["ours"] else _PEERS
            spread = [[row["seconds"] - row["fastest"]], [row["slowest"] - row["seconds"]]]
            axes.errorbar(
                row["seconds"], row[quality], xerr=spread, fmt="o" if row["ours"] else "s", color=color, ms=5, lw=1
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("seconds, features to embedding")
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(alpha=0.25, lw=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12, y=0.12)
        _label(figure, axes, rows, quality)
    settings = results["settings"]
    figure.suptitle(f"{settings['data']}, {settings['threads']} threads", fontsize=11, x=0.01, ha="left")
    partial = path.with_name(path.name + ".tmp")
    figure.savefig(partial, dpi=150, format="png")
    partial.replace(path)
    return path


def _label(figure: Any, axes: Any, rows: list[dict[str, Any]], quality: str) -> None:
    """Name the points in a free place near each, joined to it by a line where that is not beside it."""
    figure.canvas.draw()
    to_points = 72 / figure.dpi
    centres = [axes.transData.transform((row["seconds"], row[quality])) * to_points for row in rows]
    edges = axes.bbox.extents * to_points
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in centres]
    for row, (_, y) in zip(rows, centres, strict=True):
        ends = axes.transData.transform([(row[end], row[quality]) for end in ("fastest", "slowest")])[:, 0] * to_points
        taken.append((ends[0], y - 1, ends[1], y + 1))
    for row, (x, y) in zip(rows, centres, strict=True):
        width = 0.62 * _LABEL_SIZE * len(row["method"])
        places = [(7 if side > 0 else -7 - width, rise * _ROW_POINTS / 2) for rise in _rises() for side in (1, -1)]
        boxes = [(x + dx, y + dy - _ROW_POINTS / 2, x + dx + width, y + dy + _ROW_POINTS / 2) for dx, dy in places]
        free = (i for i, box in enumerate(boxes) if _is_free(box, edges, taken))
        chosen = next(free, 0)
        taken.append(boxes[chosen])
        dx, dy = places[chosen]
        axes.annotate(
            row["method"],
            (row["seconds"], row[quality]),
            xytext=(dx if dx > 0 else dx + width, dy),
            textcoords="offset points",
            ha="left" if dx > 0 else "right",
            va="center",
            fontsize=_LABEL_SIZE,
            color=_OURS if row["ours"] else _PEERS,
            fontweight="bold" if row["method"] in METHODS and row["ours"] else "normal",
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "0.6", "shrinkA": 0, "shrinkB": 3}
            if abs(dy) > 6
            else None,
        )


def _rises() -> list[int]:
    """Heights to try, nearest first."""
    return [0, *(sign * step for step in range(1, 16) for sign in (1, -1))]


def _is_free(box: tuple[float, ...], edges: Any, taken: list[tuple[float, ...]]) -> bool:
    """Tell whether ``box`` (left, bottom, right, top) lies within the axes and touches nothing."""
    inside = box[0] > edges[0] and box[1] > edges[1] and box[2] < edges[2] and box[3] < edges[3]
    return inside and not any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
    )
