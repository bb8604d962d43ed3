"""What ranks do in test_fit.py that differ from each other, fail, or are told to stop."""

import json
import os
import signal
import warnings
from pathlib import Path

import numpy as np

from tests.distributed.cases import digits, labels, make, make_own, world
from torchdr_cne.affinity import UnionAffinity
from torchdr_cne.distributed import DistributedConfig, RankError
from torchdr_cne.inputs import open_rows


def disagreements(folder):
    """Print the errors of ranks that differ, one line of JSON each, and whether all is well afterwards."""
    rank, X = world()[0], digits()

    def tried(what, *arguments, data=X, name="NegTSNE", **parameters):
        estimator = make(name, max_iter=5, **parameters)
        try:
            estimator.fit(data, *arguments)
        except Exception as error:
            print(json.dumps([what, type(error).__name__, str(error)]), flush=True)

    tried("rows", data=X[: len(X) - rank])
    tried("columns", data=X[:, : 64 - rank])
    tried("values", data=X + rank)
    tried("parameters", n_neighbors=15 + rank)
    tried("start", init=np.random.default_rng(rank).normal(size=(len(X), 2)))
    tried("affinity", affinity_in=UnionAffinity(n_neighbors=10 + rank))
    tried("callbacks", callbacks=None if rank else print)
    tried("labels", labels() if rank else None, name="UMAP")
    tried("method", name="UMAP" if rank else "NegTSNE")
    bad = X.copy()
    bad[-1, 3] = np.nan
    np.save(Path(folder) / f"bad-{rank}.npy", bad)
    tried("nan in the last rank's rows", data=open_rows(Path(folder) / f"bad-{rank}.npy"))


def stopping():
    """Print how many iterations each rank has done when one of them asks to stop."""
    rank, size = world()
    X = digits()

    def stop(estimator, step):
        return rank == size - 1 and step == 7

    stopped = make("NegTSNE", max_iter=30, callbacks=stop).fit(X)
    alone = make("InfoTSNE", max_iter=10).set_params(distributed="auto").fit(X)
    own = make_own().fit(X)
    print(json.dumps([stopped.n_iter_, stopped.history_["step"], alone.n_iter_, alone.graph_.shape, own.n_iter_]))
    np.save(os.environ["WHERE"] + f"/alone-{rank}.npy", alone.embedding_)


def uneven_memory(folder):
    """Print what ranks find whose rows would fit the budget on one of them, and whose free memory differs."""
    from torchdr_cne.fitting import stages

    rank = world()[0]
    X = digits()[:900]
    source = open_rows(Path(folder) / "rows.npy")
    between = make("NegTSNE", max_iter=3, memory_budget=110_000).fit(source)
    stages.available_memory = lambda: 600_000 if rank == 0 else 60_000
    unequal = make("NegTSNE", max_iter=3).fit(source)
    expected = make("NegTSNE", max_iter=3).fit(X)
    print(json.dumps([bool(np.allclose(e.embedding_, expected.embedding_, atol=1e-3)) for e in (between, unequal)]))


def recovery():
    """Print what each rank hears when rank 1 fails, and that the next fit is none the worse.

    A rank that waited for the other until the time-out would wait longer than the test does.
    """
    rank, X = world()[0], digits()

    def fail(estimator, step):
        if rank == 1:
            raise ZeroDivisionError

    patient = DistributedConfig(min_rows=0, timeout=100_000.0)
    try:
        make("NegTSNE", max_iter=5, callbacks=fail).set_params(distributed=patient).fit(X)
    except (RankError, ZeroDivisionError) as error:
        kind = type(error).__name__
    print(json.dumps([kind, make("NegTSNE", max_iter=5).fit(X).n_iter_]))


def leaving(folder):
    """Print what rank 0 hears when rank 1 alone is told to leave."""
    rank, X = world()[0], digits()
    signal.signal(signal.SIGTERM, lambda *_: None)  # rank 1 stays, to tell

    def tell(estimator, step):
        if rank == 1 and step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    estimator = make("NegTSNE", max_iter=20, callbacks=tell, checkpoint_dir=folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator.fit(X)
            text = str(caught[-1].message)
        except RankError as error:
            text = str(error)
    print(json.dumps([estimator.n_iter_, text]))
