"""What a force engine is given: the fixed problem, and what one step adds."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
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
        The input graph over points.
    forces : PairForces
        The method's declaration.
    draw_weights : Tensor of shape (slots,)
        How many of a row's n_negatives one drawn negative stands for if one block is met; with S blocks each stands
        for 1/S of that. 0 for padding.
    exclude_edges : bool
        Whether a row's neighbours are no negatives of it.
    """

    layout: BlockLayout
    graph: AffinityGraph
    forces: PairForces
    draw_weights: Tensor
    exclude_edges: bool = False

    @cached_property
    def slot_graph(self) -> AffinityGraph:
        """The input graph over slots."""
        return self.layout.arrange(self.graph)


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
        """Return the gradient (d, slots) and the learned scalar's derivative (), if there is one."""
