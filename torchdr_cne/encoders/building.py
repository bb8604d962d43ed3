"""Functions that build a network that fits the data from a name, sizes or a module."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from torchdr_cne.checks import COUNT
from torchdr_cne.encoders.networks import Jitter, Standardize, Unstandardize, mlp, residual_mlp
from torchdr_cne.encoders.running import evaluating, random_numbers_kept
from torchdr_cne.hashing import reproducible

_SIZES = {"mlp": (100, 100, 100)}
_NAMES = (*_SIZES, "residual_mlp")
_JITTER = 0.4
"""Noise, relative to the data's root mean square per column: less overfits small data, more blurs the map.

See docs/learned-maps.md.
"""
_PROBED_ROWS = 8


class NetworkPlan(ABC):
    """A plan from which an estimator builds its network once it has seen the data, instead of a name or sizes."""

    @abstractmethod
    def build(self, shape: Sequence[int], n_components: int) -> nn.Module:
        """Return a network from rows (r, *shape) to (r, n_components), its weights drawn by torch's generator."""


def check_spec(name: str, spec: Any) -> None:
    """Raise a ValueError unless ``spec`` is None, a known name, a sequence of sizes or a module."""
    names = _NAMES if name == "encoder" else tuple(_SIZES)
    if spec is None or (isinstance(spec, str) and spec in names) or isinstance(spec, (nn.Module, NetworkPlan)):
        return
    sizes = spec if isinstance(spec, Sequence) and not isinstance(spec, str) else ()
    if not sizes or not all(COUNT.admits(size) for size in sizes):
        raise ValueError(
            f"{name}={spec!r} is no network; pass {', '.join(map(repr, names))}, the sizes of hidden layers such as "
            "(100, 100), or a torch.nn.Module."
        )


def build_encoder(spec: Any, mean: Tensor, scale: float, n_components: int, *, seed: int, dtype: torch.dtype) -> Any:
    """Return a network from rows (r, f) to the embedding (r, n_components); a user's module is copied with its weights.

    Parameters
    ----------
    spec : str, sequence of int or Module
        The value of ``encoder=``.
    mean : Tensor of shape (f,)
        Column means of the data.
    scale : float
        Root mean square of the centred data.
    n_components : int
        Dimension of the embedding.
    seed : int
        Seed of the first weights; global random numbers are not used.
    dtype : torch.dtype
        Dtype of the network.
    """
    if isinstance(spec, nn.Module):
        return deepcopy(spec).to(dtype)
    with reproducible(seed):
        if spec == "residual_mlp":
            return nn.Sequential(Standardize(mean, scale), residual_mlp(len(mean), n_components)).to(dtype)
        layers = mlp(len(mean), n_components, _SIZES[spec] if isinstance(spec, str) else tuple(spec))
    return nn.Sequential(Standardize(mean, scale), Jitter(_JITTER), layers).to(dtype)


def build_decoder(spec: Any, mean: Tensor, scale: float, n_components: int, *, seed: int, dtype: torch.dtype) -> Any:
    """Return a network from an embedding (r, n_components) to rows (r, f); parameters are as in `build_encoder`."""
    if isinstance(spec, nn.Module):
        return deepcopy(spec).to(dtype)
    sizes = _SIZES[spec] if isinstance(spec, str) else tuple(reversed(spec))
    with reproducible(seed):
        layers = mlp(n_components, len(mean), sizes)
    return nn.Sequential(layers, Unstandardize(mean, scale)).to(dtype)


def probe(network: nn.Module, rows: Tensor, n_out: int, name: str, what: str) -> None:
    """Raise a ValueError if a network does not give ``n_out`` columns for a few rows; called before any work."""
    rows = rows[:_PROBED_ROWS]
    try:
        with torch.no_grad(), evaluating(network), random_numbers_kept(network):
            found = network(rows)
    except Exception as error:  # a user's module may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"the {name} cannot take rows of shape {tuple(rows.shape)} and dtype {rows.dtype}: {reason}; its first "
            f"layer must fit {what}."
        ) from error
    if not isinstance(found, Tensor) or found.shape != (len(rows), n_out):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"the {name} gives {shape} for {len(rows)} rows where ({len(rows)}, {n_out}) is needed; change its last "
            f"layer, or {'n_components' if name == 'encoder' else 'the data'}."
        )
    if not bool(torch.isfinite(found).all()):
        raise ValueError(f"the {name} gives NaN or infinity for the first rows before any training; check its weights.")


def _check_layers(role: str, spec: Any, weights: Sequence[Tensor]) -> None:
    """Raise a ValueError unless saved weights have the layers of a specification, before any of these are made."""
    if role == "classifier":
        expected: Any = 1
        found: Any = len(weights)
    elif spec == "residual_mlp":
        return  # whose layers have fixed sizes
    else:
        check_spec(role, spec)
        sizes = () if spec is None else _SIZES[spec] if isinstance(spec, str) else tuple(spec)
        expected = [int(size) for size in (sizes if role == "encoder" or isinstance(spec, str) else reversed(sizes))]
        found = [len(weight) for weight in weights[:-1]]
    if not weights or found != expected:
        raise ValueError(f"the saved {role} does not fit {role}={str(spec)[:60]}: it has layers of {found} units.")


def rebuild(role: str, spec: Any, state: dict[str, Tensor], shape: Sequence[int], n_components: int) -> nn.Module:
    """Return a fitted network, rebuilt from its specification and its saved parameters and buffers.

    Parameters
    ----------
    role : {"encoder", "decoder", "classifier"}
        Role of the network.
    spec : str, sequence of int, Module or None
        Value of the estimator's parameter of that name.
    state : dict of str to Tensor
        The network's ``state_dict()``.
    shape : sequence of int
        Shape of a row, as far as it is known.
    n_components : int
        Dimension of the embedding.
    """
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"the saved {role} has no weights; save the fitted estimator again.")
    weights = [value for name, value in state.items() if name.endswith("weight") and value.ndim == 2]
    if not isinstance(spec, (nn.Module, NetworkPlan)):
        _check_layers(role, spec, weights)
    if isinstance(spec, nn.Module):
        network = deepcopy(spec)
    elif isinstance(spec, NetworkPlan):
        with reproducible(0):
            network = spec.build(shape, n_components)
    elif role == "classifier":
        network = nn.Linear(weights[0].shape[1], weights[0].shape[0], dtype=torch.float32)
    else:
        n_in, n_out = weights[0].shape[1], weights[-1].shape[0]
        mean = torch.zeros(n_in if role == "encoder" else n_out, dtype=torch.float32)
        settings: dict[str, Any] = {"n_components": n_out if role == "encoder" else n_in, "seed": 0}
        build = build_encoder if role == "encoder" else build_decoder
        network = build(spec, mean, 1.0, **settings, dtype=torch.float32)
    dtypes = {value.dtype for value in state.values() if value.is_floating_point()}
    network = network.to(dtypes.pop()) if len(dtypes) == 1 else network
    try:
        network.load_state_dict(state)
        for name, value in network.state_dict().items():  # torch would convert them
            if (value.dtype, value.shape) != (state[name].dtype, state[name].shape):
                raise RuntimeError(f"{name} is of {state[name].dtype} and shape {tuple(state[name].shape)}")
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the saved {role} does not fit {type(spec).__name__}: {reason[:300]}") from error
    return network.eval()
