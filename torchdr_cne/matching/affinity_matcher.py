"""The root of the hierarchy: match an affinity of the input with one of the embedding."""

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.affinity import Affinity, AffinityGraph, graph_from_user, own_rows_from_user
from torchdr_cne.affinity.components import component_sizes, rows_without_edges
from torchdr_cne.affinity.graph import gathered
from torchdr_cne.distributed import DistributedConfig, Ranks, Share, joined, listening
from torchdr_cne.distributed.group import is_first_process, own_device
from torchdr_cne.initialization import initial_embedding
from torchdr_cne.inputs import OutputKind, Rows, RowSource, as_rows, read_features
from torchdr_cne.inputs.sources import ArraySource
from torchdr_cne.matching.checks import COUNT, NOT_NEGATIVE, POSITIVE, Bound, check_bounds, check_choice
from torchdr_cne.matching.loop import LoopSettings, Outcome, run
from torchdr_cne.matching.memory import available_memory, check_memory
from torchdr_cne.matching.objective import AutogradObjective, Objective
from torchdr_cne.matching.optimization import (
    make_optimizer,
    make_scheduler,
    optimizer_class,
    parameter_groups,
    scheduler_class,
)
from torchdr_cne.matching.progress import Progress
from torchdr_cne.matching.resources import limited_threads, resolve_device, seed_from, torch_threads
from torchdr_cne.matching.saving import Keeper, keeping
from torchdr_cne.matching.snapshot import restore_learned
from torchdr_cne.matching.splitting import check_input, run_on_first
from torchdr_cne.matching.state import FitState, Phase
from torchdr_cne.persistence import save_model

