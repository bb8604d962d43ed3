"""Mini-batches of images: two random views of each for training, and unchanged images for everything else."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from torchdr_cne.checks import COUNT
from torchdr_cne.distributed import Ranks
from torchdr_cne.hashing import mix, reproducible, stream_key
from torchdr_cne.images.augmentation import View, as_floats, as_tensor, fitted, size_of
from torchdr_cne.images.modes import UnreadableImageError
from torchdr_cne.images.sources import (
    ImageSet,
    as_image,
    generators_kept,
    listed,
    seed_generators,
)
from torchdr_cne.inputs import PositivePairs
from torchdr_cne.networks.batches import Epochs

INCLUDED = "is_included"
_VIEWS = 16
"""Purpose of the random numbers of views; see `torchdr_cne.hashing.stream_key`."""
_OURS = ("batch_size", "shuffle", "sampler", "batch_sampler", "num_workers", "collate_fn", "drop_last", "generator")


@dataclass(frozen=True)
class Loading:
    """How images become mini-batches.

    Attributes
    ----------
    size : (int, int)
        Height and width that images are brought to.
    view : callable, "is_included" or None
        Function from an image to a random view; "is_included" is for data sets whose images are views already, or pairs
        of views; None leaves images as they are.
    batch_size : int
        Number of images in a mini-batch.
    num_workers : int
        Number of processes that read and augment; with 0 this process does.
    options : mapping
        Further keywords of `torch.utils.data.DataLoader`.
    """

    size: tuple[int, int]
    view: View | str | None
    batch_size: int
    num_workers: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def loader(self, data: Dataset[Any], batches: Any) -> Iterator[Any]:
        """Return an iterator over mini-batches of items; no global random number is drawn."""
        with reproducible(0):
            loader = DataLoader(data, batch_sampler=batches, num_workers=self.num_workers, **self.options)
            return iter(loader)


def check_options(options: Mapping[str, Any] | None) -> None:
    """Raise a ValueError if ``options`` has keywords of a DataLoader that this package sets."""
    ours = sorted(set(options or {}) & set(_OURS))
    if ours:
        raise ValueError(
            f"dl_kwargs has {', '.join(ours)}, which the estimator sets; use its own parameters batch_size and "
            "num_workers, and leave out the rest."
        )


class _Views(Dataset[Any]):
    """A data set whose item (number, key) is two views of image ``number``, drawn from ``key``."""

    def __init__(self, images: ImageSet, loading: Loading) -> None:
        self._images, self._loading = images, loading

    def __getitems__(self, asked: Sequence[tuple[int, int]]) -> list[tuple[Tensor, Tensor]]:
        with generators_kept():
            return [self._two(number, key) for number, key in asked]

    def _two(self, number: int, key: int) -> tuple[Tensor, Tensor]:
        view, size = self._loading.view, self._loading.size
        seed_generators(key)
        if callable(view):
            image, _ = self._images.item(number)
            first, second = (as_image(view(image), "what data_transform gives") for _ in range(2))
        else:
            first, _ = self._images.item(number)
            if isinstance(first, (tuple, list)):
                first, second = first[:2]
            else:
                second, _ = self._images.item(number)
        return as_tensor(fitted(first, size)), as_tensor(fitted(second, size))


class _Plain(Dataset[Any]):
    """A data set of unchanged images with their labels, −1 where there is none."""

    def __init__(self, images: ImageSet, size: tuple[int, int]) -> None:
        self._images, self._size = images, size

    def __getitems__(self, numbers: Sequence[int]) -> list[tuple[Tensor, int]]:
        with generators_kept():
            return [self._one(number) for number in numbers]

    def _one(self, number: int) -> tuple[Tensor, int]:
        seed_generators(number)  # a data set of views may draw even here
        image, label = self._images.item(number)
        image = image[0] if isinstance(image, (tuple, list)) else image
        return as_tensor(fitted(image, self._size)), _as_code(label)


def _as_code(label: Any) -> int:
    """Return a label if it is a whole number, and −1 for any other label, such as a name."""
    value = label.item() if hasattr(label, "item") else label
    is_whole = isinstance(value, (int, float)) and float(value).is_integer()
    return int(value) if is_whole else -1


class _Asked:
    """The endless batches (number, key) of a rank, from one step on."""

    def __init__(self, epochs: Epochs, seed: int, first: int, length: int, ranks: Ranks) -> None:
        self._settings = epochs, seed, first, length, ranks.rank, ranks.size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epochs, seed, step, length, rank, size = self._settings
        while True:
            key = stream_key(seed, step // length, _VIEWS)
            yield [(number, mix(key + number)) for number in epochs.batch(step)[rank::size].tolist()]
            step += 1


class ImagePairs(PositivePairs):
    """Pairs of two views of an image; each image occurs once an epoch, in random order.

    A view depends only on the seed, the epoch and the image, and not on workers or ranks.

    Parameters
    ----------
    images : ImageSet
        The images.
    loading : Loading
        How the images are read.
    """

    def __init__(self, images: ImageSet, loading: Loading) -> None:
        if len(images) < 2:
            raise ValueError(f"{len(images)} image makes no contrast; pass two or more.")
        self.images, self._loading = images, loading
        self.labels: Tensor | None = None
        n_batches = max(1, -(-len(images) // loading.batch_size))
        self._n_batches = min(n_batches, len(images) // 2)

    def __len__(self) -> int:
        """Return the number of mini-batches in an epoch."""
        return self._n_batches

    def stream(self, first: int, seed: int, ranks: Ranks) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield mini-batches of views of this rank's images, from mini-batch number ``first`` on."""
        epochs = Epochs(len(self.images), len(self), len(self), seed)
        asked = _Asked(epochs, seed, first, len(self), ranks)
        with reading(self.images):
            for views in self._loading.loader(_Views(self.images, self._loading), asked):
                yield as_floats(views[0]), as_floats(views[1])

    def first_members(self) -> Iterator[Tensor]:
        """Yield the unchanged images in their order; after the last one, ``labels`` (n,) are known."""
        labels = []
        for images, some in plain_batches(self.images, self._loading):
            labels.append(some)
            yield images
        self.labels = torch.cat(labels)


