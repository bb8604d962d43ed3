"""Checks of parameter values, which are made before any work."""

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Bound:
    """A lower bound for finite numbers, which may equal ``low`` unless the bound is ``strict``."""

    low: float
    strict: bool = False
    integer: bool = False

    def admits(self, value: Any) -> bool:
        """Return whether ``value`` is a number within the bound."""
        kind = numbers.Integral if self.integer else numbers.Real
        if not isinstance(value, kind) or isinstance(value, bool) or not math.isfinite(value):
            return False
        return float(value) > self.low if self.strict else float(value) >= self.low

    def __str__(self) -> str:
        if self.low == -math.inf:
            return "a finite number"
        return f"{'an integer' if self.integer else 'a number'} {'>' if self.strict else '>='} {self.low:g}"


COUNT = Bound(1, integer=True)
POSITIVE = Bound(0, strict=True)
NOT_NEGATIVE = Bound(0)
FINITE = Bound(-math.inf)


def without(bounds: dict[str, Bound], *names: str) -> dict[str, Bound]:
    """Return the bounds without those of some parameters, which a class does not have."""
    return {name: bound for name, bound in bounds.items() if name not in names}


def check_bounds(owner: Any, bounds: dict[str, Bound]) -> None:
    """Raise a ValueError if a named attribute of ``owner`` is out of bounds; None passes if it is the default."""
    for name, bound in bounds.items():
        value = getattr(owner, name)
        if value is None and getattr(type(owner), name) is None:
            continue
        if not bound.admits(value):
            raise ValueError(f"{name}={value!r} must be {bound}.")


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise a ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(map(repr, choices))}.")


def check_unmasked(values: Any, name: str, advice: str) -> None:
    """Raise a ValueError if entries of a masked array are masked; NumPy would take what lies under the mask."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        mask = np.ma.getmaskarray(values)
        row = int(np.nonzero(mask.reshape(len(mask), -1).any(axis=1))[0][0])
        raise ValueError(
            f"{name} is a masked array with {int(mask.sum())} masked value(s), first in row {row}; {advice}."
        )
