"""Counts the arithmetic of a declared pair force by running it on numbers that keep a ledger."""

from dataclasses import dataclass, field
from typing import Any

from torchdr_cne.forces import PairForces

_POWER_FLOPS = 2 * 12 + 5
"""Of `torchdr_cne.forces.numerics.power`: two polynomials and the additions around them."""
_TILE_FLOPS = 2 + 3 + 3 + 6
"""Of a pair of a tile: the difference, d², the pair's weight, and the force on both of its ends."""
NEGATIVES_PER_PAIR = 2
"""A pair of a tile is computed once and is a negative of both of its ends."""
_EDGE_FLOPS = 2 + 3 + 2 + 4
_TOTALS_FLOPS = 2 + 3 + 3


@dataclass
class Ledger:
    """Different operations met so far, as text; the same one twice counts once, as a compiler has it."""

    entries: set[str] = field(default_factory=set)
    powers: int = 0

    def number(self, name: str) -> "Counted":
        """Return a number to calculate with."""
        return Counted(name, self)

    @property
    def divisions(self) -> int:
        """Number of divisions."""
        return sum(entry.startswith("/") for entry in self.entries)

    @property
    def flops(self) -> int:
        """Number of floating-point operations, divisions left out."""
        powers = sum(entry.startswith("power") for entry in self.entries)
        return len(self.entries) - self.divisions - powers + _POWER_FLOPS * powers


class Counted:
    """A number that enters each operation in its ledger."""

    def __init__(self, text: str, ledger: Ledger) -> None:
        self.text, self.ledger = text, ledger

    def enter(self, operation: str, left: Any, right: Any) -> "Counted":
        """Record an operation and return its result."""
        text = f"{operation}({_text(left)},{_text(right)})"
        self.ledger.entries.add(text)
        return Counted(text, self.ledger)

    def __add__(self, other: Any) -> "Counted":
        return self.enter("+", self, other)

    def __radd__(self, other: Any) -> "Counted":
        return self.enter("+", other, self)

    def __sub__(self, other: Any) -> "Counted":
        return self.enter("-", self, other)

    def __rsub__(self, other: Any) -> "Counted":
        return self.enter("-", other, self)

    def __mul__(self, other: Any) -> "Counted":
        return self.enter("*", self, other)

    def __rmul__(self, other: Any) -> "Counted":
        return self.enter("*", other, self)

    def __truediv__(self, other: Any) -> "Counted":
        return self.enter("/", self, other)

    def __rtruediv__(self, other: Any) -> "Counted":
        return self.enter("/", other, self)


def per_pair(forces: PairForces) -> tuple[int, int]:
    """Return flops and divisions that a pair of a tile, two negatives, costs in two dimensions over all passes."""
    ledger = Ledger()
    _call(forces.repulsive, ledger)
    flops = _TILE_FLOPS
    if forces.repulsive_scalar is not None:
        _call(forces.repulsive_scalar, ledger)
        flops += 2
    if forces.normaliser is None:
        return flops + ledger.flops, ledger.divisions
    first_pass = Ledger()
    _call(forces.normaliser, first_pass)
    flops += _TOTALS_FLOPS + ledger.flops + first_pass.flops
    return flops, ledger.divisions + first_pass.divisions


def per_edge(forces: PairForces) -> tuple[int, int, int]:
    """Return flops, divisions and gathered numbers' pairs that one directed edge costs, over all passes."""
    ledger = Ledger()
    _call(forces.attractive, ledger)
    flops = _EDGE_FLOPS
    if forces.attractive_scalar is not None:
        _call(forces.attractive_scalar, ledger)
        flops += 2
    if forces.normaliser is None:
        return flops + ledger.flops, ledger.divisions, 1
    # Second pass: q, both totals and the slope of q; first pass: q and w / (q + total).
    for function in (forces.normaliser, forces.repulsive):
        _call(function, ledger)
    first_pass = Ledger()
    _call(forces.normaliser, first_pass)
    flops += 6 + ledger.flops + 7 + first_pass.flops
    return flops, ledger.divisions + 2 + first_pass.divisions + 1, 2


def _call(function: Any, ledger: Ledger) -> None:
    parameters = tuple(ledger.number(f"p{i}") for i in range(4))
    function(ledger.number("d2"), parameters, lambda base, exponent: base.enter("power", base, exponent))


def _text(value: Any) -> str:
    return value.text if isinstance(value, Counted) else repr(value)