def plain_batches(images: ImageSet, loading: Loading) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield mini-batches of images (b, C, H, W) as they are, and of their labels (b,), in their order."""
    size = loading.batch_size
    batches = [list(range(start, min(start + size, len(images)))) for start in range(0, len(images), size)]
    with reading(images):
        for found, labels in loading.loader(_Plain(images, loading.size), batches):
            yield as_floats(found), labels


@contextmanager
def reading(images: ImageSet) -> Iterator[None]:
    """Turn the error of an unreadable image in the block into one that names and counts all such images."""
    try:
        yield
    except UnreadableImageError as error:
        bad = list(images.unreadable().values()) or [str(error)]
        raise ValueError(
            f"{len(bad)} of {len(images)} images cannot be read: {listed(bad)}; remove them, or set "
            "skip_unreadable=True."
        ) from None
    except RuntimeError as error:
        if "stack expects each tensor to be equal size" not in str(error):
            raise
        raise ValueError(
            f"the images do not have the same number of channels or views differ in size ({error}); convert all to "
            "RGB or grey, and let data_transform give one size."
        ) from error


def size_for(images: ImageSet, size: Any) -> tuple[int, int]:
    """Return the given height and width, or those of the first image."""
    if size is not None:
        sides = [size, size] if COUNT.admits(size) else list(size) if np.ndim(size) == 1 else []
        if len(sides) != 2 or not all(COUNT.admits(side) for side in sides):
            raise ValueError(f"image_size={size!r} must be {COUNT}, height and width, or None.")
        return int(sides[0]), int(sides[1])
    with reading(images):
        image, _ = images.item(0)
    return size_of(image[0] if isinstance(image, (tuple, list)) else image)


def sample(images: ImageSet, size: tuple[int, int], most: int) -> Tensor:
    """Return up to ``most`` images (m, C, H, W), chosen evenly from all."""
    numbers: Sequence[int] = np.unique(np.linspace(0, len(images) - 1, most).astype(int)).tolist()
    with reading(images):
        return as_floats(torch.stack([image for image, _ in _Plain(images, size).__getitems__(numbers)]))
