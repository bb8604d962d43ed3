"""Which engine sums the forces, and which sums go over a grid."""

import torch
from torch import Tensor

from torchdr_cne._compiler import numba_works, triton_works
from torchdr_cne.distributed import Share
from torchdr_cne.forces.all_pairs import PairSums
from torchdr_cne.forces.declaration import PairForces
from torchdr_cne.forces.problem import ForceEngine, ForceProblem, ReplayableEngine
from torchdr_cne.forces.tiles import TileForces
from torchdr_cne.workers import Workers

_MOST_COMPONENTS = 3
"""Number of components up to which there are Triton kernels."""


def make_engine(problem: ForceProblem, like_nd: Tensor, *, compile: bool = False) -> ForceEngine:
    """Return the fastest engine for the problem's device, for positions (n, d) like ``like_nd``.

    Compiled kernels serve float32 on the CPU, and Triton kernels on CUDA devices; torch tiles serve everything else,
    and stand in where Numba or Triton do not work.
    """
    kind, is_single = problem.draw_weights.device.type, like_nd.dtype == torch.float32
    if is_single and kind == "cpu" and numba_works():
        from torchdr_cne.forces.compiled import CompiledForces

        return CompiledForces(problem)
    if is_single and kind == "cuda" and like_nd.shape[1] <= _MOST_COMPONENTS and triton_works():
        from torchdr_cne.forces.triton.engine import TritonForces
        from torchdr_cne.forces.triton.translation import translatable

        if translatable(problem.forces):
            return TritonForces(problem)
    return TileForces(problem, compile=compile)


def replayed(engine: ForceEngine, problem: ForceProblem) -> ForceEngine:
    """Return an engine that, on a CUDA device, records its launches and replays them."""
    is_cuda = problem.draw_weights.device.type == "cuda" and torch.version.hip is None
    if not is_cuda or problem.share.ranks.size > 1 or not isinstance(engine, ReplayableEngine):
        return engine
    from torchdr_cne.forces.triton.replay import ReplayedForces

    return ReplayedForces(engine)


def interpolated_sums(
    forces: PairForces, share: Share, like_nd: Tensor, workers: Workers, width: float, *, fineness: int = 1
) -> PairSums:
    """Return sums over a grid for positions (n, d) like ``like_nd``.

    Parameters
    ----------
    forces : PairForces
        Gives q as ``normaliser``.
    share : Share
        The slots of each rank.
    like_nd : Tensor of shape (n, d)
        Positions of which only device and dtype matter.
    workers : Workers
        Threads of the compiled parts on the CPU.
    width : float
        Distance over which q is smooth, relative to 1/(1 + d²).
    fineness : int, default=1
        Number by which the usual step of the grid is divided.
    """
    from torchdr_cne.forces.interpolation import STEP, InterpolatedSums

    step = STEP * width / fineness
    if like_nd.device.type == "cuda" and like_nd.dtype == torch.float32 and triton_works():
        from torchdr_cne.forces.triton.interpolation import DeviceInterpolatedSums

        return DeviceInterpolatedSums(forces, share, step)
    return InterpolatedSums(forces, share, workers, step)
