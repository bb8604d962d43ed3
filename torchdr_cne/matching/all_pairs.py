"""Neighbour embeddings whose repulsion is over all pairs: the exact methods."""

import contextlib
import io
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchdr_cne.affinity import Affinity, EntropicAffinity
from torchdr_cne.checks import Bound, check_choice, without
from torchdr_cne.distributed import Share
from torchdr_cne.fitting.ranks import rows_by_slot
from torchdr_cne.forces import AllPairsForces, ForceProblem, StepCoefficients, exact_sums, make_engine
from torchdr_cne.forces.all_pairs import PairSums
from torchdr_cne.matching.neighbor_embedding import NeighborEmbedding
from torchdr_cne.matching.overriding import newer_than_forces, overridden
from torchdr_cne.objectives.pairs import Pairs, rows_at
from torchdr_cne.objectives.points import AutogradObjective, Objective, PairwiseObjective
from torchdr_cne.objectives.row_sums import RowSums, dense_log_row_sums, keops_log_row_sums
from torchdr_cne.optimization.state import FitState
from torchdr_cne.placement.refinement import Refinement, repelling_sample
from torchdr_cne.sampling import BlockLayout
from torchdr_cne.similarities import Similarity
from torchdr_cne.workers import Workers

REPULSIONS = ("auto", "dense", "keops", "fused", "fft")
_FUSED_UNTIL = 6000
"""Points up to which all pairs take no longer than the grid."""
_EXACT_UNTIL = 30_000
"""Points up to which what is told of the final layout is exact."""
_EDGES_AT_ONCE = 1 << 20
_MAX_FFT_COMPONENTS = 3


