"""What the user is told on stderr: one line for an error, a warning or a result."""

import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class UsageError(Exception):
    """Something the user can mend; its text is the one sentence that is shown."""


class FitError(Exception):
    """A fit that failed for no fault of its arguments; its text is the one sentence that is shown."""


def one_line(text: object) -> str:
    """Return ``text`` with every run of blanks and line ends as one blank."""
    return " ".join(str(text).split())


def tell(text: object) -> None:
    """Print one line on stderr."""
    print(one_line(text), file=sys.stderr, flush=True)


def closest(given: str, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that ``given`` is probably meant to be, if any."""
    return next(iter(difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)), None)


def choose(given: str, known: Iterable[str]) -> str:
    """Return the remedy for a ``given`` that is none of ``known``."""
    close = closest(given, known)
    return f"did you mean {close}?" if close else f"choose one of {', '.join(known)}"


@contextmanager
def library_errors() -> Iterator[None]:
    """Turn what the library raises for data and parameters it cannot use into a `UsageError`."""
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
