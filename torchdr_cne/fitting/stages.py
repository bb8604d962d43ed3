"""The stages of a fit before the loop, in order: rows, affinities, a first embedding."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.affinity.components import component_sizes, rows_without_edges
from torchdr_cne.devices import free_memory, to_device
from torchdr_cne.distributed.group import ranks_of_this_machine
from torchdr_cne.fitting.memory import check_gpu_memory, check_memory
from torchdr_cne.fitting.part import InputGraph, Part, Prepared
from torchdr_cne.fitting.plan import GraphPlan
from torchdr_cne.fitting.scales import warn_of_unscaled
from torchdr_cne.initialization import initial_embedding
from torchdr_cne.inputs import Rows, RowSource, as_rows
from torchdr_cne.neighbors import KeptRows
from torchdr_cne.networks.fitting import with_networks
from torchdr_cne.networks.training import TrainingSet
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.resources import available_memory

_LARGE_COMPONENT = 0.05
"""Fraction of the points above which a second component causes a warning."""
_UNKNOWN_MEMORY = 1 << 62
_COPIES_ON_DEVICE, _SINGLE = 4, 4
"""Tables of the size of the rows that the search for neighbours holds on a device, and the bytes of their numbers."""
_KNOWN_TO_TORCH = "fdebBhil?"
"""Type codes of NumPy that torch has, too."""
_SHARE_OF_FREE = 3
"""Streamed rows and their index take at most the free memory divided by this number."""


# ---- rows -------------------------------------------------------------------------------------------------


def prepare(part: Part) -> Prepared:
    """Return this rank's rows, prepared, and the networks if there are any; raise if memory will not suffice."""
    plan, given = part.plan, part.given
    phases = plan.phases(part.share.n)
    training = _training_set(part, phases)
    if given.data is None:
        return Prepared(None, None, phases, training)
    rows = as_rows(
        _brought_to_device(part, given.data) if _computes_there(part) else given.data,
        center=plan.graph is None or plan.graph.affinity.metric != "cosine",
        dtype=plan.options.dtype,
        share=part.share,
        budget=_memory_budget(part),
    )
    if plan.graph is not None and rows.in_memory:
        _check_memory(plan.graph, rows, part)
    keeps = plan.networks is None and part.share.ranks.size == 1 and plan.graph is not None and plan.graph.keeps_rows
    kept = KeptRows(rows) if keeps and rows.in_memory else None
    return Prepared(rows, kept, phases, None if training is None else replace(training, rows=rows))


def _computes_there(part: Part) -> bool:
    """Return whether the graph is computed on the device of the embedding, if the rows fit there."""
    return part.share.ranks.size == 1 and part.plan.networks is None and part.plan.graph is not None


