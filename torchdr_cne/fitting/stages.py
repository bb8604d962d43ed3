"""The stages of a fit, in order: rows, affinities, a first embedding, and the loop."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.affinity.components import component_sizes, rows_without_edges
from torchdr_cne.distributed import RankError, Share, Signal, listening
from torchdr_cne.distributed.group import ranks_of_this_machine
from torchdr_cne.fitting.checkpointing import FitCheckpoint
from torchdr_cne.fitting.memory import available_memory, check_memory
from torchdr_cne.fitting.plan import FitPlan, GraphPlan
from torchdr_cne.fitting.reading import FitInput
from torchdr_cne.fitting.result import FitResult
from torchdr_cne.fitting.running import Run
from torchdr_cne.initialization import initial_embedding
from torchdr_cne.inputs import Rows, RowSource, as_rows
from torchdr_cne.neighbors import KeptRows
from torchdr_cne.networks.fitting import network_objective, with_networks
from torchdr_cne.networks.training import TrainingSet
from torchdr_cne.optimization.loop import LoopSettings, Outcome, run
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.optimization.phase import Phase, number_phases
from torchdr_cne.optimization.progress import Progress
from torchdr_cne.optimization.snapshot import restore_learned
from torchdr_cne.optimization.state import FitState, initial_state
from torchdr_cne.resources import torch_threads

_LARGE_COMPONENT = 0.05
"""Share of the points from which a second component is worth a warning."""
_UNKNOWN_MEMORY = 1 << 62
_SHARE_OF_FREE = 3
"""Rows that stream, and their index, take no more than one in so many bytes of the free memory."""


class FitObserver(Protocol):
    """Who hears of a fit and publishes what it finds: the estimator's side of it."""

    def affinities_begin(self) -> None:
        """Hear that the graph is about to be computed."""

    def affinities_end(self, result: FitResult) -> None:
        """Hear that the graph is known."""

    def before_step(self, outcome: Outcome) -> None:
        """Hear that an iteration begins."""

    def after_step(self, outcome: Outcome, result: Callable[[], FitResult]) -> bool:
        """Hear that an iteration is done; ``result`` gives what there is so far. Returning True stops the fit."""

    def publish(self, result: FitResult) -> None:
        """Receive the result."""


@dataclass(frozen=True)
class Part:
    """One rank's part in a fit: what is to be done, with what, where, and who hears of it."""

    plan: FitPlan
    given: FitInput
    run: Run
    share: Share
    checkpoint: FitCheckpoint
    observer: FitObserver

    @property
    def seed(self) -> int:
        """Seed of every draw: that of a checkpoint, or the given one."""
        return self.checkpoint.seed

    def result(self, graph: "InputGraph | None") -> FitResult:
        """Return what is known before the loop."""
        found = FitResult(self.given.columns, self.run.n_ranks, extras=self.plan.extras)
        if graph is None:
            return found
        return replace(found, graph=graph.csr, graph_start=self.share.start, n_connected_components=graph.n_components)


@dataclass(frozen=True)
class Prepared:
    """This rank's rows, ready for the search, and what networks are trained on.

    Attributes
    ----------
    rows : Rows or None
        This rank's rows, centred and scaled as all are; None where there is only a graph.
    kept : KeptRows or None
        The rows that stay with the estimator.
    phases : list of Phase
        The phases of the fit.
    training : TrainingSet or None
        Rows, labels and networks of a fit by networks.
    """

    rows: Rows | None
    kept: KeptRows | None
    phases: list[Phase]
    training: TrainingSet | None


@dataclass(frozen=True)
class InputGraph:
    """This rank's rows of the input graph, as SciPy's matrix too, and how many components the whole has."""

    graph: AffinityGraph
    csr: csr_array
    n_components: int


# ---- rows -------------------------------------------------------------------------------------------------


