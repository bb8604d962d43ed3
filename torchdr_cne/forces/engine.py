"""Which engine sums the forces."""

import torch

from torchdr_cne._compiler import numba_works
from torchdr_cne.forces.problem import ForceEngine, ForceProblem
from torchdr_cne.forces.tiles import TileForces


def make_engine(problem: ForceProblem, dtype: torch.dtype, *, compile: bool = False) -> ForceEngine:
    """Return the fastest engine for the problem's device and ``dtype``.

    Compiled kernels serve float32 on the CPU; torch tiles serve everything else, and stand in where Numba does not
    work.
    """
    if problem.draw_weights.device.type != "cpu" or dtype != torch.float32 or not numba_works():
        return TileForces(problem, compile=compile)
    from torchdr_cne.forces.compiled import CompiledForces

    return CompiledForces(problem)
