"""The base class of all methods that match an affinity of the input with one of the embedding."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from torchdr_cne.affinity import Affinity, AffinityGraph, EntropicAffinity
from torchdr_cne.affinity.graph import gathered
from torchdr_cne.distributed import Share, joined
from torchdr_cne.distributed.group import is_first_process
from torchdr_cne.fitting.plan import GraphPlan, PointsPlan
from torchdr_cne.matching.estimator import EmbeddingEstimator
from torchdr_cne.objectives.matrices import (
    Normalized,
    OutputAffinity,
    check_matching,
    input_matrix,
    matching_loss,
)
from torchdr_cne.objectives.points import AutogradObjective
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.optimization.phase import Phase, number_phases
from torchdr_cne.optimization.state import FitState
from torchdr_cne.overriding import decides
from torchdr_cne.parameters.graph import Graph
from torchdr_cne.parameters.optimizing import Moving, Scheduling
from torchdr_cne.placement.placing import FittedPoints, transform_points
from torchdr_cne.placement.refinement import Refinement


class AffinityMatcher(Graph, Scheduling, Moving, EmbeddingEstimator):
    """Find an embedding whose affinities match those of the data.

    By itself it compares whole matrices, which is feasible for a few thousand points. A subclass defines a loss of its
    own (`_compute_loss`) and the affinity used when ``affinity_in`` is None (`_default_affinity`).

    Parameters
    ----------
    affinity_out : OutputAffinity or None, default=None
        Affinity of the embedding; None is ``Normalized(Cauchy())``; see `torchdr_cne.objectives.matrices`.
    loss : {"cross_entropy", "square"} or callable, default="cross_entropy"
        −Σ P log Q, ‖P − Q‖²/‖P‖², or a function of the matrices P and Q, both (n, n), that returns a scalar tensor.

    Attributes
    ----------
    graph_ : scipy.sparse.csr_array of shape (n, n)
        The input affinities; pass them as ``graph=`` to reuse them. If ranks share the fit, each has only its rows.
    graph_start_ : int
        Number of the point that the first row of ``graph_`` belongs to: 0 unless ranks share the fit.
    n_connected_components_ : int
        Number of components; if the second has at least 5 % of the points, there is a warning unless init is spectral.
    training_rows_ : KeptRows or None
        The rows of the fit; None if they were not kept.
    """

    affinity_out: OutputAffinity | None = None
    loss: str | Callable[[Tensor, Tensor], Tensor] = "cross_entropy"

    _max_row_gradient: ClassVar[float | None] = None
    _former_parameters: ClassVar[dict[str, Any]] = dict.fromkeys(("encoder", "decoder", "extra_loss", "batch_size"))

    # Hooks that a subclass may override.

    def _compute_loss(self, embedding_nd: Tensor, state: FitState) -> Tensor:
        """Return the scalar loss of ``embedding_nd`` at ``state.step``, which autograd differentiates."""
        if state.target is None:
            state.target = input_matrix(self.affinity_in, state, embedding_nd.detach())
        return len(embedding_nd) * matching_loss(
            self.loss, state.target, self.affinity_out or Normalized(), embedding_nd
        )

    def _default_affinity(self) -> Affinity:
        """Return the affinity used when ``affinity_in`` is None."""
        return EntropicAffinity()

    def _phases(self, n: int) -> list[Phase]:
        return number_phases([Phase(self._n_iter(n))])

    def _bytes_by_stage(self, n: int, d: int, device: str = "cpu") -> dict[str, int]:
        """Return the bytes that each stage of a fit holds on a type of device besides the data; empty if not known."""
        return {}

    def _refinement(self, embedding_nd: Tensor) -> Refinement | None:
        """Return the descent of new points among ``embedding_nd``; None leaves them beside their neighbours."""
        return None

    @decides("placement", "sharing")
    def _make_objective(self, state: FitState, start_nd: Tensor) -> Objective:
        """Return the objective that the loop asks for gradients."""
        loss = torch.compile(self._compute_loss) if self.compile else self._compute_loss
        return AutogradObjective(start_nd, loss, self._max_row_gradient, state.share.ranks)

    def _with_labels(self, graph: AffinityGraph, labels: Tensor, share: Share) -> AffinityGraph:
        """Return this rank's rows of the input graph as the labels of all points change them."""
        return graph

    def _needs_graph(self, phases: Sequence[Phase]) -> bool:
        """Return whether the input graph is needed."""
        return not self._matches_function

    def _why_not_split(self) -> str:
        """Return why a fit cannot be shared among ranks; "" if the loss is a sum over the rows of ``state.share``."""
        return f"the loss of {type(self).__name__} may need all rows at once"

    # The interface of scikit-learn.

    def _transformed(self, X: Any) -> Any:
        fitted = FittedPoints(
            rows=getattr(self, "training_rows_", None),
            embedding=self.embedding_,
            affinity=self._input_affinity(),
            refinement=self._refinement,
            is_precomputed=self._is_precomputed,
            keeps_rows=self.store_training_data,
        )
        return transform_points(fitted, self, X)

    def gather_graph(self) -> Any:
        """Return ``graph_`` with the rows of all ranks on rank 0, None on the others; every rank has to call this.

        Returns
        -------
        scipy.sparse.csr_array of shape (n, n) or None
        """
        check_is_fitted(self, "graph_")
        if self.graph_.shape[0] == self.graph_.shape[1]:
            return self.graph_ if self.n_ranks_ == 1 or is_first_process() else None
        with joined(self.distributed) as ranks:
            whole = gathered(AffinityGraph.from_scipy(self.graph_), Share.of(self.graph_.shape[1], ranks))
        return None if whole is None else whole.to_scipy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = isinstance(self.affinity_in, str)
        return tags

    # The plan of a fit.

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self._matches_matrices:
            check_matching(self.affinity_out, self.loss)

    @property
    def _matches_matrices(self) -> bool:
        return type(self)._compute_loss is AffinityMatcher._compute_loss

    @property
    def _matches_function(self) -> bool:
        is_function = callable(self.affinity_in) and not isinstance(self.affinity_in, Affinity)
        return is_function and self._matches_matrices

    def _input_affinity(self) -> Affinity:
        return self.affinity_in if isinstance(self.affinity_in, Affinity) else self._default_affinity()

    def _graph_plan(self) -> GraphPlan:
        return GraphPlan(
            affinity=self._input_affinity(),
            is_precomputed=self._is_precomputed,
            is_needed=self._needs_graph,
            relabel=self._with_labels,
            memory_budget=self.memory_budget,
            keeps_rows=self.store_training_data,
            bytes_by_stage=self._bytes_by_stage,
        )

    def _scale_of_start(self, n: int) -> float:
        """Return the standard deviation of the first embedding's widest column."""
        return self.init_scaling

    def _points_plan(self) -> PointsPlan | None:
        return PointsPlan(self.init, self._scale_of_start, self.min_grad_norm, self._make_objective)
