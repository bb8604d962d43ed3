"""Colours of points by their labels, and the key that explains the colours."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from torchdr_cne.plotting._labels import Names, Scale, read_labels
from torchdr_cne.plotting._palette import MISSING, UNLABELED, class_colors

if TYPE_CHECKING:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap


@dataclass(frozen=True)
class Coloring:
    """Opaque colours of points, a mask of points without a label, and the legend entries or the colour scale."""

    rgba_n4: np.ndarray
    missing_n: np.ndarray
    entries: list[tuple[str, Any]] = field(default_factory=list)
    scale: "ScalarMappable | None" = None


def color_points(n: int, labels: Any, cmap: "str | Colormap | None", max_categories: int, names: Names) -> Coloring:
    """Return the colours of n points: classes are coloured by a palette, numbers by a colour map (viridis)."""
    if labels is None:
        return Coloring(np.tile(UNLABELED, (n, 1)), np.zeros(n, dtype=bool))
    meaning = read_labels(labels, n, max_categories, names)
    if isinstance(meaning, Scale):
        return _color_by_scale(meaning.values, cmap)
    palette = np.vstack([class_colors(len(meaning.names), cmap), [MISSING]])
    counts = np.bincount(meaning.codes[meaning.codes >= 0], minlength=len(meaning.names))
    entries = _legend_entries(meaning.names, palette, counts, max_categories)
    missing = meaning.codes < 0
    return Coloring(palette[meaning.codes], missing, entries + _missing_entry(missing))


def _color_by_scale(values: np.ndarray, cmap: "str | Colormap | None") -> Coloring:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    missing = np.isnan(values)
    present = values[~missing]
    low, high = (present.min(), present.max()) if len(present) else (0.0, 1.0)
    scale = ScalarMappable(Normalize(low, high), cmap or "viridis")
    rgba = np.asarray(scale.to_rgba(values))
    rgba[missing] = MISSING
    return Coloring(rgba, missing, _missing_entry(missing), scale)


def _legend_entries(
    names: list[str], palette: np.ndarray, counts: np.ndarray, max_categories: int
) -> list[tuple[str, Any]]:
    """Return the entries of the classes that have points, in order; if there are too many, only of the largest."""
    occurring = np.flatnonzero(counts)
    shown = occurring
    if len(occurring) > max_categories:
        by_size = np.argsort(-counts, kind="stable")
        shown = np.sort(by_size[:max_categories])
    entries = [(names[code], tuple(palette[code])) for code in shown]
    if len(shown) < len(occurring):
        entries.append((f"… and {len(occurring) - len(shown)} more", (0.0, 0.0, 0.0, 0.0)))
    return entries


def _missing_entry(missing: np.ndarray) -> list[tuple[str, Any]]:
    return [("no label", MISSING)] if missing.any() else []
