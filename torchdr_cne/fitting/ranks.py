"""How a fit is split over ranks: whether it is worth it, and each row of the graph to the rank that moves its point."""

import hashlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.distributed import Ranks, Share
from torchdr_cne.distributed.share import UNIT
from torchdr_cne.fitting.checkpointing import configuration, digest_of_labels
from torchdr_cne.fitting.stages import Given
from torchdr_cne.hashing import digest_of
from torchdr_cne.inputs import RowSource
from torchdr_cne.optimization.building import check_elementwise
from torchdr_cne.persistence import model_state, restore_model
from torchdr_cne.sampling import BlockLayout

_SAMPLED_ROWS = 8


def rows_by_slot(
    graph: AffinityGraph, share: Share, layout: BlockLayout, slot_share: Share
) -> tuple[AffinityGraph, Tensor]:
    """Send each row of the graph to the rank that has its point's slot; return the rows that arrive, and their slots.

    Blocks are filled at random, so that a rank's points are spread over all of the data, and its work is even.
    """
    if share.ranks.size == 1:
        return graph, layout.slot_of
    what = "the exchange of the graph's rows"
    slots, degrees = layout.slot_of[share.own], graph.indptr.diff()
    arrived, arrived_degrees = slot_share.to_owners(slots, [slots, degrees], what)
    of_edges = torch.repeat_interleave(slots, degrees, output_size=graph.n_edges)
    columns, weights = slot_share.to_owners(of_edges, [graph.indices, graph.weights], what)
    indptr = torch.cat([arrived_degrees.new_zeros(1), arrived_degrees.cumsum(0)])
    return AffinityGraph(indptr, columns, weights, graph.n_points), arrived


def check_input(estimator: Any, given: Given, ranks: Ranks) -> bool:
    """Check that all ranks have the same input; return whether they share the fit, or leave it to rank 0.

    Raises
    ------
    ValueError
        On all ranks, if they differ.
    """
    data, graph, n = given.data, given.graph, given.n_points
    found = configuration(estimator)
    for name in ("encoder", "decoder"):  # modules begin with rank 0's weights
        if isinstance(getattr(estimator, name), nn.Module) and isinstance(found[name], list):
            found[name] = found[name][0]  # without the weights
    for name in ("checkpoint_dir", "callbacks"):  # what they are is each rank's own affair
        found[f"{name} given"] = getattr(estimator, name) is not None
    found |= {name: getattr(estimator, name) for name in ("checkpoint_every", "memory_budget", "distributed")}
    if graph is not None and graph.n_rows == graph.n_points:
        digest = int(digest_of(graph.weights, graph.rows, graph.indices.long()))
        found["graph"] = f"{graph.n_points} points, {graph.n_edges} edges, digest {digest:x}"
    if data is not None:
        found["X"] = f"{type(data).__name__} of shape {tuple(data.shape)} and dtype {data.dtype}"
        found["digest of some rows of X"] = _digest_of_some(data)
    if given.pairs is not None:
        found["pairs"] = f"{n} mini-batches an epoch"
    found["labels"] = None if given.labels is None else f"digest {digest_of_labels(given.labels)}"
    ranks.check_equal(found, "their input")
    why_not = estimator._why_not_split() or _why_no_rows(estimator, given)
    is_enough, is_divisible = n >= ranks.config.min_rows, -(-n // UNIT) >= ranks.size
    if given.pairs is not None:  # each rank has a loader of its own, and no rows are divided
        n_rows = ranks.smallest(torch.tensor(n * len(next(given.pairs.first_members()))), "the check of input")
        is_enough, is_divisible = int(n_rows) >= ranks.config.min_rows, True
    if why_not and is_enough:
        warnings.warn(f"rank 0 does this fit alone: {why_not}.", UserWarning, stacklevel=4)
    is_shared = not why_not and is_enough and is_divisible
    if is_shared and estimator.encoder is None:  # every rank has all of a network
        check_elementwise(estimator._optimizer_choice)
    return is_shared


def _why_no_rows(estimator: Any, given: Given) -> str:
    """Return why a rank cannot compute its rows of the graph; "" if it can, or need not."""
    affinity = estimator._input_affinity()
    needs_all = given.graph is None and given.pairs is None and affinity.needs_all_rows
    return f"{type(affinity).__name__} needs all rows at once" if needs_all else ""


def _digest_of_some(data: Any) -> str:
    rows = np.linspace(0, len(data) - 1, _SAMPLED_ROWS).astype(int)
    some = data.take(rows) if isinstance(data, RowSource) else data[rows]
    some = some.cpu().numpy() if isinstance(some, Tensor) else np.asarray(some)
    return hashlib.sha256(np.ascontiguousarray(some).tobytes()).hexdigest()[:12]


def run_on_first(estimator: Any, ranks: Ranks, fit: Callable[[], None]) -> None:
    """Let rank 0 ``fit`` by itself, and copy what it has learned to the others' estimators."""
    with ranks.patient(), ranks.agreed("the fit on rank 0"):
        if ranks.is_first:
            fit()
    with ranks.agreed("handing out the result"):
        state = model_state(estimator) if ranks.is_first else None
    tensors, plain = ranks.copy_state_from(0, state, "the exchange of the result")
    if not ranks.is_first:
        restore_model(estimator, tensors, plain)