_LARGE_COMPONENT = 0.05
"""Share of the points from which a second component is worth a warning."""


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
        such as torchrun; a smaller one is rank 0's alone. True shares any, False none.
    memory_budget : int or None, default=None
        Bytes that the rows of a `RowSource` and their index may take in a process; what is larger is streamed. None
        is a third of the free memory.
    checkpoint_dir : str, Path or None, default=None
        Folder in which the fit is saved as it goes; the same fit, begun again, goes on from there.
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
                seed = seed_from(self.random_state)
                data, given, kind = self._read_input(X, graph, ranks)
            seed = seed if ranks.size == 1 else int(ranks.share([seed % 2**63], "the seed")[0, 0])
            n = len(data) if data is not None else given.n_points  # type: ignore[union-attr]
            if ranks.size > 1 and not check_input(self, data, given, n, ranks):
                run_on_first(self, ranks, lambda: self._fit(data, given, Share.whole(n), device, seed, kind))
            else:
                self._fit(data, given, Share.of(n, ranks), own_device(device), seed, kind)
        return self

    def _fit(
        self,
        data: Any,
        given: AffinityGraph | None,
        share: Share,
        device: torch.device,
        seed: int,
        kind: OutputKind,
    ) -> None:
        """Take this rank's part in a fit."""
        preemptible = self.checkpoint_dir is not None
        with listening(share.ranks, preemptible=preemptible), keeping(self, share, data, given, seed) as keeper:
            rows = self._own_rows(data, share)
            phases = self._phases(share.n)
            self._check_memory(rows, device)
            affinities = self._input_graph(rows, given, share, keeper)
            start = self._start(rows, affinities, share, keeper).to(device=device, dtype=self._torch_dtype)
            self._match(affinities, share, start, phases, keeper, kind)

    def fit_transform(self, X: Any, y: Any = None, *, graph: Any = None) -> Any:
        """Embed ``X`` and return the embedding; parameters as in `fit`."""
        return self.fit(X, y, graph=graph).embedding_

    def gather_graph(self) -> Any:
        """Return ``graph_`` with the rows of all ranks on rank 0, None on the others; every rank calls it.

        Returns
        -------
        scipy.sparse.csr_array of shape (n, n) or None
        """
        if self.graph_.shape[0] == self.graph_.shape[1]:
            return self.graph_ if is_first_process() else None
        with joined(self.distributed) as ranks:
            whole = gathered(AffinityGraph.from_scipy(self.graph_), Share.of(self.graph_.shape[1], ranks))
        return None if whole is None else whole.to_scipy()

    def save(self, path: str | Path) -> None:
        """Save the fitted estimator in a folder, for `torchdr_cne.load`.

        Parameters
        ----------
        path : str or Path
            The folder; one that holds a saved estimator is replaced. If ranks share the fit, rank 0 writes it,
            without the graph.

        Raises
        ------
        FileExistsError
            If something else is at ``path``.
        ValueError
            If a parameter, such as a function of your own, cannot be saved.
        """
        if is_first_process():
            whole = copy(self)
            if self.graph_.shape[0] != self.graph_.shape[1]:
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

    # ---- the stages of fit ------------------------------------------------------------------------------

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
        if not isinstance(self.distributed, DistributedConfig):
            check_choice("distributed", self.distributed, ("auto", True, False))
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

    def _read_input(self, X: Any, graph: Any, ranks: Ranks) -> tuple[Any, AffinityGraph | None, OutputKind]:
        """Return the checked table, the given graph if there is one, and the output kind."""
        given: AffinityGraph | None = None
        if self.affinity_in == "precomputed":
            if graph is not None:
                raise ValueError("affinity_in='precomputed' takes the graph as X; leave graph= out.")
            given = graph_from_user(X)
            self.n_features_in_ = given.n_points
            self.__dict__.pop("feature_names_in_", None)
            return None, given, OutputKind(X.device if isinstance(X, Tensor) else None)
        if isinstance(X, np.memmap) and X.ndim == 2 and (ranks.size > 1 or self.memory_budget is not None):
            X = ArraySource(X, "X")  # no process reads what it has no use for
        features, kind = read_features(self, X)
        share = Share.of(len(features), ranks)
        if graph is not None and ranks.size > 1 and getattr(graph, "shape", None) == (len(share), share.n):
            return features, own_rows_from_user(graph, share), kind
        return features, None if graph is None else graph_from_user(graph, share.n), kind

    def _own_rows(self, data: Any, share: Share) -> Rows | None:
        """Return this rank's rows, centred and scaled as all are."""
        if data is None:
            return None
        budget = self.memory_budget
        if budget is None and isinstance(data, RowSource):
            available = available_memory()
            budget = None if available is None else available // 3
        center = self._input_affinity().metric != "cosine"
        return as_rows(data, center=center, dtype=self._torch_dtype, share=share, budget=budget)

    def _check_memory(self, rows: Rows | None, device: torch.device) -> None:
        """Raise a MemoryError before the work if it cannot fit."""
        if rows is None or device.type != "cpu" or not rows.in_memory:
            return
        shape = len(rows.share), rows.n_columns
        with rows.share.ranks.agreed("the check of memory"):
            stages = self._bytes_by_stage(*shape)
            if stages:
                check_memory(max(stages.values()), *shape)

    def _input_affinity(self) -> Affinity:
        return self.affinity_in if isinstance(self.affinity_in, Affinity) else self._default_affinity()

    def _input_graph(
        self, rows: Rows | None, given: AffinityGraph | None, share: Share, keeper: Keeper
    ) -> AffinityGraph:
        """Compute or take over this rank's rows of the graph and publish them as ``graph_``."""
        self.on_affinity_computation_start()
        found = keeper.saved_graph() if given is None else given
        if found is None:
            assert rows is not None
            found = self._input_affinity()(rows, random_state=keeper.seed)
            keeper.save_graph(found)
        if found.n_points != share.n:
            raise TypeError(
                f"{type(self._input_affinity()).__name__} made a graph of {found.n_points} points from one rank's rows "
                f"of {share.n}; hand neighbors.share on to affinity.graph.symmetrized, or set distributed=False."
            )
        if found.n_rows == share.n and share.ranks.size > 1:
            found = found.select(share.own)
        self.graph_, self.graph_start_ = found.to_scipy(), share.start
        self._report_components(found, share)
        self.on_affinity_computation_end()
        return found

    def _report_components(self, graph: AffinityGraph, share: Share) -> None:
        """Count connected components; warn where a second one is large and the start will not say so."""
        sizes = np.sort(component_sizes(graph, share))
        self.n_connected_components_ = len(sizes)
        n_alone, first_alone = rows_without_edges(graph, share)
        if n_alone:
            warnings.warn(
                f"{n_alone} rows of the input graph have no edge, first row {first_alone}: only repulsion places "
                "these points; drop them or add edges.",
                UserWarning,
                stacklevel=5,
            )
        if (
            len(sizes) > 1
            and sizes[-2] >= _LARGE_COMPONENT * share.n
            and not (isinstance(self.init, str) and self.init == "spectral")
        ):
            warnings.warn(
                f"the input graph has {len(sizes)} connected components, the largest of {sizes[-1]} and {sizes[-2]} "
                "points: distances between them carry no information; raise n_neighbors to join them.",
                UserWarning,
                stacklevel=5,
            )

    def _start(self, rows: Rows | None, graph: AffinityGraph, share: Share, keeper: Keeper) -> Tensor:
        """Return the first embedding, or that of a checkpoint."""
        if keeper.resumed is not None:
            return keeper.resumed.tensors["embedding"]
        settings = self.n_components, self.init_scaling, keeper.seed
        return initial_embedding(self.init, rows, graph, *settings, share)

    def _match(
        self,
        graph: AffinityGraph,
        share: Share,
        start_nd: Tensor,
        phases: list[Phase],
        keeper: Keeper,
        kind: OutputKind,
    ) -> None:
        """Run the loop from ``start_nd`` and publish what it leaves."""
        state = self._make_state(graph, start_nd, keeper.seed, phases[0], share)
        if keeper.resumed is not None:
            restore_learned(state, keeper.resumed)
        objective = self._make_objective(state, start_nd)
        self.n_iter_ = 0 if keeper.resumed is None else keeper.resumed.step
        visible = self.verbose and share.ranks.is_first
        with Progress(phases[-1].stop, type(self).__name__, visible=visible) as progress:
            settings = LoopSettings(
                ranks=share.ranks,
                check_interval=self.check_interval,
                min_grad_norm=self.min_grad_norm,
                before_step=self.on_training_step_start,
                after_step=lambda: self._after_step(objective, kind),
                progress=progress,
                save=lambda outcome: keeper.save(outcome, objective, state),
            )
            with torch_threads(1) if objective.own_threads else nullcontext():
                outcome = run(
                    objective,
                    state,
                    phases,
                    lambda phase: self._optimizer(objective, state, phase),
                    settings,
                    keeper.resumed,
                )
        self._publish(objective, state, outcome, kind)
        keeper.finish(outcome, objective, state)

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

    def _after_step(self, objective: Objective, kind: OutputKind) -> bool:
        """Count the step and call hooks and callbacks; True stops."""
        self.n_iter_ += 1
        self.on_training_step_end()
        callbacks = self._callback_list()
        if not callbacks:
            return False
        self.embedding_ = kind.wrap(objective.embedding())
        return any([bool(callback(self, self.n_iter_)) for callback in callbacks])

    def _publish(self, objective: Objective, state: FitState, outcome: Outcome, kind: OutputKind) -> None:
        """Set the fitted attributes; an embedding that is not finite is an error and not a result."""
        embedding = objective.embedding()
        if not bool(torch.isfinite(embedding).all()):
            raise FloatingPointError(
                f"the embedding became NaN or infinite by iteration {outcome.n_iter} with learning rate "
                f"{self.learning_rate_:.4g}; lower learning_rate, or check the loss hooks of a method of your own."
            )
        self.embedding_ = kind.wrap(embedding)
        self.history_ = outcome.history
        for name, value in state.learned.items():
            setattr(self, f"{name}_", float(value.detach()))
