"""What every estimator here is: a description of a fit, which `fit` turns into a plan and carries out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Self

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from torchdr_cne.checks import COUNT, Bound
from torchdr_cne.distributed.group import is_first_process
from torchdr_cne.fitting.fit import fit
from torchdr_cne.fitting.plan import FitPlan, GraphPlan, PointsPlan, RunOptions
from torchdr_cne.fitting.publishing import Publisher
from torchdr_cne.networks.options import NetworkOptions
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.state import FitState
from torchdr_cne.parameters.checkpointing import Checkpointing
from torchdr_cne.parameters.computing import Computing
from torchdr_cne.parameters.group import declare, group
from torchdr_cne.parameters.optimizing import Optimizing
from torchdr_cne.persistence import save_model
from torchdr_cne.resources import limited_threads
from torchdr_cne.storable import Storable


@group
class EmbeddingEstimator(
    Storable,
    Computing,
    Optimizing,
    Checkpointing,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
    ABC,
):
    """An estimator that is fitted by the one loop.

    Subclasses are dataclasses by themselves: an annotated class attribute is a keyword-only parameter, and one line
    changes a default. A subclass adds the groups of parameters that it means.

    Parameters
    ----------
    n_components : int, default=2
        Dimension of the embedding.

    Attributes
    ----------
    embedding_ : ndarray or Tensor of shape (n, n_components)
        The embedding, in the kind of ``X``.
    n_ranks_ : int
        How many processes have taken part.
    n_iter_ : int
        Iterations done.
    learning_rate_ : float
        The last phase's learning rate before the scheduler; ``history_`` has the scheduled ones.
    history_ : dict of str to list
        ``step``, ``learning_rate``, ``grad_norm`` and learned scalars at every check; where losses are computed, and
        not only forces, ``loss`` and its parts, means since the last check.
    n_features_in_, feature_names_in_
        As in scikit-learn.
    """

    n_components: int = 2

    _bounds: ClassVar[dict[str, Bound]] = {"n_components": COUNT}
    _former_parameters: ClassVar[dict[str, Any]] = {}
    """Parameters that earlier versions had, with their defaults: saved models and checkpoints may name them."""

    def __init_subclass__(cls, *, replaces: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declare(cls, replaces)

    # ---- may be overridden --------------------------------------------------------------------------

    def on_training_step_start(self) -> None:
        """Do something before each iteration."""

    def on_training_step_end(self) -> None:
        """Do something after each iteration; ``n_iter_`` counts it."""

    @abstractmethod
    def _phases(self, n: int) -> list[Phase]:
        """Return the phases of a fit of ``n`` points."""

    def _learned_scalars(self) -> dict[str, float]:
        """Return names and starting values of scalars learned with the embedding."""
        return {}

    def _read_labels(self, y: Any, n: int) -> Tensor | None:
        """Return the class codes (n,) of ``y``, −1 where unknown (`read_labels`); None is a fit without labels."""
        return None

    def _conclude(self, objective: Objective, state: FitState) -> Mapping[str, Any]:
        """Return further fitted attributes by name, without the underscore at their end."""
        return {}

    def _reported(self, phase: Phase) -> dict[str, float]:
        """Return constants of a phase that ``history_`` is to have."""
        return {}

    def on_affinity_computation_start(self) -> None:
        """Do something before the graph is computed, in fits that have one."""

    def on_affinity_computation_end(self) -> None:
        """Do something once ``graph_`` is known."""

    # ---- scikit-learn ---------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, *, graph: Any = None) -> Self:
        """Embed ``X``.

        Parameters
        ----------
        X : array-like, Tensor, data frame, memmap or DataLoader of shape (n, f)
            The data; with ``affinity_in="precomputed"`` a symmetric affinity matrix (n, n).
        y : array-like of shape (n,), default=None
            Class labels, where the method says that it uses them; ignored by the others. Every rank is given all.
        graph : sparse matrix of shape (n, n), default=None
            Symmetric affinities of the rows of ``X``, for instance another estimator's ``graph_``; the
            neighbour search is left out. Ranks may pass their own rows of it. Where labels change the graph, they
            change this one too: give one that was made without them.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or the data cannot be used; the message says what to change.
        FloatingPointError
            If the optimisation diverges.
        """
        fit(self._plan(), Publisher(self, self._callback_list()), X, y, graph)
        return self

    def fit_transform(self, X: Any, y: Any = None, *, graph: Any = None) -> Any:
        """Embed ``X`` and return the embedding; parameters as in `fit`."""
        return self.fit(X, y, graph=graph).embedding_

    def transform(self, X: Any) -> Any:
        """Place new rows in the embedding, which stays as it is.

        With an encoder, the network says where each row is; what follows is for fits without one.

        A row that equals one of the fit has its place, the first one's if there are several. Any other gets the mean
        place of its neighbours in the fit, weighted by the input affinity; methods of two loss hooks, as all here are,
        take it from there, or from a neighbour's place, down their own loss. No row's place depends on the other rows.

        Parameters
        ----------
        X : array-like, Tensor, data frame, DataLoader or RowSource of shape (m, f)
            Rows with the features of the fit.

        Returns
        -------
        ndarray or Tensor of shape (m, n_components)
            The embedded rows, in the kind of ``X``.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If ``X`` is no finite table of the same features, or the fit's rows have not been kept.
        """
        check_is_fitted(self, "embedding_")
        with limited_threads(self.n_jobs):
            return self._transformed(X)

    @abstractmethod
    def _transformed(self, X: Any) -> Any:
        """Return the embedding of new rows, in the kind of ``X``."""

    def save(self, path: str | Path) -> None:
        """Save the fitted estimator in a folder, for `torchdr_cne.load`.

        Parameters
        ----------
        path : str or Path
            The folder; one that holds a saved estimator is replaced. If ranks have done the fit together, rank 0
            writes it, without the graph where they have shared it.

        Raises
        ------
        FileExistsError
            If something else is at ``path``.
        ValueError
            If a parameter, such as a function of your own, cannot be saved.
        """
        check_is_fitted(self, "embedding_")
        if self.n_ranks_ > 1 and not is_first_process():
            return
        whole = copy(self)
        if hasattr(self, "graph_") and self.graph_.shape[0] != self.graph_.shape[1]:
            del whole.graph_
        save_model(whole, path)

    @property
    def _n_features_out(self) -> int:
        return self.embedding_.shape[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = [self.dtype]
        return tags

    # ---- the plan -----------------------------------------------------------------------------------------

    def _plan(self) -> FitPlan:
        """Check the parameters and return what the stages of a fit need to know."""
        self._check_parameters()
        networks = self._networks_plan()
        return FitPlan(
            name=type(self).__name__,
            parameters=self.get_params(deep=False),
            former_parameters=self._former_parameters,
            n_components=self.n_components,
            options=self._run_options(),
            optimizers=self._optimizer_plan(),
            phases=self._phases,
            learned=self._learned_scalars,
            reported=self._reported,
            read_labels=self._read_labels,
            conclude=self._conclude,
            why_not_shared=self._why_not_split(),
            graph=self._graph_plan(),
            points=None if networks is not None else self._points_plan(),
            networks=networks,
        )

    def _graph_plan(self) -> GraphPlan | None:
        """Return what the input graph is; None if there is no use for one."""
        return None

    def _points_plan(self) -> PointsPlan | None:
        """Return how points move themselves; None if networks compute them."""
        return None

    def _networks_plan(self) -> NetworkOptions | None:
        """Return the networks that compute the embedding; None if points move themselves."""
        return None

    def _why_not_split(self) -> str:
        """Return why a fit cannot be shared among ranks; "" if it can."""
        return ""

    def _run_options(self) -> RunOptions:
        return RunOptions(
            device=self.device,
            dtype=self._torch_dtype,
            random_state=self.random_state,
            n_jobs=self.n_jobs,
            distributed=self.distributed,
            visible=self.verbose,
            check_interval=self.check_interval,
            checkpoint_dir=None if self.checkpoint_dir is None else Path(self.checkpoint_dir),
            checkpoint_every=self.checkpoint_every,
        )
