"""Neighbour embeddings whose repulsion is sampled: all contrastive methods."""

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchdr_cne.affinity import UnionAffinity
from torchdr_cne.checks import COUNT, Bound, check_choice
from torchdr_cne.distributed import Share
from torchdr_cne.fitting.memory import bytes_by_stage
from torchdr_cne.fitting.ranks import rows_by_slot
from torchdr_cne.forces import ForceProblem, StepCoefficients, make_engine
from torchdr_cne.matching.neighbor_embedding import NeighborEmbedding
from torchdr_cne.matching.overriding import newer_than_forces, overridden
from torchdr_cne.objectives.pairs import Pairs, rows_at
from torchdr_cne.objectives.points import Objective, PairwiseObjective
from torchdr_cne.optimization.phase import NEGATIVES, SAMPLINGS, Phase
from torchdr_cne.optimization.state import FitState
from torchdr_cne.placement.refinement import Refinement, repelling_sample
from torchdr_cne.sampling import BlockLayout, NegativeSampler
from torchdr_cne.sampling.blocks import BLOCK_SIZE, n_shifts_for
from torchdr_cne.similarities import Similarity, temperature_of

_FEW_DRAWS_UNTIL = 0.7
"""Share of the iterations after which all negatives are drawn, where a method begins with fewer."""


@dataclass
class SampledState(FitState):
    """A fit's state with its negative sampler."""

    sampler: NegativeSampler | None = None


