"""Functions that give a fit by networks its rows, its mini-batches and its objective."""

from collections.abc import Sequence

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.inputs.pairs import PositivePairs
from torchdr_cne.networks.batches import Batches, EdgeBatches, EdgeSettings, ItemBatches, LoadedPairs
from torchdr_cne.networks.building import build_networks, check_phases, sampling_of
from torchdr_cne.networks.loss import EdgeDemand, Loss
from torchdr_cne.networks.objective import NetworkObjective
from torchdr_cne.networks.options import NetworkOptions
from torchdr_cne.networks.training import TrainingSet
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.storage.fingerprint import described

_SMALL, _SMALL_BATCH, _BATCH = 10_000, 256, 1024
_DRAWN = 128
_ALL = 1 << 31


def with_networks(options: NetworkOptions, training: TrainingSet, phases: Sequence[Phase]) -> TrainingSet:
    """Return the training set with its networks, which have been tried on a few rows and checked."""
    losses = [options.loss_of(phase) for phase in phases]
    training = build_networks(options, training, losses)
    check_phases(phases, losses, training)
    for phase, loss in zip(phases, losses, strict=True):
        _agreed_affinity(edge_demands(loss))
        if sampling_of(phase, loss) == "items" and _batch_size(options, training, phase) < 2:
            raise ValueError("batch_size=1 items make no pair and no statistics of a mini-batch; take 2 or more.")
    return training


def network_objective(options: NetworkOptions, training: TrainingSet) -> NetworkObjective:
    """Return the objective of a fit whose training set has networks."""
    graphs: dict[str, AffinityGraph] = {}

    def batches_of(phase: Phase, loss: Loss) -> Batches:
        return make_batches(options, training, graphs, phase, loss)

    return NetworkObjective(training.networks, training, options.loss_of, batches_of)


def make_batches(
    options: NetworkOptions, training: TrainingSet, graphs: dict[str, AffinityGraph], phase: Phase, loss: Loss
) -> Batches:
    """Return the mini-batches of a phase; ``graphs`` keeps the graphs that losses compute for themselves."""
    size = _batch_size(options, training, phase)
    sampling, seed = sampling_of(phase, loss), training.seed + phase.start
    if sampling == "edges" and phase.sampling is None:
        sampling = options.sampling or sampling
    demands = edge_demands(loss)
    if isinstance(training.data, PositivePairs):
        return LoadedPairs(training.data, training, _n_drawn(phase, demands, everyone=True), seed)
    if sampling == "items":
        return ItemBatches(training, size, phase.batches_per_epoch, seed)
    settings = EdgeSettings(
        size=size,
        batches_per_epoch=phase.batches_per_epoch,
        by_weight=sampling == "weighted edges",
        uniform_negatives=(phase.negatives or options.negatives) == "uniform",
        n_drawn=_n_drawn(phase, demands),
        apart=any(demand.apart for demand in demands),
    )
    return EdgeBatches(training, _edge_graph(demands, training, graphs), settings, seed)


def _batch_size(options: NetworkOptions, training: TrainingSet, phase: Phase) -> int:
    return phase.batch_size or options.batch_size or (_SMALL_BATCH if training.share.n < _SMALL else _BATCH)


def edge_demands(loss: Loss) -> list[EdgeDemand]:
    """Return what each part of a sum of losses asks of the edges of a mini-batch."""
    return [demand for _, term in loss.terms() if (demand := term.edge_demand()) is not None]


def _agreed_affinity(demands: Sequence[EdgeDemand]) -> "EdgeDemand | None":
    """Return a demand with the affinity that all demands of a phase agree on; None if it is the fit's affinity."""
    own = {described(demand.affinity): demand for demand in demands}
    if len(own) > 1:
        raise ValueError("a phase draws its edges from one graph, and its relations have several affinities.")
    found = next(iter(own.values()), None)
    return None if found is None or found.affinity is None else found


def _n_drawn(phase: Phase, demands: Sequence[EdgeDemand], *, everyone: bool = False) -> int:
    """Return how many negatives an edge meets in a step; with ``everyone`` all there are, unless a number is set."""
    drawn = [_ALL] if everyone and not any(demand.asked for demand in demands) else []
    return max([*drawn, *(demand.n_drawn(phase) for demand in demands)], default=_DRAWN)


def _edge_graph(
    demands: Sequence[EdgeDemand], training: TrainingSet, graphs: dict[str, AffinityGraph]
) -> AffinityGraph:
    """Return the graph from which a phase draws edges."""
    demand = _agreed_affinity(demands)
    if demand is not None and demand.affinity is not None:
        name = described(demand.affinity)
        if name not in graphs:
            graphs[name] = training.graph_of(demand.affinity)
        return graphs[name]
    if training.graph is None:
        raise ValueError("the phase samples edges, and there is no graph; add a Relation, or sample items.")
    return training.graph
