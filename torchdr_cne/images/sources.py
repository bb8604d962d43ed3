"""Access to images by number, whether they are in an array, in a folder of files or in a torch data set."""

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.hashing import reproducible
from torchdr_cne.images.files import ImageFiles, files_below
from torchdr_cne.images.modes import UnreadableImageError, as_bytes

_CHANNELS = (1, 3)
_SHOWN = 5


class ImageSet:
    """A set of images, each of which has a number.

    Parameters
    ----------
    items : sequence or map-style data set
        Items that are images, or tuples that begin with an image; it has a length.
    labels : array-like of shape (n,), default=None
        Labels of the images; None takes them from the items.
    names : sequence of str, default=None
        Names of the images in messages.
    classes : sequence of str, default=()
        Names of the classes 0, 1, …
    """

    def __init__(
        self, items: Any, labels: Any = None, names: Sequence[str] | None = None, classes: Sequence[str] = ()
    ) -> None:
        self._items, self._labels, self._names, self.classes = items, labels, names, tuple(classes)
        self.numbers: Sequence[int] = range(len(items))
        if len(items) == 0:
            raise ValueError("there are no images; the data set has length 0.")

    def __len__(self) -> int:
        return len(self.numbers)

    def item(self, number: int) -> tuple[Any, Any]:
        """Return an image, or a pair of views, and its label, None if there is none.

        Raises
        ------
        UnreadableImageError
            If the image cannot be read; the message names it.
        """
        place = self.numbers[number]
        try:
            item = self._items[place]
        except UnreadableImageError:
            raise
        except Exception as error:  # a user's data set may raise anything
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UnreadableImageError(f"{self.name(number)} ({reason})") from error
        is_tuple = isinstance(item, (tuple, list)) and len(item) > 0
        image: Any = item[0] if is_tuple else item
        rest: Any = item[1:] if is_tuple else ()
        views = image if isinstance(image, (tuple, list)) and len(image) == 2 else None
        image = (
            as_image(image, self.name(number))
            if views is None
            else [as_image(view, self.name(number)) for view in views]
        )
        if self._labels is not None:
            return image, self._labels[place]
        return image, rest[0] if len(rest) and np.ndim(rest[0]) == 0 else None

    def name(self, number: int) -> str:
        """Return the name of an image in messages."""
        place = self.numbers[number]
        return f"image {place}" if self._names is None else self._names[place]

    def unreadable(self) -> dict[int, str]:
        """Return the number of each image that cannot be read, with its name and the reason; all are tried."""
        found = {}
        for number in range(len(self)):
            try:
                self.item(number)
            except UnreadableImageError as error:
                found[number] = str(error)
        return found

    def without(self, left_out: set[int]) -> "ImageSet":
        """Return the images except for those whose numbers are given."""
        kept = ImageSet(self._items, self._labels, self._names, self.classes)
        kept.numbers = [place for number, place in enumerate(self.numbers) if number not in left_out]
        return kept


def readable(images: ImageSet, *, skip: bool) -> ImageSet:
    """Return the images, or with ``skip`` those that can be read, with a warning that names and counts the others."""
    bad = images.unreadable() if skip else {}
    if len(bad) == len(images):
        raise ValueError(f"none of the {len(images)} images can be read: {listed(list(bad.values()))}.")
    if bad:
        warnings.warn(
            f"{len(bad)} of {len(images)} images cannot be read and are left out: {listed(list(bad.values()))}.",
            UserWarning,
            stacklevel=3,
        )
    return images.without(set(bad)) if bad else images


def as_image(found: Any, name: str = "a view") -> Any:
    """Return an image as a tensor, if it is one, or as a PIL image of one or three channels.

    Raises
    ------
    TypeError
        If ``found`` is no image; the message names it.
    UnreadableImageError
        If the range of its values is not known.
    """
    if isinstance(found, Tensor):
        if found.dtype != torch.uint8 and not found.dtype.is_floating_point and found.dtype != torch.bool:
            raise UnreadableImageError(f"{name} (a tensor of {found.dtype}; uint8, or floats, are needed)")
        return found
    if isinstance(found, np.ndarray) and found.ndim in (2, 3):
        return _Arrays(found[None])[0]
    if not hasattr(found, "convert"):
        raise TypeError(
            f"{name} is a {type(found).__name__}; give PIL images, arrays (H, W) or (H, W, C), or tensors (C, H, W)."
        )
    return as_bytes(found, name)


