"""Colours of classes: as many as needed, and as far apart as possible."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

MISSING = (0.83, 0.83, 0.83, 1.0)
UNLABELED = (0.122, 0.467, 0.706, 1.0)

# The ten colours of Tableau without its grey, which is reserved for missing labels.
_FIRST = "1f77b4 ff7f0e 2ca02c d62728 9467bd 8c564b e377c2 17becf bcbd22".split()
_QUALITATIVE_SIZE = 64


def class_colors(n_classes: int, cmap: "str | Colormap | None" = None) -> np.ndarray:
    """Return RGBA colours (n_classes, 4) in [0, 1].

    Without ``cmap`` the first colours are Tableau's. Each further one is the farthest, in the perceptual space
    OKLab, from those before it, from white and from the grey of missing labels, so that a class keeps its colour
    however many follow. A colour map of fewer than 64 colours is used in its order (and repeated), a smooth one in
    even steps.
    """
    if cmap is None:
        return np.column_stack([_farthest_colors(n_classes), np.ones(n_classes)])
    from matplotlib import colormaps

    chosen = colormaps[cmap] if isinstance(cmap, str) else cmap
    steps = np.arange(n_classes)
    if chosen.N < _QUALITATIVE_SIZE:
        return np.asarray(chosen(steps % chosen.N))
    return np.asarray(chosen(steps / max(1, n_classes - 1)))


def _farthest_colors(n_colors: int) -> np.ndarray:
    """Return colours, each the candidate farthest in OKLab from those chosen before (Glasbey et al., 2007)."""
    first = np.array([[int(color[i : i + 2], 16) / 255 for i in (0, 2, 4)] for color in _FIRST])
    levels = np.linspace(0.0, 1.0, 16)
    candidates = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    lab = _oklab(candidates)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    readable = (lab[:, 0] > 0.36) & (lab[:, 0] < 0.85) & (chroma > 0.06) & (chroma < 0.26)
    candidates, lab = candidates[readable], lab[readable]

    colors = list(first[:n_colors])
    avoided = _oklab(np.vstack([first, [MISSING[:3]], [(1.0, 1.0, 1.0)]]))
    nearest = np.linalg.norm(lab[:, None] - avoided, axis=2).min(axis=1)
    while len(colors) < n_colors:
        farthest = int(nearest.argmax())
        colors.append(candidates[farthest])
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[farthest], axis=1))
    return np.array(colors).reshape(-1, 3)


def _oklab(srgb: np.ndarray) -> np.ndarray:
    """Convert sRGB (n, 3) to OKLab (Ottosson, A perceptual color space for image processing, 2020)."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(linear @ np.array(to_lms).T) @ np.array(to_lab).T
