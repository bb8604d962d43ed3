"""The methods, one per file, which holds mostly mathematics."""

from torchdr_cne.methods.cosne import COSNE
from torchdr_cne.methods.infotsne import InfoTSNE
from torchdr_cne.methods.largevis import LargeVis
from torchdr_cne.methods.ncvis import NCVis
from torchdr_cne.methods.negtsne import NegTSNE
from torchdr_cne.methods.pacmap import PACMAP
from torchdr_cne.methods.sne import SNE
from torchdr_cne.methods.tsne import TSNE
from torchdr_cne.methods.tsnekhorn import TSNEkhorn
from torchdr_cne.methods.umap import UMAP

__all__ = ["COSNE", "PACMAP", "SNE", "TSNE", "UMAP", "InfoTSNE", "LargeVis", "NCVis", "NegTSNE", "TSNEkhorn"]
