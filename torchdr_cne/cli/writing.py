"""Functions that write results; they refuse early what cannot succeed, and never leave half a file."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from torchdr_cne._optional import import_optional
from torchdr_cne.cli.messages import UsageError, library_errors

_LONGEST = 200
"""Bytes of a name that are kept in the name of a temporary file, as names have at most 255."""


def check_target(option: str, name: str, endings: Sequence[str], inputs: Sequence[str | None]) -> Path:
    """Return the path of a file to write; raise a UsageError if it cannot be written.

    Parameters
    ----------
    option : str
        The option that names the file.
    name : str
        Name of the file.
    endings : sequence of str
        Endings that can be written.
    inputs : sequence of str or None
        Files that are read, and must not be overwritten.
    """
    path = Path(name)
    check_name(option, path)
    if path.suffix not in endings:
        raise UsageError(f"{option} {path} has an unknown ending; these are written: {', '.join(endings)}")
    if path.suffix == ".parquet":
        with library_errors():
            import_optional("pyarrow.parquet", f"writing {path}")
    if path.exists() and not path.is_file():
        raise UsageError(f"{option} {path} is not a file; give another name")
    if any(source is not None and path.resolve() == Path(source).resolve() for source in inputs):
        raise UsageError(f"{option} {path} would overwrite a file that is read; give another name")
    check_folder(option, path.parent)
    return path


def check_name(option: str, path: Path) -> None:
    """Raise a UsageError if no file can have this name."""
    try:
        path.lstat()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{option} {str(path)[:60]}… cannot be a file: {reason}; give another name") from error


def check_folder(option: str, folder: Path) -> None:
    """Raise a UsageError unless files can be created in ``folder``."""
    if not folder.is_dir():
        raise UsageError(f"{option}: the folder {folder} does not exist; make it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{option}: cannot write to the folder {folder}: {error.strerror}") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file in the folder of ``path``, which replaces ``path`` once it is completely written."""
    target = path.resolve()
    name = os.fsdecode(os.fsencode(target.name)[:_LONGEST])
    temporary = target.with_name(f".{name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            yield file
        os.replace(temporary, target)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_embedding(path: Path, embedding_nd: np.ndarray, names: Sequence[str]) -> None:
    """Write an embedding in the format of the ending; csv and parquet files have ``names`` as columns."""
    with replacing(path) as file:
        _WRITERS[path.suffix](file, embedding_nd, names)


def write_graph(path: Path, graph: Any) -> None:
    """Write a SciPy sparse matrix as npz."""
    import scipy.sparse

    with replacing(path) as file:
        scipy.sparse.save_npz(file, graph)


def write_figure(path: Path, figure: Any) -> None:
    """Write a matplotlib figure in the format of the ending."""
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=200)


def _write_csv(file: BinaryIO, embedding_nd: np.ndarray, names: Sequence[str]) -> None:
    digits = "%.17g" if embedding_nd.dtype == np.float64 else "%.9g"
    np.savetxt(file, embedding_nd, fmt=digits, delimiter=",", header=",".join(names), comments="")


def _write_parquet(file: BinaryIO, embedding_nd: np.ndarray, names: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    columns: Mapping[str, Any] = dict(zip(names, embedding_nd.T, strict=True))
    pyarrow.parquet.write_table(pyarrow.table(columns), file)


_WRITERS: Mapping[str, Callable[[BinaryIO, np.ndarray, Sequence[str]], None]] = {
    ".npy": lambda file, embedding_nd, _: np.save(file, embedding_nd),
    ".npz": lambda file, embedding_nd, _: np.savez(file, embedding=embedding_nd),
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
EMBEDDING_ENDINGS = tuple(_WRITERS)
FIGURE_ENDINGS = (".png", ".pdf", ".svg")
