"""What a fit by networks needs: its rows, its mini-batches, its objective."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.distributed import Share
from torchdr_cne.fitting.checkpointing import described
from torchdr_cne.inputs.pairs import PositivePairs
from torchdr_cne.networks.batches import Batches, EdgeBatches, EdgeSettings, ItemBatches, LoadedPairs
from torchdr_cne.networks.building import build_networks, check_phases, sampling_of
from torchdr_cne.networks.loss import Loss
from torchdr_cne.networks.objective import NetworkObjective
from torchdr_cne.networks.options import loss_of_phase
from torchdr_cne.networks.training import TrainingSet
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.state import FitState
from torchdr_cne.parametric.relation import Relation

_SMALL, _SMALL_BATCH, _BATCH = 10_000, 256, 1024
_DRAWN = 128
_NEGATIVES = 5
_ALL = 1 << 31


def make_training_set(
    estimator: Any, given: Any, share: Share, device: torch.device, seed: int, phases: Sequence[Phase]
) -> TrainingSet:
    """Return the rows of a fit; with an encoder also its networks, tried and checked."""
    losses = [loss_of_phase(estimator, phase) for phase in phases]
    training = TrainingSet(
        data=given.data if given.pairs is None else given.pairs,
        share=share,
        device=device,
        dtype=estimator._torch_dtype,
        labels=given.labels,
        n_components=estimator.n_components,
        seed=seed,
    )
    training = build_networks(estimator, training, losses)
    check_phases(phases, losses, training)
    for phase, loss in zip(phases, losses, strict=True):
        edge_affinity(edge_relations(loss))
        if sampling_of(phase, loss) == "items" and _batch_size(estimator, training, phase) < 2:
            raise ValueError("batch_size=1 items make no pair and no statistics of a mini-batch; take 2 or more.")
    return training


def make_objective(estimator: Any, state: FitState) -> NetworkObjective:
    """Return the objective of a fit whose training set has networks."""
    training: TrainingSet = state.training
    graphs: dict[str, AffinityGraph] = {}

    def batches_of(phase: Phase, loss: Loss) -> Batches:
        return make_batches(estimator, training, graphs, phase, loss)

    return NetworkObjective(training.networks, training, partial(loss_of_phase, estimator), batches_of)


def make_batches(
    estimator: Any, training: TrainingSet, graphs: dict[str, AffinityGraph], phase: Phase, loss: Loss
) -> Batches:
    """Return a phase's mini-batches; ``graphs`` keeps those that relations compute for themselves."""
    size = _batch_size(estimator, training, phase)
    sampling, seed = sampling_of(phase, loss), training.seed + phase.start
    if sampling == "edges" and phase.sampling is None:
        sampling = getattr(estimator, "sampling", sampling)
    relations = edge_relations(loss)
    if isinstance(training.data, PositivePairs):
        return LoadedPairs(training.data, training, _n_drawn(phase, relations, everyone=True), seed)
    if sampling == "items":
        return ItemBatches(training, size, phase.batches_per_epoch, seed)
    settings = EdgeSettings(
        size=size,
        batches_per_epoch=phase.batches_per_epoch,
        by_weight=sampling == "weighted edges",
        uniform_negatives=(phase.negatives or getattr(estimator, "negatives", "batch")) == "uniform",
        n_drawn=_n_drawn(phase, relations),
        apart=any(relation.method is None for relation in relations),
    )
    return EdgeBatches(training, _edge_graph(relations, training, graphs), settings, seed)


def _batch_size(estimator: Any, training: TrainingSet, phase: Phase) -> int:
    return phase.batch_size or estimator.batch_size or (_SMALL_BATCH if training.share.n < _SMALL else _BATCH)


def edge_relations(loss: Loss) -> list[Relation]:
    """Return the relations of a sum that are evaluated on edges."""
    return [term for _, term in loss.terms() if isinstance(term, Relation) and term.sampling == "edges"]


def edge_affinity(relations: Sequence[Relation]) -> Any:
    """Return the affinity of its own that relations of a phase have, or None; they must agree."""
    own = {described(relation.affinity): relation.affinity for relation in relations}
    if len(own) > 1:
        raise ValueError("a phase draws its edges from one graph, and its relations have several affinities.")
    return next(iter(own.values()), None)


def _n_drawn(phase: Phase, relations: Sequence[Relation], *, everyone: bool = False) -> int:
    """Return how many negatives an edge meets in a step; ``everyone`` is all that there are, unless it is said."""
    drawn = [_ALL] if everyone and not any(_asked(relation) for relation in relations) else []
    for relation in relations:
        if relation.method is None:
            drawn.append(relation.n_negatives or phase.negative_sample_rate or _NEGATIVES)
        else:
            asked = relation.method.negatives_per_row
            drawn.append(max(_DRAWN, relation.method.n_negatives) if asked is None else asked)
    return max(drawn, default=_DRAWN)


def _asked(relation: Relation) -> int | None:
    """Return how many negatives a relation asks for in a step."""
    return relation.n_negatives if relation.method is None else relation.method.negatives_per_row


def _edge_graph(
    relations: Sequence[Relation], training: TrainingSet, graphs: dict[str, AffinityGraph]
) -> AffinityGraph:
    """Return the graph whose edges a phase draws."""
    affinity = edge_affinity(relations)
    if affinity is not None:
        name = described(affinity)
        if name not in graphs:
            graph = relations[0].graph(training)
            assert graph is not None
            graphs[name] = graph
        return graphs[name]
    if training.graph is None:
        raise ValueError("the phase samples edges, and there is no graph; add a Relation, or sample items.")
    return training.graph
