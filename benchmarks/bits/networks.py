"""Fits of networks: learned maps and their losses, pairs, labels, images."""

import functools
from typing import Any

import numpy as np
import torch
from torch import nn

import torchdr_cne
from benchmarks.bits.fits import BATCHES, Cases, Found, case, described, digits, make
from torchdr_cne import Phase
from torchdr_cne.parametric import Classification, Position, PositivePairs, Reconstruction, Relation
from torchdr_cne.similarities import CosineExp


def own_module() -> nn.Module:
    """Return a network with normalisation and dropout, and first weights of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2)
        return nn.Sequential(*layers)


def of_encoders() -> Cases:
    """Return what encoders of methods can be told."""
    options: dict[str, dict[str, Any]] = {
        "3 threads": {"n_jobs": 3},
        "float64": {"dtype": "float64"},
        "sizes": {"encoder": (50, 20)},
        "own module": {"encoder": own_module()},
        "decoder": {"decoder": "mlp"},
        "labels": {"extra_loss": 0.3 * Classification(), "labels": True},
        "labels and decoder": {
            "decoder": (30,),
            "extra_loss": 0.5 * Reconstruction() + 0.2 * Classification(),
            "labels": True,
        },
        "weighted edges": {"sampling": "weighted edges"},
        "uniform negatives": {"negatives": "uniform"},
        "no neighbour repels": {"discard_neighbors": True},
        "cosine 8-D": {"similarity": CosineExp(0.5), "n_components": 8},
    }
    found = {f"NCVis, encoder, {name}": case("NCVis", **{**BATCHES, **more}) for name, more in options.items()}
    return found | {
        "UMAP, encoder, labels in the graph": case("UMAP", labels=True, **BATCHES),
        "InfoTSNE, encoder, pairs": of_pairs,
    }


def of_pairs() -> Found:
    """Fit pairs of rows that a loader gives."""
    rows = torch.from_numpy(digits()[0])
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=rows.shape).astype(np.float32))
    views = list(zip(rows.split(128), (rows + noise).split(128), strict=True))
    estimator = make("InfoTSNE", encoder="mlp", similarity=CosineExp(0.5), n_components=8)
    return described(estimator.fit(PositivePairs(views)), torch.from_numpy(digits()[2]))


def of_maps() -> Cases:
    """Return learned maps: every relation, positions, phases, and the two ready made."""
    relations = "umap", "negative_sampling", "noise_contrastive", "info_nce", "kl", "cross_entropy"
    phases = [
        Phase(20, Position("pca")),
        Phase(20, 0.7 * Relation("umap") + 0.3 * Classification(), learning_rate=1e-3),
        Phase(10, Relation("umap", n_negatives=3), trainable="encoder.2.9"),
    ]
    spectral = [Phase(20, Position("spectral") + 0.1 * Reconstruction())]
    own = [Phase(20, Relation(torchdr_cne.NegTSNE(nu=0.1), affinity=torchdr_cne.affinity.UMAPAffinity()))]
    few = {"max_iter": 20, "batch_size": 128}
    return {
        **{f"LearnedMap, {name}": case("LearnedMap", phases=[Phase(30, Relation(name))]) for name in relations},
        "LearnedMap, default": case("LearnedMap", **few),
        "LearnedMap, phases": case("LearnedMap", phases=phases, batch_size=128, labels=True),
        "LearnedMap, spectral and decoder": case("LearnedMap", phases=spectral, decoder="mlp", batch_size=128),
        "LearnedMap, a method's relation": case("LearnedMap", phases=own, batch_size=128),
        "ParametricUMAP": case("ParametricUMAP", pretrain_iter=20, **few),
        "ParametricTSNE": case("ParametricTSNE", pretrain_iter=20, **few),
    }


def supervised(**parameters: Any) -> Found:
    """Fit vectors to labels, and recognise new rows by them."""
    X, y, new = digits()
    estimator = torchdr_cne.SupervisedContrastive(n_epochs=2, random_state=0, n_jobs=1, **parameters).fit(X, y)
    return {
        **described(estimator, new),
        "nearest": list(estimator.kneighbors(new, 3)),
        "recognised": estimator.predict(new),
    }


def of_images(method: str, **parameters: Any) -> Found:
    """Fit small images of digits, and place others."""
    X, y, new = digits(128)
    images, others = ((rows.reshape(-1, 8, 8) * 15).astype(np.uint8) for rows in (X, new))
    common = {"backbone": "small", "batch_size": 64, "random_state": 0, "n_jobs": 1, "check_interval": 1}
    estimator = getattr(torchdr_cne, method)(**common, **parameters).fit(images, y)
    return {**described(estimator, others), "features": estimator.features(others)}


def of_features() -> Cases:
    """Return fits without a graph: by labels, and by views of images."""
    image = functools.partial(functools.partial, of_images)
    return {
        "SupervisedContrastive, decoupled": functools.partial(supervised),
        "SupervisedContrastive, info_nce": functools.partial(supervised, loss="info_nce", encoder="mlp"),
        "SimCLR": image("SimCLR", total_epochs=2, lr=0.1),
        "TSimCNE": image("TSimCNE", total_epochs=[1, 1, 1], lr=[0.1, 0.1, 0.01]),
        "TSimCNE, annealed": image("TSimCNE", total_epochs=[1, 1, 1], dim_annealing=True, pretrain_out_dim=8),
        "TSimCNE, one stage": image("TSimCNE", total_epochs=2, metric="gauss", projection_head="linear"),
    }
