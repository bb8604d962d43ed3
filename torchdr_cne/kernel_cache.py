"""Compiled kernels on disk, each file with a digest: what is damaged is compiled again, and never run.

The files are Numba's, in ``NUMBA_CACHE_DIR`` or beside the sources. They hold machine code and pickles: whoever can
write to that folder can run code in this process. The digest recognises damage, and protects against nobody.
"""

import contextlib
import hashlib
import pickle
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import IndexDataCacheFile


class SealedFiles(IndexDataCacheFile):
    """The index and data files of one function; an unreadable one counts as missing, and is written anew."""

    def _load_index(self) -> dict[Any, str]:
        with contextlib.suppress(OSError, DamagedKernelError):
            version, stamp, overloads = pickle.loads(_unsealed(Path(self._index_path)))
            if (version, stamp) == (self._version, self._source_stamp):
                return dict(overloads)
        return {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._write(self._index_path, (self._version, self._source_stamp, overloads))

    def _load_data(self, name: str) -> Any:
        path = Path(self._data_path(name))
        try:
            return pickle.loads(_unsealed(path))
        except DamagedKernelError as error:
            with contextlib.suppress(OSError):
                path.unlink()
            raise OSError(str(error)) from error  # which Numba takes for a file that is not there

    def _save_data(self, name: str, data: Any) -> None:
        self._write(self._data_path(name), data)

    def _write(self, path: str, value: Any) -> None:
        content = self._dump(value)
        with self._open_for_write(path) as file:
            file.write(hashlib.sha256(content).digest() + content)


class DamagedKernelError(Exception):
    """The error that a file of the cache is not as it was written."""


def cached_njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return Numba's decorator with these options and a cache on disk, or without one if nothing can be written."""

    def compile_cached(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**options)(function)
        try:
            dispatcher.enable_caching()
        except (RuntimeError, OSError) as error:
            warn_of_no_cache(str(error))
            return dispatcher
        cache = dispatcher._cache
        stamp = cache._impl.locator.get_source_stamp(), _digest_of_sources(Path(function.__code__.co_filename).parent)
        cache._cache_file = SealedFiles(cache._cache_path, cache._impl.filename_base, stamp)
        return dispatcher

    return compile_cached


@lru_cache(maxsize=64)
def _digest_of_sources(folder: Path) -> str:
    """Return a digest of the sources in a function's folder and of this package's first level.

    A compiled function contains the constants and the functions that it imports from there, which Numba does not check.
    """
    digest = hashlib.sha256()
    for path in sorted({*folder.glob("*.py"), *Path(__file__).parent.glob("*.py")}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def warn_of_no_cache(reason: str) -> None:
    """Tell once in the process that kernels are compiled anew every time."""
    warnings.warn(
        f"compiled kernels cannot be kept on disk ({reason}), so that every process compiles them again; set "
        "NUMBA_CACHE_DIR to a folder that you, and nobody else, can write to.",
        UserWarning,
        stacklevel=2,
    )


def _unsealed(path: Path) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise DamagedKernelError(f"{path} is damaged")
    return content[32:]
