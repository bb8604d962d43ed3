"""What single methods can be told, what serves beside the fits, and methods of a user's own."""

import functools
import inspect
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import torchdr_cne
from benchmarks.bits.fits import SAMPLED, Cases, Found, case, described, digits, given_graph, make, start
from torchdr_cne import NegativeSamplingNeighborEmbedding, affinity, evaluation
from torchdr_cne.forces import PairForces


class SquaredRepulsion(NegativeSamplingNeighborEmbedding):
    """The README's method: attraction −log q, repulsion q² for each negative."""

    def _compute_attractive_loss(self, pairs: Any) -> Any:
        return -pairs.log_q_edges

    def _compute_repulsive_loss(self, pairs: Any) -> Any:
        return (2 * pairs.log_q_negatives).exp()


class FastSquaredRepulsion(SquaredRepulsion):
    """The same by declared forces."""

    def _pair_forces(self) -> PairForces:
        return PairForces(attractive=attractive, repulsive=repulsive)


def attractive(d2: Any, p: Any, power: Any) -> Any:
    """Derivative of −log q."""
    return 1.0 / (1.0 + d2)


def repulsive(d2: Any, p: Any, power: Any) -> Any:
    """Derivative of q²."""
    return -2.0 / ((1.0 + d2) * (1.0 + d2) * (1.0 + d2))


def of_parameters() -> Cases:
    """Return what single methods can be told."""
    composed = affinity.Neighbors(15) | affinity.Connectivity() | affinity.Symmetrize("mean") | affinity.Normalize()
    few = functools.partial(digits, 300)
    return {
        "UMAP, labels": case("UMAP", labels=True, target_weight=0.8),
        "UMAP, min_dist": case("UMAP", min_dist=0.5, set_op_mix_ratio=0.5, local_connectivity=2.0),
        "NegTSNE, s": case("NegTSNE", s=0.0, n_negatives=1),
        "NegTSNE, early exaggeration": case("NegTSNE", early_exaggeration=4.0, repulsion_strength=0.5),
        "InfoTSNE, few negatives": case("InfoTSNE", s=1.0, n_negatives=64, negatives_per_row=128),
        "NegTSNE, composed affinity": case("NegTSNE", affinity_in=composed),
        "TSNE, keops": case("TSNE", repulsion="keops", max_iter=10),
        "TSNE, fft": case("TSNE", repulsion="fft"),
        "TSNE, fft, 3 threads": case("TSNE", repulsion="fft", n_jobs=3),
        "TSNE, fft, 3-D": case("TSNE", repulsion="fft", n_components=3, max_iter=20),
        "TSNE, heavy tails": case("TSNE", dof=0.5, repulsion="fft"),
        "TSNE, light tails": case("TSNE", dof=2.0, perplexity=[10.0, 50.0]),
        "PACMAP, no mid-near pairs": case("PACMAP", MN_ratio=0.0, FP_ratio=1.0),
        "COSNE, norms do not count": case("COSNE", radius_strength=0.0),
        "AffinityMatcher, default": case("AffinityMatcher", data=few),
        "AffinityMatcher, square": case("AffinityMatcher", data=few, loss="square"),
        "AffinityMatcher, function": case("AffinityMatcher", data=few, affinity_in=lambda rows: rows @ rows.T),
        "own method": case(SquaredRepulsion),
        "own method, forces": case(FastSquaredRepulsion, gradient="pairwise"),
        **{
            f"{name}, precomputed": functools.partial(precomputed, name)
            for name in ("NegTSNE", "TSNE", "AffinityMatcher")
        },
        "NegTSNE, tensor": case("NegTSNE", data=lambda: tuple(map(torch.from_numpy, digits()))),
        "NegTSNE, tensor of 64 bits": case(
            "NegTSNE", data=lambda: tuple(torch.from_numpy(X).double() for X in digits())
        ),
        "callbacks": callbacks,
        "parameters": parameters,
        "files, NegTSNE": functools.partial(streamed, None),
        "files, NegTSNE, streamed": functools.partial(streamed, 60_000),
    }


def of_tools() -> Cases:
    """Return what serves beside the fits: affinities, and what judges an embedding."""
    names = (
        *("Union", "UMAP", "Entropic", "Scaled", "SymmetricEntropic", "Sinkhorn", "DoublyStochasticQuadratic"),
        *("Gaussian", "Student", "SelfTuning"),
    )
    graphs: Cases = {f"affinity, {name}": functools.partial(graph_of, f"{name}Affinity") for name in names}
    return graphs | {"evaluation": judged, "spectrum": spectrum, "memory": memory}


def precomputed(method: str) -> Found:
    """Fit a graph that stands in place of rows."""
    return described(make(method, affinity_in="precomputed").fit(given_graph()))


def callbacks() -> Found:
    """Return what a callback sees, and the fit that it stops."""
    seen: list[Any] = []

    def look(estimator: Any, step: int) -> bool:
        seen.append([step, np.array(estimator.embedding_), estimator.log_z_])
        return step == 30

    fitted = make("NCVis", callbacks=torchdr_cne.Every(10, look)).fit(digits()[0])
    return {"seen": seen, **described(fitted)}


def parameters() -> Found:
    """Return the names and defaults of all parameters."""
    kinds = {name: getattr(torchdr_cne, name) for name in torchdr_cne.__all__}
    estimators = {
        name: kind() for name, kind in kinds.items() if hasattr(kind, "get_params") and not inspect.isabstract(kind)
    }
    return {
        name: {key: getattr(value, "__name__", repr(value)) for key, value in estimator.get_params(deep=False).items()}
        for name, estimator in estimators.items()
    }


def streamed(budget: int | None) -> Found:
    """Fit rows of files, which may be larger than what memory they may take."""
    from torchdr_cne.inputs import open_rows

    with tempfile.TemporaryDirectory() as folder:
        for number, part in enumerate(np.array_split(digits()[0], 3)):
            np.save(Path(folder) / f"part-{number}.npy", part)
        rows = open_rows(f"{folder}/part-*.npy")
        return described(make("NegTSNE", memory_budget=budget, backend="torch").fit(rows))


def graph_of(name: str) -> Found:
    """Return the graph that an affinity makes of the digits."""
    return {"graph": getattr(affinity, name)()(digits()[0]).to_scipy()}


def judged() -> Found:
    """Return all scores of an embedding."""
    X, y, _ = digits()
    return {
        "recall": float(evaluation.knn_recall(X, start())),
        "accuracy": float(evaluation.knn_accuracy(X, y)),
        "trustworthiness": float(evaluation.trustworthiness(X, start())),
        "distances": float(evaluation.distance_correlation(X, start())),
        "classes": list(evaluation.class_similarity_matrix(X, y)),
    }


def spectrum() -> Found:
    """Return the maps of a sweep along the spectrum."""
    found = torchdr_cne.spectrum.sweep(make("InfoTSNE"), digits()[0], s=[0.0, 1.0])
    return {str(s): described(estimator) for s, estimator in found.items()}


def memory() -> Found:
    """Return what fits are said to take."""
    sizes = (1000, 16), (1_000_000, 50)
    return {name: [torchdr_cne.estimate_memory(n, d, make(name)) for n, d in sizes] for name in SAMPLED}
