"""Row-owned forces on reciprocal blocks: the fast path, declared by a method as functions of d²."""

from torchdr_cne.forces.all_pairs import AllPairsForces, exact_sums
from torchdr_cne.forces.declaration import PairForces
from torchdr_cne.forces.engine import interpolated_sums, make_engine, replayed
from torchdr_cne.forces.groups import GroupForces, PairGroup
from torchdr_cne.forces.problem import ForceEngine, ForceProblem, ReplayableEngine, StepCoefficients
from torchdr_cne.forces.tiles import TileForces, shorten_rows

__all__ = [
    "AllPairsForces",
    "ForceEngine",
    "ForceProblem",
    "GroupForces",
    "PairForces",
    "PairGroup",
    "ReplayableEngine",
    "StepCoefficients",
    "TileForces",
    "exact_sums",
    "interpolated_sums",
    "make_engine",
    "replayed",
    "shorten_rows",
]
