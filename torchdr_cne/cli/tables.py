"""Tables with named columns in csv and parquet files."""

import csv
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from torchdr_cne._optional import import_optional
from torchdr_cne.cli.messages import UsageError, choose


class Table(ABC):
    """A file with named columns.

    Attributes
    ----------
    path : Path
        The file.
    names : list of str
        Names of the columns; ``"0"``, ``"1"``, … if the file has none.
    """

    path: Path
    names: list[str]

    @abstractmethod
    def numbers(self, leave_out: str | None) -> np.ndarray:
        """Return the numeric columns as (n, f), without the column ``leave_out``."""

    @abstractmethod
    def labels(self, column: str, n: int) -> np.ndarray:
        """Return a column as integers, floats or strings; None marks a missing value."""

    def _check_column(self, name: str) -> None:
        if name not in self.names:
            raise UsageError(f"{self.path} has no column {name!r}; {choose(name, self.names)}")

    def _check_any(self, columns: list[Any]) -> None:
        if not columns:
            raise UsageError(f"{self.path} has no column of numbers; a table of numbers is needed")


class CsvTable(Table):
    """A file of comma-separated values in UTF-8, with or without a line of names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            first, second = next(lines, None), next(lines, [])
        if first is None:
            raise UsageError(f"{path} is empty; a table of numbers is needed")
        counted = [str(i) for i in range(len(first))]
        # pandas writes the names of unnamed columns as 0, 1, …, so these numbers are names.
        self.has_header = not all(map(_is_number, first)) or (len(first) > 1 and first == counted)
        if self.has_header and _lacks_name_of_row_names(first, second):
            first = ["", *first]
        self.names = first if self.has_header else counted
        _check_widths(path, len(self.names), has_header=self.has_header)
        row = second if self.has_header else first
        cells = zip(self.names, row, strict=False)
        self._texts = [name for name, cell in cells if name and cell and not _is_number(cell)]

    def numbers(self, leave_out: str | None) -> np.ndarray:
        """Return the columns whose first cell is a number, as float64 (n, f) and without a row index."""
        if leave_out is not None:
            self._check_column(leave_out)
        _tell_left_out(self.path, [name for name in self._texts if name != leave_out])
        columns = [i for i, name in enumerate(self.names) if name != leave_out and name not in self._texts]
        if columns[:1] == [0] and self.names[0] == "":
            warnings.warn(f"the first column of {self.path} has no name: left out as an index", stacklevel=2)
            columns.remove(0)
        self._check_any(columns)
        try:
            return self._load(columns, np.float64)
        except ValueError as error:
            raise UsageError(
                f"{self.path} is no table of numbers: {str(error).rstrip('.')}; mend or drop that row"
            ) from error

    def labels(self, column: str, n: int) -> np.ndarray:
        """Return a column; a first line that may be a name or a label is a name if n lines follow it."""
        self._check_column(column)
        values = self._load([self.names.index(column)], np.str_)[:, 0]
        if self.has_header and len(values) == n - 1 and len(self.names) == 1:
            values = np.array([self.names[0], *values])
        for number in (np.int64, np.float64):
            try:
                return values.astype(number)
            except (ValueError, OverflowError):
                continue
        return np.array([value or None for value in values], dtype=object) if "" in values else values

    def _load(self, columns: list[int], dtype: Any) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")
            return np.loadtxt(
                self.path,
                dtype=dtype,
                delimiter=",",
                comments=None,
                quotechar='"',
                skiprows=int(self.has_header),
                usecols=columns,
                ndmin=2,
                encoding="utf-8-sig",
            )


class ParquetTable(Table):
    """An Apache Parquet file; an index that pandas has stored does not count as a column."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._table = import_optional("pyarrow.parquet", f"reading {path}").read_table(path)
        index = (self._table.schema.pandas_metadata or {}).get("index_columns", [])
        self.names = [name for name in self._table.column_names if name not in index]

    def numbers(self, leave_out: str | None) -> np.ndarray:
        """Return the numeric columns in their common dtype, with a warning that names the others."""
        types = import_optional("pyarrow", f"reading {self.path}").types
        if leave_out is not None:
            self._check_column(leave_out)
        kinds = {name: self._table.schema.field(name).type for name in self.names if name != leave_out}
        is_numeric = {
            name: types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
            for name, kind in kinds.items()
        }
        _tell_left_out(self.path, [name for name, numeric in is_numeric.items() if not numeric])
        columns = [self._table.column(name).to_numpy() for name, numeric in is_numeric.items() if numeric]
        self._check_any(columns)
        return np.column_stack([c.astype(float) if c.dtype == object else c for c in columns])

    def labels(self, column: str, n: int) -> np.ndarray:
        """Return a column of any type."""
        self._check_column(column)
        values = self._table.column(column).to_pylist()
        return np.array(values, dtype=object) if None in values else np.array(values)


TABLES: dict[str, Any] = {".csv": CsvTable, ".parquet": ParquetTable}
"""Ending of a file → class that reads it."""


def _tell_left_out(path: Path, names: list[str]) -> None:
    """Warn about columns that are left out because they are not numeric."""
    if names:
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        warnings.warn(f"columns of {path} that are not numbers are left out: {shown}", stacklevel=3)


def _lacks_name_of_row_names(names: list[str], row: list[str]) -> bool:
    """Return whether a table is as R's write.table writes it: row names come first, and have no name in the header."""
    is_shorter = len(row) == len(names) + 1 and len(names) > 1
    return is_shorter and not names[0].startswith("#") and bool(row[-1]) and any(map(_is_number, row[1:]))


def _check_widths(path: Path, width: int, *, has_header: bool) -> None:
    """Raise a UsageError that names the first line with another number of fields than ``width``."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = _fields_by_line(file)
        if has_header:
            next(lines)
        for number, found in lines:
            if found != width:
                what = "names" if has_header else "numbers"
                raise UsageError(
                    f"line {number} of {path} has {found} field(s), and the first line has {width} {what}; mend that "
                    "line, or remove what stands above the line of names"
                )


def _fields_by_line(file: Iterator[str]) -> Iterator[tuple[int, int]]:
    """Yield the number of each line that is not blank, and of its fields; cells in quotes may have several lines."""
    number = 0
    for line in file:
        number += 1
        if '"' in line:
            row = csv.reader(chain([line], file))
            found = len(next(row))
            number += row.line_num - 1
        else:
            found = line.count(",") + 1  # counted, as splitting takes as long as reading the numbers
        if line.strip():
            yield number, found


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
