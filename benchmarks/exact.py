"""The exact methods, PACMAP and LargeVis beside their peers: ``python -m benchmarks.exact tsne`` and others.

``tsne``: TSNE and openTSNE on MNIST from one P, with the same number of iterations; the divergence of both by one exact
function. ``growth``: seconds an iteration as n grows, on the molecules. ``error``: how far the interpolated gradient is
from the exact one. ``pacmap``: PACMAP beside the pacmap package, interleaved. ``largevis``: LargeVis beside NegTSNE.
Times are of the calling process and mean something on an idle machine.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, record
from benchmarks.quality import Judge

_N_EARLY = 250
_ROWS_AT_ONCE = 2000


def divergence(P: Any, embedding: np.ndarray) -> float:
    """Return KL(P‖Q) of a sparse P of sum 1, by all pairs in double precision."""
    points = embedding.astype(np.float64)
    squares = np.square(points).sum(axis=1)
    total = -float(len(points))  # a point's similarity with itself
    for first in range(0, len(points), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        d2 = squares[rows, None] + squares - 2 * points[rows] @ points.T
        total += (1 / (1 + np.maximum(d2, 0))).sum()
    edges = P.tocoo()
    log_q = -np.log1p(np.square(points[edges.row] - points[edges.col]).sum(axis=1)) - np.log(total)
    return float((edges.data * (np.log(edges.data) - log_q)).sum())


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of wall time that ``work`` takes, and what it returns."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def tsne(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Fit TSNE, and openTSNE from its graph; openTSNE's own search is timed apart."""
    import openTSNE

    from torchdr_cne import TSNE
    from torchdr_cne.affinity import EntropicAffinity

    given = data.load("mnist", options.n)
    TSNE(max_iter=2, repulsion="fft", random_state=0).fit(given.X[:5000])  # compiles
    judge, runs = Judge(given), []
    graph_seconds, graph = timed(lambda: EntropicAffinity(perplexity=30)(given.X).to_scipy())
    for _ in range(options.rounds):
        ours = TSNE(max_iter=options.n_iter, early_exaggeration_iter=_N_EARLY, random_state=0)
        seconds, _ = timed(lambda ours=ours: ours.fit(given.X, graph=graph))
        runs.append(_run("TSNE", graph_seconds, seconds, graph, ours.embedding_, judge))
        runs[-1]["kl_divergence_"] = ours.kl_divergence_
        print(json.dumps(runs[-1]), flush=True)
        if not options.peer:
            continue
        import scipy.sparse

        affinity = openTSNE.affinity.PrecomputedAffinities(scipy.sparse.csr_matrix(graph), normalize=False)
        start = openTSNE.initialization.pca(given.X, random_state=0)

        def peer(start: np.ndarray = start, affinity: Any = affinity) -> Any:
            found = openTSNE.TSNEEmbedding(start.copy(), affinity, n_jobs=options.threads, random_state=0)
            found.optimize(_N_EARLY, exaggeration=12, momentum=0.5, inplace=True)
            return found.optimize(options.n_iter - _N_EARLY, exaggeration=1, momentum=0.8, inplace=True)

        seconds, found = timed(peer)
        search_seconds, _ = timed(
            lambda: openTSNE.affinity.PerplexityBasedNN(given.X, 30, n_jobs=options.threads, random_state=0)
        )
        runs.append(_run("openTSNE", search_seconds, seconds, graph, np.asarray(found), judge))
        print(json.dumps(runs[-1]), flush=True)
    return runs


