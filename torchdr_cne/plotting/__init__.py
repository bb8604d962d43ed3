"""Pictures of embeddings; matplotlib is imported by the first call and its global state left alone."""

from torchdr_cne.plotting._panels import panels
from torchdr_cne.plotting._scatter import scatter

__all__ = ["panels", "scatter"]
