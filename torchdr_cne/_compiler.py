"""Whether Numba works on this machine, and a message to the user while it compiles."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

_PATIENCE = 2.0
"""Seconds after which a waiting user is told the reason."""


@lru_cache(maxsize=1)
def numba_works() -> bool:
    """Return whether Numba can be imported; if not, warn once per process. A broken Numba may raise any error."""
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
    """Log a line, which Python shows on stderr by default, if a compilation makes the block take long."""
    message = f"compiling {what} for this machine; this happens once and takes some seconds"
    timer = threading.Timer(_PATIENCE, logging.getLogger("torchdr_cne").warning, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
