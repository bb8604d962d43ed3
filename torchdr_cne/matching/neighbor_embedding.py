"""Neighbour embeddings: a loss that splits into attraction and repulsion."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer

from torchdr_cne.affinity import Affinity, UnionAffinity
from torchdr_cne.checks import NOT_NEGATIVE, POSITIVE, Bound
from torchdr_cne.forces import PairForces
from torchdr_cne.matching.affinity_matcher import AffinityMatcher
from torchdr_cne.objectives.pair_loss import PairLoss
from torchdr_cne.optimization.phase import Phase, number_phases
from torchdr_cne.optimization.state import FitState
from torchdr_cne.overriding import decides, newer_than_forces
from torchdr_cne.parameters.graph import Search
from torchdr_cne.similarities import Cauchy, Similarity


class NeighborEmbedding(Search, AffinityMatcher, replaces=("affinity_out", "loss")):
    """Loss = exaggeration · attraction + repulsion_strength · repulsion, with early exaggeration.

    A method has a similarity and two hooks instead of an affinity of the embedding and a loss of matrices.

    Parameters
    ----------
    exaggeration : float or None, default=None
        Weight of the attraction; None is the method's own weight, which is 1 unless it says otherwise.
    early_exaggeration : float or None, default=None
        Weight of the attraction in the first iterations; None is the method's own weight, 1 switches it off.
    early_exaggeration_iter : int or None, default=None
        Number of iterations of early exaggeration; None is a fifth of all, in TSNE and TSNEkhorn a quarter.
    repulsion_strength : float, default=1.0
        Weight of the repulsion.
    """

    exaggeration: float | None = None
    early_exaggeration: float | None = None
    early_exaggeration_iter: int | None = None
    repulsion_strength: float = 1.0

    _default_optimizer: ClassVar[str | type[Optimizer]] = "SGD"
    _base_learning_rate: ClassVar[float] = 1.0
    _early_share: ClassVar[float] = 0.2
    _bounds: ClassVar[dict[str, Bound]] = {
        "exaggeration": POSITIVE,
        "early_exaggeration": POSITIVE,
        "early_exaggeration_iter": Bound(0, integer=True),
        "repulsion_strength": NOT_NEGATIVE,
    }

    # The loss.

    @abstractmethod
    @decides("forces")
    def _compute_attractive_loss(self, pairs: Any) -> Tensor:
        """Return the attractive loss, unreduced."""

    @abstractmethod
    @decides("forces")
    def _compute_repulsive_loss(self, pairs: Any) -> Tensor:
        """Return the repulsive loss, unreduced."""

    @abstractmethod
    @decides("forces", "placement", "sharing")
    def _make_pairs(self, embedding_nd: Tensor, state: FitState) -> Any:
        """Return the argument of the two loss hooks, which also knows how to weight and sum their results."""

    @decides("forces", "placement", "sharing")
    def _compute_loss(self, embedding_nd: Tensor, state: FitState) -> Tensor:
        """Return the weighted sum of attraction and repulsion, summed over points."""
        pairs = self._make_pairs(embedding_nd, state)
        return self._loss_of_pairs(pairs, state.phase.exaggeration)

    @decides("forces", "placement")
    def _loss_of_pairs(self, pairs: Any, exaggeration: float) -> Tensor:
        attraction = pairs.reduce_attraction(self._compute_attractive_loss(pairs))
        repulsion = pairs.reduce_repulsion(self._compute_repulsive_loss(pairs))
        return exaggeration * attraction + self.repulsion_strength * repulsion

    @decides("forces")
    def _default_similarity(self) -> Similarity:
        """Return the method's own similarity of embedded points."""
        return Cauchy()

    @property
    @decides("forces")
    def _similarity(self) -> Similarity:
        """Return the similarity of embedded points."""
        return self._default_similarity()

    @decides("forces")
    def _learned_scalars(self) -> dict[str, float]:
        return {}

    def _pair_forces(self) -> PairForces | None:
        """Return the derivatives of the two hooks with respect to d²; None if there is no fast form."""
        return None

    @decides("forces")
    def _force_parameters(self, parameters: dict[str, Any]) -> tuple[Tensor | float, ...]:
        """Return the second argument of the declared functions, from parameters of the phase and learned ones."""
        return ()

    def _why_not_forces(self) -> str:
        """Return why the declared forces cannot replace the loss of this estimator; "" if they can."""
        if self._pair_forces() is None:
            return f"{type(self).__name__} declares no _pair_forces"
        newer = newer_than_forces(type(self))
        return f"{', '.join(newer)} is overridden below the class that declares _pair_forces" if newer else ""

    def _pair_loss(self, **options: Any) -> PairLoss:
        """Return the loss for use outside the class; ``options`` are the settings that a class has for negatives."""
        known: Mapping[str, Any] = {"n_negatives": 1.0, "negatives_per_row": None, "discard_neighbors": False}
        return PairLoss(
            similarity=self._similarity,
            total=self._loss_of_pairs,
            repulsion=self._compute_repulsive_loss,
            repulsion_strength=self.repulsion_strength,
            forces=self._pair_forces(),
            force_parameters=self._force_parameters,
            why_not_forces=self._why_not_forces(),
            learned=self._learned_scalars(),
            last_phase=lambda n: self._phases(n)[-1],
            longest=self._max_row_gradient,
            **{**known, **options},
        )

    # Affinity, rates and phases.

    def _default_affinity(self) -> Affinity:
        return UnionAffinity(n_neighbors=self.n_neighbors, metric=self.metric, backend=self.backend)

    def _auto_learning_rate(self, phase: Phase, n: int) -> float:
        return self._base_learning_rate / phase.exaggeration

    def _main_exaggeration(self) -> float:
        """Return the weight of the attraction after early exaggeration."""
        return 1.0 if self.exaggeration is None else self.exaggeration

    def _early_exaggeration(self) -> float | None:
        """Return the weight of the attraction at first; None if the method needs no such phase."""
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
            return number_phases([Phase(n_iter, exaggeration=main, parameters=constants)])
        phases = [Phase(early_iter, exaggeration=first, early=True, parameters=first_constants)]
        if early_iter < n_iter:
            phases.append(Phase(n_iter - early_iter, exaggeration=main, parameters=constants))
        return number_phases(phases)
