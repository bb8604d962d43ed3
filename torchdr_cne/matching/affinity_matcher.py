"""The root of the hierarchy: match an affinity of the input with one of the embedding."""

import inspect
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.affinity import Affinity, AffinityGraph, EntropicAffinity
from torchdr_cne.affinity.graph import gathered
from torchdr_cne.checks import COUNT, NOT_NEGATIVE, POSITIVE, Bound, check_bounds, check_choice
from torchdr_cne.distributed import DistributedConfig, Ranks, Share, joined
from torchdr_cne.distributed.group import is_first_process, own_device
from torchdr_cne.fitting.ranks import check_input, run_on_first
from torchdr_cne.fitting.reading import read_input
from torchdr_cne.fitting.stages import Given, take_part
from torchdr_cne.inputs import read_labels, read_new_features
from torchdr_cne.networks.options import check_networks
from torchdr_cne.objectives.matrices import (
    Normalized,
    OutputAffinity,
    check_matching,
    input_matrix,
    matching_loss,
)
from torchdr_cne.objectives.points import AutogradObjective, Objective
from torchdr_cne.optimization.building import (
    optimizer_class,
    scheduler_class,
)
from torchdr_cne.optimization.phase import Phase, in_sequence
from torchdr_cne.optimization.state import FitState
from torchdr_cne.persistence import save_model
from torchdr_cne.placement.placing import check_placeable, place
from torchdr_cne.placement.refinement import Refinement
from torchdr_cne.resources import limited_threads, resolve_device

_BATCHES, _MIN_BATCHES = 25, 3500
"""Mini-batches of a fit by an encoder, times the square root of the number of points, and at least."""


