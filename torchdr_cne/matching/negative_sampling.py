"""Neighbour embeddings whose repulsion is sampled: all contrastive methods."""

from typing import Any, ClassVar

from torch import Tensor

from torchdr_cne.affinity import UnionAffinity
from torchdr_cne.checks import COUNT, Bound, check_choice
from torchdr_cne.fitting.memory import bytes_by_stage
from torchdr_cne.matching.encoding import EncodedNeighborEmbedding
from torchdr_cne.networks.options import NetworkOptions
from torchdr_cne.objectives.pair_loss import PairLoss
from torchdr_cne.objectives.pairs import Pairs
from torchdr_cne.objectives.sampled import DrawnBlocks, block_objective, make_sampler, sampled_pairs
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.optimization.phase import NEGATIVES, SAMPLINGS, Phase
from torchdr_cne.optimization.state import FitState
from torchdr_cne.overriding import overridden
from torchdr_cne.parameters.gradients import Gradients
from torchdr_cne.placement.refinement import Refinement, hook_refinement
from torchdr_cne.sampling.blocks import BLOCK_SIZE, n_shifts_for
from torchdr_cne.similarities import Similarity, temperature_of


class NegativeSamplingNeighborEmbedding(EncodedNeighborEmbedding, Gradients):
    """Attraction along edges, repulsion from uniformly drawn negatives.

    A method consists of a similarity and two hooks on log-similarities, `_compute_attractive_loss(pairs)` of shape (E,)
    and `_compute_repulsive_loss(pairs)` of shape (R, M), (R,) or (E,); see `Pairs`. Autograd of the hooks is the
    definition and runs everywhere. If a method also declares `_pair_forces`, the fit sums forces on reciprocal blocks,
    which gives the same gradient faster.

    Parameters
    ----------
    n_negatives : int, default=5
        m, the noise odds: the number of negatives that an edge meets in the objective.
    negatives_per_row : int or None, default=None
        M, the number of negatives drawn for a row in an iteration to estimate the objective; None is the method's own
        number. Where blocks are drawn, it is rounded to a multiple of 64 (at most all points).
    discard_neighbors : bool, default=False
        Whether a point's neighbours in the graph are never drawn as its negatives.
    sampling : {"edges", "weighted edges"}, default="edges"
        How mini-batches under an encoder draw edges: each once an epoch and weighted in the loss, or in proportion to
        the weights.
    negatives : {"batch", "uniform"}, default="batch"
        Where negatives come from under an encoder: the mini-batch itself, or points that are drawn uniformly.
    """

    n_negatives: int = 5
    negatives_per_row: int | None = None
    discard_neighbors: bool = False
    sampling: str = "edges"
    negatives: str = "batch"

    _bounds: ClassVar[dict[str, Bound]] = {"n_negatives": COUNT, "negatives_per_row": COUNT}
    _default_negatives_per_row: ClassVar[int] = 64
    _default_autograd_negatives: ClassVar[int] = 16
    # Where blocks are drawn, a few of them suffice to find the embedding, and many sharpen it in the end.
    _early_share_of_draws: ClassVar[float] = 1.0

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("sampling", self.sampling, SAMPLINGS[:2])
        check_choice("negatives", self.negatives, NEGATIVES)

    # The loss.

    def _make_pairs(self, embedding_nd: Tensor, state: FitState) -> Pairs:
        return sampled_pairs(self._similarity, self.n_negatives, embedding_nd, state)

    @property
    def _similarity(self) -> Similarity:
        return self._default_similarity() if self.similarity is None else self.similarity

    def _why_not_forces(self) -> str:
        forces = self._pair_forces()
        if forces is not None:
            n_learned, learns = len(self._learned_scalars()), forces.attractive_scalar is not None
            if n_learned != int(learns):
                return f"_pair_forces has derivatives for {int(learns)} of {n_learned} learned scalars"
            if self.similarity is not None and self.similarity != self._default_similarity():
                return f"similarity={self.similarity!r} is not the one the forces were derived for"
        return super()._why_not_forces()

    def _pair_loss(self, **options: Any) -> PairLoss:
        return super()._pair_loss(
            n_negatives=self.n_negatives,
            negatives_per_row=self.negatives_per_row,
            discard_neighbors=self.discard_neighbors,
            **options,
        )

    def _make_objective(self, state: FitState, start_nd: Tensor) -> Objective:
        loss = self._pair_loss()
        if self.gradient == "autograd" or loss.why_not_forces:
            make_sampler(loss, self._default_autograd_negatives, state, start_nd, compiles=self.compile)
            return super()._make_objective(state, start_nd)
        return block_objective(loss, self._drawn_blocks, state, start_nd)

    @property
    def _drawn_blocks(self) -> DrawnBlocks:
        return DrawnBlocks(self._default_negatives_per_row, self._early_share_of_draws, self.compile)

    # Parts of a fit besides its loss.

    def _network_options(self, **options: Any) -> NetworkOptions:
        return super()._network_options(sampling=self.sampling, negatives=self.negatives, **options)

    def _reported(self, phase: Phase) -> dict[str, float]:
        return temperature_of(self._similarity)

    def _why_not_split(self) -> str:
        if self._by_network or (self.gradient != "autograd" and not self._why_not_forces()):
            return ""
        newer = overridden(type(self), NegativeSamplingNeighborEmbedding, "sharing")
        return f"{', '.join(newer)} is overridden, and may need all rows at once" if newer else ""

    def _refinement(self, embedding_nd: Tensor) -> Refinement | None:
        if overridden(type(self), NegativeSamplingNeighborEmbedding, "placement"):
            return None  # the two hooks are not the whole loss
        loss = self._pair_loss()
        learned = {name: getattr(self, f"{name}_") for name in loss.learned}
        rate = self._auto_learning_rate(loss.last_phase(len(embedding_nd)), len(embedding_nd))
        return hook_refinement(loss, embedding_nd, learned, rate)

    def _bytes_by_stage(self, n: int, d: int) -> dict[str, int]:
        if self._by_network or self.gradient == "autograd" or self._why_not_forces() or self.dtype != "float32":
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
