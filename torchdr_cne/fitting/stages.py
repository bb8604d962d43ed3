"""One fit, stage by stage: from a checked table to the estimator's fitted attributes."""

import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.affinity.components import component_sizes, rows_without_edges
from torchdr_cne.distributed import RankError, Ranks, Share, Signal, listening
from torchdr_cne.distributed.group import ranks_of_this_machine
from torchdr_cne.encoders.running import evaluating
from torchdr_cne.fitting.checkpointing import Keeper, keeping
from torchdr_cne.fitting.memory import available_memory, check_memory
from torchdr_cne.initialization import initial_embedding
from torchdr_cne.inputs import OutputKind, PositivePairs, Rows, RowSource, as_rows
from torchdr_cne.neighbors import KeptRows
from torchdr_cne.objectives.points import Objective
from torchdr_cne.optimization.building import optimizer_of_phase
from torchdr_cne.optimization.loop import LoopSettings, Outcome, run
from torchdr_cne.optimization.phase import Phase, in_sequence
from torchdr_cne.optimization.progress import Progress
from torchdr_cne.optimization.snapshot import restore_learned
from torchdr_cne.optimization.state import FitState
from torchdr_cne.resources import torch_threads

_LARGE_COMPONENT = 0.05
"""Share of the points from which a second component is worth a warning."""
_UNKNOWN_MEMORY = 1 << 62
_SHARE_OF_FREE = 3
"""Rows that stream, and their index, take no more than one in so many bytes of the free memory."""


@dataclass(frozen=True)
class Given:
    """What a fit begins with: a checked table or a graph or both, labels, and how the embedding is handed back."""

    data: Any
    graph: AffinityGraph | None
    kind: OutputKind
    seed: int
    labels: Tensor | None = None
    pairs: PositivePairs | None = None

    @property
    def n_points(self) -> int:
        """Number of points; of given pairs, the number of mini-batches of an epoch."""
        if self.pairs is not None:
            return len(self.pairs)
        if self.data is not None:
            return len(self.data)
        assert self.graph is not None
        return self.graph.n_points


def take_part(estimator: Any, given: Given, ranks: Ranks, device: torch.device) -> None:
    """Take this rank's part in a fit of ``estimator``."""
    share, own_graph = Share.of(given.n_points, ranks), given.graph
    if own_graph is not None and own_graph.n_rows == share.n and ranks.size > 1:
        own_graph = own_graph.select(share.own)
    data = given.data if given.pairs is None else given.pairs
    with keeping(estimator, share, data, own_graph, given.seed, given.labels) as keeper:
        stages = Stages(estimator, share, device, keeper)
        phases = estimator._phases(share.n)
        training = estimator._training_set(given, share, device, keeper.seed, phases)
        rows = None if given.data is None else stages.own_rows(given.data)
        graph = None
        if given.pairs is None and estimator._needs_graph(phases):
            graph = stages.input_graph(rows, own_graph, given.labels)
        else:  # also none that an earlier fit has left
            for name in ("graph_", "graph_start_", "n_connected_components_"):
                estimator.__dict__.pop(name, None)
        if training is None:
            start = stages.start(rows, graph)
        else:
            training = replace(training, rows=rows)
            start = torch.zeros((0, estimator.n_components), dtype=training.dtype, device=device)
        with listening(ranks, resumable=estimator.checkpoint_dir is not None):
            stages.match(graph, start, phases, given.kind, training)


