"""Whether every estimator fits, places new points and can be saved on the device."""

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import torchdr_cne
from benchmarks.gpu.setting import Result, Setting, attempt
from torchdr_cne import COSNE, PACMAP, SNE, TSNE, UMAP, InfoTSNE, LargeVis, NCVis, NegTSNE, TSNEkhorn
from torchdr_cne.parametric import Position, SupervisedContrastive
from torchdr_cne.similarities import CosineExp

_POINTS, _NEW = 1500, 100


def everyone(setting: Setting) -> Iterator[Result]:
    """Yield whether each estimator works for rows that are on the device already."""
    for name, case in _cases(setting).items():
        yield {**attempt(name, case), "minor": True}


def _cases(setting: Setting) -> dict[str, Callable[[], Result]]:
    X = setting.tensor[: setting.size(_POINTS)].contiguous()
    y = setting.data.y[: len(X)]
    few = {"random_state": 0, "max_iter": 40}
    found: dict[str, Callable[[], Result]] = {}

    def add(name: str, method: Any, rows: Any = X, labels: Any = None, **options: Any) -> None:
        found[name] = lambda: _works(method(**{**few, **options}), rows, labels)

    for method in (NegTSNE, UMAP, NCVis, InfoTSNE, LargeVis, PACMAP, TSNE, SNE, TSNEkhorn, COSNE):
        add(method.__name__, method)
    for form in ("dense", "fft"):
        add(f"TSNE {form}", TSNE, repulsion=form)
    add("NegTSNE in 3-D", NegTSNE, n_components=3)
    if not setting.small:
        add("NegTSNE in 5-D", NegTSNE, n_components=5)
    add("UMAP in float64", UMAP, dtype="float64")
    add("UMAP of cosine with labels", UMAP, labels=y, metric="cosine")
    add("InfoTSNE without neighbours", InfoTSNE, discard_neighbors=True)
    add("UMAP, spectral start", UMAP, init="spectral")
    add("NegTSNE of manhattan", NegTSNE, metric="manhattan")
    add("NegTSNE of cosines", NegTSNE, similarity=CosineExp(0.5), n_components=8)
    add("UMAP of NumPy rows", UMAP, rows=X.cpu().numpy(), device=str(setting.device))
    add("NegTSNE, encoder", NegTSNE, encoder="mlp", decoder="mlp")
    add("NCVis, encoder", NCVis, encoder="mlp", discard_neighbors=True)
    add("TSNE, encoder", TSNE, encoder="mlp", extra_loss=0.1 * Position("pca"))
    found["SupervisedContrastive"] = lambda: _works(SupervisedContrastive(random_state=0, n_epochs=2), X, y)
    found["SimCLR"] = lambda: _images(setting, "SimCLR", total_epochs=2)
    found["TSimCNE"] = lambda: _images(setting, "TSimCNE", total_epochs=(2, 1, 1))
    return found


def _works(estimator: Any, X: Any, y: Any) -> Result:
    """Fit, place new points, save and load; return whether the results are finite and where they lie."""
    embedding = torch.as_tensor(estimator.fit(X, y).embedding_)
    wanted = X.device if isinstance(X, torch.Tensor) else torch.device("cpu")
    problems = [] if bool(embedding.isfinite().all()) else ["not finite"]
    problems += [] if embedding.device == wanted else [f"embedding on {embedding.device}"]
    if hasattr(estimator, "transform"):
        placed = torch.as_tensor(estimator.transform(X[:_NEW]))
        problems += [] if bool(placed.isfinite().all()) else ["new points not finite"]
    with tempfile.TemporaryDirectory() as folder:
        estimator.save(f"{folder}/model")
        again = torchdr_cne.load(f"{folder}/model").embedding_
    same = np.array_equal(np.asarray(torch.as_tensor(again).cpu()), np.asarray(embedding.cpu()))
    problems += [] if same else ["another embedding after loading"]
    return {"ok": not problems, "brief": ", ".join(problems) or "fits, places, loads"}


def _images(setting: Setting, name: str, **options: Any) -> Result:
    """Train on random images; the device is chosen by name."""
    from torchdr_cne import images

    pixels = np.random.default_rng(0).integers(0, 256, (64, 16, 16), dtype=np.uint8)
    estimator = getattr(images, name)(
        backbone="small", batch_size=32, random_state=0, device=str(setting.device), **options
    )
    embedding = torch.as_tensor(estimator.fit(pixels).transform(pixels))
    return {"ok": bool(embedding.isfinite().all()), "brief": f"embedding on {embedding.device}"}
