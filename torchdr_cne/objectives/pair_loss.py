"""The loss of a method of attraction and repulsion, as others see it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchdr_cne.forces import PairForces, StepCoefficients
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.state import FitState
from torchdr_cne.similarities import Similarity


@dataclass(frozen=True)
class PairLoss:
    """What a class makes of its hooks, and all that objectives, networks and placement know of it.

    Attributes
    ----------
    similarity : Similarity
        Similarity of embedded points.
    total : callable
        From `Pairs` or `RowSums` and an exaggeration to the whole loss (): both hooks, weighted and summed.
    repulsion : callable
        From `Pairs` or `RowSums` to the repulsive loss, unreduced.
    repulsion_strength : float
        Weight of the repulsion.
    forces : PairForces or None
        The declared derivatives, if there are any.
    force_parameters : callable
        From the phase's and the learned parameters to the second argument of the declared functions.
    why_not_forces : str
        Why the declared forces cannot stand for the hooks; "" if they can.
    n_negatives : float
        How many negatives an edge meets in the objective.
    negatives_per_row : int or None
        How many are drawn a row and step; None is the method's own number.
    discard_neighbors : bool
        Whether a point's neighbours are never its negatives.
    learned : mapping of str to float
        Names and first values of scalars that are learned with the embedding.
    last_phase : callable
        From a number of points to the last phase of a fit, whose constants the final embedding has.
    longest : float or None
        Gradients of single rows that are longer are shortened to this.
    """

    similarity: Similarity
    total: Callable[[Any, float], Tensor]
    repulsion: Callable[[Any], Tensor]
    repulsion_strength: float
    forces: PairForces | None
    force_parameters: Callable[[dict[str, Any]], tuple[Tensor | float, ...]]
    why_not_forces: str
    n_negatives: float
    negatives_per_row: int | None
    discard_neighbors: bool
    learned: Mapping[str, float]
    last_phase: Callable[[int], Phase]
    longest: float | None = None

    def declared(self) -> PairForces:
        """Return the declared forces, of a method that has them."""
        assert self.forces is not None
        return self.forces

    def coefficients(self, state: FitState, shifts: list[int]) -> StepCoefficients:
        """Return what the declared forces are weighted with in this step."""
        return StepCoefficients(
            shifts,
            self.force_parameters(state.parameters),
            attraction=state.phase.exaggeration,
            repulsion=self.repulsion_strength,
            longest=self.longest,
        )
