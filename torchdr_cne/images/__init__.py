"""Maps and features of images by contrast of random views; needs torchvision (``pip install torchdr_cne[images]``)."""

from torchdr_cne.images.augmentation import simclr_augmentation
from torchdr_cne.images.image_map import ImageMap
from torchdr_cne.images.networks import ImageEncoder, ImageNetwork
from torchdr_cne.images.simclr import SimCLR
from torchdr_cne.images.tsimcne import TSimCNE

__all__ = ["ImageEncoder", "ImageMap", "ImageNetwork", "SimCLR", "TSimCNE", "simclr_augmentation"]
