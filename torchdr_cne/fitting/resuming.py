"""Whether what a checkpoint holds can be the state of a fit; nothing is used before it has been checked here."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.optimization.snapshot import Snapshot
from torchdr_cne.storage import FormatError, from_plain


def read_snapshot(step: int, record: Mapping[str, Any], tensors: Mapping[str, Tensor], n: int) -> tuple[Snapshot, int]:
    """Return the snapshot of a fit of ``n`` points that a checkpoint holds, and its seed.

    Raises
    ------
    FormatError
        If the checkpoint of step ``step`` cannot have been written by such a fit.
    """
    try:
        seed, finished = record["seed"], record["finished"]
        history = {name: from_plain(values, {}) for name, values in record["history"].items()}
        numbers = [number for values in history.values() for number in values]
        is_plain = isinstance(seed, int) and seed >= 0 and isinstance(finished, bool)
        is_plain = is_plain and all(isinstance(number, (int, float)) for number in numbers)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"the checkpoint of step {step} has no record of a fit ({error!r}).") from error
    embedding = tensors.get("embedding")
    has_points = embedding is None or (
        embedding.ndim == 2 and len(embedding) == n and bool(torch.isfinite(embedding).all())
    )
    has_points = has_points and (embedding is not None or any(name.startswith("network/") for name in tensors))
    scalars = all(tensor.numel() == 1 for name, tensor in tensors.items() if name.startswith("learned/"))
    if not (is_plain and has_points and scalars and _fit_points(tensors, embedding)):
        raise FormatError(
            f"the checkpoint of step {step} holds no state of a fit of {n} points; delete it, or choose another folder."
        )
    return Snapshot(step, tensors, history, finished), seed


def _fit_points(tensors: Mapping[str, Tensor], embedding: Tensor | None) -> bool:
    """Return whether what an optimiser keeps of the embedding has the shape of the embedding, or of a part of it."""
    if embedding is None:
        return True
    n, d = embedding.shape
    shapes = {(), (1,), (n,), (d,), (n, 1), (1, d), (n, d)}
    return all(tuple(tensors[name].shape) in shapes for name in tensors if name.startswith("optimizer/embedding/"))


def check_part(tensors: Mapping[str, Tensor], n_rows: int) -> None:
    """Raise a ValueError unless tensors are ``n_rows`` rows of a graph, which `AffinityGraph` does not check."""
    indptr, indices, weights = (tensors[name] for name in ("indptr", "indices", "weights"))
    kinds = (indptr.dtype, indices.dtype) == (torch.int64, torch.int32) and weights.is_floating_point()
    shapes = indptr.shape == (n_rows + 1,) and indices.shape == weights.shape and indices.ndim == 1
    if not (n_rows > 0 and kinds and shapes):
        raise ValueError("the shapes of its tensors do not fit each other")
    if int(indptr[0]) != 0 or int(indptr[-1]) != len(indices) or bool((indptr.diff() < 0).any()):
        raise ValueError("its row pointers do not ascend from 0 to the number of edges")


def check_graph(graph: AffinityGraph) -> None:
    """Raise a FormatError unless all ids of a graph are those of points, and all weights are positive numbers."""
    ids, weights = graph.indices, graph.weights
    outside = len(ids) > 0 and (int(ids.min()) < 0 or int(ids.max()) >= graph.n_points)
    if outside or not bool(((weights > 0) & torch.isfinite(weights)).all()):
        raise FormatError("it has edges to points that do not exist, or weights that are no positive numbers.")
