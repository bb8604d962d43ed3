"""The layers and the multilayer perceptron behind ``encoder="mlp"``."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """The layer x ↦ (x − mean) / scale, with one scale for all columns, so that distances keep their proportions.

    Parameters
    ----------
    mean : Tensor of shape (f,)
        Column means, in double precision.
    scale : float
        Root mean square of the centred values.

    Input of any real dtype is accepted; float64 is centred before it is rounded to the dtype of the network.
    """

    def __init__(self, mean: Tensor, scale: float) -> None:
        super().__init__()
        # The mean is kept as the bits of integers, so that .to(torch.float32) does not round it.
        self.register_buffer("mean_bits", mean.double().view(torch.int64))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.get_default_dtype()))

    mean_bits: Tensor
    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return (r, f) in the network's dtype."""
        mean, dtype = self.mean_bits.view(torch.float64), self.scale.dtype
        exact = x.dtype in (torch.float64, torch.int64, torch.int32)
        centred = x.double() - mean if exact else x.to(dtype) - mean.to(dtype)
        return centred.to(dtype) / self.scale


def takes_any_dtype(encoder: nn.Module) -> bool:
    """Return whether the encoder begins with `Standardize`, which centres rows before it rounds them."""
    return isinstance(encoder, nn.Sequential) and len(encoder) > 0 and isinstance(encoder[0], Standardize)


class Unstandardize(nn.Module):
    """The layer y ↦ y · scale + mean, by which a decoder returns to the units of the data."""

    def __init__(self, mean: Tensor, scale: float) -> None:
        super().__init__()
        self.register_buffer("mean", mean.to(torch.get_default_dtype()))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.get_default_dtype()))

    mean: Tensor
    scale: Tensor

    def forward(self, y: Tensor) -> Tensor:
        """Return (r, f)."""
        return y * self.scale + self.mean


class Jitter(nn.Module):
    """A layer that adds Gaussian noise in training, so that the map is smooth between the training points.

    Parameters
    ----------
    strength : float
        Standard deviation of the noise in each column.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        """Return noisy rows in training, and the same rows otherwise."""
        return x + self.strength * torch.randn_like(x) if self.training else x

    def extra_repr(self) -> str:
        """Return the strength as text."""
        return f"strength={self.strength}"


class UnitNorm(nn.Module):
    """The layer x ↦ x/‖x‖, which gives rows of length 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (r, d)."""
        return nn.functional.normalize(x, dim=-1)


class ResidualBlock(nn.Module):
    """x ↦ x + W₂ lrelu(LN(W₁ lrelu(LN(x)))), with leaky rectifiers of slope 0.1.

    Parameters
    ----------
    width : int
        Number of columns.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        halves = (
            (nn.LayerNorm(width, dtype=torch.float32), nn.LeakyReLU(0.1), nn.Linear(width, width, dtype=torch.float32))
            for _ in range(2)
        )
        self.layers = nn.Sequential(*(layer for half in halves for layer in half))

    def forward(self, x: Tensor) -> Tensor:
        """Return (r, width)."""
        return x + self.layers(x)


def residual_mlp(n_in: int, n_out: int, width: int = 256, n_blocks: int = 2) -> nn.Sequential:
    """Return a residual multilayer perceptron onto the unit sphere.

    Parameters
    ----------
    n_in, n_out : int
        Numbers of columns.
    width : int, default=256
        Number of columns in the residual blocks.
    n_blocks : int, default=2
        Number of residual blocks.
    """
    blocks = [ResidualBlock(width) for _ in range(n_blocks)]
    return nn.Sequential(
        nn.Linear(n_in, width, dtype=torch.float32), *blocks, nn.Linear(width, n_out, dtype=torch.float32), UnitNorm()
    )


def mlp(n_in: int, n_out: int, sizes: Sequence[int] = (100, 100, 100), *, normalise: bool = True) -> nn.Sequential:
    """Return a multilayer perceptron with rectifiers.

    Parameters
    ----------
    n_in, n_out : int
        Numbers of columns.
    sizes : sequence of int, default=(100, 100, 100)
        Widths of the hidden layers.
    normalise : bool, default=True
        Whether each hidden layer is normalised over the mini-batch, which lets a step move several times as far.
    """
    layers: list[nn.Module] = []
    for size in sizes:
        layers.append(nn.Linear(n_in, size, dtype=torch.float32))
        if normalise:
            layers.append(nn.BatchNorm1d(size, dtype=torch.float32))
        layers.append(nn.ReLU())
        n_in = size
    return nn.Sequential(*layers, nn.Linear(n_in, n_out, dtype=torch.float32))
