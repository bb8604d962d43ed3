"""Fits that are interrupted, saved, shared among ranks, or begun from the shell.

``python -m benchmarks.bits.runs FOLDER`` is one rank: it does all of `shared` and leaves their digests in FOLDER.
"""

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import torchdr_cne
from benchmarks.bits.digests import digest
from benchmarks.bits.fits import BATCHES, SAMPLED, Cases, Found, described, digits, given_graph, make, start
from benchmarks.data import ROOT

SIZES = (1, 2)
_SECONDS = 300
_ERROR = "error"


class Stop(Exception):
    """What ends a fit in the middle."""


@contextmanager
def obeyed() -> Iterator[None]:
    """Turn an interruption that a fit did not take for its own end into an error."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise RuntimeError("a fit with checkpoints was interrupted and did not conclude.") from error


def interrupted(method: str, steps: tuple[int, int], labels: bool = False, **parameters: Any) -> Found:
    """Fit with checkpoints: one fit fails at a step, one is interrupted later, and one comes to the end."""
    X, y, new = digits()
    with tempfile.TemporaryDirectory() as folder:

        def once(step: int, error: type[BaseException]) -> Any:
            def end(estimator: Any, done: int) -> None:
                if done == step:
                    raise error

            options = {**parameters, "checkpoint_dir": folder, "checkpoint_every": 5, "callbacks": end}
            return make(method, **options).fit(X, y if labels else None)

        try:
            once(steps[0], Stop)
        except Stop:
            with obeyed():
                once(steps[1], KeyboardInterrupt)
        return described(once(0, Stop), new)


def saved(method: str, labels: bool = False, **parameters: Any) -> Found:
    """Fit, save and load."""
    X, y, new = digits()
    with tempfile.TemporaryDirectory() as folder:
        make(method, **parameters).fit(X, y if labels else None).save(f"{folder}/model")
        loaded = torchdr_cne.load(f"{folder}/model")
    told = {name: repr(value) for name, value in loaded.get_params(deep=False).items()}
    return {**described(loaded, new), "parameters": told}


def from_the_shell() -> Found:
    """Fit by the command, and read what it has written."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/data.npy", digits()[0])
        options = {"method": "negtsne", "output": f"{folder}/z.npy", "random_state": 0, "n_jobs": 1, "max_iter": 40}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "torchdr_cne.cli", "fit", f"{folder}/data.npy", *words]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        return {"embedding": np.load(f"{folder}/z.npy")}


# ---- ranks ------------------------------------------------------------------------------------------------


def shared(folder: str) -> Cases:
    """Return the fits that ranks do together; given graph and start, as many as there are give the same bits."""
    X, y, new = digits()
    several = int(os.environ["WORLD_SIZE"]) > 1

    def fit(method: str, labels: bool = False, graph: Any = None, new: Any = None, **parameters: Any) -> Any:
        estimator = make(method, **{"distributed": several, **parameters})
        return lambda: described(estimator.fit(X, y if labels else None, graph=graph), new)

    def resume() -> Found:
        def end(estimator: Any, done: int) -> None:
            if done == 25:
                raise KeyboardInterrupt

        steps = {"checkpoint_dir": f"{folder}/checkpoints", "checkpoint_every": 10}
        with obeyed():
            fit("NegTSNE", **steps, callbacks=end)()
        return fit("NegTSNE", **steps)()

    given = {"graph": given_graph(), "init": start()}
    exact: dict[str, dict[str, Any]] = {"fused": {}, "fft": {"repulsion": "fft"}, "dense": {"repulsion": "dense"}}
    return {
        **{method: fit(method, **given) for method in SAMPLED},
        **{f"TSNE, {name}": fit("TSNE", **given, **options) for name, options in exact.items()},
        "SNE": fit("SNE", **given),
        "TSNEkhorn": fit("TSNEkhorn", **given),
        "COSNE": fit("COSNE", **{**given, "init": start() / 10}),
        "InfoTSNE, no neighbour repels": fit("InfoTSNE", **given, discard_neighbors=True),
        "UMAP, autograd": fit("UMAP", **given, gradient="autograd"),
        **{f"{method}, from rows": fit(method) for method in (*SAMPLED, "TSNE")},
        "UMAP, labels": fit("UMAP", labels=True),
        "UMAP, spectral start": fit("UMAP", init="spectral"),
        "PACMAP, alone": fit("PACMAP"),
        "NegTSNE, alone": fit("NegTSNE", distributed="auto"),
        "NegTSNE, resumed": resume,
        "NegTSNE, encoder": fit("NegTSNE", new=new, **BATCHES),
        "NCVis, encoder": fit("NCVis", new=new, **{**BATCHES, "negatives": "uniform"}),
        "ParametricUMAP": fit("ParametricUMAP", new=new, pretrain_iter=10, max_iter=20, batch_size=128),
    }


