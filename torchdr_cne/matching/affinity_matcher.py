"""The root of the hierarchy: match an affinity of the input with one of the embedding."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.affinity import Affinity, AffinityGraph, graph_from_user, own_rows_from_user
from torchdr_cne.affinity.graph import gathered
from torchdr_cne.distributed import DistributedConfig, Ranks, Share, joined
from torchdr_cne.distributed.group import is_first_process, own_device
from torchdr_cne.inputs import OutputKind, read_features
from torchdr_cne.inputs.sources import ArraySource
from torchdr_cne.matching.checks import COUNT, NOT_NEGATIVE, POSITIVE, Bound, check_bounds, check_choice
from torchdr_cne.matching.fit import Given, take_part
from torchdr_cne.matching.objective import AutogradObjective, Objective
from torchdr_cne.matching.optimization import (
    make_optimizer,
    make_scheduler,
    optimizer_class,
    parameter_groups,
    scheduler_class,
)
from torchdr_cne.matching.resources import limited_threads, resolve_device, seed_from
from torchdr_cne.matching.splitting import check_input, run_on_first
from torchdr_cne.matching.state import FitState, Phase
from torchdr_cne.persistence import save_model


@dataclass(kw_only=True, eq=False, repr=False)
class AffinityMatcher(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, ABC):
    """Find an embedding whose affinities match those of the data; owns ``fit`` and the loop.

    Subclasses are dataclasses by themselves: an annotated class attribute is a keyword-only parameter, and one
    line changes a default. They state a loss (`_compute_loss`) and the affinity used when ``affinity_in`` is None
    (`_default_affinity`).

    Parameters
    ----------
    n_components : int, default=2
        Dimension of the embedding.
    affinity_in : Affinity, "precomputed" or None, default=None
        Affinity of the input. None is the method's own; "precomputed" takes ``X`` as a symmetric (n, n)
        affinity matrix, sparse or dense.
    init : {"pca", "spectral", "random"} or array of shape (n, d), default="pca"
        First embedding. An array is used as it is; without features "pca" becomes "spectral".
    init_scaling : float, default=1.0
        Standard deviation of the first embedding's widest column.
    learning_rate : "auto" or float, default="auto"
        "auto" is the method's rate divided by the exaggeration; a number is used as it is. The loss is normalised
        so that rates depend neither on n nor on the scale of the affinities.
    max_iter : int, default=300
        Number of iterations.
    optimizer : str or torch.optim.Optimizer class, default="SGD"
        Optimiser, rebuilt when early exaggeration ends.
    optimizer_kwargs : "auto", dict or None, default="auto"
        Its keywords. "auto" gives SGD momentum 0.5 during early exaggeration and 0.8 after it.
    scheduler : str, torch LRScheduler class or None, default="LinearLR"
        Learning-rate schedule, stepped every iteration; None keeps the rate constant.
    scheduler_kwargs : "auto", dict or None, default="auto"
        Its keywords. "auto" lets ``LinearLR`` fall to 0 over all iterations.
    min_grad_norm : float, default=1e-7
        Stop when the root mean square gradient of the rows falls below it.
    check_interval : int, default=50
        Iterations between checks (stopping, NaN, ``history_``).
    device : "auto", str or torch.device, default="auto"
        "auto" is the input tensor's device, else CUDA where there is one, else the CPU.
    dtype : {"float32", "float64"}, default="float32"
        Arithmetic and result. On a CPU only float32 has compiled kernels; float64 is many times slower.
    random_state : int, RandomState, Generator or None, default=None
        Seed of every draw; None takes fresh entropy. Global random state is never touched.
    n_jobs : int or None, default=None
        CPU threads; None keeps torch's setting, −1 is all cores.
    callbacks : callable or sequence of callables, default=None
        Called as ``callback(estimator, step)`` after each iteration, with ``embedding_`` and ``n_iter_``
        up to date; returning True stops the fit.
    compile : bool, default=False
        Compile the loss, or the torch force tiles, with ``torch.compile``.
    verbose : bool, default=False
        Show a progress bar on a terminal.
    distributed : {"auto", True, False} or DistributedConfig, default="auto"
        "auto" shares a fit of 100 000 rows or more among the ranks of an initialised process group, or of a launcher
        such as torchrun; a smaller one is rank 0's alone, which every rank waits for. True shares any with 256 rows
        a rank, False none: each rank's fit is its own.
    memory_budget : int or None, default=None
        Bytes that the rows of a `RowSource` and their index may take in a process; what is larger is streamed. None
        is a third of the free memory.
    checkpoint_dir : str, Path or None, default=None
        Folder in which the fit is saved as it goes; the same fit, begun again, goes on from there. One that a callback
        has stopped is at its end.
    checkpoint_every : int, default=50
        Iterations between checkpoints.

    Attributes
    ----------
    embedding_ : ndarray or Tensor of shape (n, n_components)
        The embedding, in the kind of ``X``.
    graph_ : scipy.sparse.csr_array of shape (n, n)
        The input affinities; pass it as ``graph=`` to reuse it. If ranks share the fit, each has its own rows only.
    graph_start_ : int
        The point of ``graph_``'s first row: 0 unless ranks share the fit.
    n_ranks_ : int
        How many processes have taken part.
    n_connected_components_ : int
        Connected components of the graph; a warning tells of a second one with 5 % of the points or more.
    n_iter_ : int
        Iterations done.
    learning_rate_ : float
        The last phase's learning rate before the scheduler; ``history_`` has the scheduled ones.
    history_ : dict of str to list
        ``step``, ``learning_rate``, ``grad_norm`` and learned scalars at every check.
    n_features_in_, feature_names_in_
        As in scikit-learn.
    """

    n_components: int = 2
    affinity_in: Affinity | str | None = None
    init: Any = "pca"
    init_scaling: float = 1.0
    learning_rate: float | str = "auto"
    max_iter: int = 300
    optimizer: str | type[Optimizer] = "SGD"
    optimizer_kwargs: Mapping[str, Any] | str | None = "auto"
    scheduler: str | type[LRScheduler] | None = "LinearLR"
    scheduler_kwargs: Mapping[str, Any] | str | None = "auto"
    min_grad_norm: float = 1e-7
    check_interval: int = 50
    device: str | torch.device = "auto"
    dtype: str = "float32"
    random_state: Any = None
    n_jobs: int | None = None
    callbacks: Callable[..., Any] | Sequence[Callable[..., Any]] | None = None
    compile: bool = False
    verbose: bool = False
    distributed: bool | str | DistributedConfig = "auto"
    memory_budget: int | None = None
    checkpoint_dir: str | Path | None = None
    checkpoint_every: int = 50

    _base_learning_rate: ClassVar[float] = 1.0
    _learned_learning_rate: ClassVar[float] = 1.0
    _max_row_gradient: ClassVar[float | None] = None
    _bounds: ClassVar[dict[str, Bound]] = {
        "n_components": COUNT,
        "max_iter": COUNT,
        "check_interval": COUNT,
        "init_scaling": POSITIVE,
        "min_grad_norm": NOT_NEGATIVE,
        "memory_budget": COUNT,
        "checkpoint_every": COUNT,
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited = {
            field.name for base in cls.__mro__[1:] if hasattr(base, "__dataclass_fields__") for field in fields(base)
        }
        bare = sorted(inherited & set(vars(cls)) - set(inspect.get_annotations(cls)))
        if bare:
            raise TypeError(
                f"{cls.__name__} overrides {', '.join(bare)} without a type annotation, which a dataclass would "
                f"ignore; write for instance `{bare[0]}: type = value`."
            )
        dataclass(kw_only=True, eq=False, repr=False)(cls)

    # ---- to implement -------------------------------------------------------------------------------

    @abstractmethod
    def _compute_loss(self, embedding_nd: Tensor, state: FitState) -> Tensor:
        """Return the scalar loss of ``embedding_nd`` at ``state.step``; differentiated by autograd."""

    @abstractmethod
    def _default_affinity(self) -> Affinity:
        """Return the affinity used when ``affinity_in`` is None."""

    # ---- may be overridden --------------------------------------------------------------------------

    def on_affinity_computation_start(self) -> None:
        """Do something before the graph is computed."""

    def on_affinity_computation_end(self) -> None:
        """Do something once ``graph_`` is known."""

    def on_training_step_start(self) -> None:
        """Do something before each iteration."""

    def on_training_step_end(self) -> None:
        """Do something after each iteration; ``n_iter_`` counts it."""

    def _phases(self, n: int) -> list[Phase]:
        """Return the phases of a fit of ``n`` points."""
        return [Phase(0, self.max_iter, self.max_iter)]

    def _learned_scalars(self) -> dict[str, float]:
        """Return names and starting values of scalars learned with the embedding."""
        return {}

    def _auto_learning_rate(self, phase: Phase) -> float:
        """Return the learning rate of ``phase`` under ``learning_rate="auto"``."""
        return self._base_learning_rate

    def _bytes_by_stage(self, n: int, d: int) -> dict[str, int]:
        """Return what the stages of a fit on the CPU hold beside the data; empty if that is not known."""
        return {}

    def _make_objective(self, state: FitState, start_nd: Tensor) -> Objective:
        """Return what the loop asks for gradients."""
        loss = torch.compile(self._compute_loss) if self.compile else self._compute_loss
        return AutogradObjective(start_nd, loss, self._max_row_gradient, state.share.ranks)

    def _why_not_split(self) -> str:
        """Return why a fit cannot be shared among ranks; "" if the loss is a sum over the rows of ``state.share``."""
        return f"the loss of {type(self).__name__} may need all rows at once"

    # ---- scikit-learn ---------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, *, graph: Any = None) -> "AffinityMatcher":
        """Embed ``X``.

        Parameters
        ----------
        X : array-like, Tensor, data frame, memmap or DataLoader of shape (n, f)
            The data; with ``affinity_in="precomputed"`` a symmetric affinity matrix (n, n).
        y : ignored
            For scikit-learn's pipelines.
        graph : sparse matrix of shape (n, n), default=None
            Symmetric affinities of the rows of ``X``, for instance another estimator's ``graph_``; the
            neighbour search is left out. Ranks may pass their own rows of it.

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
        self._check_parameters()
        device = resolve_device(self.device, X)
        with limited_threads(self.n_jobs), joined(self.distributed, cuda=device.type == "cuda") as ranks:
            with ranks.agreed("reading the input"):
                given = self._read_input(X, graph, ranks)
            if ranks.size > 1:
                given = replace(given, seed=int(ranks.share([given.seed % 2**63], "the seed")[0, 0]))
            self.n_ranks_ = ranks.size
            if ranks.size == 1 or check_input(self, given, ranks):
                take_part(self, given, ranks, own_device(device))
            else:
                run_on_first(self, ranks, lambda: take_part(self, given, Ranks(), device))
        return self

    def fit_transform(self, X: Any, y: Any = None, *, graph: Any = None) -> Any:
        """Embed ``X`` and return the embedding; parameters as in `fit`."""
        return self.fit(X, y, graph=graph).embedding_

    def gather_graph(self) -> Any:
        """Return ``graph_`` with the rows of all ranks on rank 0, None on the others; every rank calls it.

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
        tags.input_tags.pairwise = isinstance(self.affinity_in, str)
        return tags

    # ---- what a fit asks for ------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        """Raise a ValueError for values that cannot work, before any work."""
        check_bounds(self, self._bounds)
        check_choice("dtype", self.dtype, ("float32", "float64"))
        if self.learning_rate != "auto" and not POSITIVE.admits(self.learning_rate):
            raise ValueError(f"learning_rate={self.learning_rate!r} must be 'auto' or a positive number.")
        precomputed = isinstance(self.affinity_in, str) and self.affinity_in == "precomputed"
        if not (self.affinity_in is None or precomputed or isinstance(self.affinity_in, Affinity)):
            raise ValueError(
                f"affinity_in={self.affinity_in!r} is unknown; pass an Affinity such as UnionAffinity(), "
                "'precomputed' or None."
            )
        if not (isinstance(self.distributed, (DistributedConfig, bool)) or self.distributed == "auto"):
            raise ValueError(
                f"distributed={self.distributed!r} is unknown; choose one of 'auto', True, False, or pass a "
                "DistributedConfig."
            )
        optimizer_class(self.optimizer)
        scheduler_class(self.scheduler)
        if not all(callable(callback) for callback in self._callback_list()):
            raise ValueError(f"callbacks={self.callbacks!r} must be a callable or a sequence of callables.")

    def _callback_list(self) -> list[Any]:
        if self.callbacks is None:
            return []
        return list(self.callbacks) if isinstance(self.callbacks, Sequence) else [self.callbacks]

    @property
    def _torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    def _read_input(self, X: Any, graph: Any, ranks: Ranks) -> Given:
        """Check the table and the given graph, if there is one."""
        seed = seed_from(self.random_state)
        if self.affinity_in == "precomputed":
            if graph is not None:
                raise ValueError("affinity_in='precomputed' takes the graph as X; leave graph= out.")
            given = graph_from_user(X)
            self.n_features_in_ = given.n_points
            self.__dict__.pop("feature_names_in_", None)
            return Given(None, given, OutputKind(X.device if isinstance(X, Tensor) else None), seed)
        if isinstance(X, np.memmap) and X.ndim == 2 and (ranks.size > 1 or self.memory_budget is not None):
            X = ArraySource(X, "X")  # no process reads what it has no use for
        features, kind = read_features(self, X)
        share = Share.of(len(features), ranks)
        if graph is None:
            return Given(features, None, kind, seed)
        if ranks.size > 1 and getattr(graph, "shape", None) == (len(share), share.n):
            return Given(features, own_rows_from_user(graph, share), kind, seed)
        return Given(features, graph_from_user(graph, share.n), kind, seed)

    def _input_affinity(self) -> Affinity:
        return self.affinity_in if isinstance(self.affinity_in, Affinity) else self._default_affinity()

    def _make_state(
        self, graph: AffinityGraph, start_nd: Tensor, seed: int, phase: Phase, share: Share | None = None
    ) -> FitState:
        """Return the fit's state; the graph's weights are scaled to mean row weight 1."""
        share = Share.whole(graph.n_points) if share is None else share
        graph = graph.to(start_nd.device, start_nd.dtype)
        mean_row_weight = float(share.total(graph.row_weights, "the mean row weight")) / share.n
        graph = replace(graph, weights=graph.weights / mean_row_weight)
        learned = {
            name: torch.full((), value, dtype=start_nd.dtype, device=start_nd.device, requires_grad=True)
            for name, value in self._learned_scalars().items()
        }
        return FitState(graph=graph, share=share, seed=seed, phase=phase, learned=learned)

    def _optimizer(self, objective: Objective, state: FitState, phase: Phase) -> tuple[Optimizer, LRScheduler | None]:
        """Build optimiser and scheduler of a phase."""
        automatic = self.learning_rate == "auto"
        self.learning_rate_ = self._auto_learning_rate(phase) if automatic else float(self.learning_rate)
        groups = parameter_groups(objective.parameter, state.learned, self.learning_rate_, self._learned_learning_rate)
        optimizer = make_optimizer(self.optimizer, self.optimizer_kwargs, phase, groups)
        return optimizer, make_scheduler(self.scheduler, self.scheduler_kwargs, phase, optimizer)
