"""Tables larger than memory, whose rows are read in ranges when they are needed."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_PIECE_BYTES = 1 << 26
"""Bytes that are mapped into memory at once while a longer range is copied."""


class RowSource(ABC):
    """Rows of numbers that stay in their file until a range of them is read.

    Opening a source reads only its description, so that every rank of a distributed fit opens the whole table and
    reads its own rows.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns, (n, f).
    dtype : numpy.dtype
        Dtype of the rows that are read: integers, floats or booleans, in the byte order of the machine.
    names : list of str or None
        Names of the columns; None if they have no names.
    origin : str
        Name of the source in messages, such as its path.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    names: list[str] | None = None
    origin: str

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop`` as a new C-contiguous array (stop − start, f).

        Raises
        ------
        IndexError
            If these rows do not exist.
        ValueError
            If the file is damaged in this range.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start} to {stop} of {self.origin} were asked for, and it has {len(self)}")
        rows = np.empty((stop - start, self.shape[1]), self.dtype)
        first = start
        while first < stop:
            last = min(stop, self._piece_end(first))
            rows[first - start : last - start] = self._load(first, last)
            first = last
        return rows

    def take(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return a few rows, given by ascending numbers, as an array (len(rows), f)."""
        wanted = np.asarray(rows, dtype=np.int64)
        if len(wanted) and (wanted[0] < 0 or wanted[-1] >= len(self) or (np.diff(wanted) < 0).any()):
            raise IndexError(f"rows of {self.origin} are taken by ascending numbers from 0 to {len(self) - 1}")
        taken = np.empty((len(wanted), self.shape[1]), self.dtype)
        done = 0
        while done < len(wanted):
            first = int(wanted[done])
            until = int(np.searchsorted(wanted, self._piece_end(first)))
            piece = self._load(first, int(wanted[until - 1]) + 1)
            taken[done:until] = piece[wanted[done:until] - first]
            done = until
        return taken

    @abstractmethod
    def _piece_end(self, row: int) -> int:
        """Return the end of the piece that holds ``row``; a piece, such as a chunk, is loaded as a whole."""

    @abstractmethod
    def _load(self, start: int, stop: int) -> np.ndarray:
        """Return rows within one piece, possibly as a view, which the caller copies."""

    def _release(self) -> None:  # noqa: B027, most sources keep nothing
        """Release memory that was kept for the next range."""

    def _set_description(self, shape: Sequence[int], dtype: np.dtype, origin: str) -> None:
        if len(shape) != 2 or shape[1] == 0:
            raise ValueError(f"{origin} has shape {tuple(shape)}; rows and columns are needed, shape (n, f)")
        if dtype.kind not in "biuf":
            raise ValueError(f"{origin} has dtype {dtype}; real numbers are needed")
        self.shape, self.dtype, self.origin = (int(shape[0]), int(shape[1])), dtype.newbyteorder("="), origin


class ArraySource(RowSource):
    """An array in memory, or a memory map that the caller holds."""

    def __init__(self, array: np.ndarray, origin: str = "the array") -> None:
        self._set_description(array.shape, array.dtype, origin)
        self._array = array

    def _piece_end(self, row: int) -> int:
        return len(self)

    def _load(self, start: int, stop: int) -> np.ndarray:
        return self._array[start:stop]


class NpySource(RowSource):
    """An npy file that is mapped again for each piece, as the pages of a map count as memory of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        header = self._map()
        self._set_description(header.shape, header.dtype, str(path))
        self._step = max(1, _PIECE_BYTES // (self.shape[1] * self.dtype.itemsize))

    def _piece_end(self, row: int) -> int:
        return min(len(self), row + self._step)

    def _load(self, start: int, stop: int) -> np.ndarray:
        return self._map()[start:stop]

    def _map(self) -> np.ndarray:
        try:
            return np.load(self._path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(
                f"{self._path} is damaged or no plain npy file of numbers (pickled objects are never loaded): "
                f"{error}; write it with numpy.save"
            ) from error


class ConcatenatedSource(RowSource):
    """Several sources joined one after the other, in a dtype that holds the values of all of them."""

    def __init__(self, parts: Sequence[RowSource]) -> None:
        first = parts[0]
        for part in parts:
            if part.shape[1] != first.shape[1]:
                raise ValueError(
                    f"{part.origin} has {part.shape[1]} columns where {first.origin} has {first.shape[1]}; "
                    "every file needs the same columns"
                )
            if part.names != first.names:
                raise ValueError(
                    f"{part.origin} has the columns {_few(part.names)} where {first.origin} has "
                    f"{_few(first.names)}; every file needs the same columns in the same order"
                )
        self._parts = list(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
        self._current = first
        dtype = np.result_type(*(part.dtype for part in parts))
        origin = f"{first.origin} and {len(parts) - 1} more"
        self._set_description((self._starts[-1], first.shape[1]), dtype, origin)
        self.names = first.names

    def _piece_end(self, row: int) -> int:
        part, start = self._part_of(row)
        return start + part._piece_end(row - start)

    def _load(self, start: int, stop: int) -> np.ndarray:
        part, offset = self._part_of(start)
        if part is not self._current:
            self._current._release()
            self._current = part
        return part._load(start - offset, stop - offset)

    def _release(self) -> None:
        self._current._release()

    def _part_of(self, row: int) -> tuple[RowSource, int]:
        """Return the part that holds ``row``, and its first row."""
        index = bisect_right(self._starts, row) - 1
        return self._parts[index], self._starts[index]


def _few(names: list[str] | None) -> str:
    if names is None:
        return "without names"
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