def prepare(part: Part) -> Prepared:
    """Build the networks, if there are any, and make this rank's rows ready; stop here if memory will not do."""
    plan, given = part.plan, part.given
    phases = plan.phases(part.share.n)
    training = _training_set(part, phases)
    if given.data is None:
        return Prepared(None, None, phases, training)
    rows = as_rows(
        given.data,
        center=plan.graph is None or plan.graph.affinity.metric != "cosine",
        dtype=plan.options.dtype,
        share=part.share,
        budget=_memory_budget(part),
    )
    if plan.graph is not None and part.run.device.type == "cpu" and rows.in_memory:
        _check_memory(plan.graph, rows, part.share)
    keeps = plan.networks is None and part.share.ranks.size == 1 and plan.graph is not None and plan.graph.keeps_rows
    kept = KeptRows(rows) if keeps and rows.in_memory else None
    return Prepared(rows, kept, phases, None if training is None else replace(training, rows=rows))


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
    """Return the bytes that the rows may take; the least that any rank can have, so that all decide alike."""
    budget = None if part.plan.graph is None else part.plan.graph.memory_budget
    if budget is not None or not isinstance(part.given.data, RowSource):
        return budget
    available = available_memory()
    own = _UNKNOWN_MEMORY if available is None else available // ranks_of_this_machine()
    return int(part.share.ranks.smallest(torch.tensor(own), "the check of memory")) // _SHARE_OF_FREE


def _check_memory(plan: GraphPlan, rows: Rows, share: Share) -> None:
    with share.ranks.all_or_none("the check of memory"):
        stages = plan.bytes_by_stage(len(share), rows.n_columns)
        if stages:
            check_memory(int(max(stages.values())), len(share), rows.n_columns)


# ---- affinities -------------------------------------------------------------------------------------------


def affinities(prepared: Prepared, part: Part) -> InputGraph | None:
    """Compute or take over this rank's rows of the graph; None if the fit has no use for one."""
    plan = part.plan.graph
    if plan is None or part.given.pairs is not None or not plan.is_needed(prepared.phases):
        return None
    part.observer.affinities_begin()
    found = _graph(plan, prepared.rows, part)
    if part.given.labels is not None:
        found = plan.relabel(found, part.given.labels, part.share)
    graph = InputGraph(found, found.to_scipy(), _count_components(found, part))
    part.observer.affinities_end(part.result(graph))
    return graph


def _graph(plan: GraphPlan, rows: Rows | None, part: Part) -> AffinityGraph:
    found = part.checkpoint.saved_graph() if part.given.graph is None else part.given.graph
    if found is None:
        assert rows is not None
        found = plan.affinity(rows, random_state=part.seed)
        part.checkpoint.save_graph(found)
    if found.n_points != part.share.n:
        raise TypeError(
            f"{type(plan.affinity).__name__} made a graph of {found.n_points} points from one rank's "
            f"rows of {part.share.n}; hand neighbors.share on to affinity.graph.symmetrized, or set distributed=False."
        )
    return found


def _count_components(graph: AffinityGraph, part: Part) -> int:
    """Count connected components; warn where a second one is large and the start will not say so."""
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
            "points: distances between them carry no information; raise n_neighbors to join them.",
            UserWarning,
            stacklevel=6,
        )
    return len(sizes)


# ---- the first embedding ----------------------------------------------------------------------------------


def first_embedding(prepared: Prepared, graph: InputGraph | None, part: Part) -> Tensor:
    """Return the first embedding (n, d), or that of a checkpoint; (0, d) where networks compute it."""
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
            plan.points.init_scaling,
            part.seed,
            part.share,
        )
    return start.to(device=part.run.device, dtype=plan.options.dtype)


# ---- the loop ---------------------------------------------------------------------------------------------


def optimise(prepared: Prepared, graph: InputGraph | None, start_nd: Tensor, part: Part) -> FitResult:
    """Run the loop from ``start_nd``, or from the networks, and publish and save what it leaves."""
    plan, resumed = part.plan, part.checkpoint.resumed
    with listening(part.share.ranks, resumable=plan.options.checkpoint_dir is not None):
        objective, state = _objective(prepared, graph, start_nd, part)
        phases = number_phases(prepared.phases, objective.epoch_length)
        if resumed is not None:
            restore_learned(state, resumed, part.run.device)
            objective.load(resumed.tensors)
        visible = plan.options.visible and part.share.ranks.is_first
        with (
            Progress(phases[-1].stop, plan.name, visible=visible) as progress,
            torch_threads(1) if objective.own_threads else nullcontext(),
        ):
            so_far = replace(part.result(graph), training_rows=prepared.kept)
            watch = _Watch(part, objective, state, so_far, progress)
            outcome = run(objective, state, phases, plan.optimizers, _settings(part), watch, resumed)
        return _concluded(watch, outcome, part)


