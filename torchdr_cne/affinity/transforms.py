"""Transforms for composed affinities: a function of each value, symmetrisation and normalisation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchdr_cne.affinity.composed import DISTANCES, GRAPH, WEIGHTS, Transform
from torchdr_cne.affinity.graph import AffinityGraph, symmetric_mean, symmetrized, without_zeros
from torchdr_cne.devices import block_elements
from torchdr_cne.neighbors import NeighborGraph
from torchdr_cne.similarities import CosineExp, Similarity

_BLOCK = 4096
"""Number of values per call of a function: whole vectors of one thread, so that equal values give equal bits."""
_PROBES = torch.cat([torch.zeros(1, dtype=torch.float32), torch.logspace(-6, 6, 37, dtype=torch.float32)])


@dataclass(frozen=True)
class Symmetrize(Transform):
    """A transform that gives both directions of an edge the same weight.

    Parameters
    ----------
    rule : {"union", "mean"}, default="union"
        "union" is P + Pᵀ − P∘Pᵀ for weights in [0, 1], float32, the fuzzy union of UMAP; "mean" is (P + Pᵀ)/2.
    set_op_mix_ratio : float, default=1.0
        For "union": mixture of the union (1) with the intersection P∘Pᵀ (0).
    """

    rule: str = "union"
    set_op_mix_ratio: float = 1.0

    turns = {WEIGHTS: GRAPH}

    def __post_init__(self) -> None:
        if self.rule not in ("union", "mean"):
            raise ValueError(f"rule={self.rule!r} is unknown; choose 'union' or 'mean'.")
        if not 0 <= self.set_op_mix_ratio <= 1:
            raise ValueError(f"set_op_mix_ratio={self.set_op_mix_ratio} must lie in [0, 1].")
        if self.rule == "mean" and self.set_op_mix_ratio != 1:
            raise ValueError(f"set_op_mix_ratio={self.set_op_mix_ratio} is for rule='union'; leave it out.")

    def apply(self, values: Tensor, neighbors: NeighborGraph) -> AffinityGraph:
        """Return the symmetric graph of directed weights."""
        if self.rule == "mean":
            return symmetric_mean(neighbors.indices, values, neighbors.share)
        with neighbors.share.ranks.all_or_none("the check of weights"):
            if values.numel() and float(values.max()) > 1:
                raise ValueError(
                    f"Symmetrize('union') takes weights of at most 1, got {float(values.max()):g}; use "
                    "Symmetrize('mean'), or a function with values in [0, 1]."
                )
        return symmetrized(neighbors.indices, values, self.set_op_mix_ratio, neighbors.share)


@dataclass(frozen=True)
class Normalize(Transform):
    """A transform that scales the weights of a symmetric graph.

    Parameters
    ----------
    to : {"total", "rows"}, default="total"
        "total" makes all weights sum to 1; "rows" makes those of a row sum to 1 on average over the rows.
    """

    to: str = "total"

    turns = {GRAPH: GRAPH}

    def __post_init__(self) -> None:
        if self.to not in ("total", "rows"):
            raise ValueError(f"to={self.to!r} is unknown; choose 'total' or 'rows'.")

    def apply(self, values: AffinityGraph, neighbors: NeighborGraph) -> AffinityGraph:
        """Return the graph with weights divided by their sum."""
        rows = replace(values, weights=values.weights.double()).row_weights
        total = float(neighbors.share.total(rows, "the sum of the weights"))
        divisor = total / neighbors.share.n if self.to == "rows" else total
        return replace(values, weights=values.weights / divisor) if divisor > 0 else values


@dataclass(frozen=True, repr=False)
class Function(Transform):
    """A function of your own of each distance, of each directed weight, or of each weight of a symmetric graph.

    Parameters
    ----------
    function : callable or Similarity
        Function from a 1-D tensor of values to a tensor of equally many weights, finite and >= 0, each of which depends
        only on its own value. A `Cauchy` or `StudentT` is a function of distances, and can be saved.
    """

    function: Callable[[Tensor], Tensor] | Similarity

    turns = {DISTANCES: WEIGHTS, WEIGHTS: WEIGHTS, GRAPH: GRAPH}

    def __post_init__(self) -> None:
        if not callable(self.function) or isinstance(self.function, CosineExp):
            raise ValueError(
                f"function={self.function!r} is no function of one tensor of values; pass a callable, or the "
                "similarity Cauchy() or StudentT()."
            )

    def __repr__(self) -> str:
        function = self.function
        known = repr(function) if isinstance(function, Similarity) else getattr(function, "__name__", None)
        return f"Function({known or type(function).__name__})"

    @property
    def fingerprint(self) -> str:
        """Return the name of the function and some of its values, which distinguish it from others."""
        return f"{self!r} {[f'{value:.4g}' for value in self._of_block(_PROBES).tolist()]}"

    def apply(self, values: Any, neighbors: NeighborGraph) -> Any:
        """Return the values of the function at all distances or weights."""
        with neighbors.share.ranks.all_or_none("the affinity's function"):
            if isinstance(values, AffinityGraph):
                return without_zeros(replace(values, weights=self._checked(values.weights)))
            return self._checked(values)

    def _checked(self, values: Tensor) -> Tensor:
        """Return the weights of ``values``, block by block."""
        flat = values.reshape(-1)
        if not len(flat):
            return values
        step = block_elements(flat.device, _BLOCK)
        padded = torch.nn.functional.pad(flat, (0, -len(flat) % _BLOCK))
        padded[len(flat) :] = flat[:1]  # padding with a value that occurs
        blocks = [self._of_block(block) for block in padded.split(step)]
        self._check_elementwise(padded[:_BLOCK], blocks[0])
        weights = torch.cat(blocks)[: len(flat)].to(values.dtype)
        bad = ~(torch.isfinite(weights) & (weights >= 0))
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise ValueError(
                f"{self!r} gives {float(weights[first]):g} for {float(flat[first]):g}; weights must be finite and "
                ">= 0, also at distance 0."
            )
        return weights.view(values.shape)

    def _of_block(self, block: Tensor) -> Tensor:
        result = self._called(block)
        if not isinstance(result, Tensor) or result.shape != block.shape or result.is_complex():
            given = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
            raise ValueError(
                f"{self!r} returned {given} for a tensor of shape {tuple(block.shape)}; return one real weight for "
                "each value, in a tensor."
            )
        return result.detach()

    def _called(self, block: Tensor) -> Any:
        if isinstance(self.function, Similarity):
            return self.function(block.unsqueeze(-1), block.new_zeros(1)).exp()
        return self.function(block.clone())  # the function may change its argument

    def _check_elementwise(self, block: Tensor, result: Tensor) -> None:
        """Raise a ValueError unless the first few values alone give the same weights as among the others."""
        few = slice(0, _BLOCK // 64)
        if not torch.allclose(self._of_block(block[few]).double(), result[few].double(), rtol=1e-3, equal_nan=True):
            raise ValueError(
                f"{self!r} gives a value another weight among other values; each weight must depend on its own value "
                "only, not on a mean or maximum of the tensor."
            )
