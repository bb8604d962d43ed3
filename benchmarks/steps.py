"""Single steps of a method, outside a fit."""

from typing import Any

from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.distributed import Share
from torchdr_cne.forces import ForceProblem
from torchdr_cne.objectives.sampled import force_problem
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.state import FitState, initial_state


def state_of(estimator: Any, graph: AffinityGraph, z: Tensor, seed: int, phase: Phase) -> FitState:
    """Return the state in which a fit of ``graph`` begins at ``z``."""
    return initial_state(graph, z, seed, phase, Share.whole(graph.n_points), estimator._learned_scalars())


def problem_of(estimator: Any, state: FitState, z: Tensor) -> tuple[ForceProblem, int]:
    """Return what a fit's force engine is given, and how many blocks a step draws."""
    return force_problem(estimator._pair_loss(), estimator._drawn_blocks, state, z)