def _brought_to_device(part: Part, data: Any) -> Any:
    """Return an array as a tensor on a CUDA device; other data, and what does not fit there, stays where it is."""
    device, graph = part.run.device, part.plan.graph
    if device.type != "cuda" or not isinstance(data, np.ndarray) or data.dtype.char not in _KNOWN_TO_TORCH:
        return data
    assert graph is not None
    stages = graph.bytes_by_stage(len(data), data.size // max(1, len(data)), device.type)
    beside = max(stages.values()) if stages else _COPIES_ON_DEVICE * _SINGLE * data.size
    if data.nbytes + _SINGLE * data.size + beside > free_memory(device):
        return data
    plain = np.require(data, requirements=["C", "W"])
    return to_device(torch.from_numpy(plain), device)


def _training_set(part: Part, phases: Sequence[Phase]) -> TrainingSet | None:
    plan, given = part.plan, part.given
    if plan.networks is None:
        return None
    training = TrainingSet(
        data=given.data if given.pairs is None else given.pairs,
        share=part.share,
        device=part.run.device,
        dtype=plan.options.dtype,
        labels=given.labels,
        n_components=plan.n_components,
        seed=part.seed,
    )
    return with_networks(plan.networks, training, phases)


def _memory_budget(part: Part) -> int | None:
    """Return the bytes that the rows may take: the minimum over the ranks, so that all of them decide alike."""
    budget = None if part.plan.graph is None else part.plan.graph.memory_budget
    if budget is not None or not isinstance(part.given.data, RowSource):
        return budget
    available = available_memory()
    own = _UNKNOWN_MEMORY if available is None else available // ranks_of_this_machine()
    return int(part.share.ranks.smallest(torch.tensor(own), "the check of memory")) // _SHARE_OF_FREE


def _check_memory(plan: GraphPlan, rows: Rows, part: Part) -> None:
    """Raise a MemoryError before any work if the memory of the device will not suffice."""
    share, device = part.share, part.run.device
    with share.ranks.all_or_none("the check of memory"):
        stages = plan.bytes_by_stage(len(share), rows.n_columns, device.type)
        if not stages:
            return
        size = len(share), rows.n_columns
        are_there = rows.values.device.type == device.type
        # Neighbours and graph are computed where the rows are, and not at all if a graph is given.
        only_loop = part.given.graph is not None or not are_there
        needed = int(stages["loop"] if only_loop else max(stages.values()))
        if device.type == "cpu":
            check_memory(needed, *size)
        elif device.type == "cuda":
            check_gpu_memory(needed, free_memory(device), *size, by_loop=only_loop)


# ---- affinities -------------------------------------------------------------------------------------------


def affinities(prepared: Prepared, part: Part) -> InputGraph | None:
    """Return this rank's rows of the graph, which is computed or given; None if the fit uses no graph."""
    plan = part.plan.graph
    if plan is None or part.given.pairs is not None or not plan.is_needed(prepared.phases):
        return None
    part.observer.affinities_begin()
    found = part.checkpoint.saved_graph() if part.given.graph is None else part.given.graph
    if found is None:
        assert prepared.rows is not None
        if part.share.ranks.is_first:
            warn_of_unscaled(prepared.rows, plan.affinity.metric, part.given.columns)
        found = plan.affinity(prepared.rows, random_state=part.seed)
        part.checkpoint.save_graph(found)
    if found.n_points != part.share.n:
        raise TypeError(
            f"{type(plan.affinity).__name__} made a graph of {found.n_points} points from one rank's "
            f"rows of {part.share.n}; hand neighbors.share on to affinity.graph.symmetrized, or set distributed=False."
        )
    if part.given.labels is not None:
        found = plan.relabel(found, part.given.labels, part.share)
    graph = InputGraph(found, found.to_scipy(), _count_components(found, part))
    part.observer.affinities_end(part.result(graph))
    return graph


def _count_components(graph: AffinityGraph, part: Part) -> int:
    """Return the number of connected components; warn if a second one is large and the start does not show it."""
    share, points = part.share, part.plan.points
    sizes = np.sort(component_sizes(graph, share))
    n_alone, first_alone = rows_without_edges(graph, share)
    if not share.ranks.is_first:
        return len(sizes)
    if n_alone:
        warnings.warn(
            f"{n_alone} rows of the input graph have no edge, first row {first_alone}: only repulsion places "
            "these points; drop them or add edges.",
            UserWarning,
            stacklevel=6,
        )
    starts_spectral = points is not None and points.starts_spectral
    if len(sizes) > 1 and sizes[-2] >= _LARGE_COMPONENT * share.n and not starts_spectral:
        warnings.warn(
            f"the input graph has {len(sizes)} connected components, the largest of {sizes[-1]} and {sizes[-2]} "
            f"points: distances between them carry no information; {_how_to_join(part)} to join them.",
            UserWarning,
            stacklevel=6,
        )
    return len(sizes)


def _how_to_join(part: Part) -> str:
    """Return what would give a graph more edges between its components."""
    assert part.plan.graph is not None
    by_labels = part.given.labels is not None and part.plan.parameters.get("target_weight")
    advice = ["lower target_weight"] if by_labels else []
    if part.given.graph is None:
        advice.append(f"raise {part.plan.graph.affinity.size_parameter}")
    elif not advice:
        advice.append("give the graph edges between them, for instance of more neighbours,")
    return " or ".join(advice)


# ---- the first embedding ----------------------------------------------------------------------------------


def first_embedding(prepared: Prepared, graph: InputGraph | None, part: Part) -> Tensor:
    """Return the first embedding (n, d), or that of a checkpoint; it is (0, d) if networks compute the embedding."""
    plan, resumed = part.plan, part.checkpoint.resumed
    if plan.points is None:
        return torch.zeros((0, plan.n_components), dtype=plan.options.dtype, device=part.run.device)
    if resumed is not None:
        start = resumed.tensors["embedding"]
    else:
        start = initial_embedding(
            plan.points.init,
            prepared.rows,
            None if graph is None else graph.graph,
            plan.n_components,
            plan.points.init_scaling(part.share.n),
            part.seed,
            part.share,
        )
    return start.to(device=part.run.device, dtype=plan.options.dtype)
