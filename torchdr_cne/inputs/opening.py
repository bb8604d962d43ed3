"""Functions that open a path, a pattern or a folder as a row source."""

import glob
import os
import re
import warnings
from collections.abc import Sequence
from fnmatch import fnmatch
from os import PathLike
from pathlib import Path

from torchdr_cne.inputs.chunked import ParquetSource, ZarrSource
from torchdr_cne.inputs.sources import ConcatenatedSource, NpySource, RowSource

SHARD_ENDINGS = (".npy", ".parquet")
_ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")
Paths = str | PathLike[str] | Sequence[str | PathLike[str]]


def open_rows(path: Paths, *, columns: Sequence[str] | None = None, array: str | None = None) -> RowSource:
    """Return a source of the rows of a table that need not fit into memory; no row is read yet.

    Parameters
    ----------
    path : str, Path, or a list of them
        An npy or parquet file; a zarr folder; a folder of npy or parquet files; or a pattern such as
        ``"shards/*.npy"``. The files of a folder or a pattern are in natural order (shard-10 after shard-9), those of
        a list in the order of the list.
    columns : sequence of str, optional
        Columns of parquet files to read, in this order; by default all that hold numbers, with one warning that
        names the others.
    array : str, optional
        Name of the array inside a zarr group; by default the only one.

    Returns
    -------
    RowSource
        A source with at least one row and one column.

    Raises
    ------
    FileNotFoundError
        If the file does not exist, or no file matches.
    ValueError
        If a file is damaged, has an unknown ending, is not two-dimensional or not numeric, or does not match the
        others, or if there are no rows.
    ImportError
        If the package that reads the format is not installed; the message says how to install it.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from torchdr_cne.inputs import open_rows
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for shard in range(3):
    ...         np.save(f"{folder}/shard-{shard}.npy", np.full((4, 2), shard))
    ...     rows = open_rows(f"{folder}/shard-*.npy")
    ...     print(rows.shape, rows.read(3, 5).tolist())
    (12, 2) [[0, 0], [1, 1]]
    """
    parts = [_open_file(file, columns, array) for file in files_of(path)]
    left_out = {name: None for part in parts if isinstance(part, ParquetSource) for name in part.left_out}
    if left_out:
        shown = ", ".join(list(left_out)[:5]) + (", …" if len(left_out) > 5 else "")
        warnings.warn(f"columns of {_text(path)} that are not numbers are left out: {shown}", stacklevel=2)
    source = parts[0] if len(parts) == 1 else ConcatenatedSource(parts)
    if len(source) == 0:
        raise ValueError(f"{_text(path)} has no rows; a table of numbers is needed")
    return source


def files_of(path: Paths) -> list[Path]:
    """Return the files (and zarr folders) that a path, a pattern or a list of these stands for."""
    if not isinstance(path, (str, PathLike)):
        files = [file for entry in path for file in files_of(entry)]
        if not files:
            raise ValueError("an empty list of files was given; name at least one")
        return files
    found = Path(path)
    if found.is_file() or _is_zarr(found):
        return [found]
    if found.is_dir():
        return _shards_in(found)
    if not is_pattern(path):
        raise FileNotFoundError(f"{found} does not exist; give a file, a folder or a pattern such as shards/*.npy")
    matches = [Path(match) for match in glob.glob(str(path), recursive=True)]
    files = [match for match in matches if match.is_file() or _is_zarr(match)]
    if not files:
        raise FileNotFoundError(f"no file matches {path}; look at the folder and the ending")
    return sorted(files, key=_natural)


def would_have(path: str | PathLike[str], file: Path) -> bool:
    """Return whether a folder of shards, a zarr folder or a pattern stands for ``file`` too, once that exists."""
    whole = file.resolve()
    if is_pattern(path):
        pattern = os.path.abspath(path)
        return fnmatch(str(whole), pattern) if "**" in pattern else whole.match(pattern)
    folder = Path(path)
    if _is_zarr(folder):
        return whole.is_relative_to(folder.resolve())
    endings = {shard.suffix for shard in folder.iterdir()} & {*SHARD_ENDINGS} if folder.is_dir() else set()
    return len(endings) == 1 and whole.parent == folder.resolve() and file.suffix in SHARD_ENDINGS


def is_pattern(path: str | PathLike[str]) -> bool:
    """Return whether a path is a pattern, and not the name of something that exists."""
    return any(character in str(path) for character in "*?[") and not Path(path).exists()


def _open_file(path: Path, columns: Sequence[str] | None, array: str | None) -> RowSource:
    is_zarr = _is_zarr(path)
    if array is not None and not is_zarr:
        raise ValueError(f"array={array!r} names an array of a zarr group, and {path} is none; leave it out")
    if columns is not None and path.suffix != ".parquet":
        raise ValueError(f"columns= names columns of parquet files, and {path} is none; leave it out")
    if is_zarr:
        return ZarrSource(path, array)
    if path.suffix == ".npy":
        return NpySource(path)
    if path.suffix == ".parquet":
        return ParquetSource(path, columns)
    raise ValueError(f"{path} has an unknown ending; .npy and .parquet files and .zarr folders are read")


def _shards_in(folder: Path) -> list[Path]:
    shards = [file for file in folder.iterdir() if file.suffix in SHARD_ENDINGS and file.is_file()]
    endings = sorted({file.suffix for file in shards})
    if not endings:
        raise FileNotFoundError(f"the folder {folder} holds no .npy or .parquet file and is no zarr array")
    if len(endings) > 1:
        raise ValueError(f"the folder {folder} holds {' and '.join(endings)} files; choose with {folder}/*{endings[0]}")
    return sorted(shards, key=_natural)


def _is_zarr(path: Path) -> bool:
    return path.is_dir() and (path.suffix == ".zarr" or any((path / name).is_file() for name in _ZARR_FILES))


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Return a sort key by which the numbers in a name are sorted as numbers."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", str(path))], str(path)


def _text(path: Paths) -> str:
    return str(path) if isinstance(path, (str, PathLike)) else ", ".join(map(str, path))
