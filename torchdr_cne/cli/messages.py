"""Messages to the user on stderr: one line for each error, warning or result."""

import difflib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class UsageError(Exception):
    """A mistake that the user can correct; its text is the one sentence that is shown."""


class FitError(Exception):
    """A failure of a fit that its arguments did not cause; its text is the one sentence that is shown."""


def one_line(text: object) -> str:
    """Return ``text`` with one blank for each run of blanks and line ends, and codes of other unprintable characters.

    A terminal would obey some of these characters, which a file may bring in with a name.
    """
    joined = " ".join(str(text).split())
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in joined)


def tell(text: object) -> None:
    """Print one line on stderr."""
    print(one_line(text), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print text on the standard output.

    Raises
    ------
    BrokenPipeError
        If its reader, such as ``head``, has left.
    FitError
        If it cannot be written for another reason.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        # What could not be written would fail again, with a traceback, when Python ends.
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
        if isinstance(error, BrokenPipeError):
            raise
        raise FitError(f"cannot write to the standard output: {error.strerror or error}") from error


def closest(given: str, known: Iterable[str]) -> str | None:
    """Return the element of ``known`` that ``given`` probably stands for, or None."""
    return next(iter(difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)), None)


def choose(given: str, known: Iterable[str]) -> str:
    """Return advice for a ``given`` that is not in ``known``."""
    close = closest(given, known)
    return f"did you mean {close}?" if close else f"choose one of {', '.join(known)}"


@contextmanager
def library_errors() -> Iterator[None]:
    """Turn the errors that the library raises for unusable data and parameters into a `UsageError`."""
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(one_line(error)) from error


@contextmanager
def warnings_as_lines(*, silent: bool) -> Iterator[None]:
    """Show each warning as ``warning: …`` on stderr, or none at all."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if not silent:
            tell(f"warning: {message}")

    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("default")
            for for_developers in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning):
                warnings.simplefilter("ignore", for_developers)
        warnings.showwarning = show
        yield
