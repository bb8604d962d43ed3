"""Digests of what a fit gives: the same bits have the same digest, whatever they are kept in."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_DIGITS = 16


def digest(value: Any) -> str:
    """Return the first sixteen digits of a value's SHA-256."""
    found = hashlib.sha256()
    for piece in pieces_of(value):
        found.update(len(piece).to_bytes(8, "little"))
        found.update(piece)
    return found.hexdigest()[:_DIGITS]


def pieces_of(value: Any) -> Iterator[bytes]:
    """Yield the bytes of a value: of arrays with dtype and shape, of numbers as they print, of mappings by key."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield f"{key}:".encode()
            yield from pieces_of(value[key])
    elif isinstance(value, (list, tuple)):
        yield f"{len(value)} of".encode()
        for item in value:
            yield from pieces_of(item)
    elif hasattr(value, "indptr"):
        yield from pieces_of([value.data, value.indices, value.indptr, list(value.shape)])
    elif value is None or isinstance(value, (bool, int, float, str)):
        yield repr(value).encode()
    else:
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise TypeError(f"a {type(value).__name__} has no bytes of its own; leave it out.")
        yield f"{array.dtype.str}{array.shape}".encode()
        yield np.ascontiguousarray(array).tobytes()
