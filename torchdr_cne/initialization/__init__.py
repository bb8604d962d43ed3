"""The first embedding: PCA, spectral, random, or a given array."""

from torchdr_cne.initialization.choose import INITIALIZATIONS, initial_embedding
from torchdr_cne.initialization.pca import pca_embedding
from torchdr_cne.initialization.spectral import spectral_embedding

__all__ = ["INITIALIZATIONS", "initial_embedding", "pca_embedding", "spectral_embedding"]