class Stages:
    """The stages of a fit, in order.

    Parameters
    ----------
    estimator : AffinityMatcher
        Gives the parameters and hooks, and receives the results.
    share : Share
        The rows of each rank.
    device : torch.device
        Where the layout is computed.
    keeper : Keeper
        Saves the fit, and knows where an earlier one has come to.
    """

    def __init__(self, estimator: Any, share: Share, device: torch.device, keeper: Keeper) -> None:
        self._estimator, self._share, self._device, self._keeper = estimator, share, device, keeper
        self._rows: Rows | None = None
        self._kept: KeptRows | None = None

    def own_rows(self, data: Any) -> Rows:
        """Return this rank's rows, centred and scaled as all are; stop here if memory will not do."""
        estimator, budget = self._estimator, self._estimator.memory_budget
        if budget is None and isinstance(data, RowSource):
            budget = self._free_memory() // _SHARE_OF_FREE
        center = estimator._input_affinity().metric != "cosine"
        rows = as_rows(data, center=center, dtype=estimator._torch_dtype, share=self._share, budget=budget)
        self._rows = rows
        if self._device.type == "cpu" and rows.in_memory:
            with self._share.ranks.agreed("the check of memory"):
                stages = estimator._bytes_by_stage(len(self._share), rows.n_columns)
                if stages:
                    check_memory(max(stages.values()), len(self._share), rows.n_columns)
        by_place = estimator.encoder is None and self._share.ranks.size == 1
        if by_place and estimator.store_training_data and rows.in_memory:
            self._kept = KeptRows(rows)
        return rows

    def _free_memory(self) -> int:
        """Return the least that any rank can have, so that all decide alike; a machine's ranks divide its memory."""
        available = available_memory()
        own = _UNKNOWN_MEMORY if available is None else available // ranks_of_this_machine()
        return int(self._share.ranks.smallest(torch.tensor(own), "the check of memory"))

    def input_graph(
        self, rows: Rows | None, given: AffinityGraph | None, labels: Tensor | None = None
    ) -> AffinityGraph:
        """Compute or take over this rank's rows of the graph and publish them as ``graph_``."""
        estimator, share = self._estimator, self._share
        estimator.on_affinity_computation_start()
        found = self._keeper.saved_graph() if given is None else given
        if found is None:
            assert rows is not None
            found = estimator._input_affinity()(rows, random_state=self._keeper.seed)
            self._keeper.save_graph(found)
        if found.n_points != share.n:
            raise TypeError(
                f"{type(estimator._input_affinity()).__name__} made a graph of {found.n_points} points from one rank's "
                f"rows of {share.n}; hand neighbors.share on to affinity.graph.symmetrized, or set distributed=False."
            )
        if labels is not None:
            found = estimator._with_labels(found, labels, share)
        estimator.graph_, estimator.graph_start_ = found.to_scipy(), share.start
        self._report_components(found)
        estimator.on_affinity_computation_end()
        return found

    def _report_components(self, graph: AffinityGraph) -> None:
        """Count connected components; warn where a second one is large and the start will not say so."""
        estimator, share = self._estimator, self._share
        sizes = np.sort(component_sizes(graph, share))
        estimator.n_connected_components_ = len(sizes)
        n_alone, first_alone = rows_without_edges(graph, share)
        if not share.ranks.is_first:
            return
        if n_alone:
            warnings.warn(
                f"{n_alone} rows of the input graph have no edge, first row {first_alone}: only repulsion places "
                "these points; drop them or add edges.",
                UserWarning,
                stacklevel=6,
            )
        starts_spectral = isinstance(estimator.init, str) and estimator.init == "spectral"
        if len(sizes) > 1 and sizes[-2] >= _LARGE_COMPONENT * share.n and not starts_spectral:
            warnings.warn(
                f"the input graph has {len(sizes)} connected components, the largest of {sizes[-1]} and {sizes[-2]} "
                "points: distances between them carry no information; raise n_neighbors to join them.",
                UserWarning,
                stacklevel=6,
            )

    def start(self, rows: Rows | None, graph: Any) -> Tensor:
        """Return the first embedding (n, d), or that of a checkpoint."""
        estimator, resumed = self._estimator, self._keeper.resumed
        if resumed is not None:
            start = resumed.tensors["embedding"]
        else:
            settings = estimator.n_components, estimator.init_scaling, self._keeper.seed
            start = initial_embedding(estimator.init, rows, graph, *settings, self._share)
        return start.to(device=self._device, dtype=estimator._torch_dtype)

    def match(
        self,
        graph: AffinityGraph | None,
        start_nd: Tensor,
        phases: list[Phase],
        kind: OutputKind,
        training: Any = None,
    ) -> None:
        """Run the loop from ``start_nd``, or from the networks of ``training``, and publish what it leaves."""
        estimator, ranks, keeper = self._estimator, self._share.ranks, self._keeper
        moved = graph if training is None else None  # networks draw their edges from the graph as it is, on the host
        state = estimator._make_state(moved, start_nd, keeper.seed, phases[0], self._share)
        state.rows = self._rows
        if training is not None:
            state.training = replace(training, graph=graph)
        objective = estimator._make_objective(state, start_nd)
        phases = in_sequence(phases, objective.epoch_length)
        if keeper.resumed is not None:
            restore_learned(state, keeper.resumed, self._device)
            objective.load(keeper.resumed.tensors)
        estimator.n_iter_ = 0 if keeper.resumed is None else keeper.resumed.step
        make_optimizer = partial(optimizer_of_phase, estimator, objective, state)
        visible = estimator.verbose and ranks.is_first
        with (
            Progress(phases[-1].stop, type(estimator).__name__, visible=visible) as progress,
            torch_threads(1) if objective.own_threads else nullcontext(),
        ):
            settings = self._loop_settings(objective, state, kind, progress)
            outcome = run(objective, state, phases, make_optimizer, settings, keeper.resumed)
        self._publish(objective, state, outcome, kind)
        estimator._conclude(objective, state)
        keeper.finish(outcome, objective, state)
        if Signal.PREEMPTED in outcome.signal and Signal.PREEMPTED not in ranks.signal:
            raise RankError(
                f"another rank was told to leave by SIGTERM; the fit is saved after {outcome.n_iter} iterations in "
                f"{estimator.checkpoint_dir} and goes on from there when it is begun again."
            )

    def _loop_settings(
        self, objective: Objective, state: FitState, kind: OutputKind, progress: Progress
    ) -> LoopSettings:
        estimator = self._estimator
        return LoopSettings(
            ranks=self._share.ranks,
            check_interval=estimator.check_interval,
            # One mini-batch's gradient may vanish by chance, such as that of a classifier without labelled rows.
            min_grad_norm=estimator.min_grad_norm if state.training is None else 0.0,
            before_step=estimator.on_training_step_start,
            after_step=lambda outcome: self._after_step(objective, state, outcome, kind),
            reported=estimator._reported,
            progress=progress,
            resumable=estimator.checkpoint_dir is not None,
            save=lambda outcome: self._keeper.save(outcome, objective, state),
        )

    def _after_step(self, objective: Objective, state: FitState, outcome: Outcome, kind: OutputKind) -> bool:
        """Count the step and call hooks and callbacks; True stops."""
        estimator = self._estimator
        estimator.n_iter_ += 1
        estimator.on_training_step_end()
        step = estimator.n_iter_
        callbacks = [callback for callback in estimator._callback_list() if step % getattr(callback, "every", 1) == 0]
        if not callbacks:
            return False
        estimator.embedding_, estimator.history_ = kind.wrap(objective.embedding()), outcome.history
        self._publish_networks(objective)
        for name, value in state.learned.items():
            setattr(estimator, f"{name}_", float(value.detach()))
        with evaluating(*objective.networks.values()):  # a callback may call them
            return any([bool(callback(estimator, step)) for callback in callbacks])

    def _publish_networks(self, objective: Objective) -> None:
        """Set the networks, and none that an earlier fit has left."""
        for name in ("encoder", "decoder", "classifier"):
            self._estimator.__dict__.pop(f"{name}_", None)
        for name, network in objective.networks.items():
            setattr(self._estimator, f"{name}_", network)

    def _publish(self, objective: Objective, state: FitState, outcome: Outcome, kind: OutputKind) -> None:
        """Set the fitted attributes; an embedding that is not finite is an error and not a result."""
        estimator, embedding = self._estimator, objective.embedding()
        if not bool(torch.isfinite(embedding).all()):
            raise FloatingPointError(
                f"the embedding became NaN or infinite by iteration {outcome.n_iter} with learning rate "
                f"{estimator.learning_rate_:.4g}; lower learning_rate, or check the loss hooks of a method of your own."
            )
        estimator.embedding_ = kind.wrap(embedding)
        estimator.training_rows_ = self._kept
        estimator.history_ = outcome.history
        self._publish_networks(objective)
        if state.training is not None:
            state.training.release()
        for name, value in state.learned.items():
            setattr(estimator, f"{name}_", float(value.detach()))
