"""The input of a fit, checked: a table, a graph or both, or pairs."""

import math
from typing import Any

import numpy as np
from torch import Tensor

from torchdr_cne.affinity import graph_from_user, own_rows_from_user
from torchdr_cne.distributed import Ranks, Share
from torchdr_cne.fitting.stages import Given
from torchdr_cne.inputs import OutputKind, PositivePairs, read_features
from torchdr_cne.inputs.sources import ArraySource
from torchdr_cne.resources import seed_from


def read_input(estimator: Any, X: Any, graph: Any, ranks: Ranks) -> Given:
    """Check the table and the given graph, if there is one."""
    seed = seed_from(estimator.random_state)
    if isinstance(X, PositivePairs):
        if estimator.encoder is None or graph is not None:
            raise ValueError("PositivePairs need an encoder, such as encoder='mlp', and no graph=.")
        estimator.__dict__.pop("feature_names_in_", None)
        estimator.input_shape_ = tuple(next(X.first_members()).shape[1:])
        estimator.n_features_in_ = math.prod(estimator.input_shape_)
        return Given(None, None, OutputKind(), seed, pairs=X)
    estimator.__dict__.pop("input_shape_", None)
    if estimator.affinity_in == "precomputed":
        if estimator.encoder is not None:
            raise ValueError("an encoder needs rows; pass X with graph= instead of affinity_in='precomputed'.")
        if graph is not None:
            raise ValueError("affinity_in='precomputed' takes the graph as X; leave graph= out.")
        given = graph_from_user(X)
        estimator.n_features_in_ = given.n_points
        estimator.__dict__.pop("feature_names_in_", None)
        return Given(None, given, OutputKind(X.device if isinstance(X, Tensor) else None), seed)
    if isinstance(X, np.memmap) and X.ndim == 2 and (ranks.size > 1 or estimator.memory_budget is not None):
        X = ArraySource(X, "X")  # no process reads what it has no use for
    features, kind = read_features(estimator, X)
    share = Share.of(len(features), ranks)
    if graph is None:
        return Given(features, None, kind, seed)
    if ranks.size > 1 and getattr(graph, "shape", None) == (len(share), share.n):
        return Given(features, own_rows_from_user(graph, share), kind, seed)
    return Given(features, graph_from_user(graph, share.n), kind, seed)
