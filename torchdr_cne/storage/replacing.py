"""Put a complete folder in the place of an earlier one, and touch nothing that this library has not written.

A folder is written under a name beside its own that nobody can guess, and then takes its name in one step. Writers of
folders with the same parent wait for each other; a reader that meets a replacement reads again.
"""

import contextlib
import ctypes
import errno
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

MANIFEST, STATE = "manifest.json", "state.safetensors"
"""The files of a folder that this library writes."""
LARGEST_MANIFEST = 1 << 28
"""Bytes of a manifest; those of the largest models, with the names of all columns, have a few millions."""
_WRITTEN = re.compile(rf"{re.escape(MANIFEST)}|{re.escape(STATE)}|\.tmp\w+")
"""These files, and the one that safetensors fills before it takes the name of the second."""
_T = TypeVar("_T")
_AT_FDCWD, _EXCHANGE = -100, 2
_ATTEMPTS = 100


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty folder, which takes the place of ``path`` when the block ends without an error.

    Raises
    ------
    FileExistsError
        If there is something at ``path`` that this library has not written.
    OSError
        If the folder cannot be written or moved; an earlier folder is left as it was.
    """
    with _locked(path.parent):
        remove_leftovers(path)
        if path.exists() and not is_ours(path):
            raise FileExistsError(errno.EEXIST, "it exists, and torchdr_cne has not written all that is in it")
        fresh = _unguessable(path, "tmp")
        try:
            fresh.mkdir()
            yield fresh
            sync(fresh)
            _take_place(fresh, path)
            sync(path.parent)
        finally:
            delete(fresh)  # after an exchange this is the earlier folder


def remove_leftovers(path: Path) -> None:
    """Clean up after killed writers of ``path``: restore the earlier folder, and delete what is incomplete."""
    for earlier in _leftovers(path, "old"):
        if not path.exists():
            earlier.rename(path)
    for rest in _leftovers(path, "old|tmp"):
        delete(rest)


def delete(path: Path) -> None:
    """Delete a folder that this library has written; whatever else is in it stays, and keeps the folder."""
    with contextlib.suppress(OSError):
        for entry in sorted(path.iterdir()):
            if _WRITTEN.fullmatch(entry.name):
                entry.unlink()
        path.rmdir()


def remove(path: Path) -> None:
    """Delete a folder of this library such that none that looks complete is left if the process is killed meanwhile."""
    rest = _unguessable(path, "tmp")
    path.rename(rest)
    delete(rest)


def looks_like_ours(path: Path) -> bool:
    """Return whether a folder holds only files that this library writes, by their names, and no other's manifest."""
    if not path.is_dir() or path.is_symlink() or not {entry.name for entry in path.iterdir()} <= {MANIFEST, STATE}:
        return False
    try:
        if (path / MANIFEST).stat().st_size > LARGEST_MANIFEST:
            return False
        manifest = json.loads((path / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return True
    return isinstance(manifest, dict) and not {"format", "library_version"}.isdisjoint(manifest)


def is_ours(path: Path) -> bool:
    """Return whether this library has written a folder and all that is in it; it may have been damaged since."""
    if not looks_like_ours(path):
        return False
    try:
        with (path / MANIFEST).open("rb") as file:
            content = file.read(1 << 20)
    except FileNotFoundError:
        return True
    return b'"torchdr_cne"' in content or b'{\n "kind": "'.startswith(content[:11])


def present(path: Path) -> Path:
    """Return the folder to read: ``path``, or the earlier one if a writer was killed, or is, between two renames."""
    earlier = [] if path.exists() else _leftovers(path, "old")
    return earlier[0] if earlier else path


def unchanged(path: Path, read: Callable[[Path], _T], errors: tuple[type[Exception], ...]) -> _T:
    """Return what ``read`` finds at ``path``; if it fails while the folder is replaced, it reads again."""
    for _ in range(_ATTEMPTS):
        before = _instance(path)
        try:
            return read(present(path))
        except errors:
            if _instance(path) == before:
                raise
    return read(present(path))


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def _instance(path: Path) -> tuple[int, int] | None:
    """Return what tells a folder from the one that takes its place; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _unguessable(path: Path, ending: str) -> Path:
    return path.with_name(f".{_short(path)}.{secrets.token_hex(8)}.{ending}")


def _short(path: Path) -> str:
    """Return the name of a path, or the first 200 bytes of it, as names have at most 255."""
    return os.fsdecode(os.fsencode(path.name)[:200])


def targets_of_leftovers(folder: Path) -> set[Path]:
    """Return the paths in ``folder`` whose writers have been killed."""
    found = (re.fullmatch(_left("(.+)", "old|tmp"), entry.name) for entry in folder.iterdir())
    return {folder / match[1] for match in found if match}


def _left(name: str, endings: str) -> str:
    """Return the pattern of the names that `_unguessable` gives."""
    return rf"\.{name}\.[0-9a-f]{{16}}\.(?:{endings})"


def _leftovers(path: Path, endings: str) -> list[Path]:
    """Return the folders that writers of ``path`` have left, as far as they hold nothing that is not ours."""
    pattern = re.compile(_left(re.escape(_short(path)), endings))
    try:
        found = [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)]
        return [entry for entry in found if all(_WRITTEN.fullmatch(file.name) for file in entry.iterdir())]
    except OSError:
        return []


def _take_place(fresh: Path, path: Path) -> None:
    """Give ``fresh`` the name ``path``; an earlier folder has the name ``fresh`` afterwards, or is deleted."""
    if not path.exists():
        fresh.rename(path)
    elif not _exchange(fresh, path):
        earlier = _unguessable(path, "old")
        path.rename(earlier)
        try:
            fresh.rename(path)
        except BaseException:
            earlier.rename(path)
            raise
        delete(earlier)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, and return whether that was possible: on Linux, on most file systems."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return bool(call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, where its file system has locks; no file is made for it."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
