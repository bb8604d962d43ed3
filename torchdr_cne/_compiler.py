"""Whether Numba and Triton work on this machine, and a message to the user while Numba compiles."""

import logging
import os
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
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        warnings.warn(
            "NUMBA_DISABLE_JIT is set: neighbours, graphs and forces are computed without compiled kernels, many times "
            "slower. Unset it to compile them.",
            UserWarning,
            stacklevel=2,
        )
        return False
    return True


@lru_cache(maxsize=1)
def triton_works() -> bool:
    """Return whether Triton can be imported and serves the GPU; if not, warn once per process."""
    try:
        import triton

        triton.runtime.driver.active.get_current_device()
    except Exception as error:
        warnings.warn(
            f"Triton cannot be used ({error!r}): on the GPU, forces are computed by torch, which is slower. "
            "Install the triton that belongs to your torch.",
            UserWarning,
            stacklevel=2,
        )
        return False
    return True


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Log a line, which Python shows on stderr unless told otherwise, if Numba compiles long within the block."""
    if not numba_works():
        yield
        return
    from numba.core import event

    class Patience(event.Listener):
        timer: threading.Timer | None = None

        def on_start(self, event: object) -> None:
            """Begin to wait when a function is compiled that the cache on disk does not have."""
            if self.timer is None:
                message = f"compiling {what} for this machine takes some seconds; the next fits like this need not wait"
                self.timer = threading.Timer(_PATIENCE, logging.getLogger("torchdr_cne").warning, [message])
                self.timer.daemon = True
                self.timer.start()

        def on_end(self, event: object) -> None:
            """Go on waiting: one function compiles others."""

    patience = Patience()
    try:
        with event.install_listener("numba:compile", patience):
            yield
    finally:
        if patience.timer is not None:
            patience.timer.cancel()
