"""Pictures of embeddings and features; matplotlib is imported by the first call, its global state never changed."""

from torchdr_cne.plotting._panels import panels
from torchdr_cne.plotting._retrieval import retrieval
from torchdr_cne.plotting._scatter import scatter
from torchdr_cne.plotting._similarity import class_similarity
from torchdr_cne.plotting._thumbnails import thumbnails

__all__ = ["class_similarity", "panels", "retrieval", "scatter", "thumbnails"]