class NegativeSamplingNeighborEmbedding(NeighborEmbedding):
    """Attraction along edges, repulsion from uniformly drawn negatives.

    A method is a similarity and two hooks on log-similarities, `_compute_attractive_loss(pairs)` of shape (E,) and
    `_compute_repulsive_loss(pairs)` of shape (R, M), (R,) or (E,); see `Pairs`. Autograd of the hooks is the
    definition and runs everywhere. A method may also declare `_pair_forces`: the fit then sums forces
    on reciprocal blocks, which is the same gradient, faster.

    Parameters
    ----------
    n_negatives : int, default=5
        m, the noise odds: how many negatives an edge meets in the objective.
    negatives_per_row : int or None, default=None
        M, how many are drawn a row and iteration to estimate it; None is the method's own. Rounded to a multiple
        of 64 (at most all points) where blocks are drawn.
    discard_neighbors : bool, default=False
        Never draw a point's graph neighbours as its negatives.
    similarity : Similarity or None, default=None
        Similarity of embedded points; None is the method's own.
    gradient : {"auto", "pairwise", "autograd"}, default="auto"
        "pairwise" asks for the declared forces, "autograd" for the loss hooks; "auto" takes the forces where the
        method declares them for this similarity and loss.
    sampling : {"edges", "weighted edges"}, default="edges"
        Mini-batches under an encoder: each edge once an epoch, its weight in the loss, or edges drawn in proportion to
        their weights.
    negatives : {"batch", "uniform"}, default="batch"
        Under an encoder, negatives are rows of the mini-batch, or points drawn uniformly beside it.

    Other parameters are those of `NeighborEmbedding`.
    """

    n_negatives: int = 5
    negatives_per_row: int | None = None
    discard_neighbors: bool = False
    similarity: Similarity | None = None
    gradient: str = "auto"
    sampling: str = "edges"
    negatives: str = "batch"

    _bounds: ClassVar[dict[str, Bound]] = {
        **NeighborEmbedding._bounds,
        "n_negatives": COUNT,
        "negatives_per_row": COUNT,
    }
    _default_negatives_per_row: ClassVar[int] = 64
    _default_autograd_negatives: ClassVar[int] = 16
    # Where blocks are drawn, few of them do for finding the layout; many sharpen it in the end.
    _early_share_of_draws: ClassVar[float] = 1.0

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("gradient", self.gradient, ("auto", "pairwise", "autograd"))
        check_choice("sampling", self.sampling, SAMPLINGS[:2])
        check_choice("negatives", self.negatives, NEGATIVES)
        if not (self.similarity is None or isinstance(self.similarity, Similarity)):
            raise ValueError(
                f"similarity={self.similarity!r} must be None or a Similarity such as Cauchy() or CosineExp()."
            )
        reason = self._why_not_pairwise()
        if self.gradient == "pairwise" and reason:
            raise ValueError(f"gradient='pairwise' is not possible: {reason}; use gradient='auto'.")

    # ---- the definition: hooks and autograd -----------------------------------------------------------

    def _make_pairs(self, embedding_nd: Tensor, state: FitState) -> Pairs:
        assert isinstance(state, SampledState)
        assert state.sampler is not None
        similarity = self._similarity
        graph = state.graph
        negatives = state.sampler.draw(state.seed, state.step)
        rows, columns, weights = graph.rows, graph.indices.long(), graph.weights
        own_nd = embedding_nd[state.share.own]
        if len(rows) == len(own_nd):
            # One edge of weight 0 more, so that a loss's shape always tells edges from rows.
            rows, columns = (torch.cat([ids, ids[-1:]]) for ids in (rows, columns))
            weights = torch.cat([weights, torch.zeros_like(weights[-1:])])
        return Pairs(
            log_q_edges=similarity(rows_at(own_nd, rows), rows_at(embedding_nd, columns)),
            weights=weights,
            rows=rows,
            log_q_negatives=similarity(own_nd.unsqueeze(1), rows_at(embedding_nd, negatives)),
            draw_weights=torch.full_like(own_nd[:, 0], self.n_negatives / negatives.shape[1]).detach(),
            parameters=state.parameters,
        )

    @property
    def _similarity(self) -> Similarity:
        return self._default_similarity() if self.similarity is None else self.similarity

    def _make_state(self, *arguments: Any) -> FitState:
        return SampledState(**vars(super()._make_state(*arguments)))

    def _reported(self, phase: Phase) -> dict[str, float]:
        return temperature_of(self._similarity)

    def _batch_loss(self) -> Any:
        from torchdr_cne.parametric.relation import OwnRelation

        return OwnRelation(self)

    def _why_not_split(self) -> str:
        if self.encoder is not None or (not self._why_not_pairwise() and self.gradient != "autograd"):
            return ""
        newer = overridden(
            type(self), NegativeSamplingNeighborEmbedding, "_compute_loss", "_make_pairs", "_make_objective"
        )
        return f"{', '.join(newer)} is overridden, and may need all rows at once" if newer else ""

    def _refinement(self, embedding_nd: Tensor) -> Refinement | None:
        whole = "_compute_loss", "_loss_of_pairs", "_make_pairs", "_make_objective"
        if overridden(type(self), NegativeSamplingNeighborEmbedding, *whole):
            return None  # the two hooks are not the whole loss
        return self._refinement_by_hooks(embedding_nd)

    def _refinement_by_hooks(self, embedding_nd: Tensor) -> Refinement:
        phase, sample = self._phases(len(embedding_nd))[-1], repelling_sample(len(embedding_nd))
        learned = {name: embedding_nd.new_tensor(getattr(self, f"{name}_")) for name in self._learned_scalars()}
        return Refinement(
            loss=partial(self._loss_of_pairs, exaggeration=phase.exaggeration),
            similarity=self._similarity,
            sample_sd=embedding_nd[sample.to(embedding_nd.device)],
            n_negatives=self.n_negatives,
            parameters={**phase.parameters, **learned},
            learning_rate=self._auto_learning_rate(phase, len(embedding_nd)),
            longest=self._max_row_gradient,
        )

    # ---- two ways to a gradient -------------------------------------------------------------------------

    def _make_objective(self, state: FitState, start_nd: Tensor) -> Objective:
        if self.encoder is not None:
            return super()._make_objective(state, start_nd)
        if self.gradient == "autograd" or self._why_not_pairwise():
            return self._autograd_objective(state, start_nd)
        return self._pairwise_objective(state, start_nd)

    def _why_not_pairwise(self) -> str:
        """Return why the declared forces cannot stand for this estimator's loss; "" if they can."""
        forces = self._pair_forces()
        if forces is None:
            return f"{type(self).__name__} declares no _pair_forces"
        learns = forces.attractive_scalar is not None and forces.repulsive_scalar is not None
        if len(self._learned_scalars()) != int(learns):
            return f"_pair_forces has derivatives for {int(learns)} of {len(self._learned_scalars())} learned scalars"
        if self.similarity is not None and self.similarity != self._default_similarity():
            return f"similarity={self.similarity!r} is not the one the forces were derived for"
        newer = newer_than_forces(type(self))
        return f"{', '.join(newer)} is overridden below the class that declares _pair_forces" if newer else ""

    def _bytes_by_stage(self, n: int, d: int) -> dict[str, int]:
        if self.gradient == "autograd" or self._why_not_pairwise() or self.dtype != "float32":
            return {}
        if self.encoder is not None:
            return {}
        affinity = self._input_affinity()
        most = self._default_negatives_per_row if self.negatives_per_row is None else self.negatives_per_row
        return bytes_by_stage(
            n,
            d,
            n_neighbors=min(affinity._n_neighbors_needed(n), n - 1),
            n_components=self.n_components,
            n_meetings=n_shifts_for(most, -(-n // BLOCK_SIZE)),
            weighted=not isinstance(affinity, UnionAffinity),
        )

    def _autograd_objective(self, state: FitState, start_nd: Tensor) -> Objective:
        assert isinstance(state, SampledState)
        n = len(start_nd)
        drawn = self._drawn(self._default_autograd_negatives, n)
        exclude = (state.graph.indptr, state.graph.indices) if self.discard_neighbors else None
        own = torch.arange(state.share.start, state.share.stop, device=start_nd.device)
        sampler = NegativeSampler(n, own, drawn, exclude)
        if self.compile:  # its 64-bit constants are beyond the compiler's integer ranges
            sampler.draw = torch.compiler.disable(sampler.draw)  # type: ignore[method-assign]
        state.sampler = sampler
        return super()._make_objective(state, start_nd)

    def _drawn(self, default: int, n: int) -> int:
        """Number of negatives to draw a row: at most all others."""
        if self.negatives_per_row is not None and self.negatives_per_row >= n:
            warnings.warn(
                f"negatives_per_row={self.negatives_per_row} is more than the {n - 1} other points; "
                f"{n - 1} are drawn, with the same objective.",
                UserWarning,
                stacklevel=2,
            )
        return min(default if self.negatives_per_row is None else self.negatives_per_row, n - 1)

    def _pairwise_objective(self, state: FitState, start_nd: Tensor) -> Objective:
        problem, n_shifts = self._force_problem(state, start_nd)

        def coefficients(state: FitState, shifts: list[int]) -> StepCoefficients:
            return StepCoefficients(
                shifts,
                self._force_parameters(state.parameters),
                attraction=state.phase.exaggeration,
                repulsion=self.repulsion_strength,
                longest=self._max_row_gradient,
            )

        engine = make_engine(problem, start_nd.dtype, compile=self.compile)

        def shifts_now(state: FitState) -> int:
            early = state.step < _FEW_DRAWS_UNTIL * state.phase.total
            return max(1, round(n_shifts * self._early_share_of_draws)) if early else n_shifts

        return PairwiseObjective(start_nd, problem.layout, problem.share, engine, shifts_now, coefficients)

    def _force_problem(self, state: FitState, start_nd: Tensor) -> tuple[ForceProblem, int]:
        """Lay points out in blocks; return the problem and the number of shifts a step."""
        n = len(start_nd)
        layout = BlockLayout.random(n, state.seed, start_nd.device)
        n_shifts = n_shifts_for(self._drawn(self._default_negatives_per_row, n), layout.n_blocks)
        n_allowed = torch.full_like(start_nd[:, 0], n - 1)
        if self.discard_neighbors:
            n_allowed -= state.share.gather(state.graph.indptr.diff(), "the exchange of degrees")
            if bool((n_allowed < 1).any()):
                raise ValueError(
                    "discard_neighbors=True leaves a point without any negative, because all others are its "
                    "neighbours; lower n_neighbors or set discard_neighbors=False."
                )
        # Two points meet in one of n_blocks shifts.
        drawn = n_allowed / layout.n_blocks
        forces = self._pair_forces()
        assert forces is not None
        share = Share.of(layout.n_slots, state.share.ranks)
        graph, slots = rows_by_slot(state.graph, state.share, layout, share)
        problem = ForceProblem(
            layout=layout,
            graph=graph,
            slots=slots,
            share=share,
            forces=forces,
            draw_weights=layout.scatter(self.n_negatives / drawn),
            exclude_edges=self.discard_neighbors,
        )
        return problem, n_shifts
