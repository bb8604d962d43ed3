"""The format on disk: a folder with ``state.safetensors`` and ``manifest.json``, written completely or not at all."""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

import torchdr_cne
from torchdr_cne.resources import available_memory
from torchdr_cne.storage.replacing import LARGEST_MANIFEST, MANIFEST, STATE, replacing, sync, unchanged

FORMAT, FORMAT_VERSION = "torchdr_cne", 1
"""Every version of the format keeps the manifest's ``format``, ``format_version`` and ``sha256`` as they are."""
_LENGTH, _LONGEST_HEADER = 8, 100_000_000
"""Bytes that give the length of a safetensors file's header, and the greatest length that safetensors reads."""
_SHOWN = 60


class DamagedError(ValueError):
    """The error that a folder of this format was cut or altered, or has lost a file."""


class FormatError(ValueError):
    """The error that an intact file cannot be read: it has a later version, is a pickle, or is not of this library."""


# Writing.


def write_folder(path: Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
    """Write a folder, which is complete as soon as it has its name; an earlier folder of this library is replaced.

    Parameters
    ----------
    path : Path
        The folder, whose parent must exist.
    tensors : mapping of str to Tensor
        Dense tensors on any device.
    manifest : mapping of str to JSON values
        Entries of the manifest, with finite numbers. ``format``, ``format_version``, ``library_version``, ``files``,
        ``tensors`` and ``sha256`` are added.

    Raises
    ------
    OSError
        If the folder cannot be written; an earlier folder is left as it was.
    """
    path = Path(os.path.realpath(path))
    try:
        with replacing(path) as folder:
            _write_files(folder, tensors, manifest)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"{path} could not be written: {reason}.") from error


def write_file(path: Path, content: bytes) -> None:
    """Write one file, and wait until it is on the disk."""
    path.write_bytes(content)
    sync(path)


def _write_files(folder: Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
    state = folder / STATE
    write_file(folder / MANIFEST, b"")
    safetensors.torch.save_file(_savable(tensors), state)
    state.chmod(stat.S_IMODE((folder / MANIFEST).stat().st_mode))  # what the umask allows
    sync(state)
    with state.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    added = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "library_version": torchdr_cne.__version__,
        "files": {STATE: {"sha256": digest, "bytes": state.stat().st_size}},
        "tensors": {name: _description(tensor) for name, tensor in tensors.items()},
    }
    write_file(folder / MANIFEST, seal({**manifest, **added}))


def _savable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous CPU tensors that do not share memory, as safetensors requires."""
    savable: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        host = tensor.detach().cpu().contiguous()
        where = host.untyped_storage().data_ptr()
        savable[name] = host.clone() if where in seen else host
        seen.add(where)
    return savable


def _description(tensor: Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}


def seal(content: Mapping[str, Any]) -> bytes:
    """Return the manifest as bytes: JSON with a hash of all other entries."""
    return json.dumps({**content, "sha256": _digest(content)}, allow_nan=False, indent=1).encode()


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, allow_nan=False).encode()).hexdigest()


# Reading.


def read_folder(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what `write_folder` wrote, after checking all of it.

    Returns
    -------
    tensors : dict of str to Tensor
        Tensors on the CPU.
    manifest : dict
        All entries, including those added by `write_folder`.

    Raises
    ------
    FileNotFoundError
        If there is nothing at ``path``.
    DamagedError
        If a file is missing, cut or altered.
    FormatError
        If the folder has a later version, is a pickle, or is not of this library.
    MemoryError
        If the tensors are larger than the free memory.
    """
    return unchanged(path, _read_folder, (DamagedError, OSError))