SHARED = (
    *SAMPLED,
    *("TSNE, fused", "TSNE, fft", "TSNE, dense", "SNE", "TSNEkhorn", "COSNE"),
    *("InfoTSNE, no neighbour repels", "UMAP, autograd"),
    *(f"{method}, from rows" for method in (*SAMPLED, "TSNE")),
    *("UMAP, labels", "UMAP, spectral start", "PACMAP, alone", "NegTSNE, alone", "NegTSNE, resumed"),
    *("NegTSNE, encoder", "NCVis, encoder", "ParametricUMAP"),
)


def one_rank(folder: str) -> None:
    """Do all shared fits as one of the ranks, and write the digests."""
    warnings.simplefilter("ignore")
    found: dict[str, Found] = {}
    for name, fit in shared(folder).items():
        try:
            found[name] = {part: digest(value) for part, value in fit().items()}
        except Exception as error:
            found[name] = {_ERROR: f"{type(error).__name__}: {error}"}
    (Path(folder) / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))


@functools.cache
def launched(size: int) -> dict[str, Found]:
    """Start ``size`` ranks once for all their fits; return what each rank found, by fit and part, or the error."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fixed = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.bits.runs", folder],
                cwd=ROOT,
                env={**os.environ, **fixed, "GLOO_SOCKET_IFNAME": "lo", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(size)
        ]
        try:
            deadline = time.monotonic() + _SECONDS
            while any(rank.poll() is None for rank in ranks) and time.monotonic() < deadline:
                time.sleep(0.05)
                if any(rank.poll() for rank in ranks):  # the others would wait for it
                    break
        finally:
            for rank in ranks:
                rank.kill()
        if any(rank.wait() for rank in ranks):
            return {name: {_ERROR: f"{size} ranks have failed, or are at work after {_SECONDS} s"} for name in SHARED}
        by_rank = [json.loads((Path(folder) / f"rank-{rank}.json").read_text()) for rank in range(size)]
    return {
        name: {f"rank {rank}, {part}": value for rank, of in enumerate(by_rank) for part, value in of[name].items()}
        for name in SHARED
    }


def of_ranks(size: int, name: str) -> Found:
    """Return what the ranks found in one of their fits."""
    found = launched(size)[name]
    errors = [value for part, value in found.items() if part.endswith(_ERROR)]
    if errors:
        raise RuntimeError(errors[0])
    return found


# ---- all of them ------------------------------------------------------------------------------------------


def of_runs() -> Cases:
    """Return the cases of this module."""
    interrupt, save = (functools.partial(functools.partial, kind) for kind in (interrupted, saved))
    maps = {"phases": [torchdr_cne.Phase(30), torchdr_cne.Phase(20)], "batch_size": 128}
    fits: Cases = {
        **{f"resumed, {method}": interrupt(method, (13, 27)) for method in (*SAMPLED, "TSNE", "TSNEkhorn", "COSNE")},
        "resumed, PACMAP": interrupt("PACMAP", (13, 27)),
        "resumed, NCVis, autograd, Adam": interrupt("NCVis", (13, 27), gradient="autograd", optimizer="Adam"),
        "resumed, NCVis, encoder": interrupt("NCVis", (13, 27), **BATCHES),
        "resumed, LearnedMap": interrupt("LearnedMap", (13, 37), **maps),
        **{f"saved, {method}": save(method) for method in (*SAMPLED, "PACMAP", "TSNE", "TSNEkhorn", "COSNE")},
        "saved, NCVis, encoder and decoder": save("NCVis", decoder="mlp", **BATCHES),
        "saved, UMAP, labels": save("UMAP", labels=True),
        "saved, LearnedMap": save("LearnedMap", **maps),
        "from the shell": from_the_shell,
    }
    names = [(size, name) for size in SIZES for name in SHARED]
    return fits | {f"{size} ranks, {name}": functools.partial(of_ranks, size, name) for size, name in names}


if __name__ == "__main__":
    one_rank(sys.argv[1])
