"""What the ranks do in test_fit.py; the tests do the same in one process and compare."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from sklearn.datasets import load_digits

import torchdr_cne
from torchdr_cne import NegativeSamplingNeighborEmbedding
from torchdr_cne.affinity import (
    EntropicAffinity,
    Function,
    Neighbors,
    Normalize,
    Symmetrize,
    UMAPAffinity,
    UnionAffinity,
)
from torchdr_cne.distributed import DistributedConfig
from torchdr_cne.distributed.ranks import Ranks
from torchdr_cne.inputs import open_rows
from torchdr_cne.objectives import points

METHODS = ("NegTSNE", "UMAP", "NCVis", "InfoTSNE")
FAST = {
    **{name: (name, {}) for name in METHODS},
    "InfoTSNE without neighbours": ("InfoTSNE", {"discard_neighbors": True}),
    "NegTSNE in 3-D with Adam": ("NegTSNE", {"n_components": 3, "optimizer": "Adam", "learning_rate": 0.1}),
    "UMAP in float64": ("UMAP", {"dtype": "float64", "max_iter": 8}),
}
EXACT = {
    "TSNE fused": ("TSNE", {"repulsion": "fused", "early_exaggeration": 4.0}),
    "TSNE fft": ("TSNE", {"repulsion": "fft", "early_exaggeration": 4.0}),
    "SNE fused": ("SNE", {"repulsion": "fused"}),
    "TSNEkhorn fused": ("TSNEkhorn", {"repulsion": "fused"}),
    "TSNE dense": ("TSNE", {"repulsion": "dense", "max_iter": 3, "dtype": "float64"}),
    "COSNE dense": ("COSNE", {"max_iter": 3, "dtype": "float64"}),
}
GRAPHS = {
    "union": UnionAffinity(backend="torch"),
    "umap": UMAPAffinity(backend="torch", set_op_mix_ratio=0.7),
    "entropic": EntropicAffinity(perplexity=8, backend="torch"),
    "cosine": UMAPAffinity(metric="cosine", backend="torch"),
    "manhattan": UnionAffinity(metric="manhattan", backend="torch"),
    "lists": UnionAffinity(backend=torchdr_cne.neighbors.FaissConfig(n_lists=16)),
    "composed": (
        Neighbors(15, backend="torch")
        | Function(lambda d: (-d / 10).exp())
        | Symmetrize("mean")
        | Function(lambda w: w**1.5)
        | Normalize("rows")
    ),
}


def digits():
    """Return the digits, with a few rows twice and one of zeros."""
    X = load_digits().data.astype(np.float32)
    X[1000:1010] = X[10:20]
    X[700] = 0
    return X


def labels():
    """Return the classes of half of the digits."""
    return np.where(np.random.default_rng(0).random(1797) < 0.5, load_digits().target, -1)


def world() -> tuple[int, int]:
    """Return this process's rank and the number of ranks."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def make(name, **parameters):
    """Return an estimator that is shared among whatever ranks there are."""
    distributed = world()[1] > 1
    return getattr(torchdr_cne, name)(random_state=0, distributed=distributed, check_interval=10, **parameters)


def start(n, d=2):
    return np.random.default_rng(1).normal(size=(n, d)).astype(np.float32)


def fast(graph_file):
    """Embed one graph from one start by all cases of the fast path."""
    X, graph = digits(), scipy.sparse.load_npz(graph_file)
    found = {}
    for case, (name, parameters) in FAST.items():
        estimator = make(name, **{"max_iter": 30, **parameters})
        estimator.set_params(init=start(len(X), estimator.n_components)).fit(X, graph=graph)
        found[case] = estimator.embedding_
        found[f"{case}, gradient"] = np.array(estimator.history_["grad_norm"])
    return found


def staged():
    """Return fits from rows that ranks exchange by copies, as those of a GPU through the host."""
    Ranks._to_carrier = lambda ranks, tensor: tensor.clone()
    return {name: make(name, backend="torch", max_iter=10).fit(digits()).embedding_ for name in ("NegTSNE", "InfoTSNE")}