def _objective(
    prepared: Prepared, graph: InputGraph | None, start_nd: Tensor, part: Part
) -> tuple[Objective, FitState]:
    """Return what the loop minimises, and the state that it carries from step to step."""
    plan, found = part.plan, None if graph is None else graph.graph
    training = None if prepared.training is None else replace(prepared.training, graph=found)
    state = initial_state(
        found if training is None else None,  # networks draw their edges from the graph as it is, on the host
        start_nd,
        part.seed,
        prepared.phases[0],
        part.share,
        plan.learned(),
    )
    state.rows, state.training = prepared.rows, training
    if training is not None:
        assert plan.networks is not None
        return network_objective(plan.networks, training), state
    assert plan.points is not None
    return plan.points.make_objective(state, start_nd), state


def _settings(part: Part) -> LoopSettings:
    plan = part.plan
    return LoopSettings(
        ranks=part.share.ranks,
        check_interval=plan.options.check_interval,
        # One mini-batch's gradient may vanish by chance, such as that of a classifier without labelled rows.
        min_grad_norm=0.0 if plan.points is None else plan.points.min_grad_norm,
        constants=plan.reported,
        is_resumable=plan.options.checkpoint_dir is not None,
    )


class _Watch:
    """Observes the loop: tells the estimator's side, the progress bar and the checkpoint."""

    def __init__(
        self, part: Part, objective: Objective, state: FitState, so_far: FitResult, progress: Progress
    ) -> None:
        self._part, self._so_far, self._progress = part, so_far, progress
        self.objective, self.state = objective, state

    def before_step(self, outcome: Outcome) -> None:
        self._part.observer.before_step(outcome)

    def after_step(self, outcome: Outcome) -> bool:
        return self._part.observer.after_step(outcome, lambda: self.result(outcome))

    def checked(self, outcome: Outcome, losses: Mapping[str, float]) -> None:
        self._progress(outcome.n_iter, losses)

    def recorded(self, outcome: Outcome) -> None:
        self._part.checkpoint.save(outcome, self.objective, self.state)

    def result(self, outcome: Outcome, embedding_nd: Tensor | None = None) -> FitResult:
        """Return the fit as it stands."""
        embedding_nd = self.objective.embedding() if embedding_nd is None else embedding_nd
        return replace(
            self._so_far,
            embedding=self._part.given.kind.wrap(embedding_nd),
            n_iter=outcome.n_iter,
            learning_rate=outcome.learning_rate,
            history=outcome.history,
            learned={name: float(value.detach()) for name, value in self.state.learned.items()},
            networks=dict(self.objective.networks.items()),
        )


def _concluded(watch: _Watch, outcome: Outcome, part: Part) -> FitResult:
    """Publish and save the result; an embedding that is not finite is an error and not a result."""
    objective, state, ranks = watch.objective, watch.state, part.share.ranks
    embedding_nd = objective.embedding()
    if not bool(torch.isfinite(embedding_nd).all()):
        raise FloatingPointError(
            f"the embedding became NaN or infinite by iteration {outcome.n_iter} with learning rate "
            f"{outcome.learning_rate:.4g}; lower learning_rate, or check the loss hooks of a method of your own."
        )
    result = watch.result(outcome, embedding_nd)
    if state.training is not None:
        state.training.release()
    result = replace(result, extras={**result.extras, **part.plan.conclude(objective, state)})
    part.observer.publish(result)
    part.checkpoint.finish(outcome, objective, state)
    if Signal.PREEMPTED in outcome.signal and Signal.PREEMPTED not in ranks.signal:
        raise RankError(
            f"another rank was told to leave by SIGTERM; the fit is saved after {outcome.n_iter} iterations in "
            f"{part.plan.options.checkpoint_dir} and goes on from there when it is begun again."
        )
    return result
