"""Matching an embedding to an affinity: the class hierarchy and the one optimisation loop."""

from torchdr_cne.matching.affinity_matcher import AffinityMatcher
from torchdr_cne.matching.memory import estimate_memory
from torchdr_cne.matching.negative_sampling import NegativeSamplingNeighborEmbedding
from torchdr_cne.matching.neighbor_embedding import NeighborEmbedding
from torchdr_cne.matching.pairs import Pairs
from torchdr_cne.matching.state import FitState, Phase

__all__ = [
    "AffinityMatcher",
    "FitState",
    "NegativeSamplingNeighborEmbedding",
    "NeighborEmbedding",
    "Pairs",
    "Phase",
    "estimate_memory",
]
