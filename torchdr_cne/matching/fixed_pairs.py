"""Neighbour embeddings whose pairs are chosen once, in groups whose weights change during the fit."""

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.matching.neighbor_embedding import NeighborEmbedding
from torchdr_cne.objectives.fixed_pairs import AlikePairs, FixedEdges, FixedPairs, fixed_pairs, group_objective
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.optimization.phase import Phase, number_phases
from torchdr_cne.optimization.state import FitState
from torchdr_cne.overriding import overridden
from torchdr_cne.parameters.gradients import Gradients
from torchdr_cne.placement.refinement import Refinement, hook_refinement
from torchdr_cne.similarities import Similarity


class FixedPairsNeighborEmbedding(
    NeighborEmbedding, Gradients, replaces=("early_exaggeration", "early_exaggeration_iter")
):
    """Groups of pairs that attract and one group that repels, all chosen before the first step.

    A method chooses the pairs (`_choose_pairs`) and defines the groups' weights at each step (`_group_weights`) and the
    two hooks. The attractive hook finds the constant of each edge's group in ``pairs.parameters["constant"]``, which is
    also the only parameter of the declared forces. ``exaggeration`` multiplies the weights of the attracting groups,
    ``repulsion_strength`` that of the repelling one. With ``graph=`` the neighbours are the edges of that graph.
    """

    optimizer: str | type[Optimizer] = "Adam"
    scheduler: str | type[LRScheduler] | None = None

    _constant: ClassVar[float]
    """Constant of the group that holds the edges of the graph; it also serves to embed new points."""
    _placement_rate: ClassVar[float] = 1.0
    _former_parameters: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(("encoder", "decoder", "extra_loss", "batch_size", "negatives_per_row")),
        **dict.fromkeys(("early_exaggeration", "early_exaggeration_iter")),
        "n_negatives": 5,
        "discard_neighbors": False,
        "sampling": "edges",
        "negatives": "batch",
    }

    @abstractmethod
    def _choose_pairs(self, state: FitState) -> FixedPairs:
        """Return the pairs, drawn with the seed of the fit; the first group holds the edges of the graph."""

    @abstractmethod
    def _group_weights(self, step: int, n_iter: int) -> tuple[float, ...]:
        """Return the weights of the attracting groups and, last, of the repelling one at ``step`` of ``n_iter``."""

    @property
    @abstractmethod
    def _repelling_weight(self) -> float:
        """Return the sum of the weights of a row's repelling points."""

    def _weights(self, state: FitState) -> tuple[tuple[float, ...], float]:
        """Return the weights of this step, with exaggeration and repulsion strength."""
        *attracting, repelling = self._group_weights(state.step, state.phase.total)
        exaggeration = state.phase.exaggeration
        return tuple(exaggeration * weight for weight in attracting), self.repulsion_strength * repelling

    @property
    def _similarity(self) -> Similarity:
        return self._default_similarity() if self.similarity is None else self.similarity

    def _why_not_forces(self) -> str:
        if self.similarity is not None and self.similarity != self._default_similarity():
            return f"similarity={self.similarity!r} is not the one the forces were derived for"
        return super()._why_not_forces()

    def _make_pairs(self, embedding_nd: Tensor, state: FitState) -> AlikePairs:
        *attracting, repelling = self._group_weights(state.step, state.phase.total)
        return fixed_pairs(self._similarity, state.fixed_pairs, (tuple(attracting), repelling), embedding_nd, state)

    def _make_objective(self, state: FitState, start_nd: Tensor) -> Objective:
        state.fixed_pairs, forces = self._choose_pairs(state), self._pair_forces()
        if self.gradient == "autograd" or self._why_not_forces() or forces is None:
            state.fixed_edges = FixedEdges.of(state.fixed_pairs, state.graph.weights)
            return super()._make_objective(state, start_nd)
        settings: dict[str, Any] = {"longest": self._max_row_gradient, "compile": self.compile}
        return group_objective(forces, state.fixed_pairs, self._weights, state, start_nd, **settings)

    def _phase_parameters(self, n: int, early: bool) -> dict[str, float]:
        return {"constant": self._constant}

    def _force_parameters(self, parameters: dict[str, Any]) -> tuple[float]:
        return (parameters["constant"],)

    def _why_not_split(self) -> str:
        return f"the pairs of {type(self).__name__} are chosen among all rows"

    def _phases(self, n: int) -> list[Phase]:
        constants = self._phase_parameters(n, early=False)
        return number_phases([Phase(self._n_iter(n), exaggeration=self._main_exaggeration(), parameters=constants)])

    def _auto_learning_rate(self, phase: Phase, n: int) -> float:
        return self._base_learning_rate  # the length of Adam's steps does not depend on the exaggeration

    def _refinement(self, embedding_nd: Tensor) -> Refinement | None:
        if overridden(type(self), FixedPairsNeighborEmbedding, "placement"):
            return None
        loss = self._pair_loss(n_negatives=self._repelling_weight)
        return hook_refinement(loss, embedding_nd, {}, self._placement_rate)
