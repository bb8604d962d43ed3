"""Image files below a folder, or from a list, each of which is opened when it is requested."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchdr_cne.images.modes import UnreadableImageError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


class ImageFiles:
    """Images in files; one has at most ``PIL.Image.MAX_IMAGE_PIXELS`` pixels.

    Parameters
    ----------
    paths : sequence of Path
        The files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Any:
        from PIL import Image

        path = self._paths[number]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path) as image:
                    image.load()
                    return image
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise UnreadableImageError(
                f"{path} (more than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller, or raise "
                "PIL.Image.MAX_IMAGE_PIXELS if you trust it)"
            ) from error


def files_below(folder: Path) -> tuple[list[Path], list[int] | None, list[str]]:
    """Return the image files below a folder in the order of their names, their classes' numbers, and the classes.

    The classes are the folders in it; they are None and empty if a file lies beside these folders.

    Raises
    ------
    ValueError
        If there are no image files, or a link leads out of the folder.
    """
    if folder.suffix == ".beton":
        raise ValueError(
            f"{folder} is a file of FFCV, which is no longer maintained; pass the folder of images it was made from."
        )
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder of images; pass one that holds image files, or folders of them.")
    entries = sorted(folder.rglob("*"))
    for path in entries:
        _check_link(path, folder)
    paths = [path for path in entries if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not paths:
        raise ValueError(f"{folder} holds no image files ({', '.join(SUFFIXES)}).")
    parts = [path.relative_to(folder).parts for path in paths]
    classes = sorted({part[0] for part in parts if len(part) > 1})
    if not classes or any(len(part) == 1 for part in parts):
        return paths, None, []
    numbers = {name: number for number, name in enumerate(classes)}
    return paths, [numbers[part[0]] for part in parts], classes


def _check_link(path: Path, folder: Path) -> None:
    """Raise a ValueError if a path is a link to an image, or to a folder, outside of ``folder``."""
    if not path.is_symlink() or not (path.is_dir() or path.suffix.lower() in SUFFIXES):
        return
    target = path.resolve()
    if not target.is_relative_to(folder.resolve()):
        raise ValueError(
            f"{path} is a link out of the folder, to {target}; pass the list of files if they are meant, or remove the "
            "link."
        )
