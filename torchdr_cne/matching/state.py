"""What a fit carries from step to step, apart from the estimator and its parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.distributed import Share


@dataclass(frozen=True)
class Phase:
    """A stretch of iterations with one optimiser and constant coefficients.

    Attributes
    ----------
    start, stop : int
        First iteration and the one after the last.
    total : int
        Number of iterations of all phases.
    exaggeration : float
        Weight of the attraction.
    early : bool
        Whether this is early exaggeration (lower momentum, no early stop).
    parameters : mapping of str to float
        The method's constants in this phase, for instance ``log_nu``.
    """

    start: int
    stop: int
    total: int
    exaggeration: float = 1.0
    early: bool = False
    parameters: Mapping[str, float] = field(default_factory=dict)


@dataclass
class FitState:
    """Graph, learned scalars, and where the loop stands.

    Attributes
    ----------
    graph : AffinityGraph
        This rank's rows of the input graph on the fit's device, weights scaled to mean row weight 1.
    share : Share
        The rows of each rank; one process has all.
    seed : int
        Seed of every random draw of the fit.
    phase : Phase
        The current phase.
    step : int
        The current iteration, counted over all phases.
    learned : dict of str to Tensor
        Scalars learned beside the embedding, for instance ``log_z``.
    """

    graph: AffinityGraph
    share: Share
    seed: int
    phase: Phase
    step: int = 0
    learned: dict[str, Tensor] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Tensor | float]:
        """The phase's constants and the learned scalars, by name."""
        return {**self.phase.parameters, **self.learned}
