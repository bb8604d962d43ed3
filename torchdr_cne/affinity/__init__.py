"""Affinities, which turn neighbours into a weighted symmetric graph."""

from torchdr_cne.affinity.base import Affinity
from torchdr_cne.affinity.composed import Chain, ComposedAffinity, Neighbors, Transform
from torchdr_cne.affinity.dense import AllPairsAffinity, GaussianAffinity, SelfTuningAffinity, StudentAffinity
from torchdr_cne.affinity.doubly_stochastic import DoublyStochasticQuadraticAffinity, SinkhornAffinity
from torchdr_cne.affinity.entropic import EntropicAffinity, Perplexity
from torchdr_cne.affinity.graph import AffinityGraph
from torchdr_cne.affinity.labels import intersect_labels
from torchdr_cne.affinity.precomputed import graph_from_user, own_rows_from_user
from torchdr_cne.affinity.scaled import ScaledAffinity
from torchdr_cne.affinity.symmetric_entropic import SymmetricEntropicAffinity
from torchdr_cne.affinity.transforms import Function, Normalize, Symmetrize
from torchdr_cne.affinity.umap import Connectivity, UMAPAffinity
from torchdr_cne.affinity.union import Binary, UnionAffinity

__all__ = [
    "Affinity",
    "AffinityGraph",
    "AllPairsAffinity",
    "Binary",
    "Chain",
    "ComposedAffinity",
    "Connectivity",
    "DoublyStochasticQuadraticAffinity",
    "EntropicAffinity",
    "Function",
    "GaussianAffinity",
    "Neighbors",
    "Normalize",
    "Perplexity",
    "ScaledAffinity",
    "SelfTuningAffinity",
    "SinkhornAffinity",
    "StudentAffinity",
    "SymmetricEntropicAffinity",
    "Symmetrize",
    "Transform",
    "UMAPAffinity",
    "UnionAffinity",
    "graph_from_user",
    "intersect_labels",
    "own_rows_from_user",
]
