"""Functions that find overridden hooks, which invalidate whatever was derived from them."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

_Hook = TypeVar("_Hook", bound=Callable[..., Any])
What = Literal["forces", "placement", "sharing"]


def decides(*what: What) -> Callable[[_Hook], _Hook]:
    """Mark a hook by what is derived from it, which is invalid if a subclass overrides the hook.

    "forces" are the declared pair forces, "placement" is that of new points by the two loss hooks alone, and "sharing"
    is that of a fit among ranks, as a sum over rows.
    """

    def mark(hook: _Hook) -> _Hook:
        hook.__dict__["_decides"] = what
        return hook

    return mark


def overridden(cls: type, base: type, what: What) -> list[str]:
    """Return the hooks that decide ``what`` and are overridden in ``cls``, or in a class between it and ``base``."""
    return [name for name in _deciding(cls, what) if _position(cls, name) < cls.__mro__.index(base)]


def newer_than_forces(cls: type) -> list[str]:
    """Return the hooks that are defined below the class that declares the pair forces."""
    declared = _position(cls, "_pair_forces")
    return [name for name in _deciding(cls, "forces") if _position(cls, name) < declared]


def _deciding(cls: type, what: What) -> list[str]:
    """Return the names of the methods and properties that a base has marked, those of the root first."""
    found: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            function = value.fget if isinstance(value, property) else value
            if what in getattr(function, "__dict__", {}).get("_decides", ()):
                found[name] = None
    return list(found)


def _position(cls: type, name: str) -> int:
    """Return the position in the method resolution order of the class that defines ``name``."""
    return next(depth for depth, base in enumerate(cls.__mro__) if name in vars(base))
