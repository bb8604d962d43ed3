"""The objective of declared pair forces: points lie in blocks of slots, and each rank moves those in its own slots."""

from collections.abc import Callable

import torch
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.distributed import Share
from torchdr_cne.forces import ForceEngine, StepCoefficients
from torchdr_cne.objectives.points import PointsObjective
from torchdr_cne.optimization.state import FitState
from torchdr_cne.sampling import BlockLayout, draw_shifts


def rows_by_slot(
    graph: AffinityGraph, share: Share, layout: BlockLayout, slot_share: Share
) -> tuple[AffinityGraph, Tensor]:
    """Return the rows of the graph whose points have their slots on this rank, and the slots; ranks exchange rows.

    Blocks are filled at random, so that each rank's points are spread over all of the data and work is even.
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


class PairwiseObjective(PointsObjective):
    """An objective that sums declared pair forces; the embedding is stored as (d, slots), see `torchdr_cne.forces`.

    A rank moves the points in its own slots and, before each step, receives the points that the others have moved.
    """

    def __init__(
        self,
        start_nd: Tensor,
        layout: BlockLayout,
        share: Share,
        engine: ForceEngine,
        n_shifts: Callable[[FitState], int],
        coefficients: Callable[[FitState, list[int]], StepCoefficients],
    ) -> None:
        self.n_points = len(start_nd)
        self._layout, self._share = layout, share
        self._positions = layout.scatter(start_nd).t().contiguous()
        self.parameter = self.from_points(start_nd).requires_grad_(True)
        self._have_moved = False
        self._engine = engine
        self.own_threads = engine.own_threads
        self._n_shifts = n_shifts
        self._coefficients = coefficients

    @torch.no_grad()
    def compute_gradients(self, state: FitState) -> None:
        """Draw the shifts of this step and sum the forces."""
        shifts = draw_shifts(self._layout.n_blocks, self._n_shifts(state), seed=state.seed, step=state.step)
        gradient, scalar = self._engine.gradient(self._all_positions(), self._coefficients(state, shifts))
        self.parameter.grad = gradient
        for learned in state.learned.values():
            assert scalar is not None
            learned.grad = (scalar / self._layout.n_points).to(learned.dtype)
        self._have_moved = True  # the optimiser moves them before they are next read

    def _all_positions(self) -> Tensor:
        """Return the embedded points (d, slots) of all ranks, which are exchanged if they have moved."""
        if self._share.ranks.size == 1:
            return self.parameter.detach()
        if self._have_moved:
            self._positions[:, self._share.own] = self.parameter.detach()
            self._share.gather_(self._positions, "the exchange of positions")
            self._have_moved = False
        return self._positions

    def add_up(self, of_parameter: Tensor) -> Tensor:
        """Return the sum of ``of_parameter`` over all ranks."""
        return self._share.ranks.add_up(of_parameter, "the check of the gradients")

    def square_sum(self) -> float:
        """Return the sum of the squared gradient over all points."""
        assert self.parameter.grad is not None
        return float(self._share.total(self.parameter.grad.square().sum(dim=0), "the check of the gradients"))

    def to_points(self, like_parameter: Tensor) -> Tensor:
        """Return values of this rank's slots, (d, own), as values by point, (n, d)."""
        if self._share.ranks.size > 1:
            everyone = like_parameter.new_empty((len(like_parameter), self._layout.n_slots))
            everyone[:, self._share.own] = like_parameter
            like_parameter = self._share.gather_(everyone, "the exchange of the optimiser's state")
        return self._layout.gather(like_parameter.t()).contiguous()

    def from_points(self, values_nd: Tensor) -> Tensor:
        """Return values by point, (n, d), as values of this rank's slots, (d, own)."""
        return self._layout.scatter(values_nd)[self._share.own].t().contiguous()

    def embedding(self) -> Tensor:
        """Return the current embedding (n, d)."""
        return self._layout.gather(self._all_positions().t()).contiguous()