def exact(graph_file):
    """Embed one graph from one start by the exact methods."""
    X, graph = digits(), scipy.sparse.load_npz(graph_file)
    found = {}
    for case, (name, parameters) in EXACT.items():
        place = start(len(X)) / (10 if name == "COSNE" else 1)
        estimator = make(name, init=place, **{"max_iter": 11, **parameters}).fit(X, graph=graph)
        found[case] = estimator.embedding_
        found[f"{case}, gradient"] = np.array(estimator.history_["grad_norm"])
        for attribute in ("kl_divergence_", "log_scaling_"):
            if hasattr(estimator, attribute):
                found[f"{case}, {attribute}"] = np.array(getattr(estimator, attribute))
    return found


def own_dense_affinity():
    """Print what a fit is told whose own affinity needs all rows, and how many ranks have done it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = make("TSNEkhorn", max_iter=3, perplexity=10).fit(digits()[:150])
    print(json.dumps([[str(w.message) for w in caught], fitted.embedding_.tolist()]))


def definition(graph_file):
    """Return the first gradients of the loss hooks."""
    X, graph = digits(), scipy.sparse.load_npz(graph_file)
    found = {}
    compute = points.AutogradObjective.compute_gradients

    def compute_and_keep(self, state):
        compute(self, state)
        learned = [value.grad.reshape(1) for value in state.learned.values()]
        found[name] = torch.cat([self.parameter.grad.flatten(), *learned]).numpy()

    points.AutogradObjective.compute_gradients = compute_and_keep
    try:
        for name in METHODS:
            make(name, max_iter=1, gradient="autograd", dtype="float64", init=start(len(X))).fit(X, graph=graph)
    finally:
        points.AutogradObjective.compute_gradients = compute
    return found


def from_data():
    """Return this rank's rows of several graphs, and the first embeddings."""
    X, found = digits(), {}
    for name, affinity in GRAPHS.items():
        estimator = make("NegTSNE", max_iter=1, affinity_in=affinity, learning_rate=1e-9).fit(X)
        found[f"{name} graph"] = rows_of(estimator)
        found[f"{name} start"] = estimator.embedding_
        found[f"{name} components"] = np.array(estimator.n_connected_components_)
    labelled = make("UMAP", max_iter=1, target_weight=0.8, backend="torch", learning_rate=1e-9).fit(X, labels())
    found["labelled graph"] = rows_of(labelled)
    found["spectral start"] = make("UMAP", max_iter=1, init="spectral", learning_rate=1e-9).fit(X).embedding_
    parts = np.concatenate([X[:900], X[900:] + 1000])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the input graph has 2 connected components")
        found["two components"] = np.array(make("NegTSNE", max_iter=1).fit(parts).n_connected_components_)
    return found


def from_files(folder):
    """Embed rows that each rank reads from files, all in memory and streamed."""
    found = {}
    for budget in (None, 60_000):
        for name in ("rows.npy", "rows.parquet", "shards/*.npy"):
            source = open_rows(str(Path(folder) / name))
            estimator = make("NegTSNE", max_iter=20, memory_budget=budget, backend="torch").fit(source)
            found[f"{name} {budget}"] = estimator.embedding_
    mapped = np.load(Path(folder) / "rows.npy", mmap_mode="r")
    found["mapped"] = make("NegTSNE", max_iter=20, backend="torch").fit(mapped).embedding_
    return found


def rows_of(estimator):
    """Return a graph's rows as dense rows of all of it, to compare and to add up."""
    dense = np.zeros((estimator.embedding_.shape[0],) * 2, dtype=np.float32)
    first = estimator.graph_start_
    dense[first : first + estimator.graph_.shape[0]] = estimator.graph_.toarray()
    return dense


