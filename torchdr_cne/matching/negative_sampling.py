"""Neighbour embeddings whose repulsion is sampled: all contrastive methods."""

from typing import Any, ClassVar

from torch import Tensor

from torchdr_cne.affinity import UnionAffinity
from torchdr_cne.checks import COUNT, Bound, check_choice
from torchdr_cne.fitting.memory import bytes_by_stage, bytes_by_stage_on_gpu
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

_SCALE_OF_A_LINE = 30.0
"""Standard deviation of a first embedding in one dimension."""
_SHRINKAGE = 0.4
"""Power of the attraction by which embeddings shrink, as measured: .37 (UMAP), .43 (NegTSNE), .75 (InfoTSNE)."""
_SCALE_OF_NOISE = 1.0
"""Standard deviation of a random start, which has nothing to keep: points have to pass each other."""
_FULL_RATE_AT, _RATE_POWER, _LEAST_RATE = 70_000, 1 / 3, 0.2
"""Number of points from which on the learning rate is the method's own; the power of n by which it falls below, and to
which part of it at most."""


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
    init : {"auto", "pca", "spectral", "random"} or array of shape (n, d), default="auto"
        First embedding. "auto" is "spectral" for up to 20 000 points whose graph is connected if its distances agree
        clearly better with path lengths in the graph, and "pca" otherwise. An array is used as it is; without
        features "pca" becomes "spectral". It has no effect with an encoder.
    init_scaling : float or None, default=None
        Standard deviation of the widest column of the first embedding, unless ``init`` is an array. None is the
        method's own, about that of the last embedding, so that the first steps keep what the start shows: 10, in UMAP
        6, in LargeVis 3, and 30 in one dimension, where points cannot pass each other; less for a stronger attraction,
        and 1 for a random start.
    """

    n_negatives: int = 5
    negatives_per_row: int | None = None
    discard_neighbors: bool = False
    sampling: str = "edges"
    negatives: str = "batch"
    init: Any = "auto"
    init_scaling: float | None = None  # type: ignore[assignment]  # None is the method's own

    _bounds: ClassVar[dict[str, Bound]] = {"n_negatives": COUNT, "negatives_per_row": COUNT}
    _default_negatives_per_row: ClassVar[int] = 64
    _default_autograd_negatives: ClassVar[int] = 16
    _default_init_scaling: ClassVar[float] = 10.0
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

    def _scale_of_start(self, n: int) -> float:
        if self.init_scaling is not None:
            return self.init_scaling
        if isinstance(self.init, str) and self.init == "random":
            return _SCALE_OF_NOISE
        own = _SCALE_OF_A_LINE if self.n_components == 1 else self._default_init_scaling
        return own * max(1.0, self._attraction(self._phases(n)[-1])) ** -_SHRINKAGE

    def _attraction(self, phase: Phase) -> float:
        """Return the strength of the attraction beside that of the repulsion, relative to the method's own."""
        return phase.exaggeration / self.repulsion_strength if self.repulsion_strength else 1.0

    def _first_learning_rate(self, phase: Phase, n: int) -> float:
        # Few points need small steps to find their places; larger ones would lose what the start knows.
        share = min(1.0, max(_LEAST_RATE, (n / _FULL_RATE_AT) ** _RATE_POWER))
        return share * super()._first_learning_rate(phase, n)

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

    def _bytes_by_stage(self, n: int, d: int, device: str = "cpu") -> dict[str, int]:
        if self._by_network or self.gradient == "autograd" or self._why_not_forces() or self.dtype != "float32":
            return {}
        affinity = self._input_affinity()
        n_neighbors = min(affinity._n_neighbors_needed(n), n - 1)
        if device != "cpu":
            return bytes_by_stage_on_gpu(n, d, n_neighbors=n_neighbors, n_components=self.n_components)
        most = self._default_negatives_per_row if self.negatives_per_row is None else self.negatives_per_row
        return bytes_by_stage(
            n,
            d,
            n_neighbors=n_neighbors,
            n_components=self.n_components,
            n_meetings=n_shifts_for(most, -(-n // BLOCK_SIZE)),
            weighted=not isinstance(affinity, UnionAffinity),
        )
