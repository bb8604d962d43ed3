"""Contrastive neighbour embeddings: graphs, losses, sampling and the loop, in PyTorch.

``from torchdr_cne import NegTSNE, UMAP, NCVis, InfoTSNE`` gives the estimators; the folders follow the
data: ``inputs`` → ``neighbors`` → ``affinity`` → ``initialization`` → ``matching``, and ``methods``
holds one file a method. Where a network computes the embedding, ``encoders`` has the network and
``parametric`` its mini-batches and losses; ``images`` feeds them augmented views.
Nothing heavy is imported before it is used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME_OF = {
    "AffinityMatcher": "torchdr_cne.matching",
    "AllPairsNeighborEmbedding": "torchdr_cne.matching",
    "Every": "torchdr_cne.matching",
    "NeighborEmbedding": "torchdr_cne.matching",
    "NegativeSamplingNeighborEmbedding": "torchdr_cne.matching",
    "estimate_memory": "torchdr_cne.matching",
    "COSNE": "torchdr_cne.methods",
    "SNE": "torchdr_cne.methods",
    "TSNE": "torchdr_cne.methods",
    "TSNEkhorn": "torchdr_cne.methods",
    "UMAP": "torchdr_cne.methods",
    "NegTSNE": "torchdr_cne.methods",
    "NCVis": "torchdr_cne.methods",
    "InfoTSNE": "torchdr_cne.methods",
    "LargeVis": "torchdr_cne.methods",
    "PACMAP": "torchdr_cne.methods",
    "LearnedMap": "torchdr_cne.parametric",
    "ParametricTSNE": "torchdr_cne.parametric",
    "ParametricUMAP": "torchdr_cne.parametric",
    "Phase": "torchdr_cne.parametric",
    "SimCLR": "torchdr_cne.images",
    "SupervisedContrastive": "torchdr_cne.parametric",
    "TSimCNE": "torchdr_cne.images",
    "load": "torchdr_cne.persistence",
}
_SUBMODULES = (
    "affinity",
    "encoders",
    "evaluation",
    "forces",
    "images",
    "initialization",
    "inputs",
    "losses",
    "matching",
    "methods",
    "neighbors",
    "parametric",
    "persistence",
    "plotting",
    "sampling",
    "similarities",
    "spectrum",
)

__all__ = [*_HOME_OF, *_SUBMODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"torchdr_cne.{name}")
    raise AttributeError(f"module 'torchdr_cne' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
