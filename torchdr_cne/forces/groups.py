"""Forces of several groups of fixed pairs, each with a function of its own and a weight that may change every step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.forces.declaration import PairForces, PairFunction
from torchdr_cne.forces.engine import make_engine
from torchdr_cne.forces.problem import ForceProblem, StepCoefficients
from torchdr_cne.forces.tiles import shorten_rows
from torchdr_cne.sampling import BlockLayout


@dataclass(frozen=True)
class PairGroup:
    """Pairs of points that attract or repel each other alike.

    Attributes
    ----------
    graph : AffinityGraph
        The pairs, each from both ends; one that is listed twice counts twice. The loss is a sum over directed edges.
    force : callable
        Derivative of a pair's loss with respect to d², as in `PairForces`; negative where it repels.
    parameters : tuple of float
        Second argument of ``force``.
    """

    graph: AffinityGraph
    force: PairFunction
    parameters: tuple[float, ...] = ()


class GroupForces:
    """Adds up the forces of groups of pairs; a step's ``parameters`` are the groups' weights.

    A group of weight 0 costs nothing. No negatives are drawn, so that steps have no shifts.

    Parameters
    ----------
    layout : BlockLayout
        Points to slots.
    groups : sequence of PairGroup
        At least one, their weights of ``dtype``.
    like_nd : Tensor of shape (n, d)
        Positions by point, of which only the dtype and d matter.
    compile : bool, default=False
        As in `make_engine`.
    """

    def __init__(
        self,
        layout: BlockLayout,
        groups: Sequence[PairGroup],
        like_nd: Tensor,
        *,
        compile: bool = False,
    ) -> None:
        no_draws = torch.zeros(layout.n_slots, dtype=like_nd.dtype, device=layout.slot_of.device)
        self._groups = groups
        self._engines = [
            make_engine(
                ForceProblem(layout, group.graph, PairForces(attractive=group.force, repulsive=_none), no_draws),
                like_nd,
                compile=compile,
            )
            for group in groups
        ]
        self.own_threads = self._engines[0].own_threads

    def gradient(self, z_ds: Tensor, step: StepCoefficients) -> tuple[Tensor, None]:
        """Return the gradient (d, slots) of the weighted sum of the groups' losses."""
        total: Tensor | None = None
        for group, engine, weight in zip(self._groups, self._engines, step.parameters, strict=True):
            if weight == 0:
                continue
            of_group = engine.gradient(z_ds, StepCoefficients([], group.parameters, attraction=float(weight)))[0]
            # The first engine's own memory, which its next gradient overwrites.
            total = of_group if total is None else total.add_(of_group)
        if total is None:
            total = torch.zeros_like(z_ds)
        if step.longest is not None:
            shorten_rows(total, 0, step.longest)
        return total, None


def _none(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Stand for the repulsion where no negatives are drawn."""
    return 0.0 * d2


def listed_both_ways(points_nm: Tensor, weight: float, dtype: torch.dtype) -> AffinityGraph:
    """Return the pairs (i, ``points_nm[i, k]``) from both ends, each of ``weight``, for a `PairGroup`.

    Parameters
    ----------
    points_nm : Tensor of shape (n, m), int64
        Other points of each row; one that comes twice, or lists the row itself, gives two edges.
    weight : float
        Weight of each directed edge.
    dtype : torch.dtype
        Of the weights.
    """
    n, m = points_nm.shape
    device = points_nm.device
    listed = points_nm.reshape(-1)
    # By the listed point, then by who lists it: one fixed order.
    order = torch.argsort(listed, stable=True)
    n_listings = torch.bincount(listed, minlength=n)
    indptr = torch.cat([n_listings.new_zeros(1), (n_listings + m).cumsum(0)])
    own = (indptr[:-1].unsqueeze(1) + torch.arange(m, device=device)).reshape(-1)
    columns = torch.empty(2 * n * m, dtype=torch.int32, device=device)
    is_own = torch.zeros(2 * n * m, dtype=torch.bool, device=device).index_fill_(0, own, True)
    columns[is_own] = listed.int()
    columns[~is_own] = torch.div(order, m, rounding_mode="floor").int()
    return AffinityGraph(indptr, columns, torch.full((2 * n * m,), weight, dtype=dtype, device=device))
