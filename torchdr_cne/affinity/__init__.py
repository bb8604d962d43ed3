"""From neighbours to a weighted symmetric graph."""

from torchdr_cne.affinity.base import Affinity
from torchdr_cne.affinity.entropic import EntropicAffinity
from torchdr_cne.affinity.graph import AffinityGraph
from torchdr_cne.affinity.precomputed import graph_from_user, own_rows_from_user
from torchdr_cne.affinity.umap import UMAPAffinity
from torchdr_cne.affinity.union import UnionAffinity

__all__ = [
    "Affinity",
    "AffinityGraph",
    "EntropicAffinity",
    "UMAPAffinity",
    "UnionAffinity",
    "graph_from_user",
    "own_rows_from_user",
]
