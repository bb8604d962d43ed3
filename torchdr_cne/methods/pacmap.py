"""PaCMAP."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.affinity import Affinity, ScaledAffinity
from torchdr_cne.checks import NOT_NEGATIVE, POSITIVE, Bound
from torchdr_cne.distributed import Share
from torchdr_cne.forces import GroupForces, PairForces, PairGroup, StepCoefficients
from torchdr_cne.forces.groups import listed_both_ways
from torchdr_cne.matching import FitState, NegativeSamplingNeighborEmbedding, NeighborEmbedding, Pairs, Phase
from torchdr_cne.matching.negative_sampling import SampledState
from torchdr_cne.matching.overriding import overridden
from torchdr_cne.objectives.pairs import rows_at
from torchdr_cne.objectives.points import Objective, PairwiseObjective
from torchdr_cne.placement.refinement import Refinement
from torchdr_cne.sampling import BlockLayout, far_points, mid_near_points

_NEAR, _MID_NEAR = 10.0, 10_000.0
"""c of d̃/(c + d̃), of neighbours and of mid-near pairs."""
_PLACEMENT_RATE = 1.0
_WITHOUT_MEANING = {
    "encoder": "its pairs are fixed for a whole fit, and not drawn anew for every mini-batch; use UMAP(encoder=…)",
    "n_negatives": "its far pairs are FP_ratio times its neighbours; set FP_ratio",
    "negatives_per_row": "its far pairs are FP_ratio times its neighbours; set FP_ratio",
    "early_exaggeration": "its phases have weights of their own; set exaggeration, which multiplies them",
    "early_exaggeration_iter": "its phases are shares of the iterations; set max_iter",
}


class PACMAP(NegativeSamplingNeighborEmbedding):
    """PaCMAP: neighbours and mid-near pairs attract, far pairs repel (Wang, Huang, Rudin & Shaposhnik, 2021).

    With d̃ = 1 + d² = 1/q the loss is w_NB Σ d̃/(10 + d̃) + w_MN Σ d̃/(10⁴ + d̃) + w_FP Σ 1/(1 + d̃), over pairs that are
    chosen once. Neighbours are those of `torchdr_cne.affinity.ScaledAffinity`; a mid-near point is the second nearest
    of six random ones; far points are random ones that are no neighbours. Of 450 iterations the first 100 have weights
    (2, 1 000 falling to 3, 1), the next 100 (3, 3, 1), and the last (1, 0, 1); more or fewer iterations share out
    alike.

    Parameters
    ----------
    n_neighbors : int, default=10
        Other points that a point is attracted to.
    MN_ratio : float, default=0.5
        Mid-near pairs of a point, divided by ``n_neighbors``. They lay out the whole and need rows of ``X``.
    FP_ratio : float, default=2.0
        Far pairs of a point, divided by ``n_neighbors``; they stand in place of ``n_negatives``.

    Other parameters are those of `NegativeSamplingNeighborEmbedding`. ``exaggeration`` and ``repulsion_strength``
    multiply the weights of both kinds of attraction and of the far pairs. With ``graph=`` the neighbours are its edges.
    """

    n_neighbors: int = 10
    MN_ratio: float = 0.5
    FP_ratio: float = 2.0
    init_scaling: float = 0.01
    optimizer: str | type[Optimizer] = "Adam"
    scheduler: str | type[LRScheduler] | None = None

    _bounds: ClassVar[dict[str, Bound]] = {
        **NegativeSamplingNeighborEmbedding._bounds,
        "MN_ratio": NOT_NEGATIVE,
        "FP_ratio": POSITIVE,
    }
    _default_max_iter: ClassVar[int] = 450

    # ---- the loss ---------------------------------------------------------------------------------------

    def _compute_attractive_loss(self, pairs: Pairs) -> Tensor:
        return 1 / (1 + pairs.parameters["c"] * torch.exp(pairs.log_q_edges))

    def _compute_repulsive_loss(self, pairs: Pairs) -> Tensor:
        q = torch.exp(pairs.log_q_negatives)
        return q / (1 + q)

    def _pair_forces(self) -> PairForces:
        return PairForces(attractive=attractive, repulsive=repulsive)

    def _force_parameters(self, parameters: dict[str, Any]) -> tuple[float]:
        return (parameters["c"],)

    def _phase_parameters(self, n: int, early: bool) -> dict[str, float]:
        return {"c": _NEAR}

    def _default_affinity(self) -> Affinity:
        return ScaledAffinity(n_neighbors=self.n_neighbors, metric=self.metric, backend=self.backend)

    def _auto_learning_rate(self, phase: Phase, n: int) -> float:
        return self._base_learning_rate  # Adam's steps are as long whatever the exaggeration

    # ---- the pairs --------------------------------------------------------------------------------------

    def _make_state(self, *arguments: Any) -> FitState:
        return _PairedState(**vars(super()._make_state(*arguments)))

    def _make_objective(self, state: FitState, start_nd: Tensor) -> Objective:
        assert isinstance(state, _PairedState)
        state.mid_near_nm, state.far_nm = self._choose_pairs(state)
        if self.gradient == "autograd" or self._why_not_pairwise():
            state.edges = _Edges.of(state.graph, state.mid_near_nm, self.MN_ratio)
            return NeighborEmbedding._make_objective(self, state, start_nd)
        layout = BlockLayout.random(len(start_nd), state.seed, start_nd.device)
        groups = self._groups(state, start_nd.dtype)
        engine = GroupForces(layout, list(groups.values()), start_nd.dtype, compile=self.compile)

        def coefficients(state: FitState, shifts: list[int]) -> StepCoefficients:
            weights = self._group_weights(state)
            return StepCoefficients(shifts, tuple(weights[name] for name in groups), longest=self._max_row_gradient)

        return PairwiseObjective(start_nd, layout, Share.whole(layout.n_slots), engine, lambda state: 0, coefficients)

    def _choose_pairs(self, state: FitState) -> tuple[Tensor, Tensor]:
        """Return mid-near (n, m) and far points (n, M) of each row, functions of the seed."""
        graph, rows = state.graph, state.rows
        device, k = graph.indptr.device, min(self.n_neighbors, graph.n_points - 1)
        far = far_points(
            graph.n_points, max(1, round(self.FP_ratio * k)), seed=state.seed, neighbors=(graph.indptr, graph.indices)
        )
        if self.MN_ratio == 0:
            return far[:, :0], far
        if rows is None or not rows.in_memory:
            raise ValueError(
                "mid-near pairs need all rows of X in memory, and these have stayed in their file; raise "
                "memory_budget, pass an array, or set MN_ratio=0."
            )
        n_pairs, metric = max(1, round(self.MN_ratio * k)), self._input_affinity().metric
        return mid_near_points(rows.values, n_pairs, metric=metric, seed=state.seed).to(device), far

    def _groups(self, state: "_PairedState", dtype: torch.dtype) -> dict[str, PairGroup]:
        """Return the pairs with their forces; a row's weights sum to 1, MN_ratio and FP_ratio."""
        groups = {"near": PairGroup(state.graph, attractive, (_NEAR,))}
        mid_near, far = state.mid_near_nm, state.far_nm
        if mid_near.shape[1]:
            graph = listed_both_ways(mid_near, self.MN_ratio / (2 * mid_near.shape[1]), dtype)
            groups["mid-near"] = PairGroup(graph, attractive, (_MID_NEAR,))
        groups["far"] = PairGroup(listed_both_ways(far, self.FP_ratio / (2 * far.shape[1]), dtype), repulsive)
        return groups

    def _group_weights(self, state: FitState) -> dict[str, float]:
        near, mid_near, far = phase_weights(state.step, state.phase.total)
        attraction, repulsion = state.phase.exaggeration, self.repulsion_strength
        return {"near": attraction * near, "mid-near": attraction * mid_near, "far": repulsion * far}

    def _make_pairs(self, embedding_nd: Tensor, state: FitState) -> Pairs:
        assert isinstance(state, _PairedState)
        near, mid_near, far = phase_weights(state.step, state.phase.total)
        edges, similarity = state.edges, self._similarity
        return _FarAlike(
            log_q_edges=similarity(rows_at(embedding_nd, edges.rows), rows_at(embedding_nd, edges.columns)),
            weights=edges.weights * edges.choose(near, mid_near),
            rows=edges.rows,
            log_q_negatives=similarity(embedding_nd.unsqueeze(1), rows_at(embedding_nd, state.far_nm)),
            draw_weights=torch.full_like(embedding_nd[:, 0], far * self.FP_ratio / state.far_nm.shape[1]).detach(),
            parameters={**state.parameters, "c": edges.choose(_NEAR, _MID_NEAR)},
        )

    # ---- around the fit ---------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name, reason in _WITHOUT_MEANING.items():
            if getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"{name}={getattr(self, name)!r} has no meaning for {type(self).__name__}: {reason}.")
        if isinstance(self.affinity_in, str) and self.MN_ratio > 0:
            raise ValueError(
                f"affinity_in={self.affinity_in!r} leaves MN_ratio={self.MN_ratio} without rows to find mid-near pairs "
                "in; pass rows as X and the affinities as graph=, or set MN_ratio=0."
            )

    def _why_not_split(self) -> str:
        return f"the mid-near pairs of {type(self).__name__} are sought among all rows"

    def _refinement(self, embedding_nd: Tensor) -> Refinement | None:
        if overridden(type(self), PACMAP, "_compute_loss", "_loss_of_pairs", "_make_pairs", "_make_objective"):
            return None
        found = self._refinement_by_hooks(embedding_nd)
        return replace(found, n_negatives=self.FP_ratio, learning_rate=_PLACEMENT_RATE)


