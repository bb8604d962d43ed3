"""Neighbour embeddings: a loss that splits into attraction and repulsion."""

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer

from torchdr_cne.affinity import Affinity, UnionAffinity
from torchdr_cne.checks import COUNT, NOT_NEGATIVE, POSITIVE, Bound, check_choice
from torchdr_cne.forces import PairForces
from torchdr_cne.matching.affinity_matcher import AffinityMatcher
from torchdr_cne.neighbors.distances import METRICS
from torchdr_cne.neighbors.kneighbors import Backend
from torchdr_cne.optimization.phase import Phase, in_sequence
from torchdr_cne.optimization.state import FitState
from torchdr_cne.similarities import Cauchy, Similarity


class NeighborEmbedding(AffinityMatcher):
    """Loss = exaggeration · attraction + repulsion_strength · repulsion, with early exaggeration.

    Parameters
    ----------
    n_neighbors : int, default=15
        Neighbours of a point in the method's own affinity (ignored when ``affinity_in`` is given).
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance between rows of ``X`` in the method's own affinity.
    backend : {"auto", "torch", "keops", "faiss"} or FaissConfig, default="auto"
        How neighbours are found, see `torchdr_cne.neighbors.kneighbors`.
    exaggeration : float or None, default=None
        Weight of the attraction; None is the method's own, 1 unless it says otherwise.
    early_exaggeration : float or None, default=None
        Weight of the attraction in the first iterations; None is the method's own, 1 is none.
    early_exaggeration_iter : int or None, default=None
        How many iterations that lasts; None is a fifth of ``max_iter``.
    repulsion_strength : float, default=1.0
        Weight of the repulsion.

    Other parameters are those of `AffinityMatcher`.
    """

    n_neighbors: int = 15
    metric: str = "euclidean"
    backend: Backend = "auto"
    exaggeration: float | None = None
    early_exaggeration: float | None = None
    early_exaggeration_iter: int | None = None
    repulsion_strength: float = 1.0
    # The output affinity and the loss are the method's, and no parameters of it.
    affinity_out: ClassVar[None]  # type: ignore[misc]
    loss: ClassVar[None]  # type: ignore[assignment,misc]

    _default_optimizer: ClassVar[str | type[Optimizer]] = "SGD"
    _base_learning_rate: ClassVar[float] = 1.0
    _early_share: ClassVar[float] = 0.2
    _bounds: ClassVar[dict[str, Bound]] = {
        **AffinityMatcher._bounds,
        "n_neighbors": COUNT,
        "exaggeration": POSITIVE,
        "early_exaggeration": POSITIVE,
        "early_exaggeration_iter": Bound(0, integer=True),
        "repulsion_strength": NOT_NEGATIVE,
    }

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("metric", self.metric, METRICS)

    @abstractmethod
    def _compute_attractive_loss(self, pairs: Any) -> Tensor:
        """Return the attractive loss, unreduced."""

    @abstractmethod
    def _compute_repulsive_loss(self, pairs: Any) -> Tensor:
        """Return the repulsive loss, unreduced."""

    @abstractmethod
    def _make_pairs(self, embedding_nd: Tensor, state: FitState) -> Any:
        """Return what the two loss hooks see; it knows how to weight and sum their results."""

    def _compute_loss(self, embedding_nd: Tensor, state: FitState) -> Tensor:
        """Put attraction and repulsion together, per point."""
        pairs = self._make_pairs(embedding_nd, state)
        return self._loss_of_pairs(pairs, state.phase.exaggeration)

    def _loss_of_pairs(self, pairs: Any, exaggeration: float) -> Tensor:
        attraction = pairs.reduce_attraction(self._compute_attractive_loss(pairs))
        repulsion = pairs.reduce_repulsion(self._compute_repulsive_loss(pairs))
        return exaggeration * attraction + self.repulsion_strength * repulsion

    def _default_similarity(self) -> Similarity:
        """Return the method's own similarity of embedded points."""
        return Cauchy()

    def _pair_forces(self) -> PairForces | None:
        """Declare derivatives of the two hooks with respect to d²; None if there is no fast form."""
        return None

    def _force_parameters(self, parameters: dict[str, Any]) -> tuple[Tensor | float, ...]:
        """Return the declared functions' second argument from the phase's and learned parameters."""
        return ()

    def _default_affinity(self) -> Affinity:
        return UnionAffinity(n_neighbors=self.n_neighbors, metric=self.metric, backend=self.backend)

    def _auto_learning_rate(self, phase: Phase, n: int) -> float:
        return self._base_learning_rate / phase.exaggeration

    def _main_exaggeration(self) -> float:
        """Weight of the attraction after early exaggeration."""
        return 1.0 if self.exaggeration is None else self.exaggeration

    def _early_exaggeration(self) -> float | None:
        """Weight of the attraction at first; None where the method needs no such phase."""
        return self.early_exaggeration

    def _spectrum_parameters(self, s: float) -> dict[str, float | None]:
        """Return the parameters at ``s`` of the attraction–repulsion spectrum: 0 is t-SNE-like, 1 UMAP-like."""
        return {"exaggeration": 4.0**s}

    def _phase_parameters(self, n: int, early: bool) -> dict[str, float]:
        """Return the method's constants in a phase."""
        return {}

    def _phases(self, n: int) -> list[Phase]:
        n_iter, early_iter = self._n_iter(n), self.early_exaggeration_iter
        early_iter = int(self._early_share * n_iter) if early_iter is None else min(early_iter, n_iter)
        main = self._main_exaggeration()
        first = self._early_exaggeration()
        first = main if first is None or first == 1 else first
        constants = self._phase_parameters(n, early=False)
        first_constants = self._phase_parameters(n, early=True)
        if early_iter == 0 or (first == main and first_constants == constants):
            return in_sequence([Phase(n_iter, exaggeration=main, parameters=constants)])
        phases = [Phase(early_iter, exaggeration=first, early=True, parameters=first_constants)]
        if early_iter < n_iter:
            phases.append(Phase(n_iter - early_iter, exaggeration=main, parameters=constants))
        return in_sequence(phases)
