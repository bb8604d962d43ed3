"""Nearest neighbours by exact search in torch or KeOps, or by FAISS, through one function."""

from torchdr_cne.neighbors.faiss_index import FaissConfig
from torchdr_cne.neighbors.graph import NeighborGraph
from torchdr_cne.neighbors.kept_rows import KeptRows
from torchdr_cne.neighbors.kneighbors import kneighbors, neighbors_of_rows

__all__ = ["FaissConfig", "KeptRows", "NeighborGraph", "kneighbors", "neighbors_of_rows"]
