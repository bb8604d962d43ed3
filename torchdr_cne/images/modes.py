"""Images of all kinds as images of bytes with one or three channels."""

from typing import Any

import numpy as np

from torchdr_cne._optional import import_optional

_GREY = ("1", "L", "LA", "La")
_OF_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_LARGEST_OF_8_BITS, _LARGEST_OF_16_BITS = 255, 65535


class UnreadableImageError(ValueError):
    """The error of an image that cannot be read."""


def as_bytes(image: Any, name: str) -> Any:
    """Return a PIL image of any mode as one of mode "L" or "RGB".

    Values of 16 bits are scaled by their type, to the 8 bits that are left, and those of mode "F" have to be in [0, 1].
    What is transparent is laid upon white.

    Raises
    ------
    UnreadableImageError
        If the range of the values does not tell how they have to be scaled, or Pillow cannot convert the mode.
    """
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in ("I", "F", *_OF_16_BITS):
        return _scaled(np.asarray(image), image.mode, name)
    try:
        if image.mode in _WITH_ALPHA or "transparency" in image.info:
            image = _on_white(image, "L" if image.mode in _GREY else "RGB")
        return image.convert("L" if image.mode in _GREY else "RGB")
    except ValueError as error:
        raise UnreadableImageError(
            f"{name} (Pillow cannot convert its mode {image.mode} to RGB; save it as RGB or grey)"
        ) from error


def _on_white(image: Any, mode: str) -> Any:
    """Return an image without transparency, laid upon white."""
    pil = import_optional("PIL.Image", "images")
    with_alpha = image if image.mode == "RGBA" else image.convert("RGBA")
    white = pil.new("RGBA", image.size, "white")
    return pil.alpha_composite(white, with_alpha).convert("RGB").convert(mode)


def _scaled(values: np.ndarray, mode: str, name: str) -> Any:
    """Return an image of mode "L" of values that are wider than a byte."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    largest = 1.0 if mode == "F" else float(_LARGEST_OF_16_BITS)
    # Whole numbers of 32 bits may also be bytes, and would then become almost black.
    is_clear = mode != "I" or high == 0 or high > _LARGEST_OF_8_BITS
    if not (0 <= low and high <= largest and is_clear):  # also where one is NaN
        advice = "floats to [0, 1]" if mode == "F" else "whole numbers to 8 or 16 bits"
        raise UnreadableImageError(f"{name} (mode {mode} with values from {low:g} to {high:g}; scale {advice})")
    pil = import_optional("PIL.Image", "images")
    return pil.fromarray(np.rint(values.astype(np.float64) * (_LARGEST_OF_8_BITS / largest)).astype(np.uint8))
