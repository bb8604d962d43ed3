"""How a method declares its forces, once, for torch and for the kernels of CPUs and GPUs alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchdr_cne.kernels import Kernel

PairFunction = Callable[[Any, tuple[Any, ...], Callable[[Any, Any], Any]], Any]
"""``f(d2, parameters, power)``: plain arithmetic (+ − × ÷ and ``power(base, exponent)``) of d²."""


@dataclass(frozen=True)
class PairForces:
    """Derivatives of a pair's loss with respect to d² = ‖z_i − z_j‖².

    Each function is ``f(d2, parameters, power)``, must be defined at module level, and may only use
    + − × ÷ and ``power``, so that one text runs on torch tensors and compiles into the kernels of CPUs and GPUs. On a
    GPU, a function that does anything else, or reads more than eight parameters, is left to torch. ``parameters`` is
    the tuple returned by the method's ``_force_parameters``.

    The derivatives must be those of the two loss hooks. Where ``normaliser`` is given the repulsive loss of
    an edge (i, j) is log(q_ij + Σ_k q_ik), ``normaliser`` is q and ``repulsive`` its derivative.

    Attributes
    ----------
    attractive : callable
        Derivative of the attractive loss of an edge.
    repulsive : callable
        Derivative of the repulsive loss of a negative, or of q where there is a ``normaliser``.
    normaliser : callable, default=None
        q itself, for losses that normalise over a row.
    attractive_scalar, repulsive_scalar : callable, default=None
        Derivatives with respect to the method's one learned scalar.
    """

    attractive: PairFunction
    repulsive: PairFunction
    normaliser: PairFunction | None = None
    attractive_scalar: PairFunction | None = None
    repulsive_scalar: PairFunction | None = None

    @classmethod
    def of_kernel(cls, kernel: Kernel) -> "PairForces":
        """Return the forces of −log q along edges, and of what is computed from sums of q over rows."""
        return cls(attractive=kernel.attraction, repulsive=kernel.slope, normaliser=kernel.q)

    def __post_init__(self) -> None:
        if (self.attractive_scalar is None) != (self.repulsive_scalar is None):
            raise ValueError("PairForces needs attractive_scalar and repulsive_scalar together, or neither.")
        for name, function in vars(self).items():
            if function is not None and (function.__closure__ or function.__defaults__):
                raise ValueError(
                    f"PairForces.{name} must be a plain function of (d2, p, power) without defaults or captured "
                    "variables; pass numbers through _force_parameters."
                )