class WholeLoss(NegativeSamplingNeighborEmbedding):
    """A method whose loss is not a sum over rows."""

    def _compute_attractive_loss(self, pairs):
        return -pairs.log_q_edges

    def _compute_repulsive_loss(self, pairs):
        return pairs.log_q_negatives.exp()

    def _compute_loss(self, embedding_nd, state):
        return super()._compute_loss(embedding_nd, state) + embedding_nd.square().sum().sqrt()


def make_own():
    """Return an estimator of a method that cannot be split."""
    warnings.filterwarnings("ignore", "rank 0 does this fit alone: _compute_loss is overridden")
    return WholeLoss(max_iter=3, random_state=0, distributed=world()[1] > 1)


def traffic():
    """Print how many bytes this rank hands to other ranks in a step, by method."""
    import torch.distributed as dist

    sent, X = [0], digits()
    pass_on, gather = dist.batch_isend_irecv, dist.all_gather

    def counted_pass(operations):
        sent[0] += sum(op.tensor.numel() * op.tensor.itemsize for op in operations if op.op is dist.isend)
        return pass_on(operations)

    def counted_gather(everyone, own, **options):
        sent[0] += own.numel() * own.itemsize * (len(everyone) - 1)
        return gather(everyone, own, **options)

    dist.batch_isend_irecv, dist.all_gather = counted_pass, counted_gather
    found = {}
    for name in METHODS:
        totals = []
        hook = {"on_training_step_start": lambda self, totals=totals: totals.append(sent[0])}
        watched = type("Watched", (getattr(torchdr_cne, name),), hook)
        watched(random_state=0, max_iter=9, check_interval=100, distributed=True).fit(X)
        found[name] = np.diff(totals).tolist()
    print(json.dumps(found))


def sharded_graph():
    """Print what comes of one fit's graph, a part on each rank, in another and when it is gathered."""
    X = digits()
    first = make("NegTSNE", max_iter=5, backend="torch").fit(X)
    again = make("InfoTSNE", max_iter=5, backend="torch").fit(X, graph=first.graph_)
    own = make("InfoTSNE", max_iter=5, backend="torch").fit(X)
    whole = first.gather_graph()
    wrong = first.graph_.copy()
    wrong.data[0] *= 2
    try:
        make("InfoTSNE", max_iter=5).fit(X, graph=wrong)
    except ValueError as error:
        message = str(error)
    same = bool((again.embedding_ == own.embedding_).all())
    print(json.dumps([first.graph_.shape[0], same, message, None if whole is None else [whole.nnz, whole.shape[0]]]))


def own_fits(folder):
    """Fit and save on each rank by itself; print nothing."""
    rank = world()[0]
    own = torchdr_cne.NegTSNE(max_iter=3, random_state=rank, distributed=False).fit(digits()[: 300 + rank])
    own.save(Path(folder) / f"model-{rank}")
    assert own.gather_graph().shape == (300 + rank, 300 + rank)
    shared = make("NegTSNE", max_iter=3).set_params(distributed=DistributedConfig(min_rows=0)).fit(digits())
    shared.save(Path(folder) / "shared")


def placing():
    """Print where a fit that rank 0 did alone places new rows on this rank, and what a shared one says."""
    world()
    X = digits()
    alone = torchdr_cne.NegTSNE(max_iter=3, random_state=0).fit(X[:300])
    shared = make("NegTSNE", max_iter=3).set_params(distributed=DistributedConfig(min_rows=0)).fit(X)
    try:
        shared.transform(X[:1])
    except ValueError as error:
        print(json.dumps([alone.transform(X[300:310]).tolist(), str(error)]))


def given_graph(graph_file, folder, stop):
    """Fit a given graph with checkpoints; stop early if told to."""
    graph, X = scipy.sparse.load_npz(graph_file), digits()

    def interrupt(estimator, step):
        if step == stop:
            raise KeyboardInterrupt

    warnings.filterwarnings("ignore", "interrupted after")
    options = {"checkpoint_dir": folder, "callbacks": interrupt, "init": start(len(X))}
    return {"embedding": make("NegTSNE", max_iter=20, **options).fit(X, graph=graph).embedding_}
