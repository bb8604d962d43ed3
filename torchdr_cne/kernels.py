"""Similarities as plain arithmetic on d², which torch can run and Numba can compile: q, its slope and attraction."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kernel:
    """A similarity as plain arithmetic on d², for declared forces: functions ``f(d2, parameters, power)``.

    Attributes
    ----------
    q : callable
        The similarity.
    slope : callable
        Derivative of q with respect to d².
    attraction : callable
        Derivative of −log q with respect to d².
    parameters : tuple of float
        Second argument of the three functions.
    """

    q: Callable[..., Any]
    slope: Callable[..., Any]
    attraction: Callable[..., Any]
    parameters: tuple[float, ...] = ()


def cauchy(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """q = 1/(1 + d²), which is also the derivative of −log q."""
    return 1.0 / (1.0 + d2)


def cauchy_slope(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of q: −q²."""
    return -1.0 / ((1.0 + d2) * (1.0 + d2))


def student(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """q = (1 + d²/α)^{−α}."""
    dof = p[0]
    return power(1.0 + d2 / dof, -dof)


def student_slope(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of q: −(1 + d²/α)^{−α−1}."""
    dof = p[0]
    return -1.0 * power(1.0 + d2 / dof, -dof - 1.0)


def student_attraction(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of α log(1 + d²/α)."""
    dof = p[0]
    return 1.0 / (1.0 + d2 / dof)


def gaussian(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """q = exp(−d²); ``0.0 * d2`` gives e the type of the distances, a number or a vector of them."""
    return power(2.718281828459045 + 0.0 * d2, -d2)


def gaussian_slope(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of q: −q."""
    return -power(2.718281828459045 + 0.0 * d2, -d2)


def gaussian_attraction(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of d²: 1."""
    return 1.0 + 0.0 * d2


CAUCHY = Kernel(cauchy, cauchy_slope, cauchy)
"""The kernel of t-SNE, q = 1/(1 + d²)."""
