"""The objective of pairs that are chosen once: groups of pairs that attract, and one group that repels."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.distributed import Share
from torchdr_cne.forces import GroupForces, PairForces, PairGroup, StepCoefficients
from torchdr_cne.forces.groups import listed_both_ways
from torchdr_cne.objectives.blocks import PairwiseObjective
from torchdr_cne.objectives.pairs import Pairs, rows_at
from torchdr_cne.optimization.state import FitState
from torchdr_cne.sampling import BlockLayout
from torchdr_cne.similarities import Similarity

Weights = Callable[[FitState], tuple[tuple[float, ...], float]]
"""Function from the state to the weights of the attracting groups and of the repelling group in a step."""


@dataclass(frozen=True)
class AttractingGroup:
    """Pairs of points that attract each other, with one constant.

    Attributes
    ----------
    pairs : AffinityGraph or Tensor of shape (n, m), int64
        A symmetric graph with its weights, or m other points for each row.
    row_weight : float
        Sum of the weights of a row's pairs, if ``pairs`` lists points.
    constant : float
        The value that the constant of the loss has in this group.
    """

    pairs: AffinityGraph | Tensor
    row_weight: float
    constant: float

    def graph(self, dtype: torch.dtype) -> AffinityGraph | None:
        """Return the graph of the pairs, each listed from both ends; None if there are no pairs."""
        if isinstance(self.pairs, AffinityGraph):
            return self.pairs
        m = self.pairs.shape[1]
        return listed_both_ways(self.pairs, self.row_weight / (2 * m), dtype) if m else None

    def edges(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows, columns and weights of the pairs in the order in which they are listed."""
        if isinstance(self.pairs, AffinityGraph):
            return self.pairs.rows, self.pairs.indices.long(), self.pairs.weights
        n, m = self.pairs.shape
        rows = torch.arange(n, device=self.pairs.device).repeat_interleave(m)
        return rows, self.pairs.reshape(-1), like.new_full((n * m,), self.row_weight / max(1, m))


@dataclass(frozen=True)
class FixedPairs:
    """The pairs of a fit whose pairs are chosen once.

    Attributes
    ----------
    attracting : tuple of AttractingGroup
        Groups of pairs that attract each other; the first holds the edges of the graph.
    repelling_nm : Tensor of shape (n, M), int64
        The M points that repel each row.
    repelling_weight : float
        Sum of the weights of the points that repel a row.
    """

    attracting: tuple[AttractingGroup, ...]
    repelling_nm: Tensor
    repelling_weight: float


@dataclass(frozen=True)
class FixedEdges:
    """The attracting pairs of all groups as one list of directed edges, sorted by row."""

    rows: Tensor
    columns: Tensor
    weights: Tensor
    groups: Tensor

    @classmethod
    def of(cls, pairs: FixedPairs, like: Tensor) -> "FixedEdges":
        """Return the joined groups; the edges of a row are in the order of the groups."""
        parts = [group.edges(like) for group in pairs.attracting]
        rows, columns, weights = (torch.cat(of_kind) for of_kind in zip(*parts, strict=True))
        sizes = torch.tensor([len(part[0]) for part in parts], device=rows.device)
        groups = torch.repeat_interleave(torch.arange(len(parts), device=rows.device), sizes)
        order = torch.argsort(rows, stable=True)
        return cls(rows[order], columns[order], weights[order], groups[order])

    def choose(self, by_group: tuple[float, ...]) -> Tensor:
        """Return for each edge the number that its group has, (E,)."""
        return self.weights.new_tensor(by_group)[self.groups]


@dataclass(frozen=True)
class AlikePairs(Pairs):
    """Pairs in which all rows have the same weight in the repulsion, whatever edges they have."""

    @property
    def row_weights(self) -> Tensor:
        """Return 1 for each row, (R,)."""
        return torch.ones_like(self.draw_weights)


def fixed_pairs(
    similarity: Similarity, pairs: FixedPairs, weights: tuple[tuple[float, ...], float], z_nd: Tensor, state: FitState
) -> AlikePairs:
    """Return the pairs in the form that the hooks take; their parameter ``constant`` has one value per edge."""
    edges: FixedEdges = state.fixed_edges
    attracting, repelling = weights
    constants = tuple(group.constant for group in pairs.attracting)
    far = pairs.repelling_nm
    return AlikePairs(
        log_q_edges=similarity(rows_at(z_nd, edges.rows), rows_at(z_nd, edges.columns)),
        weights=edges.weights * edges.choose(attracting),
        rows=edges.rows,
        log_q_negatives=similarity(z_nd.unsqueeze(1), rows_at(z_nd, far)),
        draw_weights=torch.full_like(z_nd[:, 0], repelling * pairs.repelling_weight / far.shape[1]).detach(),
        parameters={**state.parameters, "constant": edges.choose(constants)},
    )


def group_objective(
    forces: PairForces,
    pairs: FixedPairs,
    weights: Weights,
    state: FitState,
    start_nd: Tensor,
    *,
    longest: float | None,
    compile: bool,
) -> PairwiseObjective:
    """Return the objective that sums the declared forces of all groups.

    The constant of a group is the only parameter of ``forces.attractive``; ``forces.repulsive`` has none. ``weights``
    gives the weights of the loss, which include exaggeration and repulsion strength.
    """
    dtype = start_nd.dtype
    graphs = [group.graph(dtype) for group in pairs.attracting]
    groups = [
        PairGroup(graph, forces.attractive, (group.constant,))
        for graph, group in zip(graphs, pairs.attracting, strict=True)
        if graph is not None
    ]
    far = pairs.repelling_nm
    groups.append(
        PairGroup(listed_both_ways(far, pairs.repelling_weight / (2 * far.shape[1]), dtype), forces.repulsive)
    )
    layout = BlockLayout.random(len(start_nd), state.seed, start_nd.device)
    engine = GroupForces(layout, groups, start_nd, compile=compile)

    def coefficients(state: FitState, shifts: list[int]) -> StepCoefficients:
        attracting, repelling = weights(state)
        own = [weight for weight, graph in zip(attracting, graphs, strict=True) if graph is not None]
        return StepCoefficients(shifts, (*own, repelling), longest=longest)

    share = Share.whole(layout.n_slots)
    return PairwiseObjective(start_nd, layout, share, engine, lambda state: 0, coefficients)
