"""Matching an embedding to an affinity: the class hierarchy and the one optimisation loop."""

from torchdr_cne.fitting.memory import estimate_memory
from torchdr_cne.matching.affinity_matcher import AffinityMatcher
from torchdr_cne.matching.all_pairs import AllPairsNeighborEmbedding
from torchdr_cne.matching.negative_sampling import NegativeSamplingNeighborEmbedding
from torchdr_cne.matching.neighbor_embedding import NeighborEmbedding
from torchdr_cne.objectives.pairs import Pairs
from torchdr_cne.objectives.row_sums import RowSums
from torchdr_cne.optimization.callbacks import Every
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.state import FitState

__all__ = [
    "AffinityMatcher",
    "AllPairsNeighborEmbedding",
    "Every",
    "FitState",
    "NegativeSamplingNeighborEmbedding",
    "NeighborEmbedding",
    "Pairs",
    "Phase",
    "RowSums",
    "estimate_memory",
]
