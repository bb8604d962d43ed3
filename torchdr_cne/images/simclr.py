"""SimCLR."""

from typing import Any

from torchdr_cne.images.image_map import ImageMap


class SimCLR(ImageMap):
    """Features of images by contrast of random views (Chen et al., 2020): InfoNCE of cosines.

    The features to use are those of the backbone, before the projection head: `features`, or ``encoder_.backbone``.

    Examples
    --------
    >>> import numpy as np
    >>> from torchdr_cne.images import SimCLR
    >>> images = np.random.default_rng(0).integers(0, 256, (64, 16, 16), dtype=np.uint8)
    >>> simclr = SimCLR(backbone="small", total_epochs=2, batch_size=32, random_state=0).fit(images)
    >>> simclr.features(images).shape
    (64, 128)
    """

    metric: Any = "cosine"
    out_dim: int = 128
    total_epochs: Any = 500
