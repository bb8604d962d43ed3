"""Estimator classes, each of which describes a fit that `torchdr_cne.fitting` carries out."""

from torchdr_cne.matching.affinity_matcher import AffinityMatcher
from torchdr_cne.matching.all_pairs import AllPairsNeighborEmbedding
from torchdr_cne.matching.encoding import EncodedNeighborEmbedding, Encoding
from torchdr_cne.matching.estimator import EmbeddingEstimator
from torchdr_cne.matching.fixed_pairs import FixedPairsNeighborEmbedding
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
    "EmbeddingEstimator",
    "EncodedNeighborEmbedding",
    "Encoding",
    "Every",
    "FitState",
    "FixedPairsNeighborEmbedding",
    "NegativeSamplingNeighborEmbedding",
    "NeighborEmbedding",
    "Pairs",
    "Phase",
    "RowSums",
]
