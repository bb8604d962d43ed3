"""Which engine sums the forces."""

import warnings

import torch

from torchdr_cne.forces.problem import ForceEngine, ForceProblem
from torchdr_cne.forces.tiles import TileForces


def make_engine(problem: ForceProblem, dtype: torch.dtype, *, compile: bool = False) -> ForceEngine:
    """Return the fastest engine for the problem's device and ``dtype``.

    Compiled kernels serve float32 on the CPU; torch tiles serve everything else, and stand in with a warning
    where Numba cannot be imported.
    """
    if problem.draw_weights.device.type != "cpu" or dtype != torch.float32:
        return TileForces(problem, compile=compile)
    try:
        from torchdr_cne.forces.compiled import CompiledForces
    except ImportError as error:
        warnings.warn(
            f"numba cannot be imported ({error}); forces are summed by torch, which is slower. "
            "Install it with: pip install numba",
            UserWarning,
            stacklevel=2,
        )
        return TileForces(problem, compile=compile)
    return CompiledForces(problem)
