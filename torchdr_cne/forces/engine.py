"""Which engine sums the forces."""

import torch

from torchdr_cne.forces.problem import ForceEngine, ForceProblem
from torchdr_cne.forces.tiles import TileForces


def make_engine(problem: ForceProblem, dtype: torch.dtype, *, compile: bool = False) -> ForceEngine:
    """Return the fastest engine for the problem's device and ``dtype``."""
    return TileForces(problem, compile=compile)
