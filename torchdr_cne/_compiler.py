"""Numba: whether it works here, and a word to the user while it compiles."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

_PATIENCE = 2.0
"""Seconds of waiting after which a user is told why."""


@lru_cache(maxsize=1)
def numba_works() -> bool:
    """Tell whether Numba can be imported; if not, warn once in the process. A broken one may raise anything."""
    try:
        import numba  # noqa: F401
    except Exception as error:
        warnings.warn(
            f"numba cannot be imported ({error!r}): neighbours, graphs and forces are computed without compiled "
            "kernels, many times slower. Install it with: pip install --force-reinstall numba",
            UserWarning,
            stacklevel=2,
        )
        return False
    return True


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Log a line, which Python shows on stderr unless told otherwise, if the block's first compilation takes long."""
    message = f"compiling {what} for this machine; this happens once and takes some seconds"
    timer = threading.Timer(_PATIENCE, logging.getLogger("torchdr_cne").warning, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
