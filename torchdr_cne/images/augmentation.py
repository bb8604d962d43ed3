"""Functions that turn images into tensors, and into random views."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne._optional import import_optional

View = Callable[[Any], Any]


def torchvision_transforms() -> Any:
    """Return ``torchvision.transforms.v2``, or raise an error that says how to install it."""
    return import_optional("torchvision.transforms.v2", "images")


def simclr_augmentation(
    image_size: int | tuple[int, int],
    *,
    crop_scale: tuple[float, float] = (0.2, 1.0),
    flip: bool = True,
    color: bool = True,
) -> View:
    """Return SimCLR's random view (Chen et al., 2020): crop, flip, colour jitter, greyscale.

    Parameters
    ----------
    image_size : int or (int, int)
        Height and width of a view.
    crop_scale : (float, float), default=(0.2, 1.0)
        Range of the fraction of the image's area that a crop has.
    flip : bool, default=True
        Whether half of the views are mirrored left to right, which does not suit letters and digits.
    color : bool, default=True
        Whether 8 of 10 views change in brightness, contrast and saturation by up to .4 and in hue by up to .1, and 2 of
        10 become grey.

    Returns
    -------
    callable
        Function from a PIL image or a tensor (C, H, W) to another one; it draws from torch's generator.
    """
    v2 = torchvision_transforms()
    steps: list[Any] = [v2.RandomResizedCrop(_pair(image_size), scale=crop_scale, antialias=True)]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    if color:
        steps += [v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8), v2.RandomGrayscale(0.2)]
    return v2.Compose(steps)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def as_tensor(image: Any) -> Tensor:
    """Return an image as a tensor (C, H, W), of bytes or of floats.

    Parameters
    ----------
    image : PIL.Image of mode "L" or "RGB", or Tensor of shape (C, H, W) or (H, W)
    """
    if isinstance(image, Tensor):
        found = image.unsqueeze(0) if image.ndim == 2 else image
    else:
        values = np.array(image)
        found = torch.from_numpy(values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0).copy())
    if found.ndim != 3:
        raise ValueError(f"an image of shape {tuple(found.shape)} was given; (C, H, W) is needed.")
    return found if found.dtype == torch.uint8 else found.float()


def as_floats(images: Tensor) -> Tensor:
    """Return images (b, C, H, W) as floats; bytes become values in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def size_of(image: Any) -> tuple[int, int]:
    """Return height and width of an image."""
    if isinstance(image, Tensor):
        return int(image.shape[-2]), int(image.shape[-1])
    return int(image.height), int(image.width)


def fitted(image: Any, size: tuple[int, int]) -> Any:
    """Return the image scaled until it covers the given height and width, and cropped to them at its centre."""
    height, width = size_of(image)
    if (height, width) == size:
        return image
    functional = torchvision_transforms().functional
    factor = max(size[0] / height, size[1] / width)
    scaled = max(size[0], round(height * factor)), max(size[1], round(width * factor))
    return functional.center_crop(functional.resize(image, list(scaled), antialias=True), list(size))