def phase_weights(step: int, n_iter: int) -> tuple[float, float, float]:
    """Return the weights of neighbours, mid-near and far pairs at ``step`` of ``n_iter``."""
    first, second = round(n_iter * 2 / 9), round(n_iter * 4 / 9)
    if step < first:
        return 2.0, 1000.0 + (3.0 - 1000.0) * step / first, 1.0
    return (3.0, 3.0, 1.0) if step < second else (1.0, 0.0, 1.0)


def attractive(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of d̃/(c + d̃): c/(c + d̃)²."""
    whole = p[0] + 1.0 + d2
    return p[0] / (whole * whole)


def repulsive(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of 1/(1 + d̃): −1/(1 + d̃)²."""
    return -1.0 / ((2.0 + d2) * (2.0 + d2))


@dataclass(frozen=True)
class _Edges:
    """The neighbour graph and the mid-near pairs as one list of directed edges, by row."""

    rows: Tensor
    columns: Tensor
    weights: Tensor
    is_mid_near: Tensor

    @classmethod
    def of(cls, graph: Any, mid_near_nm: Tensor, mid_near_weight: float) -> "_Edges":
        """Join them; the mid-near pairs of a row share ``mid_near_weight``."""
        n, m = mid_near_nm.shape
        rows = torch.cat([graph.rows, torch.arange(n, device=mid_near_nm.device).repeat_interleave(m)])
        columns = torch.cat([graph.indices.long(), mid_near_nm.reshape(-1)])
        weights = torch.cat([graph.weights, graph.weights.new_full((n * m,), mid_near_weight / max(1, m))])
        order = torch.argsort(rows, stable=True)
        return cls(rows[order], columns[order], weights[order], order >= graph.n_edges)

    def choose(self, near: float, mid_near: float) -> Tensor:
        """Return the number of each edge's kind, (E,)."""
        return torch.full_like(self.weights, near).masked_fill(self.is_mid_near, mid_near)


@dataclass(frozen=True)
class _FarAlike(Pairs):
    """Pairs whose far ones count alike, whatever edges their rows have."""

    @property
    def row_weights(self) -> Tensor:
        return torch.ones_like(self.draw_weights)


@dataclass
class _PairedState(SampledState):
    """A fit's state with its fixed pairs."""

    mid_near_nm: Tensor = None  # type: ignore[assignment]
    far_nm: Tensor = None  # type: ignore[assignment]
    edges: _Edges = None  # type: ignore[assignment]
