"""Contrastive neighbour embeddings in PyTorch: graphs, losses, sampling and the optimisation loop.

``from torchdr_cne import NegTSNE, UMAP, NCVis, InfoTSNE`` gives the estimators. The folders follow the data:
``inputs`` → ``neighbors`` → ``affinity`` → ``initialization`` → ``objectives`` and ``optimization`` → ``placement`` of
new points. ``fitting`` puts these stages together, ``matching`` has the classes that describe a fit, and ``methods``
has one file per method. If a network computes the embedding, ``encoders`` has its architecture, ``networks`` its
mini-batches, and ``parametric`` and ``images`` the estimators. Nothing heavy is imported before it is used.
"""

import importlib
from typing import Any

from torchdr_cne import catalogue

__version__ = "0.1.0"

_FUNCTIONS = {"estimate_memory": "torchdr_cne.memory", "load": "torchdr_cne.persistence"}
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
    "memory",
    "methods",
    "neighbors",
    "networks",
    "objectives",
    "optimization",
    "parametric",
    "persistence",
    "plotting",
    "sampling",
    "similarities",
    "spectrum",
)

__all__ = [*catalogue.public(), *_FUNCTIONS, *_SUBMODULES, "__version__", "catalogue"]


def __getattr__(name: str) -> Any:
    if name in catalogue.public():
        return catalogue.public()[name].load()
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"torchdr_cne.{name}")
    raise AttributeError(f"module 'torchdr_cne' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
