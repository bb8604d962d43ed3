"""A fit on several ranks: whether they share it, and how rank 0 hands out a result that it has found alone."""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchdr_cne.distributed import Ranks
from torchdr_cne.distributed.share import UNIT
from torchdr_cne.fitting.part import FitObserver
from torchdr_cne.fitting.plan import FitPlan
from torchdr_cne.fitting.reading import FitInput
from torchdr_cne.fitting.result import FitResult
from torchdr_cne.hashing import digest_of
from torchdr_cne.inputs import RowSource
from torchdr_cne.inputs.columns import Columns
from torchdr_cne.optimization.building import check_elementwise
from torchdr_cne.persistence.model import fitted_attributes, fitted_state
from torchdr_cne.storage.fingerprint import configuration, digest_of_labels

_SAMPLED_ROWS = 8


def decide_sharing(given: FitInput, plan: FitPlan, ranks: Ranks) -> bool:
    """Check that all ranks have the same input; return whether they share the fit, or leave it to rank 0.

    Raises
    ------
    ValueError
        On all ranks, if their inputs differ.
    """
    ranks.check_equal(_compared(given, plan), "their input")
    n = given.n_points
    why_not = plan.why_not_shared or _why_no_rows(given, plan)
    is_enough, is_divisible = n >= ranks.config.min_rows, -(-n // UNIT) >= ranks.size
    if given.pairs is not None:  # each rank has a loader of its own, and no rows are divided
        n_rows = ranks.smallest(torch.tensor(n * len(next(given.pairs.first_members()))), "the check of input")
        is_enough, is_divisible = int(n_rows) >= ranks.config.min_rows, True
    if why_not and is_enough:
        warnings.warn(f"rank 0 does this fit alone: {why_not}.", UserWarning, stacklevel=4)
    is_shared = not why_not and is_enough and is_divisible
    if is_shared and plan.networks is None:  # every rank has all of a network
        check_elementwise(plan.optimizers.optimizer)
    return is_shared


def _compared(given: FitInput, plan: FitPlan) -> dict[str, Any]:
    """Return the values that have to be equal on all ranks, by name."""
    data, graph, parameters = given.data, given.graph, plan.parameters
    found = configuration(plan.name, parameters)
    for name in ("encoder", "decoder"):  # all modules start with the weights of rank 0
        if isinstance(parameters.get(name), nn.Module) and isinstance(found[name], list):
            found[name] = found[name][0]  # without the weights
    for name in ("checkpoint_dir", "callbacks"):  # their values may differ between ranks
        found[f"{name} given"] = parameters.get(name) is not None
    found |= {name: parameters.get(name) for name in ("checkpoint_every", "memory_budget", "distributed")}
    if graph is not None and graph.n_rows == graph.n_points:
        digest = int(digest_of(graph.weights, graph.rows, graph.indices.long()))
        found["graph"] = f"{graph.n_points} points, {graph.n_edges} edges, digest {digest:x}"
    if data is not None:
        found["X"] = f"{type(data).__name__} of shape {tuple(data.shape)} and dtype {data.dtype}"
        found["digest of some rows of X"] = _digest_of_some(data)
    if given.pairs is not None:
        found["pairs"] = f"{given.n_points} mini-batches an epoch"
    found["labels"] = None if given.labels is None else f"digest {digest_of_labels(given.labels)}"
    return found


def _why_no_rows(given: FitInput, plan: FitPlan) -> str:
    """Return the reason why a rank cannot compute its rows of the graph; "" if it can, or need not."""
    if plan.graph is None or given.graph is not None or given.pairs is not None:
        return ""
    affinity = plan.graph.affinity
    return f"{type(affinity).__name__} needs all rows at once" if affinity.needs_all_rows else ""


def _digest_of_some(data: Any) -> str:
    rows = np.linspace(0, len(data) - 1, _SAMPLED_ROWS).astype(int)
    some = data.take(rows) if isinstance(data, RowSource) else data[rows]
    some = some.cpu().numpy() if isinstance(some, Tensor) else np.asarray(some)
    return hashlib.sha256(np.ascontiguousarray(some).tobytes()).hexdigest()[:12]


class _Listener:
    """An observer that passes every notice on to another, and remembers the last result."""

    def __init__(self, observer: FitObserver) -> None:
        self._observer = observer
        self.result: FitResult | None = None
        self.affinities_begin, self.affinities_end = observer.affinities_begin, observer.affinities_end
        self.before_step, self.after_step = observer.before_step, observer.after_step

    def publish(self, result: FitResult) -> None:
        self.result = result
        self._observer.publish(result)


@contextmanager
def fitted_by_first(plan: FitPlan, ranks: Ranks, observer: FitObserver) -> Iterator[FitObserver]:
    """Let rank 0 fit alone in the block while the others wait; at the end of it they publish its result.

    The value yielded is the observer that the fit of rank 0 has to notify.
    """
    listener = _Listener(observer)
    with ranks.without_timeout(), ranks.all_or_none("the fit on rank 0"):
        yield listener
    with ranks.all_or_none("handing out the result"):
        state = None if listener.result is None else fitted_state(listener.result.attributes())
    tensors, plain = ranks.copy_state_from(0, state, "the exchange of the result")
    if ranks.is_first:
        return
    networks = plan.networks
    specs = {} if networks is None else {"encoder": networks.encoder, "decoder": networks.decoder}
    found = fitted_attributes(tensors, plain, specs, plan.n_components)
    names = {name.removesuffix("_"): value for name, value in found.items()}
    observer.publish(FitResult(Columns(), ranks.size, extras=names))
