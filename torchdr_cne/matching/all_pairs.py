"""Neighbour embeddings whose repulsion runs over all pairs: the exact methods."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor

from torchdr_cne.affinity import Affinity, EntropicAffinity
from torchdr_cne.checks import check_choice
from torchdr_cne.matching.neighbor_embedding import NeighborEmbedding
from torchdr_cne.objectives.all_pairs import MAX_FFT_COMPONENTS, AllPairsSums, QuietObjective
from torchdr_cne.objectives.pairs import Pairs
from torchdr_cne.objectives.row_sums import RowSums
from torchdr_cne.optimization.delta_bar_delta import DeltaBarDelta
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.state import FitState
from torchdr_cne.overriding import decides, overridden
from torchdr_cne.placement.refinement import Refinement, hook_refinement

REPULSIONS = ("auto", "dense", "keops", "fused", "fft")


class AllPairsNeighborEmbedding(NeighborEmbedding, replaces=("n_neighbors",)):
    """Attraction along edges, repulsion over all pairs.

    A method consists of a similarity q and two hooks, which take `RowSums`. `_compute_attractive_loss(pairs)` returns
    shape (E,), by default −log q. `_compute_repulsive_loss(pairs)` returns shape (R,) or () and uses
    ``pairs.log_row_sums``, log Σ_{j≠i} q_ij, or ``pairs.log_total``; it does not depend on how these are computed.

    Parameters
    ----------
    perplexity : float or sequence of float, default=30.0
        Effective number of neighbours in the method's own affinity (ignored when ``affinity_in`` is given). Above a
        third of the other points, that third is used, with a warning.
    repulsion : {"auto", "dense", "keops", "fused", "fft"}, default="auto"
        How sums over all pairs are computed. "dense" is the definition, autograd of the hooks block by block; "keops"
        is the same by symbolic reductions; "fused" sums the declared `_pair_forces`, compiled on a CPU; "fft"
        interpolates on a grid in O(n), with a gradient error of about 0.1 %, for methods that allow it and up to three
        components. "auto" is "fused" for few points and "fft" for many, or else "dense" where these are not possible.
    """

    perplexity: float | Sequence[float] = 30.0
    repulsion: str = "auto"

    _interpolates: ClassVar[bool] = False
    """Whether the similarity is smooth enough, and all its row sums large enough, for interpolation."""
    _placement_rate: ClassVar[float] = 0.1
    _longest_placement_gradient: ClassVar[float] = 1.0

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("repulsion", self.repulsion, REPULSIONS)
        if self.repulsion in ("fused", "fft") and self._why_not_forces():
            raise ValueError(
                f"repulsion={self.repulsion!r} is not possible: {self._why_not_forces()}; use 'dense' or 'keops'."
            )
        if self.repulsion == "fft" and not self._interpolates:
            raise ValueError(f"{type(self).__name__} cannot interpolate its sums; use repulsion='fused' or 'keops'.")
        if self.repulsion == "fft" and self.n_components > MAX_FFT_COMPONENTS:
            raise ValueError(
                f"repulsion='fft' with n_components={self.n_components}: a grid has at most {MAX_FFT_COMPONENTS} "
                "dimensions; use repulsion='fused'."
            )

    # Hooks that a subclass may override.

    def _compute_attractive_loss(self, pairs: RowSums) -> Tensor:
        """Return −log q of the edges."""
        return -pairs.log_q_edges

    @abstractmethod
    def _compute_repulsive_loss(self, pairs: RowSums) -> Tensor:
        """Return the repulsive loss of each row (R,), or of all rows together ()."""

    @decides("placement")
    def _log_charges(self, state: FitState, log_row_sums: Callable[[Tensor | None], Tensor]) -> Tensor | None:
        """Return the charges c (n,), from which ``log_row_sums`` computes log Σ_{j≠i} e^{c_j} q_ij; None is 0."""
        return None

    @property
    def _width(self) -> float:
        """Return the distance over which the similarity is smooth, relative to that of 1/(1 + d²)."""
        return 1.0

    # Sums over all pairs.

    def _sums(self) -> AllPairsSums:
        """Return the object that computes sums over all pairs."""
        width = self._width if self._interpolates else None
        return AllPairsSums(self._pair_loss(), self.repulsion, width, self._log_charges)

    def _make_pairs(self, embedding_nd: Tensor, state: FitState) -> RowSums:
        return self._sums().row_sums(embedding_nd, state)

    def _compute_loss(self, embedding_nd: Tensor, state: FitState) -> Tensor:
        pairs = self._make_pairs(embedding_nd, state)
        repulsion = pairs.reduce_repulsion(self._compute_repulsive_loss(pairs))
        # Every rank has the whole repulsion: its value must count once in the sum over ranks, its gradient in full.
        again = repulsion.detach() * (1 - 1 / state.share.ranks.size)
        attraction = pairs.reduce_attraction(self._compute_attractive_loss(pairs))
        return state.phase.exaggeration * attraction + self.repulsion_strength * (repulsion - again)

    def _loss_of_pairs(self, pairs: Any, exaggeration: float) -> Tensor:
        return super()._loss_of_pairs(RowSums.of_sample(pairs) if isinstance(pairs, Pairs) else pairs, exaggeration)

    def _make_objective(self, state: FitState, start_nd: Tensor) -> Objective:
        sums = self._sums()
        form = sums.form(*start_nd.shape)
        if form == "dense":
            return super()._make_objective(state, start_nd)
        if form == "keops":
            return QuietObjective(start_nd, self._compute_loss, self._max_row_gradient, state.share.ranks)
        return sums.objective(state, start_nd)

    # Parts of a fit besides its loss.

    def _given_learning_rate(self, phase: Phase, n: int) -> float:
        # The optimiser of t-SNE and its numbers, such as 200, belong to the loss itself; the loss here is times n.
        rate = super()._given_learning_rate(phase, n)
        return rate / n if self._optimizer_choice is DeltaBarDelta else rate

    def _default_affinity(self) -> Affinity:
        return EntropicAffinity(perplexity=self.perplexity, metric=self.metric, backend=self.backend)

    def _refinement(self, embedding_nd: Tensor) -> Refinement | None:
        if overridden(type(self), AllPairsNeighborEmbedding, "placement"):
            return None
        n = len(embedding_nd)
        total = {"log_mean_row_sum": self.log_z_ - math.log(n)} if hasattr(self, "log_z_") else {}
        loss, longest = self._pair_loss(), self._longest_placement_gradient
        return hook_refinement(loss, embedding_nd, total, self._placement_rate, n_negatives=n, longest=longest)

    def _why_not_split(self) -> str:
        newer = overridden(type(self), AllPairsNeighborEmbedding, "sharing")
        return f"{', '.join(newer)} is overridden, and may need all rows at once" if newer else ""