def listed(names: Sequence[str]) -> str:
    """Return the first few of many names as text."""
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{rest}"


def open_images(X: Any) -> ImageSet:
    """Return the images that a user gives.

    Parameters
    ----------
    X : array-like of shape (n, H, W) or (n, H, W, C), torch Dataset, str, Path or ImageSet
        The images, uint8 or floats in [0, 1]; tensors may also be (n, C, H, W). The files below a folder are read in
        the order of their names, and the folders in it are their classes.

    Raises
    ------
    TypeError
        If ``X`` is no set of images, or has no length.
    ValueError
        If there is no image, or if shape or values are not those of images.
    """
    if isinstance(X, ImageSet):
        return X
    if isinstance(X, (str, Path)):
        return _of_files(*files_below(Path(X)))
    if isinstance(X, torch.utils.data.DataLoader):
        raise TypeError("a DataLoader was given; pass its dataset, since the views are drawn image by image.")
    if isinstance(X, (np.ndarray, Tensor)):
        return ImageSet(_Arrays(X))
    if not hasattr(X, "__getitem__"):
        raise TypeError(
            f"{type(X).__name__} gives no image by its number; pass an array (n, H, W, C), a folder, or a map-style "
            "torch Dataset."
        )
    try:
        len(X)
    except TypeError:
        raise TypeError(
            f"{type(X).__name__} has no length; epochs need one, so give it __len__, or pass an array or a folder."
        ) from None
    if isinstance(X, (list, tuple)) and len(X) and isinstance(X[0], (str, Path)):
        return _of_files([Path(path) for path in X])
    return ImageSet(X)


class _Arrays:
    """Images of an array, as PIL images where they are bytes, else as tensors (C, H, W)."""

    def __init__(self, images: np.ndarray | Tensor) -> None:
        shape = tuple(images.shape)
        first = isinstance(images, Tensor) and len(shape) == 4 and shape[1] in _CHANNELS and shape[3] not in _CHANNELS
        if len(shape) not in (3, 4) or (len(shape) == 4 and not first and shape[3] not in _CHANNELS):
            raise ValueError(
                f"images of shape {shape} were given; (n, H, W) or (n, H, W, C) with 1 or 3 channels is needed; "
                "reshape rows of pixels first."
            )
        values = images.detach().cpu().numpy() if isinstance(images, Tensor) else images
        values = np.moveaxis(values, 1, 3) if first else values
        if values.dtype != np.uint8:
            if values.dtype.kind not in "fb":
                raise ValueError(f"images of dtype {values.dtype} were given; uint8, or floats in [0, 1], are needed.")
            low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
            if not (0 <= low and high <= 1):  # also where one is NaN
                raise ValueError(f"images have values from {low:g} to {high:g}; scale floats to [0, 1], or pass uint8.")
        self._images = values

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> Any:
        image = self._images[number]
        image = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
        if image.dtype == np.uint8:
            from PIL import Image

            return Image.fromarray(np.ascontiguousarray(image))
        image = image[None] if image.ndim == 2 else np.moveaxis(image, 2, 0)
        return torch.from_numpy(np.array(image, dtype=np.float32))


def _of_files(paths: Sequence[Path], labels: Sequence[int] | None = None, classes: Sequence[str] = ()) -> ImageSet:
    return ImageSet(ImageFiles(paths), labels, [str(path) for path in paths], classes)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Restore the generators of torch, Python and NumPy, from which transforms may draw, after the block."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with reproducible(0):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


def seed_generators(key: int) -> None:
    """Seed the generators of torch, Python and NumPy with ``key``."""
    torch.default_generator.manual_seed(key % 2**63)
    random.seed(key)
    np.random.seed(key % 2**32)  # noqa: NPY002
