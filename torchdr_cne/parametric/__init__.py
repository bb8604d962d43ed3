"""Embeddings computed by networks: losses that can be added, and the mini-batches that they are evaluated on."""

from torchdr_cne.inputs.pairs import PositivePairs
from torchdr_cne.networks.loss import Batch, Loss, WeightedSum
from torchdr_cne.networks.terms import Classification, Position, Reconstruction
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.parametric.contrastive import InfoNCE, LabelContrast
from torchdr_cne.parametric.learned_map import LearnedMap
from torchdr_cne.parametric.pretrained import ParametricTSNE, ParametricUMAP
from torchdr_cne.parametric.relation import Relation
from torchdr_cne.parametric.supervised_contrastive import SupervisedContrastive

__all__ = [
    "Batch",
    "Classification",
    "InfoNCE",
    "LabelContrast",
    "LearnedMap",
    "Loss",
    "ParametricTSNE",
    "ParametricUMAP",
    "Phase",
    "Position",
    "PositivePairs",
    "Reconstruction",
    "Relation",
    "SupervisedContrastive",
    "WeightedSum",
]