class AllPairsNeighborEmbedding(NeighborEmbedding):
    """Attraction along edges, repulsion over all pairs.

    A method is a similarity q and two hooks: `_compute_attractive_loss(pairs)` of shape (E,), −log q unless it is
    overridden, and `_compute_repulsive_loss(pairs)` of `RowSums`, of shape (R,) or (), written with
    ``pairs.log_row_sums``, log Σ_{j≠i} q_ij, or ``pairs.log_total``. How these sums are formed is not its affair.

    Parameters
    ----------
    perplexity : float or sequence of float, default=30.0
        Effective number of neighbours in the method's own affinity (ignored when ``affinity_in`` is given).
    repulsion : {"auto", "dense", "keops", "fused", "fft"}, default="auto"
        How sums over all pairs are formed. "dense": by autograd of the hooks, block by block, the definition; "keops":
        the same by symbolic reductions; "fused": by the declared `_pair_forces`, compiled on a CPU; "fft": in O(n) by
        interpolation on a grid, with an error of the gradient of about 0.1 %, for methods that allow it and at most
        three components. "auto" is "fused" for few points and "fft" for many, as far as the method has them.

    Other parameters are those of `NeighborEmbedding`.
    """

    n_neighbors: ClassVar[None] = None  # type: ignore[assignment,misc]
    perplexity: float | Sequence[float] = 30.0
    repulsion: str = "auto"

    _bounds: ClassVar[dict[str, Bound]] = without(NeighborEmbedding._bounds, "n_neighbors")
    _interpolates: ClassVar[bool] = False
    """Whether the similarity is smooth, and its row sums nowhere so small, that interpolation serves."""
    _placement_rate: ClassVar[float] = 0.1
    _longest_placement_gradient: ClassVar[float] = 1.0
    n_negatives: ClassVar[float] = 1.0
    negatives_per_row: ClassVar[None] = None
    """Under an encoder: as many as any method of edges draws by default."""
    discard_neighbors: ClassVar[bool] = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("repulsion", self.repulsion, REPULSIONS)
        if self.repulsion in ("fused", "fft") and self._why_not_fused():
            raise ValueError(
                f"repulsion={self.repulsion!r} is not possible: {self._why_not_fused()}; use 'dense' or 'keops'."
            )
        if self.repulsion == "fft" and not self._interpolates:
            raise ValueError(f"{type(self).__name__} cannot interpolate its sums; use repulsion='fused' or 'keops'.")
        if self.repulsion == "fft" and self.n_components > _MAX_FFT_COMPONENTS:
            raise ValueError(
                f"repulsion='fft' with n_components={self.n_components}: a grid has at most {_MAX_FFT_COMPONENTS} "
                "dimensions; use repulsion='fused'."
            )

    # ---- may be overridden --------------------------------------------------------------------------

    def _compute_attractive_loss(self, pairs: RowSums) -> Tensor:
        """Return −log q of the edges."""
        return -pairs.log_q_edges

    @abstractmethod
    def _compute_repulsive_loss(self, pairs: RowSums) -> Tensor:
        """Return the repulsive loss of each row (R,), or one of the total ()."""

    def _log_charges(self, state: FitState, log_row_sums: Callable[[Tensor | None], Tensor]) -> Tensor | None:
        """Return c (n,), by which points weigh in the row sums; ``log_row_sums`` is their function. None is 0."""
        return None

    @property
    def _width(self) -> float:
        """Return over how long a distance the similarity is smooth, relative to 1/(1 + d²)."""
        return 1.0

    @property
    def _similarity(self) -> Similarity:
        return self._default_similarity()

    # ---- the definition: hooks and autograd -----------------------------------------------------------

    def _make_pairs(self, embedding_nd: Tensor, state: FitState) -> RowSums:
        graph, share, similarity = state.graph, state.share, self._similarity
        own_nd = embedding_nd[share.own]
        form = keops_log_row_sums if self.repulsion == "keops" else dense_log_row_sums

        def everyones(log_charges: Tensor | None, of: Tensor) -> Tensor:
            sums = form(similarity, of[share.own], of, share.start, log_charges)
            if share.ranks.size == 1:
                return sums
            rest = share.gather(sums.detach(), "the exchange of row sums")
            return torch.cat([rest[: share.start], sums, rest[share.stop :]])

        with torch.no_grad():
            log_charges = self._log_charges(state, partial(everyones, of=embedding_nd.detach()))
        return RowSums(
            log_q_edges=similarity(rows_at(own_nd, graph.rows), rows_at(embedding_nd, graph.indices.long())),
            weights=graph.weights,
            log_row_sums=everyones(log_charges, embedding_nd),
            row_weights=torch.ones_like(embedding_nd[:, 0]).detach(),
            log_charges=log_charges,
            parameters=state.parameters,
        )

    def _compute_loss(self, embedding_nd: Tensor, state: FitState) -> Tensor:
        pairs = self._make_pairs(embedding_nd, state)
        repulsion = pairs.reduce_repulsion(self._compute_repulsive_loss(pairs))
        # Every rank has the whole repulsion, and moves its own rows' part: the value counts once, the gradient fully.
        again = repulsion.detach() * (1 - 1 / state.share.ranks.size)
        attraction = pairs.reduce_attraction(self._compute_attractive_loss(pairs))
        return state.phase.exaggeration * attraction + self.repulsion_strength * (repulsion - again)

    def _loss_of_pairs(self, pairs: Any, exaggeration: float) -> Tensor:
        return super()._loss_of_pairs(RowSums.of_sample(pairs) if isinstance(pairs, Pairs) else pairs, exaggeration)

    def _default_affinity(self) -> Affinity:
        return EntropicAffinity(perplexity=self.perplexity, metric=self.metric, backend=self.backend)

    # ---- sums by declared forces ------------------------------------------------------------------------

    def _why_not_fused(self) -> str:
        """Return why the declared forces cannot stand for this estimator's loss; "" if they can."""
        if self._pair_forces() is None:
            return f"{type(self).__name__} declares no _pair_forces"
        newer = newer_than_forces(type(self))
        return f"{', '.join(newer)} is overridden below the class that declares _pair_forces" if newer else ""

    def _form_of_sums(self, n: int) -> str:
        """Return how the sums over all pairs of ``n`` points are formed."""
        if self.repulsion != "auto":
            return self.repulsion
        if self._why_not_fused():
            return "dense"
        return (
            "fft" if self._interpolates and self.n_components <= _MAX_FFT_COMPONENTS and n > _FUSED_UNTIL else "fused"
        )

    def _make_objective(self, state: FitState, start_nd: Tensor) -> Objective:
        form = self._form_of_sums(len(start_nd))
        if self.encoder is not None or form == "dense":
            return super()._make_objective(state, start_nd)
        if form == "keops":
            loss, ranks = self._compute_loss, state.share.ranks
            return _QuietObjective(start_nd, loss, self._max_row_gradient, ranks)
        layout = BlockLayout.random(len(start_nd), state.seed, start_nd.device)
        share = Share.of(layout.n_slots, state.share.ranks)
        engine = self._engine(state, layout, share, self._pair_sums(form, share, start_nd))

        def coefficients(state: FitState, shifts: list[int]) -> StepCoefficients:
            return StepCoefficients(
                shifts,
                self._force_parameters(state.parameters),
                attraction=state.phase.exaggeration,
                repulsion=self.repulsion_strength,
                longest=self._max_row_gradient,
            )

        return PairwiseObjective(start_nd, layout, share, engine, lambda state: 0, coefficients)

    def _pair_sums(self, form: str, share: Share, start_nd: Tensor, *, finely: bool = False) -> PairSums:
        forces, workers = self._pair_forces(), Workers()
        assert forces is not None
        if form == "fft":
            from torchdr_cne.forces.interpolation import STEP, InterpolatedSums

            return InterpolatedSums(forces, share, workers, STEP * self._width / (2 if finely else 1))
        return exact_sums(forces, share, start_nd.t(), workers)

    def _final_log_row_sums(self, embedding_nd: Tensor, state: FitState, log_charges: Tensor | None = None) -> Tensor:
        """Return log Σ_{j≠i} e^{c_j} q_ij of all points; exact, or of many on a grid of half the usual step."""
        n, share = len(embedding_nd), state.share
        if self._why_not_fused():
            own_nd = embedding_nd[share.own]
            own = dense_log_row_sums(self._similarity, own_nd, embedding_nd, share.start, log_charges)
            return share.gather(own, "the exchange of row sums")
        layout = BlockLayout.random(n, state.seed, embedding_nd.device)
        of_slots = Share.of(layout.n_slots, share.ranks)
        can_interpolate = self._interpolates and self.n_components <= _MAX_FFT_COMPONENTS
        form = "fft" if can_interpolate and n > _EXACT_UNTIL else "fused"
        sums = self._pair_sums(form, of_slots, embedding_nd, finely=True)
        charges = torch.ones_like(embedding_nd[:, 0]) if log_charges is None else log_charges.exp()
        parameters = self._force_parameters(dict(state.parameters))
        totals, _ = sums.of(layout.scatter(embedding_nd).t().contiguous(), layout.scatter(charges), parameters)
        return layout.gather(of_slots.gather(totals, "the exchange of row sums")).log()

    def _divergence(self, embedding_nd: Tensor, state: FitState) -> float:
        """Return Σ P log P − Σ P log q of the input graph, scaled to ΣP = 1."""
        graph, own_nd = state.graph, embedding_nd[state.share.own]
        parts = [torch.zeros((), dtype=torch.float64, device=embedding_nd.device)]
        for begin in range(0, graph.n_edges, _EDGES_AT_ONCE):
            edges = slice(begin, begin + _EDGES_AT_ONCE)
            ends = own_nd[graph.rows[edges]].double(), embedding_nd[graph.indices[edges].long()].double()
            p = graph.weights[edges].double() / state.share.n
            parts.append((p * (p.log() - self._similarity(*ends))).sum())
        return float(state.share.ranks.add_up(torch.stack(parts).sum(), "the sum of the divergence"))

    def _refinement(self, embedding_nd: Tensor) -> Refinement | None:
        whole = "_compute_loss", "_loss_of_pairs", "_make_pairs", "_make_objective", "_log_charges"
        if overridden(type(self), AllPairsNeighborEmbedding, *whole):
            return None
        n = len(embedding_nd)
        phase, sample = self._phases(n)[-1], repelling_sample(n)
        total = {"log_mean_row_sum": self.log_z_ - math.log(n)} if hasattr(self, "log_z_") else {}
        return Refinement(
            loss=partial(self._loss_of_pairs, exaggeration=phase.exaggeration),
            similarity=self._similarity,
            sample_sd=embedding_nd[sample.to(embedding_nd.device)],
            n_negatives=n,
            parameters={**phase.parameters, **total},
            learning_rate=self._placement_rate,
            longest=self._longest_placement_gradient,
        )

    def _batch_loss(self) -> Any:
        from torchdr_cne.parametric.relation import OwnRelation

        return OwnRelation(self)

    def _why_not_split(self) -> str:
        newer = overridden(type(self), AllPairsNeighborEmbedding, "_compute_loss", "_make_pairs", "_make_objective")
        return f"{', '.join(newer)} is overridden, and may need all rows at once" if newer else ""

    def _engine(self, state: FitState, layout: BlockLayout, share: Share, sums: PairSums) -> AllPairsForces:
        forces = self._pair_forces()
        assert forces is not None
        graph, slots = rows_by_slot(state.graph, state.share, layout, share)
        none_drawn = state.graph.weights.new_zeros(layout.n_slots)
        problem = ForceProblem(layout, graph, replace(forces, normaliser=None), none_drawn, slots=slots, share=share)

        def loss(log_sums: Tensor, log_charges: Tensor | None) -> tuple[Tensor, bool]:
            nothing, ones = log_sums.new_empty(0), torch.ones_like(log_sums).detach()
            pairs = RowSums(nothing, nothing, log_sums, ones, log_charges, state.parameters)
            found = self._compute_repulsive_loss(pairs)
            return pairs.reduce_repulsion(found), found.ndim == 0 and log_charges is None

        def log_charges(log_row_sums: Callable[[Tensor | None], Tensor]) -> Tensor | None:
            return self._log_charges(state, log_row_sums)

        return AllPairsForces(
            make_engine(problem, graph.weights.dtype), sums, share, layout.occupied, loss, log_charges
        )


class _QuietObjective(AutogradObjective):
    """Keeps KeOps from telling of every formula that it compiles."""

    def compute_gradients(self, state: FitState) -> None:
        """Differentiate the loss of this step."""
        with contextlib.redirect_stdout(io.StringIO()):
            super().compute_gradients(state)