@dataclass(kw_only=True, eq=False, repr=False)
class AffinityMatcher(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, ABC):
    """Find an embedding whose affinities match those of the data; owns ``fit`` and the loop.

    By itself it compares whole matrices, for a few thousand points. Subclasses are dataclasses by themselves: an
    annotated class attribute is a keyword-only parameter, and one line changes a default. They state a loss of their
    own (`_compute_loss`) and the affinity used when ``affinity_in`` is None (`_default_affinity`).

    Parameters
    ----------
    n_components : int, default=2
        Dimension of the embedding.
    affinity_in : Affinity, "precomputed" or None, default=None
        Affinity of the input. None is the method's own; "precomputed" takes ``X`` as a symmetric (n, n)
        affinity matrix, sparse or dense. `AffinityMatcher` itself also takes a function from rows (n, f), float64, to
        any real matrix (n, n), which is matched as it is.
    affinity_out : OutputAffinity or None, default=None
        Of `AffinityMatcher` itself only: the embedding's, None is ``Normalized(Cauchy())``; see
        `torchdr_cne.objectives.matrices`.
    loss : {"cross_entropy", "square"} or callable, default="cross_entropy"
        Of `AffinityMatcher` itself only: −Σ P log Q, the square ‖P − Q‖²/‖P‖², or a function of P and Q, both (n, n),
        that returns a scalar tensor.
    init : {"pca", "spectral", "random"} or array of shape (n, d), default="pca"
        First embedding. An array is used as it is; without features "pca" becomes "spectral".
    init_scaling : float, default=1.0
        Standard deviation of the first embedding's widest column.
    learning_rate : "auto" or float, default="auto"
        "auto" is the method's rate divided by the exaggeration; a number is used as it is. The loss is normalised
        so that rates depend neither on n nor on the scale of the affinities.
    max_iter : int or None, default=None
        Number of iterations, with an encoder of mini-batches; None is the method's own.
    optimizer : str or torch.optim.Optimizer class, default="auto"
        Optimiser, rebuilt when early exaggeration ends; "auto" is the method's own, SGD unless it says otherwise, and
        Adam under an encoder.
    optimizer_kwargs : "auto", dict or None, default="auto"
        Its keywords. "auto" gives SGD momentum 0.5 during early exaggeration and 0.8 after it.
    scheduler : str, torch LRScheduler class or None, default="LinearLR"
        Learning-rate schedule, stepped every iteration; None keeps the rate constant.
    scheduler_kwargs : "auto", dict or None, default="auto"
        Its keywords. "auto" lets ``LinearLR`` fall to 0 over all iterations.
    min_grad_norm : float, default=1e-7
        Stop when the root mean square gradient of the rows falls below it; not under an encoder, where a mini-batch
        may have none by chance.
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
        Compile the loss, or the torch force tiles, with ``torch.compile``; nothing under an encoder, which may be a
        compiled module itself.
    verbose : bool, default=False
        Show a progress bar on a terminal.
    distributed : {"auto", True, False} or DistributedConfig, default="auto"
        "auto" shares a fit of 100 000 rows or more among the ranks of an initialised process group, or of a launcher
        such as torchrun; a smaller one is rank 0's alone, which every rank waits for. True shares any with 256 rows
        a rank, False none: each rank's fit is its own.
    encoder : {"mlp"}, sequence of int, torch.nn.Module or None, default=None
        Network that computes the embedding from the rows, trained on mini-batches, so that `transform` serves rows it
        has never seen. "mlp" has hidden layers of 100, 100, 100, a sequence gives their sizes; a module of your own
        takes rows (r, f) of ``dtype`` to (r, n_components), is copied, and begins with its weights. None moves the
        points themselves. ``init``, ``min_grad_norm`` and ``compile`` have no effect beside one. See
        docs/learned-maps.md.
    decoder : {"mlp"}, sequence of int, torch.nn.Module or None, default=None
        Network from places back to rows, trained beside the encoder, for `inverse_transform`.
    extra_loss : Loss or None, default=None
        What is added to the method's loss under an encoder, such as ``0.3 * Classification()``; with a decoder
        ``Reconstruction()`` is added, unless it is there.
    batch_size : int or None, default=None
        Edges, or items, of a mini-batch under an encoder; None is 1 024, and 256 for fewer than 10 000 rows.
    memory_budget : int or None, default=None
        Bytes that the rows of a `RowSource` and their index may take in a process; what is larger is streamed. None
        is a third of the free memory.
    checkpoint_dir : str, Path or None, default=None
        Folder in which the fit is saved as it goes; the same fit, begun again, goes on from there. One that a callback
        has stopped is at its end.
    checkpoint_every : int, default=50
        Iterations between checkpoints.
    store_training_data : bool, default=True
        Keep the rows of the fit, which `transform` compares new rows with; they may be the caller's own memory. False
        drops them, and saved estimators are smaller by them.

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
    training_rows_ : KeptRows or None
        The rows of the fit, if they are kept.
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
    affinity_in: Affinity | str | Callable[[Tensor], Any] | None = None
    affinity_out: OutputAffinity | None = None
    loss: str | Callable[[Tensor, Tensor], Tensor] = "cross_entropy"
    init: Any = "pca"
    init_scaling: float = 1.0
    learning_rate: float | str = "auto"
    max_iter: int | None = None
    optimizer: str | type[Optimizer] = "auto"
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
    encoder: Any = None
    decoder: Any = None
    extra_loss: Any = None
    batch_size: int | None = None
    memory_budget: int | None = None
    checkpoint_dir: str | Path | None = None
    checkpoint_every: int = 50
    store_training_data: bool = True

    _default_max_iter: ClassVar[int] = 300
    _default_optimizer: ClassVar[str | type[Optimizer]] = "Adam"
    _base_learning_rate: ClassVar[float] = 0.1
    _learned_learning_rate: ClassVar[float] = 1.0
    _encoder_learning_rate: ClassVar[float] = 3e-3
    _learned_rate_beside_encoder: ClassVar[float] = 0.02
    _max_row_gradient: ClassVar[float | None] = None
    _bounds: ClassVar[dict[str, Bound]] = {
        "n_components": COUNT,
        "max_iter": COUNT,
        "check_interval": COUNT,
        "init_scaling": POSITIVE,
        "min_grad_norm": NOT_NEGATIVE,
        "memory_budget": COUNT,
        "batch_size": COUNT,
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

    # ---- may be overridden --------------------------------------------------------------------------

    def on_affinity_computation_start(self) -> None:
        """Do something before the graph is computed."""

    def on_affinity_computation_end(self) -> None:
        """Do something once ``graph_`` is known."""

    def on_training_step_start(self) -> None:
        """Do something before each iteration."""

    def on_training_step_end(self) -> None:
        """Do something after each iteration; ``n_iter_`` counts it."""

    def _compute_loss(self, embedding_nd: Tensor, state: FitState) -> Tensor:
        """Return the scalar loss of ``embedding_nd`` at ``state.step``; differentiated by autograd."""
        if state.target is None:
            state.target = input_matrix(self.affinity_in, state, embedding_nd.detach())
        return len(embedding_nd) * matching_loss(
            self.loss, state.target, self.affinity_out or Normalized(), embedding_nd
        )

    def _default_affinity(self) -> Affinity:
        """Return the affinity used when ``affinity_in`` is None."""
        return EntropicAffinity()

    def _phases(self, n: int) -> list[Phase]:
        """Return the phases of a fit of ``n`` points."""
        return in_sequence([Phase(self._n_iter(n))])

    def _n_iter(self, n: int) -> int:
        """Return the number of iterations of a fit of ``n`` points."""
        if self.max_iter is not None:
            return self.max_iter
        return self._default_max_iter if self.encoder is None else max(_MIN_BATCHES, round(_BATCHES * n**0.5))

    def _learned_scalars(self) -> dict[str, float]:
        """Return names and starting values of scalars learned with the embedding."""
        return {}

    def _auto_learning_rate(self, phase: Phase, n: int) -> float:
        """Return the learning rate of ``phase`` for ``n`` points under ``learning_rate="auto"``."""
        return self._base_learning_rate

    def _bytes_by_stage(self, n: int, d: int) -> dict[str, int]:
        """Return what the stages of a fit on the CPU hold beside the data; empty if that is not known."""
        return {}

    def _refinement(self, embedding_nd: Tensor) -> Refinement | None:
        """Return how new points are moved among those of ``embedding_nd``; None leaves them at their first place."""
        return None

    def _make_objective(self, state: FitState, start_nd: Tensor) -> Objective:
        """Return what the loop asks for gradients."""
        if self.encoder is not None:
            from torchdr_cne.networks.fitting import make_objective

            return make_objective(self, state)
        loss = torch.compile(self._compute_loss) if self.compile else self._compute_loss
        return AutogradObjective(start_nd, loss, self._max_row_gradient, state.share.ranks)

    def _read_labels(self, y: Any, n: int) -> Tensor | None:
        """Return the class codes (n,) of ``y``, −1 where unknown (`read_labels`); None is a fit without labels."""
        asked = self.extra_loss is not None and any("labels" in term.needs for _, term in self.extra_loss.terms())
        return read_labels(y, n) if asked and y is not None else None

    def _with_labels(self, graph: AffinityGraph, labels: Tensor, share: Share) -> AffinityGraph:
        """Return the input graph, this rank's rows of it, as the labels of all points change it."""
        return graph

    def _batch_loss(self) -> Any:
        """Return the method's loss of a mini-batch, a `torchdr_cne.parametric.Loss`; None if it has none."""
        return None

    def _conclude(self, objective: Objective, state: FitState) -> None:
        """Set what else is to be known of the final layout."""

    def _reported(self, phase: Phase) -> dict[str, float]:
        """Return constants of a phase that ``history_`` is to have."""
        return {}

    def _needs_graph(self, phases: Sequence[Phase]) -> bool:
        """Tell whether the input graph is needed."""
        return not self._matches_function

    @property
    def _matches_function(self) -> bool:
        """Whether whole matrices are matched, and P is what a function makes of the rows."""
        is_function = callable(self.affinity_in) and not isinstance(self.affinity_in, Affinity)
        return is_function and type(self)._compute_loss is AffinityMatcher._compute_loss

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
        self._check_parameters()
        device = resolve_device(self.device, X)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            limited_threads(self.n_jobs),
            joined(self.distributed, cuda=device.type == "cuda") as ranks,
        ):
            with ranks.agreed("reading the input"):
                given = read_input(self, X, graph, ranks)
                if given.pairs is None:  # whose rows have no numbers
                    given = replace(given, labels=self._read_labels(y, given.n_points))
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
            The places, in the kind of ``X``.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If ``X`` is no finite table of the same features, or the fit's rows have not been kept.
        """
        check_is_fitted(self, "embedding_")
        if hasattr(self, "encoder_"):
            from torchdr_cne.networks.encoding import encode, read_rows

            features, kind = read_rows(self, X)
            with limited_threads(self.n_jobs):
                return kind.wrap(encode(self, features))
        check_placeable(self)
        features, kind = read_new_features(self, X)
        with limited_threads(self.n_jobs):
            return kind.wrap(place(self, features))

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

    def inverse_transform(self, Z: Any) -> Any:
        """Return the rows that the decoder gives for places in the embedding.

        Parameters
        ----------
        Z : array-like or Tensor of shape (m, n_components)
            Places, for instance from `transform`.

        Returns
        -------
        ndarray or Tensor of shape (m, n_features)

        Raises
        ------
        ValueError
            If the estimator was fitted without a decoder, or ``Z`` has another shape or NaN.
        """
        from torchdr_cne.networks.encoding import decode

        return decode(self, Z)

    # ---- what a fit asks for ------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        """Raise a ValueError for values that cannot work, before any work."""
        check_bounds(self, self._bounds)
        check_choice("dtype", self.dtype, ("float32", "float64"))
        if self.learning_rate != "auto" and not POSITIVE.admits(self.learning_rate):
            raise ValueError(f"learning_rate={self.learning_rate!r} must be 'auto' or a positive number.")
        precomputed = isinstance(self.affinity_in, str) and self.affinity_in == "precomputed"
        if type(self)._compute_loss is AffinityMatcher._compute_loss:
            check_matching(self.affinity_out, self.loss)
        by_function = self._matches_function
        if not (self.affinity_in is None or precomputed or by_function or isinstance(self.affinity_in, Affinity)):
            raise ValueError(
                f"affinity_in={self.affinity_in!r} is unknown; pass an Affinity such as UnionAffinity(), one "
                "composed from Neighbors(…) to Symmetrize(…), 'precomputed' or None."
            )
        if not (isinstance(self.distributed, (DistributedConfig, bool)) or self.distributed == "auto"):
            raise ValueError(
                f"distributed={self.distributed!r} is unknown; choose one of 'auto', True, False, or pass a "
                "DistributedConfig."
            )
        optimizer_class(self._optimizer_choice)
        scheduler_class(self.scheduler)
        check_networks(self)
        if not all(callable(callback) for callback in self._callback_list()):
            raise ValueError(f"callbacks={self.callbacks!r} must be a callable or a sequence of callables.")

    def _training_set(
        self, given: Given, share: Share, device: torch.device, seed: int, phases: Sequence[Phase]
    ) -> Any:
        """Return the rows that mini-batches are made of, with their networks; None without an encoder."""
        if self.encoder is None:
            return None
        from torchdr_cne.networks.fitting import make_training_set

        return make_training_set(self, given, share, device, seed, phases)

    @property
    def _optimizer_choice(self) -> str | type[Optimizer]:
        automatic = isinstance(self.optimizer, str) and self.optimizer == "auto"
        return (self._default_optimizer if self.encoder is None else "Adam") if automatic else self.optimizer

    def _callback_list(self) -> list[Any]:
        if self.callbacks is None:
            return []
        return list(self.callbacks) if isinstance(self.callbacks, Sequence) else [self.callbacks]

    @property
    def _torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    def _input_affinity(self) -> Affinity:
        return self.affinity_in if isinstance(self.affinity_in, Affinity) else self._default_affinity()

    def _make_state(
        self, graph: AffinityGraph | None, start_nd: Tensor, seed: int, phase: Phase, share: Share | None = None
    ) -> FitState:
        """Return the fit's state; the graph's weights are scaled to mean row weight 1."""
        if share is None:
            assert graph is not None
            share = Share.whole(graph.n_points)
        if graph is not None:
            graph = graph.to(start_nd.device, start_nd.dtype)
            mean_row_weight = float(share.total(graph.row_weights, "the mean row weight")) / share.n
            graph = replace(graph, weights=graph.weights / mean_row_weight)
        learned = {
            name: torch.full((), value, dtype=start_nd.dtype, device=start_nd.device, requires_grad=True)
            for name, value in self._learned_scalars().items()
        }
        return FitState(graph=graph, share=share, seed=seed, phase=phase, learned=learned)
