"""What a force engine is given: the fixed problem, and what one step adds."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.distributed import Share
from torchdr_cne.forces.declaration import PairForces
from torchdr_cne.sampling import BlockLayout


@dataclass(frozen=True)
class ForceProblem:
    """What stays the same from step to step.

    Attributes
    ----------
    layout : BlockLayout
        Points to slots.
    graph : AffinityGraph
        The input graph over points: the rows of all, in their order, or of those in this rank's slots, in any.
    forces : PairForces
        The method's declaration.
    draw_weights : Tensor of shape (slots,)
        How many of a row's n_negatives one drawn negative stands for if one block is met; with S blocks each stands
        for 1/S of that. 0 for padding.
    exclude_edges : bool
        Whether a row's neighbours are no negatives of it.
    slots : Tensor of shape (rows of the graph,), int64
        The slot of each row; None is that of the point of the same number.
    share : Share
        The slots of each rank; None is one rank with all.
    """

    layout: BlockLayout
    graph: AffinityGraph
    forces: PairForces
    draw_weights: Tensor
    exclude_edges: bool = False
    slots: Tensor = None  # type: ignore[assignment]  # filled in below
    share: Share = None  # type: ignore[assignment]  # filled in below

    def __post_init__(self) -> None:
        if self.slots is None:
            object.__setattr__(self, "slots", self.layout.slot_of)
        if self.share is None:
            object.__setattr__(self, "share", Share.whole(self.layout.n_slots))

    def slot_graph(self) -> AffinityGraph:
        """Return the input graph's rows in this rank's slots, one a slot; engines copy from it what they need."""
        return self.layout.arrange(self.graph, self.slots, self.share.own)

    @cached_property
    def row_weights(self) -> Tensor:
        """Sum of the edge weights of each slot's row, on all ranks, (slots,)."""
        own = self.graph.row_weights
        weights = own.new_zeros(self.layout.n_slots).index_copy(0, self.slots, own)
        return self.share.gather_(weights, "the exchange of row weights")

    @cached_property
    def is_uniform(self) -> bool:
        """Whether all edges have one weight."""
        weights = self.graph.weights
        ends = torch.stack([weights.min(), -weights.max()]) if len(weights) else weights.new_full((2,), torch.inf)
        ends = self.share.ranks.smallest(ends, "the exchange of weights")
        return bool(ends[0] == -ends[1])


@dataclass(frozen=True)
class StepCoefficients:
    """What one step adds.

    Attributes
    ----------
    shifts : list of int
        Block a meets block (s − a) mod B for each s.
    parameters : tuple of Tensor or float
        Second argument of the declared functions.
    attraction, repulsion : float
        Weights of the two parts of the loss.
    longest : float or None
        Gradients of single rows that are longer are shortened to this.
    """

    shifts: list[int]
    parameters: tuple[Tensor | float, ...]
    attraction: float = 1.0
    repulsion: float = 1.0
    longest: float | None = None


class ForceEngine(Protocol):
    """Computes row-owned gradients of one problem.

    ``own_threads`` tells that it brings its own: torch's would spin against them between the steps.
    """

    own_threads: bool

    def gradient(self, z_ds: Tensor, step: StepCoefficients) -> tuple[Tensor, Tensor | None]:
        """Return the gradient (d, own slots) and the learned scalar's derivative (), if there is one."""


@runtime_checkable
class ReplayableEngine(ForceEngine, Protocol):
    """An engine whose steps are launches on memory that stays where it is."""

    is_replayable: bool

    def send(self, z_ds: Tensor, step: StepCoefficients) -> Hashable:
        """Send to the device what changes from step to step, and return all that the launches depend on besides."""

    def launch(self, z_ds: Tensor, step: StepCoefficients) -> tuple[Tensor, Tensor | None]:
        """Launch the step on what was sent, without waiting for the device; return what `ForceEngine.gradient` does."""
