"""Embeddings computed by networks: losses that add, and the mini-batches they are evaluated on."""

from torchdr_cne.inputs.pairs import PositivePairs
from torchdr_cne.matching.phase import Phase
from torchdr_cne.parametric.contrastive import InfoNCE, LabelContrast
from torchdr_cne.parametric.learned_map import LearnedMap
from torchdr_cne.parametric.losses import Batch, Loss, WeightedSum
from torchdr_cne.parametric.relation import Relation
from torchdr_cne.parametric.terms import Classification, Position, Reconstruction

__all__ = [
    "Batch",
    "Classification",
    "InfoNCE",
    "LabelContrast",
    "LearnedMap",
    "Loss",
    "Phase",
    "Position",
    "PositivePairs",
    "Reconstruction",
    "Relation",
    "WeightedSum",
]
