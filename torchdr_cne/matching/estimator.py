"""The base class of all estimators: a description of a fit, which `fit` turns into a plan and carries out."""

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
from torchdr_cne.resources import limited_threads, shielded
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
    """An estimator that is fitted by the common optimisation loop.

    Subclasses become dataclasses automatically: an annotated class attribute is a keyword-only parameter, and one line
    changes a default. A subclass inherits from the groups of parameters that it needs.

    Parameters
    ----------
    n_components : int, default=2
        Dimension of the embedding.

    Attributes
    ----------
    embedding_ : ndarray or Tensor of shape (n, n_components)
        The embedding, of the same kind as ``X``.
    n_ranks_ : int
        Number of processes that took part in the fit.
    n_iter_ : int
        Number of iterations done.
    learning_rate_ : float
        Learning rate of the last phase before the scheduler; ``history_`` records the scheduled rates.
    history_ : dict of str to list
        ``step``, ``learning_rate``, ``grad_norm`` and learned scalars at every check and, if losses are computed and
        not only forces, the means of ``loss`` and its parts since the last check.
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

    # Hooks that a subclass may override.

    def on_training_step_start(self) -> None:
        """Do something before each iteration."""

    def on_training_step_end(self) -> None:
        """Do something after each iteration, which ``n_iter_`` already counts."""

    @abstractmethod
    def _phases(self, n: int) -> list[Phase]:
        """Return the phases of a fit of ``n`` points."""

    def _learned_scalars(self) -> dict[str, float]:
        """Return names and initial values of the scalars that are learned with the embedding."""
        return {}

    def _read_labels(self, y: Any, n: int) -> Tensor | None:
        """Return the class codes (n,) of ``y``, −1 where unknown (`read_labels`); None if the fit uses no labels."""
        return None

    def _conclude(self, objective: Objective, state: FitState) -> Mapping[str, Any]:
        """Return further fitted attributes by name, without the trailing underscore."""
        return {}

    def _reported(self, phase: Phase) -> dict[str, float]:
        """Return those constants of a phase that ``history_`` records."""
        return {}

    def on_affinity_computation_start(self) -> None:
        """Do something before the graph is computed, in fits that have one."""

    def on_affinity_computation_end(self) -> None:
        """Do something once ``graph_`` is known."""

    # The interface of scikit-learn.

    def fit(self, X: Any, y: Any = None, *, graph: Any = None) -> Self:
        """Embed ``X``.

        Parameters
        ----------
        X : array-like, Tensor, data frame, memmap or DataLoader of shape (n, f)
            The data or, with ``affinity_in="precomputed"``, a symmetric affinity matrix (n, n).
        y : array-like of shape (n,), default=None
            Class labels, which all methods ignore that do not say that they use them. Every rank is given all labels.
        graph : sparse matrix of shape (n, n), default=None
            Symmetric affinities of the rows of ``X``, for instance the ``graph_`` of another estimator, which
            replace the neighbour search. Each rank may pass its own rows only. Labels that change the graph change
            this one too, so give one that was made without labels.

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
        with Publisher(self, self._callback_list()) as publisher:
            fit(self._plan(), publisher, X, y, graph)
        return self

    def fit_transform(self, X: Any, y: Any = None, *, graph: Any = None) -> Any:
        """Fit ``X`` and return the embedding; the parameters are those of `fit`."""
        return self.fit(X, y, graph=graph).embedding_

    def transform(self, X: Any) -> Any:
        """Embed new rows; the embedding of the fit stays as it is.

        With an encoder, the network embeds every row; what follows applies to fits without one.

        A row that equals a row of the fit gets its point, that of the first if there are several. Any other row gets
        the mean of its neighbours' points, weighted by the input affinity. Methods whose loss is just two hooks, all
        but COSNE and TSNEkhorn, then move it down their loss from there, or from a neighbour. Rows do not interact.

        Parameters
        ----------
        X : array-like, Tensor, data frame, DataLoader or RowSource of shape (m, f)
            Rows with the features of the fit.

        Returns
        -------
        ndarray or Tensor of shape (m, n_components)
            The embedding of the rows, of the same kind as ``X``.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If ``X`` is not a finite table of the same features, or if the rows of the fit were not kept.
        """
        check_is_fitted(self, "embedding_")
        with shielded(), limited_threads(self.n_jobs):
            return self._transformed(X)

    @abstractmethod
    def _transformed(self, X: Any) -> Any:
        """Return the embedding of new rows, of the same kind as ``X``."""

    def save(self, path: str | Path) -> None:
        """Save the fitted estimator in a folder, from which `torchdr_cne.load` reads it.

        Parameters
        ----------
        path : str or Path
            The folder; a saved estimator in it is replaced. After a fit on several ranks rank 0 writes the folder,
            without the graph if the ranks shared the fit.

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

    # The plan of a fit.

    def _plan(self) -> FitPlan:
        """Check the parameters and return all that the stages of a fit need to know."""
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
        """Return the plan of the input graph; None if the fit uses no graph."""
        return None

    def _points_plan(self) -> PointsPlan | None:
        """Return the plan of points that move themselves; None if networks compute the embedding."""
        return None

    def _networks_plan(self) -> NetworkOptions | None:
        """Return options of the networks that compute the embedding; None if the points move themselves."""
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
            checkpoint_dir=None if self.checkpoint_dir is None else Path(self.checkpoint_dir).expanduser(),
            checkpoint_every=self.checkpoint_every,
        )
