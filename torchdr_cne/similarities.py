"""Similarities of embedded points, always in the form of logarithms: z_i, z_j → log q_ij."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.kernels import (
    CAUCHY,
    Kernel,
    gaussian,
    gaussian_attraction,
    gaussian_slope,
    student,
    student_attraction,
    student_slope,
)
from torchdr_cne.stable_math import log1p
from torchdr_cne.storable import Storable


class Similarity(Storable, ABC):
    """A similarity q(z_i, z_j) of embedded points, computed as log q over the last axis.

    A similarity that uses only arithmetic and methods of tensors also works with the symbolic tensors of KeOps.
    """

    @property
    def kernel(self) -> Kernel | None:
        """q and its slope as functions of d²; None if q is not a function of d², or has no such form here."""
        return None

    @abstractmethod
    def __call__(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Return log q (…) of ``z_i`` and ``z_j`` (…, d), broadcast against each other."""

    def table(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Return log q (r, m) of each of ``z_i`` (r, d) with each of ``z_j`` (m, d)."""
        # With the short last axis slowest in memory, sums over it are sums of whole tables.
        columns_i, columns_j = (z.t().contiguous().t() for z in (z_i, z_j))
        return self(columns_i.unsqueeze(1), columns_j.unsqueeze(0))


def squared_distance(z_i: Tensor, z_j: Tensor) -> Tensor:
    """Return ‖z_i − z_j‖² over the last axis, computed from differences."""
    return (z_i - z_j).square().sum(dim=-1)


_WIDE = 16
"""Number of columns from which on distances between all rows of two tables are computed by a product."""


def squared_distances(z_i: Tensor, z_j: Tensor) -> Tensor:
    """Return ‖z_i − z_j‖² (r, m) of each of ``z_i`` (r, d) with each of ``z_j`` (m, d) without a table (r, m, d)."""
    centre = z_j.detach().mean(dim=0)
    z_i, z_j = z_i - centre, z_j - centre
    squares_i, squares_j = (z.square().sum(dim=1) for z in (z_i, z_j))
    return (squares_i.unsqueeze(1) + squares_j - 2 * (z_i @ z_j.T)).clamp_min(0)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < np.inf:
            raise ValueError(f"{name}={value!r} must be a positive number.")


@dataclass(frozen=True)
class Cauchy(Similarity):
    """Cauchy kernel and UMAP's two-parameter curve: q = 1 / (1 + a d^{2b}).

    Parameters
    ----------
    a, b : float, default=1.0
        Parameters of the curve; a = b = 1 is Student's t with one degree of freedom.
    floor : float, default=None
        Number added to d², which keeps 1 − q above 0 and the gradient of its logarithm finite for coincident points.
        None adds 1e-6 if (a, b) ≠ (1, 1), as UMAP needs, and nothing otherwise.
    """

    a: float = 1.0
    b: float = 1.0
    floor: float | None = None

    def __post_init__(self) -> None:
        _check_positive(a=self.a, b=self.b)

    def __call__(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Return log q = −log1p(a (d² + floor)^b)."""
        return self._of_squares(squared_distance(z_i, z_j))

    def table(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Return log q (r, m), computed by a product if there are many columns."""
        return self._of_squares(squared_distances(z_i, z_j)) if z_i.shape[1] >= _WIDE else super().table(z_i, z_j)

    def _of_squares(self, d2: Tensor) -> Tensor:
        d2 = d2 + self.distance_floor
        return -log1p(d2 if self.is_plain else self.a * (self.b * d2.log()).exp())

    @property
    def kernel(self) -> Kernel | None:
        """The kernel 1/(1 + d²); None if the parameters are different."""
        return CAUCHY if self.is_plain and self.distance_floor == 0 else None

    @property
    def is_plain(self) -> bool:
        """Whether a = b = 1."""
        return self.a == 1.0 and self.b == 1.0

    @property
    def distance_floor(self) -> float:
        """The number added to d²."""
        if self.floor is not None:
            return self.floor
        return 0.0 if self.is_plain else 1e-6


@dataclass(frozen=True)
class StudentT(Similarity):
    """Student kernel q = (1 + d²/dof)^{−dof}, in the convention of openTSNE; dof = 1 is the Cauchy kernel."""

    dof: float = 1.0

    def __post_init__(self) -> None:
        _check_positive(dof=self.dof)

    def __call__(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Return log q = −dof · log1p(d²/dof)."""
        return -self.dof * log1p(squared_distance(z_i, z_j) / self.dof)

    @property
    def kernel(self) -> Kernel:
        """The kernel (1 + d²/dof)^{−dof}."""
        if self.dof == 1:
            return CAUCHY  # without parameters, so that one compiled kernel serves all methods that have it
        return Kernel(student, student_slope, student_attraction, (self.dof,))


@dataclass(frozen=True)
class Gaussian(Similarity):
    """Gaussian kernel q = exp(−d²), the similarity of SNE."""

    def __call__(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Return log q = −d²."""
        return -squared_distance(z_i, z_j)

    @property
    def kernel(self) -> Kernel:
        """The kernel exp(−d²)."""
        return Kernel(gaussian, gaussian_slope, gaussian_attraction)


@dataclass(frozen=True)
class HyperbolicCauchy(Similarity):
    """Cauchy kernel q = 1/(1 + (d_H/γ)²) of the distance d_H in the Poincaré ball (Guo et al., 2022).

    ``gamma`` is γ, the distance at which q is one half.
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        _check_positive(gamma=self.gamma)

    def __call__(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Return log q of points inside the unit ball."""
        return -log1p((hyperbolic_distance(z_i, z_j) / self.gamma).square())


def hyperbolic_distance(z_i: Tensor, z_j: Tensor) -> Tensor:
    """Return the distance in the Poincaré ball over the last axis.

    It is arcosh(1 + 2‖z_i − z_j‖²/((1 − ‖z_i‖²)(1 − ‖z_j‖²))), computed so that small distances are accurate.

    Parameters
    ----------
    z_i, z_j : Tensor of shape (…, d)
        Points of norm less than 1, broadcast against each other.

    Returns
    -------
    Tensor of shape (…)
        Distances, at least 2e-6, so that gradients at equal points are finite.
    """
    of_i, of_j = 1 - z_i.square().sum(dim=-1), 1 - z_j.square().sum(dim=-1)
    half_sine = (squared_distance(z_i, z_j) / (of_i * of_j) + _LEAST_SQUARE).sqrt()
    return 2 * (half_sine + (1 + half_sine.square()).sqrt()).log()


_LEAST_SQUARE = 1e-12


@dataclass(frozen=True)
class CosineExp(Similarity):
    """Exponentiated cosine q = exp((cos − 1)/τ), which is SimCLR's similarity up to a constant factor.

    1 − cos is at least 1e-7, so that the logarithm of 1 − q stays finite for parallel vectors.
    """

    temperature: float = 0.5

    def __post_init__(self) -> None:
        _check_positive(temperature=self.temperature)

    def __call__(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Return log q = (cos(z_i, z_j) − 1)/τ."""
        return self._of_cosine(torch.nn.functional.cosine_similarity(z_i, z_j, dim=-1))

    def table(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Return log q (r, m) by one product of unit vectors."""
        unit_i, unit_j = (torch.nn.functional.normalize(z, dim=-1) for z in (z_i, z_j))
        return self._of_cosine(unit_i @ unit_j.T)

    def _of_cosine(self, cosine: Tensor) -> Tensor:
        return -(1 - cosine).clamp_min(1e-7) / self.temperature


def temperature_of(similarity: Similarity | None) -> dict[str, float]:
    """Return the temperature of a similarity by name; empty if it has none."""
    temperature = getattr(similarity, "temperature", None)
    return {} if temperature is None else {"temperature": float(temperature)}


def fit_umap_curve(min_dist: float, spread: float) -> tuple[float, float]:
    """Return (a, b) for which 1/(1 + a d^{2b}) is closest to UMAP's target curve.

    The target is 1 up to ``min_dist`` and exp(−(d − min_dist)/spread) beyond it. The fit is by least squares on 300
    distances up to 3·spread, as in McInnes et al. (2018).

    Raises
    ------
    ValueError
        Unless 0 ≤ min_dist ≤ spread and spread > 0.
    """
    if not (spread > 0 and 0 <= min_dist <= spread):
        raise ValueError(f"need 0 <= min_dist <= spread and spread > 0, got {min_dist=} and {spread=}.")
    from scipy.optimize import curve_fit

    d = np.linspace(0, 3 * spread, 300)
    target = np.where(d < min_dist, 1.0, np.exp(-(d - min_dist) / spread))
    (a, b), _ = curve_fit(lambda x, a, b: 1 / (1 + a * x ** (2 * b)), d, target)
    return float(a), float(b)