def _run(
    name: str, graph_seconds: float, seconds: float, graph: Any, embedding: np.ndarray, judge: Judge
) -> dict[str, Any]:
    scores = judge.scores(embedding)
    return {
        "method": name,
        "graph_seconds": graph_seconds,
        "seconds": seconds,
        "divergence": divergence(graph / graph.sum(), embedding),
        "recall_15": scores["recall_15"],
        "accuracy": scores["accuracy"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def growth(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time iterations of whole fits on growing samples of the molecules, the layouts as large as fits leave them."""
    from torchdr_cne import TSNE
    from torchdr_cne.affinity import EntropicAffinity

    runs = []
    for n in (25_000, 50_000, 100_000, 200_000):
        X = data.load("molecules", n).X
        graph_seconds, graph = timed(lambda X=X: EntropicAffinity(perplexity=30)(X).to_scipy())
        estimator = TSNE(max_iter=options.n_iter, random_state=0)
        seconds, _ = timed(lambda X=X, graph=graph, estimator=estimator: estimator.fit(X, graph=graph))
        runs.append(
            {
                "n": n,
                "graph_seconds": graph_seconds,
                "seconds_an_iteration": seconds / options.n_iter,
                "span": float(np.ptp(estimator.embedding_, axis=0).max()),
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
        print(json.dumps(runs[-1]), flush=True)
    for first, second in pairwise(runs):
        ratio = second["seconds_an_iteration"] / first["seconds_an_iteration"]
        second["exponent"] = float(np.log(ratio) / np.log(second["n"] / first["n"]))
    return runs


def error(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Compare gradients at the layouts of fits: repulsion alone, and the whole, of which little is left at the end."""
    import torch

    from torchdr_cne import TSNE
    from torchdr_cne.affinity import AffinityGraph

    runs = []
    for n in (2000, 5000, 10_000, 20_000, 70_000):
        X = data.load("mnist", n).X
        for n_iter in (300, options.n_iter):
            estimator = TSNE(max_iter=n_iter, early_exaggeration_iter=_N_EARLY, random_state=0).fit(X)
            z, graph = torch.from_numpy(estimator.embedding_), AffinityGraph.from_scipy(estimator.graph_)
            gradients = {}
            for repulsion in ("fused", "fft"):
                for exaggeration in (1.0, 1e-9):
                    method = TSNE(repulsion=repulsion, exaggeration=exaggeration, early_exaggeration=exaggeration)
                    state = method._make_state(graph, z, 0, method._phases(n)[-1])
                    objective = method._make_objective(state, z)
                    objective.compute_gradients(state)
                    gradients[repulsion, exaggeration] = objective.to_points(objective.parameter.grad).double()
            relative = {
                name: float((gradients["fft", x] - gradients["fused", x]).norm() / gradients["fused", x].norm())
                for name, x in (("whole", 1.0), ("repulsion", 1e-9))
            }
            runs.append({"n": n, "n_iter": n_iter, **relative})
            print(json.dumps(runs[-1]), flush=True)
    return runs


def pacmap(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Fit PACMAP and the package one after the other."""
    import pacmap as package

    from torchdr_cne import PACMAP

    given = data.load("mnist", options.n)
    PACMAP(max_iter=9, random_state=0).fit(given.X[:5000])
    package.PaCMAP().fit_transform(given.X[:2000])
    judge, runs = Judge(given), []
    for seed in range(options.rounds):
        for name, fit in (
            ("PACMAP", lambda seed=seed: PACMAP(random_state=seed).fit_transform(given.X)),
            ("pacmap", lambda: package.PaCMAP().fit_transform(given.X)),
        ):
            seconds, embedding = timed(fit)
            scores = judge.scores(np.asarray(embedding))
            runs.append({"method": name, "seconds": seconds, **scores})
            print(json.dumps(runs[-1]), flush=True)
    return runs


def largevis(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Fit LargeVis and NegTSNE."""
    from torchdr_cne import LargeVis, NegTSNE

    given = data.load("mnist", options.n)
    judge, runs = Judge(given), []
    for method in (LargeVis, NegTSNE):
        method(max_iter=2, random_state=0).fit(given.X[:5000])
        seconds, embedding = timed(lambda method=method: method(random_state=0).fit_transform(given.X))
        runs.append({"method": method.__name__, "seconds": seconds, **judge.scores(embedding)})
        print(json.dumps(runs[-1]), flush=True)
    return runs


WORK = {"tsne": tsne, "growth": growth, "error": error, "pacmap": pacmap, "largevis": largevis}
PEERS = {"tsne": ["openTSNE"], "pacmap": ["pacmap"]}


def main() -> None:
    """Measure what is asked for; write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--n", type=int, default=None, help="rows of MNIST; all by default")
    parser.add_argument("--n-iter", type=int, default=750)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="leave openTSNE out")
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    settings = {name: value for name, value in vars(options).items() if name != "output"}
    found = record.new_record(f"exact-{options.work}", settings, PEERS.get(options.work, []))
    found["runs"] = WORK[options.work](options)
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
