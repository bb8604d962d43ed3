"""Objectives whose repulsion runs over all pairs: sums of q by row, and how they are formed."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from torchdr_cne.distributed import Share
from torchdr_cne.forces import (
    AllPairsForces,
    ForceEngine,
    ForceProblem,
    exact_sums,
    interpolated_sums,
    make_engine,
    replayed,
)
from torchdr_cne.forces.all_pairs import PairSums
from torchdr_cne.objectives.blocks import PairwiseObjective, rows_by_slot
from torchdr_cne.objectives.pair_loss import PairLoss
from torchdr_cne.objectives.pairs import rows_at
from torchdr_cne.objectives.points import AutogradObjective
from torchdr_cne.objectives.row_sums import RowSums, dense_log_row_sums, keops_log_row_sums
from torchdr_cne.optimization.state import FitState
from torchdr_cne.sampling import BlockLayout
from torchdr_cne.workers import Workers

LogRowSums = Callable[[Tensor | None], Tensor]
"""Function from charges c (n,), or None, to log Σ_{j≠i} e^{c_j} q_ij (n,)."""
MAX_FFT_COMPONENTS = 3
_FUSED_UNTIL = 6000
"""Number of points up to which summing all pairs takes no longer than the grid."""
_EXACT_UNTIL = 30_000
"""Number of points up to which the values reported of the final embedding are exact."""
_EDGES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class AllPairsSums:
    """How a method's sums over all pairs are formed.

    Attributes
    ----------
    loss : PairLoss
        The method's loss.
    repulsion : {"auto", "dense", "keops", "fused", "fft"}
        The form that the user asks for.
    width : float or None
        Distance over which q is smooth, relative to 1/(1 + d²); None if q cannot be interpolated.
    log_charges : callable
        Function from the state and the function of the row sums to the charges c (n,), which weight the points in the
        sums, or to None.
    """

    loss: PairLoss
    repulsion: str
    width: float | None
    log_charges: Callable[[FitState, LogRowSums], Tensor | None]

    def form(self, n: int, d: int) -> str:
        """Return the form in which the sums of ``n`` points of ``d`` components are computed."""
        if self.repulsion != "auto":
            return self.repulsion
        if self.loss.why_not_forces:
            return "dense"
        return "fft" if self.width is not None and d <= MAX_FFT_COMPONENTS and n > _FUSED_UNTIL else "fused"

    def row_sums(self, embedding_nd: Tensor, state: FitState) -> RowSums:
        """Return edges and row sums in the form that the hooks take, differentiable by autograd."""
        graph, share, similarity = state.graph, state.share, self.loss.similarity
        own_nd = embedding_nd[share.own]
        form = keops_log_row_sums if self.repulsion == "keops" else dense_log_row_sums

        def everyones(log_charges: Tensor | None, of: Tensor) -> Tensor:
            sums = form(similarity, of[share.own], of, share.start, log_charges)
            if share.ranks.size == 1:
                return sums
            rest = share.gather(sums.detach(), "the exchange of row sums")
            return torch.cat([rest[: share.start], sums, rest[share.stop :]])

        with torch.no_grad():
            log_charges = self.log_charges(state, partial(everyones, of=embedding_nd.detach()))
        return RowSums(
            log_q_edges=similarity(rows_at(own_nd, graph.rows), rows_at(embedding_nd, graph.indices.long())),
            weights=graph.weights,
            log_row_sums=everyones(log_charges, embedding_nd),
            row_weights=torch.ones_like(embedding_nd[:, 0]).detach(),
            log_charges=log_charges,
            parameters=state.parameters,
        )

    def objective(self, state: FitState, start_nd: Tensor) -> PairwiseObjective:
        """Return the objective that sums the declared forces."""
        form = self.form(*start_nd.shape)
        layout = BlockLayout.random(len(start_nd), state.seed, start_nd.device)
        share = Share.of(layout.n_slots, state.share.ranks)
        engine = self._engine(state, layout, share, start_nd, self._pair_sums(form, share, start_nd))
        return PairwiseObjective(start_nd, layout, share, engine, lambda state: 0, self.loss.coefficients)

    def final_log_row_sums(self, embedding_nd: Tensor, state: FitState, log_charges: Tensor | None = None) -> Tensor:
        """Return log Σ_{j≠i} e^{c_j} q_ij of all points: exact, or for many points on a grid of half the usual step."""
        n, share = len(embedding_nd), state.share
        if self.loss.why_not_forces:
            own_nd = embedding_nd[share.own]
            own = dense_log_row_sums(self.loss.similarity, own_nd, embedding_nd, share.start, log_charges)
            return share.gather(own, "the exchange of row sums")
        layout = BlockLayout.random(n, state.seed, embedding_nd.device)
        of_slots = Share.of(layout.n_slots, share.ranks)
        can_interpolate = self.width is not None and embedding_nd.shape[1] <= MAX_FFT_COMPONENTS
        form = "fft" if can_interpolate and n > _EXACT_UNTIL else "fused"
        sums = self._pair_sums(form, of_slots, embedding_nd, finely=True)
        charges = torch.ones_like(embedding_nd[:, 0]) if log_charges is None else log_charges.exp()
        parameters = self.loss.force_parameters(dict(state.parameters))
        totals, _ = sums.compute(layout.scatter(embedding_nd).t().contiguous(), layout.scatter(charges), parameters)
        return layout.gather(of_slots.gather(totals, "the exchange of row sums")).log()

    def divergence(self, embedding_nd: Tensor, state: FitState) -> float:
        """Return Σ P log P − Σ P log q of the input graph, scaled to ΣP = 1."""
        graph, own_nd = state.graph, embedding_nd[state.share.own]
        parts = [torch.zeros((), dtype=torch.float64, device=embedding_nd.device)]
        for begin in range(0, graph.n_edges, _EDGES_AT_ONCE):
            edges = slice(begin, begin + _EDGES_AT_ONCE)
            ends = own_nd[graph.rows[edges]].double(), embedding_nd[graph.indices[edges].long()].double()
            p = graph.weights[edges].double() / state.share.n
            # A weight may underflow to 0, whose part is 0.
            parts.append(torch.where(p > 0, p * (p.log() - self.loss.similarity(*ends)), 0.0).sum())
        return float(state.share.ranks.add_up(torch.stack(parts).sum(), "the sum of the divergence"))

    def _pair_sums(self, form: str, share: Share, start_nd: Tensor, *, finely: bool = False) -> PairSums:
        forces, workers = self.loss.declared(), Workers()
        if form == "fft":
            assert self.width is not None
            return interpolated_sums(forces, share, start_nd, workers, self.width, fineness=2 if finely else 1)
        return exact_sums(forces, share, start_nd.t(), workers)

    def _engine(
        self, state: FitState, layout: BlockLayout, share: Share, start_nd: Tensor, sums: PairSums
    ) -> ForceEngine:
        graph, slots = rows_by_slot(state.graph, state.share, layout, share)
        none_drawn = state.graph.weights.new_zeros(layout.n_slots)
        forces = replace(self.loss.declared(), normaliser=None)
        problem = ForceProblem(layout, graph, forces, none_drawn, slots=slots, share=share)

        def loss(log_sums: Tensor, log_charges: Tensor | None) -> tuple[Tensor, bool]:
            nothing, ones = log_sums.new_empty(0), torch.ones_like(log_sums).detach()
            pairs = RowSums(nothing, nothing, log_sums, ones, log_charges, state.parameters)
            found = self.loss.repulsion(pairs)
            return pairs.reduce_repulsion(found), found.ndim == 0 and log_charges is None

        edges, log_charges = make_engine(problem, start_nd), partial(self.log_charges, state)
        return replayed(AllPairsForces(edges, sums, share, layout.occupied, loss, log_charges), problem)


class QuietObjective(AutogradObjective):
    """An objective by autograd that keeps KeOps from announcing every formula that it compiles."""

    def compute_gradients(self, state: FitState) -> None:
        """Compute the gradients of the loss in this step."""
        with contextlib.redirect_stdout(io.StringIO()):
            super().compute_gradients(state)
