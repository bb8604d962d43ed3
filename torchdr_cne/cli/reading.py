"""Functions that read data, labels and graphs; pickled objects are never loaded."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from torchdr_cne.cli.messages import UsageError, choose, one_line
from torchdr_cne.cli.tables import TABLES, Table
from torchdr_cne.cli.writing import check_name

ENDINGS = (".npy", ".npz", *TABLES)
_SPARSE_KEYS = {"format", "shape", "data"}


def read_matrix(name: str, *, key: str | None = None, leave_out: str | None = None) -> Any:
    """Return the array (n, f) in a file: rows of numbers, or a sparse matrix from an npz file of SciPy.

    Parameters
    ----------
    name : str
        An npy (opened as a read-only memory map, not read), npz, csv or parquet file.
    key : str, optional
        Name of the array in an npz file; by default the only one, or ``X``.
    leave_out : str, optional
        Column of a table, or array of an npz file, that holds labels and is left out.
    """
    path = existing(name)
    if key is not None and path.suffix != ".npz":
        raise UsageError(f"--key names an array of an npz file, and {path} is none; leave --key out")
    with reading(path):
        if path.suffix in TABLES:
            matrix: Any = TABLES[path.suffix](path).numbers(leave_out)
        elif path.suffix == ".npz":
            matrix = _from_npz(path, key, leave_out)
        else:
            matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(matrix, np.ndarray):
        if matrix.dtype.kind not in "biuf":
            raise UsageError(f"{path} has dtype {matrix.dtype}; real numbers are needed")
        if matrix.ndim != 2:
            raise UsageError(f"{path} has shape {matrix.shape}; rows and columns are needed, shape (n, f)")
    return matrix


def read_labels(name: str, n: int, *, key: str | None = None, column: str | None = None) -> np.ndarray:
    """Return n labels, numbers or strings, from a file: from its only column, or from the one that is named."""
    path = existing(name)
    with reading(path):
        if path.suffix in TABLES:
            _refuse("--labels-key", key, path, "an array of an npz file", "--labels-column")
            labels = _labels_of_table(TABLES[path.suffix](path), column, n)
        elif path.suffix == ".npz":
            _refuse("--labels-column", column, path, "a column of a csv or parquet file", "--labels-key")
            labels = _array_of_npz(path, key, preferred="labels")
        else:
            _refuse("--labels-column", column, path, "a column of a csv or parquet file", None)
            _refuse("--labels-key", key, path, "an array of an npz file", None)
            labels = np.load(path, allow_pickle=False)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1:
        raise UsageError(f"the labels in {path} have shape {labels.shape}; one label a row is needed, ({n},)")
    if len(labels) != n:
        raise UsageError(f"{path} has {len(labels)} labels for {n} rows; give one label a row, in order")
    labels = labels.astype(str) if labels.dtype.kind == "S" else labels
    if labels.dtype.kind not in "biufUO":
        raise UsageError(f"the labels in {path} have dtype {labels.dtype}; numbers or strings are needed")
    return labels


def column_of_labels(values: Any) -> str | None:
    """Return the column or array of the data that holds the labels; None if the options name none."""
    return None if values.labels else values.labels_column or values.labels_key


def labels_of(values: Any, n: int) -> np.ndarray | None:
    """Return the n labels that the options name, in a separate file or in the data; None if they name none."""
    if not (values.labels or column_of_labels(values)):
        return None
    return read_labels(values.labels or values.data, n, key=values.labels_key, column=values.labels_column)


def is_source(name: str) -> bool:
    """Return whether a name is a zarr folder, a folder of shards or a pattern, and not a single file."""
    from torchdr_cne.inputs.opening import is_pattern

    return Path(name).is_dir() or is_pattern(name)


def open_source(name: str, *, key: str | None = None) -> Any:
    """Return the rows of a zarr folder, a folder of npy or parquet files or a pattern, without reading them."""
    from torchdr_cne.inputs import open_rows

    try:
        return open_rows(name, array=key)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(one_line(error)) from error


def files_read(name: str) -> list[str]:
    """Return the files that a name stands for; only the name itself if it stands for nothing readable."""
    from torchdr_cne.inputs.opening import files_of

    try:
        return [str(file) for file in files_of(name)]
    except (OSError, ValueError):
        return [name]


def would_be_read(name: str, target: Path) -> bool:
    """Return whether a file that is to be written would belong to the data, the next time that they are read."""
    from torchdr_cne.inputs.opening import would_have

    return would_have(name, target)


def existing(name: str) -> Path:
    """Return the path of a file, after checking that it exists and that its ending is known."""
    path = Path(name)
    check_name("the input", path)
    if not path.is_file():
        raise UsageError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; give a file")
    if path.suffix not in ENDINGS:
        raise UsageError(f"{path} has an unknown ending; these are read: {', '.join(ENDINGS)}")
    return path


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any error that a parser raises for a damaged file into a `UsageError`."""
    try:
        yield
    except (UsageError, MemoryError):
        raise
    except ImportError as error:
        raise UsageError(one_line(error)) from error
    except Exception as error:
        problem = one_line(error)
        if "pickle" in problem or "Python objects" in problem:
            raise UsageError(
                f"{path} is no plain {path.suffix} file of numbers (pickled objects are never loaded); "
                "save an array of numbers or strings with numpy.save"
            ) from error
        raise UsageError(f"{path} cannot be read as {path.suffix}: {problem}") from error


def _from_npz(path: Path, key: str | None, leave_out: str | None) -> Any:
    if key is None and _SPARSE_KEYS <= set(_npz_names(path)):
        import scipy.sparse

        return scipy.sparse.load_npz(path)
    return _array_of_npz(path, key, preferred="X", leave_out=leave_out)


def _npz_names(path: Path) -> list[str]:
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is damaged or no npz archive; write it with numpy.savez")
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _array_of_npz(path: Path, key: str | None, *, preferred: str, leave_out: str | None = None) -> np.ndarray:
    names = _npz_names(path)
    if leave_out is not None and leave_out not in names:
        raise UsageError(f"{path} has no array {leave_out!r}; {choose(leave_out, names)}")
    candidates = [name for name in names if name != leave_out]
    option = "--key" if preferred == "X" else "--labels-key"
    if key is None:
        key = candidates[0] if len(candidates) == 1 else preferred
        if key not in candidates:
            raise UsageError(f"{path} holds {', '.join(names) or 'no array'}; name one with {option}")
    elif key not in names:
        raise UsageError(f"{path} has no array {key!r}; {choose(key, names)}")
    with np.load(path, allow_pickle=False) as archive:
        return archive[key]


def _labels_of_table(table: Table, column: str | None, n: int) -> np.ndarray:
    if column is None and len(table.names) != 1:
        names = ", ".join(table.names[:5]) + (", …" if len(table.names) > 5 else "")
        raise UsageError(f"{table.path} has {len(table.names)} columns ({names}); name one with --labels-column")
    return table.labels(table.names[0] if column is None else column, n)


def _refuse(option: str, value: str | None, path: Path, meaning: str, other: str | None) -> None:
    """Raise a UsageError if an option is set that has no meaning for the file."""
    if value is not None:
        remedy = f"use {other}" if other else "leave it out"
        raise UsageError(f"{option} names {meaning}, and {path} is none; {remedy}")
