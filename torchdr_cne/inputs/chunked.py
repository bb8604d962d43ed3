"""Row sources in compressed formats, decoded a chunk at a time: zarr and parquet."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from torchdr_cne._optional import import_optional
from torchdr_cne.inputs.sources import RowSource

_SMALLEST_PIECE = 1 << 20
"""Bytes below which several chunks are decoded at once, as each call into the library of the format takes time."""
_COLUMN_PARTS = 8
"""Number of parts in which the columns of a row group are decoded, as decoding takes several times their memory."""


class ChunkedSource(RowSource):
    """A source that is decoded in chunks; the last chunk is kept if a range was shorter than it."""

    _kept: tuple[int, np.ndarray] | None = None

    @abstractmethod
    def _chunk(self, row: int) -> tuple[int, int]:
        """Return the first row of the chunk that holds ``row``, and the end of the chunk."""

    @abstractmethod
    def _decode(self, first: int, last: int) -> np.ndarray:
        """Return the rows of a chunk."""

    def _piece_end(self, row: int) -> int:
        return self._chunk(row)[1]

    def _load(self, start: int, stop: int) -> np.ndarray:
        first, last = self._chunk(start)
        kept = self._kept
        if kept is None or kept[0] != first:
            self._kept = None  # before the next chunk is decoded, so that two are never in memory
            with _reading(self.origin):
                kept = first, self._decode(first, last)
            self._kept = kept if stop - start < last - first else None
        return kept[1][start - first : stop - first]

    def _release(self) -> None:
        self._kept = None


class ZarrSource(ChunkedSource):
    """A two-dimensional zarr array (format 2 or 3).

    Parameters
    ----------
    path : Path
        Folder of the array, or of a group that holds it.
    array : str, optional
        Name of the array inside a group; by default the only one.
    """

    def __init__(self, path: Path, array: str | None = None) -> None:
        zarr = import_optional("zarr", f"reading {path}")
        with _reading(str(path)):
            node = zarr.open(str(path), mode="r")
            if hasattr(node, "arrays"):
                node = _array_of_group(node, array, path)
            elif array is not None:
                raise ValueError(f"{path} is an array and no group, so array={array!r} has no meaning; leave it out")
        self._array = node
        self._set_description(node.shape, np.dtype(node.dtype), str(path))
        band = node.chunks[0] * self.shape[1] * self.dtype.itemsize
        self._step = node.chunks[0] * max(1, _SMALLEST_PIECE // max(1, band))

    def _chunk(self, row: int) -> tuple[int, int]:
        first = row - row % self._step
        return first, min(first + self._step, len(self))

    def _decode(self, first: int, last: int) -> np.ndarray:
        return np.asarray(self._array[first:last])


class ParquetSource(ChunkedSource):
    """The numeric columns of a parquet file, decoded one row group at a time; nulls become NaN.

    Parameters
    ----------
    path : Path
        The file.
    columns : sequence of str, optional
        Columns to read, in this order; by default all that hold numbers, without the index that pandas stores.

    Attributes
    ----------
    left_out : list of str
        Columns that do not hold numbers.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self._path = path
        import_optional("pyarrow.parquet", f"reading {path}")
        with _reading(str(path)), self._open() as file:
            schema, metadata = file.schema_arrow, file.metadata
            index = (schema.pandas_metadata or {}).get("index_columns", [])
            present = {name: schema.field(name).type for name in schema.names if name not in index}
            chosen = list(present) if columns is None else _check_columns(columns, present, path)
            self.names = [name for name in chosen if _is_numeric(present[name])]
            self.left_out = [name for name in chosen if name not in self.names]
            if not self.names:
                raise ValueError(f"{path} has no column of numbers; a table of numbers is needed")
            dtypes = [np.dtype(present[name].to_pandas_dtype()) for name in self.names]
            whole = [name for name, dtype in zip(self.names, dtypes, strict=True) if dtype.kind != "f"]
            with_nulls = _may_hold_nulls(metadata, whole)
        if with_nulls:
            dtypes.append(np.dtype(np.float32))  # result_type widens it to a dtype that holds the integers
        groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._edges = np.cumsum([0, *groups])
        self._set_description((int(self._edges[-1]), len(self.names)), np.result_type(*dtypes), str(path))

    def _chunk(self, row: int) -> tuple[int, int]:
        group = self._group(row)
        return int(self._edges[group]), int(self._edges[group + 1])

    def _decode(self, first: int, last: int) -> np.ndarray:
        rows = np.empty((last - first, self.shape[1]), self.dtype)
        assert self.names is not None
        step = -(-len(self.names) // _COLUMN_PARTS)
        with self._open() as file:
            for start in range(0, len(self.names), step):
                names = self.names[start : start + step]
                table = file.read_row_group(self._group(first), columns=names)
                for i, name in enumerate(names, start):
                    rows[:, i] = _numbers(table.column(name))
        return rows

    def _group(self, row: int) -> int:
        return int(np.searchsorted(self._edges, row, side="right")) - 1

    def _open(self) -> Any:
        return import_optional("pyarrow.parquet", f"reading {self._path}").ParquetFile(self._path)


@contextmanager
def _reading(origin: str) -> Iterator[None]:
    """Turn any error that the library of a format raises for a damaged file into a ValueError that names the file."""
    try:
        yield
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        if isinstance(error, ValueError) and text.startswith(origin):
            raise
        raise ValueError(f"{origin} cannot be read: {text or type(error).__name__}") from error


def _array_of_group(group: Any, name: str | None, path: Path) -> Any:
    names = sorted(key for key, _ in group.arrays())
    if name is None and len(names) == 1:
        name = names[0]
    node = group[name] if name is not None and name in group else None
    if node is None or hasattr(node, "arrays"):
        given = "" if name is None else f"no array {name!r} but "
        raise ValueError(f"{path} is a group with {given}{', '.join(names) or 'no array'}; name one with array=")
    return node


def _check_columns(columns: Sequence[str], present: dict[str, Any], path: Path) -> list[str]:
    for name in columns:
        if name not in present:
            raise ValueError(f"{path} has no column {name!r}; its columns are {', '.join(present)}")
        if not _is_numeric(present[name]):
            raise ValueError(f"{path} has a column {name!r} of type {present[name]}; numbers are needed")
    return list(columns)


def _is_numeric(kind: Any) -> bool:
    types = import_optional("pyarrow", "reading parquet").types
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)


def _may_hold_nulls(metadata: Any, names: list[str]) -> bool:
    """Return whether any of the columns may hold a null, according to the statistics of a parquet file."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema in names:
                statistics = column.statistics
                if statistics is None or not statistics.has_null_count or statistics.null_count:
                    return True
    return False


def _numbers(values: Any) -> np.ndarray:
    """Return an Arrow column as an array in which a null is NaN."""
    if values.null_count and str(values.type) == "bool":
        values = values.cast("int8")  # truth values with nulls would become objects
    return values.to_numpy()