def _read_folder(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    manifest = _read_manifest(path)
    try:
        expected, described = manifest["files"][STATE], manifest["tensors"]
        size, digest = expected["bytes"], expected["sha256"]
    except (KeyError, TypeError) as error:
        raise DamagedError(f"{path} is damaged: {MANIFEST} does not describe {STATE}.") from error
    _check_size(path, size, described)
    content = _content(path, STATE)
    if len(content) != size:
        raise DamagedError(f"{path} is damaged: {STATE} has {len(content)} bytes instead of {size}.")
    if hashlib.sha256(content).hexdigest() != digest:
        raise DamagedError(f"{path} is damaged: the SHA-256 of {STATE} is not the one in {MANIFEST}.")
    try:
        tensors = safetensors.torch.load(content)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedError(f"{path} is damaged: {STATE} is no safetensors file ({error}).") from error
    if {name: _description(tensor) for name, tensor in tensors.items()} != described:
        raise DamagedError(f"{path} is damaged: {STATE} does not hold the tensors described in {MANIFEST}.")
    return tensors, manifest


def _check_size(path: Path, size: Any, described: Any) -> None:
    """Raise an error if the tensors' file is not as large as it should be, or larger than memory; it is not read."""
    _check_file(path, STATE)
    found = (path / STATE).stat().st_size
    if found != size:
        raise DamagedError(f"{path} is damaged: {STATE} has {found} bytes instead of {_brief(size)}.")
    with (path / STATE).open("rb") as file:
        head = file.read(_LENGTH)
        length = int.from_bytes(head, "little")
        header = file.read(min(length, _LONGEST_HEADER))
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        whole = found == _LENGTH + length + max(ends, default=0) and len(ends) == len(described)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: {STATE} is no safetensors file ({_brief(error)}).") from error
    if not whole:
        raise DamagedError(f"{path} is damaged: {STATE} does not hold the tensors described in {MANIFEST}.")
    available = available_memory()
    if available is not None and found > available:
        raise MemoryError(f"{path} has {found / 1e9:.1f} GB, and {available / 1e9:.1f} GB of memory are free.")


def read_manifest(path: Path) -> dict[str, Any]:
    """Return only the manifest, after checking it; the errors are those of `read_folder`."""
    return unchanged(path, _read_manifest, (DamagedError, OSError))


def _read_manifest(path: Path) -> dict[str, Any]:
    _check_present(path)
    content = _content(path, MANIFEST)
    try:
        manifest = json.loads(content.decode())
        whole = isinstance(manifest, dict) and manifest.pop("sha256", None) == _digest(manifest)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: {MANIFEST} is not JSON ({error}).") from error
    if not isinstance(manifest, dict) or not {"format", "library_version"} & set(manifest):
        raise FormatError(f"{path} is not of torchdr_cne; its {MANIFEST} says nothing of it.")
    if not whole:
        raise DamagedError(f"{path} is damaged: the SHA-256 in {MANIFEST} is not that of its content.")
    if manifest.get("format") != FORMAT:
        raise FormatError(f"{path} is of format {_brief(manifest.get('format'))}, not {FORMAT}.")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{path} has format version {_brief(manifest.get('format_version'))}, written by torchdr_cne "
            f"{_brief(manifest.get('library_version'))}; this version {torchdr_cne.__version__} reads "
            f"{FORMAT_VERSION}: upgrade torchdr_cne."
        )
    return manifest


def _check_present(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    if not path.is_dir():
        _refuse_pickle(path, path)
        raise FormatError(f"{path} is a file; torchdr_cne writes folders with {MANIFEST} and {STATE}.")


def _content(path: Path, name: str) -> bytes:
    _check_file(path, name)
    return (path / name).read_bytes()


def _check_file(path: Path, name: str) -> None:
    if not (path / name).is_file():
        raise DamagedError(f"{path} is damaged or not of torchdr_cne: {name} is missing.")
    _refuse_pickle(path, path / name)
    size = (path / name).stat().st_size
    if name == MANIFEST and size > LARGEST_MANIFEST:
        raise FormatError(f"{path} is not of torchdr_cne: {name} has {size / 1e9:.1f} GB.")


def _brief(value: Any) -> str:
    """Return the beginning of a value that a file has; characters that a terminal would obey become their codes."""
    text = " ".join(str(value).split())
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _refuse_pickle(path: Path, file: Path) -> None:
    with file.open("rb") as opened:
        head = opened.read(9)
    # A safetensors file starts with the length of its header, of which seven bytes are mostly 0, and "{". It is not
    # taken for a pickle even if it has lost a byte.
    pickled = head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5")
    pickled = pickled and any(head[3:8]) and head[8:] not in (b"", b"{")
    if pickled or head.startswith(b"PK\3\4"):
        raise FormatError(
            f"{path}: {file.name} is a pickle or an archive of torch.save or NumPy, which could run code when "
            "opened; torchdr_cne reads only what its own save wrote."
        )
