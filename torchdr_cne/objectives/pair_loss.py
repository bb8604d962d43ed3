"""The loss of a method of attraction and repulsion, in the form that the rest of the package uses."""

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
    """The loss that a class builds from its hooks; objectives, networks and placement know nothing else of the class.

    Attributes
    ----------
    similarity : Similarity
        Similarity of embedded points.
    total : callable
        Function from `Pairs` or `RowSums` and an exaggeration to the whole loss (): both hooks, weighted and summed.
    repulsion : callable
        Function from `Pairs` or `RowSums` to the unreduced repulsive loss.
    repulsion_strength : float
        Weight of the repulsion.
    forces : PairForces or None
        The declared derivatives; None if the method declares none.
    force_parameters : callable
        Function from the parameters of the phase and the learned ones to the second argument of the declared functions.
    why_not_forces : str
        Reason why the declared forces cannot replace the hooks; "" if they can.
    n_negatives : float
        How many negatives an edge meets in the objective.
    negatives_per_row : int or None
        How many negatives are drawn per row and step; None is the method's own number.
    discard_neighbors : bool
        Whether the neighbours of a point are excluded from its negatives.
    learned : mapping of str to float
        Names and initial values of scalars that are learned with the embedding.
    last_phase : callable
        Function from a number of points to the last phase of a fit, whose constants apply to the final embedding.
    longest : float or None
        Length to which longer gradients of single rows are shortened; None shortens none.
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
        """Return the declared forces of a method that has them."""
        assert self.forces is not None
        return self.forces

    def coefficients(self, state: FitState, shifts: list[int]) -> StepCoefficients:
        """Return the coefficients by which the declared forces are multiplied in this step."""
        return StepCoefficients(
            shifts,
            self.force_parameters(state.parameters),
            attraction=state.phase.exaggeration,
            repulsion=self.repulsion_strength,
            longest=self.longest,
        )
