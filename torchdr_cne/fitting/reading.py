"""Functions that read and check the input of a fit: a table, a graph or both, or pairs."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph, graph_from_user, own_rows_from_user
from torchdr_cne.distributed import Share
from torchdr_cne.fitting.plan import FitPlan
from torchdr_cne.fitting.running import Run
from torchdr_cne.inputs import OutputKind, PositivePairs, read_features
from torchdr_cne.inputs.columns import Columns
from torchdr_cne.inputs.sources import ArraySource
from torchdr_cne.resources import seed_from


@dataclass(frozen=True)
class FitInput:
    """The checked input of a fit.

    Attributes
    ----------
    data : ndarray, Tensor, RowSource or None
        The checked table; None if there is only a graph, or pairs.
    graph : AffinityGraph or None
        The given graph of all rows, or of this rank's rows.
    kind : OutputKind
        The kind of array in which the embedding is returned.
    columns : Columns
        Number and names of the features.
    seed : int
        Seed of every draw.
    labels : Tensor of shape (n,) or None
        Class codes, −1 where the class is unknown.
    pairs : PositivePairs or None
        Pairs that are given instead of a table.
    """

    data: Any
    graph: AffinityGraph | None
    kind: OutputKind
    columns: Columns
    seed: int
    labels: Tensor | None = None
    pairs: PositivePairs | None = None

    @property
    def n_points(self) -> int:
        """Number of points or, if pairs are given, of mini-batches in an epoch."""
        if self.pairs is not None:
            return len(self.pairs)
        if self.data is not None:
            return len(self.data)
        assert self.graph is not None
        return self.graph.n_points


def read(X: Any, y: Any, graph: Any, plan: FitPlan, run: Run) -> FitInput:
    """Return the table, the graph and the labels that are given, checked; all ranks take the seed of rank 0."""
    with run.ranks.all_or_none("reading the input"):
        given = _read(X, graph, plan, run)
        if given.pairs is None:  # rows of pairs have no numbers
            given = replace(given, labels=plan.read_labels(y, given.n_points))
    if run.ranks.size > 1:
        given = replace(given, seed=int(run.ranks.all_gather_ints([given.seed % 2**63], "the seed")[0, 0]))
    return given


def _read(X: Any, graph: Any, plan: FitPlan, run: Run) -> FitInput:
    seed = seed_from(plan.options.random_state)
    if isinstance(X, PositivePairs):
        if plan.networks is None or graph is not None:
            raise ValueError("PositivePairs need an encoder, such as encoder='mlp', and no graph=.")
        shape = tuple(next(X.first_members()).shape[1:])
        return FitInput(None, None, OutputKind(), Columns(math.prod(shape), input_shape=shape), seed, pairs=X)
    if plan.graph is not None and plan.graph.is_precomputed:
        return _read_precomputed(X, graph, plan, seed)
    budget = None if plan.graph is None else plan.graph.memory_budget
    if isinstance(X, np.memmap) and X.ndim == 2 and (run.ranks.size > 1 or budget is not None):
        X = ArraySource(X, "X")  # each process reads only the rows that it uses
    features, kind, columns = read_features(X, plan.name)
    share = Share.of(len(features), run.ranks)
    if graph is None:
        return FitInput(features, None, kind, columns, seed)
    if run.ranks.size > 1 and getattr(graph, "shape", None) == (len(share), share.n):
        return FitInput(features, own_rows_from_user(graph, share), kind, columns, seed)
    return FitInput(features, graph_from_user(graph, share.n), kind, columns, seed)


def _read_precomputed(X: Any, graph: Any, plan: FitPlan, seed: int) -> FitInput:
    if plan.networks is not None:
        raise ValueError("an encoder needs rows; pass X with graph= instead of affinity_in='precomputed'.")
    if graph is not None:
        raise ValueError("affinity_in='precomputed' takes the graph as X; leave graph= out.")
    given = graph_from_user(X)
    kind = OutputKind(X.device if isinstance(X, Tensor) else None)
    return FitInput(None, given, kind, Columns(given.n_points), seed)
