"""The methods compared: ours and the peers', each a function of (X, seed, threads)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

INFOTSNE_FINE: dict[str, Any] = dict(n_negatives=2048, max_iter=500)
"""Options of the setting that aims at t-SNE's local quality."""

REFERENCES = ("umap-learn", "umap-learn pca")
"""Ratios of time refer to the first of these that ran."""


@dataclass(frozen=True)
class Method:
    """How to embed with one method, and which distribution it comes from.

    Attributes
    ----------
    fit : callable
        ``fit(X, seed, threads)`` returns the embedding (n, 2). Where a peer runs in parallel only without a seed,
        it gets none.
    package : str
        The distribution whose version is recorded.
    ours : bool
        Whether it belongs to this project.
    warm_up_rows : int
        Rows of the fit before the clock. Over 4 096 umap-learn, and over 16 384 this package, take the path of large
        data, whose imports and compilation belong to the warm-up; peers with nothing to compile need fewer.
    """

    fit: Callable[[np.ndarray, int, int], Any]
    package: str
    ours: bool = False
    warm_up_rows: int = 5000


def _ours(name: str, **options: Any) -> Method:
    def fit(X: np.ndarray, seed: int, threads: int) -> Any:
        import torchdr_cne

        return getattr(torchdr_cne, name)(random_state=seed, **options).fit_transform(X)

    return Method(fit, "torchdr_cne", ours=True, warm_up_rows=20_000)


def _umap_learn(**options: Any) -> Method:
    def fit(X: np.ndarray, seed: int, threads: int) -> Any:
        import umap

        return umap.UMAP(**options).fit_transform(X)

    return Method(fit, "umap-learn")


def _open_tsne(X: np.ndarray, seed: int, threads: int) -> Any:
    import openTSNE

    return np.asarray(openTSNE.TSNE(n_jobs=threads, random_state=seed).fit(X))


def _pacmap(X: np.ndarray, seed: int, threads: int) -> Any:
    import pacmap

    return pacmap.PaCMAP().fit_transform(X)


def _contrastive_ne(X: np.ndarray, seed: int, threads: int) -> Any:
    import cne

    return cne.CNE(loss_mode="neg", n_epochs=200, seed=seed).fit_transform(X)


def _torchdr_umap(X: np.ndarray, seed: int, threads: int) -> Any:
    import torchdr

    return torchdr.UMAP(random_state=seed).fit_transform(X)


METHODS: dict[str, Method] = {
    "NegTSNE": _ours("NegTSNE"),
    "NegTSNE s=0": _ours("NegTSNE", s=0),
    "NCVis": _ours("NCVis"),
    "UMAP": _ours("UMAP"),
    "InfoTSNE": _ours("InfoTSNE"),
    "InfoTSNE fine": _ours("InfoTSNE", **INFOTSNE_FINE),
    "umap-learn": _umap_learn(),
    "umap-learn pca": _umap_learn(init="pca"),
    "PaCMAP": Method(_pacmap, "pacmap"),
    "openTSNE": Method(_open_tsne, "openTSNE", warm_up_rows=1000),
    "contrastive-ne": Method(_contrastive_ne, "contrastive-ne", warm_up_rows=500),
    "TorchDR UMAP": Method(_torchdr_umap, "torchdr", warm_up_rows=1000),
}


def select(names: str) -> list[str]:
    """Turn "all", "ours", "peers" or names separated by commas into a list of names of `METHODS`."""
    groups = {
        "all": list(METHODS),
        "ours": [name for name, method in METHODS.items() if method.ours],
        "peers": [name for name, method in METHODS.items() if not method.ours],
    }
    chosen: list[str] = []
    for name in (part.strip() for part in names.split(",")):
        if name not in groups and name not in METHODS:
            raise ValueError(f"method {name!r} is unknown; choose among {', '.join([*groups, *METHODS])}.")
        chosen += groups.get(name, [name])
    return list(dict.fromkeys(chosen))
