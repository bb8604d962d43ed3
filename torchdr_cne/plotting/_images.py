"""Checks of images, and their conversion to 8-bit colours."""

from typing import Any

import numpy as np

from torchdr_cne.evaluation._inputs import to_numpy

_CHANNELS = (1, 3, 4)
_ROUNDING = 1e-3  # a quarter of a grey level, by which resizing may leave [0, 1]


def as_images(data: Any, name: str, leading: str) -> np.ndarray:
    """Return ``data`` as an array (*leading, H, W) or (*leading, H, W, C), without checking its values.

    ``leading`` names the axes before those of an image, as "n" or "m, k".

    Raises
    ------
    ValueError
        If ``data`` has other axes, no pixels, or a number of channels other than 1, 3 and 4.
    """
    images = to_numpy(data)
    n_leading = leading.count(",") + 1
    is_color = images.ndim == n_leading + 3 and images.shape[-1] in _CHANNELS
    if images.size and (is_color or images.ndim == n_leading + 2):
        return images
    message = (
        f"{name} has shape {images.shape}; pass ({leading}, H, W) or ({leading}, H, W, C), "
        "none of them 0, with 1, 3 or 4 channels C last"
    )
    if images.ndim == n_leading + 3 and images.shape[-3] in _CHANNELS:
        move = "movedim" if hasattr(data, "movedim") else "moveaxis"
        library = "torch" if move == "movedim" else "np"
        message += f", as in {library}.{move}({name}, -3, -1)"
    raise ValueError(message)


def to_rgba(images: np.ndarray, name: str, n_leading: int = 1) -> np.ndarray:
    """Return images as uint8 (..., H, W, 4); grey is repeated, and images without opacity become opaque.

    Raises
    ------
    ValueError
        If the values are not uint8, booleans or floats in [0, 1].
    """
    pixels = _as_bytes(images, name)
    if pixels.ndim == n_leading + 2:
        pixels = pixels[..., None]
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    if pixels.shape[-1] == 3:
        opaque = np.full_like(pixels[..., :1], 255)
        pixels = np.concatenate([pixels, opaque], axis=-1)
    return pixels


def _as_bytes(images: np.ndarray, name: str) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "bf":
        raise ValueError(
            f"{name} has dtype {images.dtype}; pass uint8, as in {name}.astype('uint8') if its values are 0 to 255, "
            "or floats in [0, 1]"
        )
    low, high = float(images.min()), float(images.max())  # NaN if any value is NaN
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise ValueError(
            f"{name} holds floats from {low:.3g} to {high:.3g}; scale them to [0, 1], "
            f"as in ({name} - {name}.min()) / ({name}.max() - {name}.min()), or pass uint8"
        )
    return np.rint(np.clip(images.astype(np.float32), 0, 1) * 255).astype(np.uint8)
