"""Maps of images and supervised vectors: ``python -m benchmarks.images digits``, ``cifar``, ``supervised``.

``digits``: t-SimCNE without labels on the digits at 16 × 16, beside PCA of their pixels. ``cifar``: t-SimCNE on
12 000 small photographs, beside PCA and NegTSNE of the pixels. ``supervised``: SupervisedContrastive on MNIST's 60 000
training digits, its test digits recognised by the nearest one. ``--pictures`` draws what was found.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, record


def larger_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits as images (n, 16, 16), and their labels."""
    from PIL import Image
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    small = (X.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    bilinear = Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(image).resize((16, 16), bilinear)) for image in small]), y


def of_pixels(images: np.ndarray) -> np.ndarray:
    """Return the first two principal components of the pixels."""
    from sklearn.decomposition import PCA

    return PCA(2, random_state=0).fit_transform(images.reshape(len(images), -1).astype(np.float32))


def fitted(estimator: Any, images: np.ndarray, y: np.ndarray, name: str) -> dict[str, Any]:
    """Fit an estimator of images; return its row of the table, with the map."""
    from torchdr_cne.evaluation import knn_accuracy

    begin = time.perf_counter()
    estimator.fit(images, y)
    seconds = time.perf_counter() - begin
    found = {"method": name, "seconds": seconds, "accuracy": knn_accuracy(estimator.embedding_, y, n_neighbors=15)}
    found["accuracy of features"] = knn_accuracy(estimator.features(images), y, n_neighbors=15)
    return found


def digits(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Map the digits, and see how far apart two views of one lie."""
    from PIL import Image
    from torchvision.transforms import v2

    from torchdr_cne import TSimCNE
    from torchdr_cne.evaluation import knn_accuracy
    from torchdr_cne.plotting import scatter

    images, y = larger_digits()
    rows = [{"method": "PCA of pixels", "accuracy": knn_accuracy(of_pixels(images), y, n_neighbors=15)}]
    view = v2.RandomAffine(15, (0.12, 0.12), (0.75, 1.25), shear=10)
    for seed in range(options.seeds):
        estimator = TSimCNE(
            backbone="small",
            total_epochs=[options.epochs // 2, options.epochs // 10, options.epochs // 2],
            lr=[0.06, 0.03, 0.006],
            batch_size=256,
            data_transform=view,
            random_state=seed,
        )
        row = fitted(estimator, images, y, "TSimCNE")
        views = [
            estimator.transform(np.stack([np.asarray(view(Image.fromarray(image))) for image in images]))
            for _ in range(2)
        ]
        apart = np.linalg.norm(views[0] - views[1], axis=1).mean()
        row["views, of random pairs"] = float(
            apart / np.linalg.norm(views[0] - np.roll(views[1], 500, 0), axis=1).mean()
        )
        rows.append(row)
        if options.pictures:
            scatter(estimator.embedding_, y).figure.savefig(Path(options.pictures) / f"digits-{seed}.png", dpi=120)
    return rows


def cifar(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Map small photographs by t-SimCNE, and by NegTSNE of SimCLR's features and of the pixels."""
    from torchdr_cne import NegTSNE, TSimCNE
    from torchdr_cne.evaluation import knn_accuracy, linear_probe
    from torchdr_cne.plotting import panels, thumbnails

    with np.load(data.SHARED / "cifar10_12k.npz") as archive:
        images, y, names = archive["X"].reshape(-1, 32, 32, 3), archive["y"], [str(name) for name in archive["names"]]
    flat = images.reshape(len(images), -1).astype(np.float32)
    maps = {"PCA of pixels": of_pixels(images), "NegTSNE of pixels": NegTSNE(random_state=0).fit_transform(flat)}
    rows: list[dict[str, Any]] = [
        {"method": name, "accuracy": knn_accuracy(places, y, n_neighbors=15)} for name, places in maps.items()
    ]
    estimator = TSimCNE(
        backbone="small",
        total_epochs=[options.epochs // 2, options.epochs // 10, options.epochs // 2],
        lr=[0.06, 0.03, 0.006],
        batch_size=256,
        num_workers=options.workers,
        verbose=True,
        random_state=0,
    )
    row = fitted(estimator, images, y, "TSimCNE")
    features = estimator.features(images)
    row["linear probe of features"] = linear_probe(features, y)
    maps["TSimCNE"] = estimator.embedding_
    maps["NegTSNE of its features"] = NegTSNE(random_state=0).fit_transform(features)
    rows.append(row)
    of_features = knn_accuracy(maps["NegTSNE of its features"], y, n_neighbors=15)
    rows.append({"method": "NegTSNE of its features", "accuracy": of_features})
    if options.pictures:
        labels = np.array(names)[y]
        panels(maps, labels, columns=2).savefig(Path(options.pictures) / "cifar.png", dpi=120)
        thumbnails(estimator.embedding_, images, labels).figure.savefig(
            Path(options.pictures) / "cifar-images.png", dpi=160
        )
    return rows


def supervised(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Learn from MNIST's training digits, and recognise its test digits."""
    from torchdr_cne import SupervisedContrastive
    from torchdr_cne.evaluation import class_similarity_matrix
    from torchdr_cne.plotting import class_similarity, retrieval

    given = data.load("mnist-raw")
    X, y = given.X, given.y
    estimator = SupervisedContrastive(random_state=0)
    begin = time.perf_counter()
    estimator.fit(X[:60_000], y[:60_000])
    seconds = time.perf_counter() - begin
    vectors = estimator.transform(X[60_000:])
    matrix, _ = class_similarity_matrix(vectors, y[60_000:])
    within, between = np.diag(matrix).mean(), matrix[~np.eye(10, dtype=bool)].mean()
    row = {
        "method": "SupervisedContrastive",
        "seconds": seconds,
        "1-NN accuracy": estimator.score(X[60_000:], y[60_000:]),
        "within − between": float(within - between),
    }
    if options.pictures:
        folder = Path(options.pictures)
        class_similarity(X[60_000:], y[60_000:], vectors).savefig(folder / "classes.png", dpi=120)
        similarities, numbers = estimator.kneighbors(X[60_000:60_006], 6)
        found = {"found_labels": y[numbers], "similarities": similarities}
        shown = X[60_000:60_006].reshape(-1, 28, 28) / 255, X[numbers].reshape(6, 6, 28, 28) / 255
        retrieval(*shown, query_labels=y[60_000:60_006], **found).savefig(folder / "nearest.png", dpi=120)
    return [row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("digits", "cifar", "supervised"))
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    rows = {"digits": digits, "cifar": cifar, "supervised": supervised}[options.what](options)
    for row in rows:
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
    if options.output:
        kept = json.loads(options.output.read_text()) if options.output.exists() else {}
        kept["machine"] = record.machine()
        kept[options.what] = rows
        options.output.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
