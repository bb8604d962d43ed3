"""A map of images, and what labels do to vectors: pictures of both.

Run with ``python examples/images.py``; it writes ``images-map.png``, ``images-classes.png``, ``images-nearest.png`` and
``images-tsne.png`` in a minute or two on two cores. Needs torchvision.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from torchdr_cne import TSNE, SupervisedContrastive, TSimCNE
from torchdr_cne.images import simclr_augmentation
from torchdr_cne.plotting import class_similarity, panels, retrieval, thumbnails


def main(folder=".", epochs=(20, 3, 20), n_epochs=20):
    """Write the four pictures."""
    digits, y = load_digits(return_X_y=True)
    images = (digits.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    view = simclr_augmentation(8, crop_scale=(0.5, 1.0), flip=False, color=False)
    settings = {"backbone": "small", "batch_size": 256, "data_transform": view, "random_state": 0}
    places = TSimCNE(total_epochs=epochs, lr=[0.06, 0.03, 0.006], **settings).fit_transform(images)
    thumbnails(places, 255 - images, y).figure.savefig(Path(folder) / "images-map.png", dpi=150)

    train, test = slice(0, 1200), slice(1200, None)
    supervised = SupervisedContrastive(n_epochs=n_epochs, random_state=0).fit(digits[train], y[train])
    vectors = supervised.transform(digits[test])
    class_similarity(digits[test], y[test], vectors).savefig(Path(folder) / "images-classes.png", dpi=100)
    similarities, numbers = supervised.kneighbors(digits[1200:1206], 6)
    labels = {"query_labels": y[1200:1206], "found_labels": y[numbers], "similarities": similarities}
    retrieval(images[1200:1206], images[numbers], **labels).savefig(Path(folder) / "images-nearest.png", dpi=100)
    maps = {"before": digits[test], "after": vectors}
    maps = {name: TSNE(random_state=0).fit_transform(rows) for name, rows in maps.items()}
    panels(maps, y[test]).savefig(Path(folder) / "images-tsne.png", dpi=100)
    print(f"{supervised.score(digits[test], y[test]):.3f} of the other digits are recognised by the nearest one.")


if __name__ == "__main__":
    main()
