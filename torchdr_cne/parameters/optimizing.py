"""Parameters that say how the loss is minimised."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.checks import COUNT, NOT_NEGATIVE, POSITIVE, Bound
from torchdr_cne.optimization.building import OptimizerPlan, optimizer_class, scheduler_class
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.parameters.group import ParameterGroup, group


@group
class Optimizing(ParameterGroup):
    """How the loss is minimised.

    Parameters
    ----------
    learning_rate : "auto" or float, default="auto"
        Learning rate; "auto" is the method's own, for most methods divided by the exaggeration and, for few points,
        lower. A number is used as it is, except that in TSNE, SNE and TSNEkhorn, with their own optimiser, it has the
        unit of scikit-learn and is divided by n. The loss is normalised so that other rates depend neither on n nor on
        the scale of the affinities.
    optimizer : str or torch.optim.Optimizer class, default="auto"
        Optimiser, rebuilt when early exaggeration ends; "auto" is the method's own, or Adam under an encoder.
    optimizer_kwargs : "auto", dict or None, default="auto"
        Keywords of the optimiser; "auto" gives SGD momentum 0.5 during early exaggeration and 0.8 after it.
    check_interval : int, default=50
        Number of iterations between checks for convergence and NaN, which ``history_`` records.
    """

    learning_rate: float | str = "auto"
    optimizer: str | type[Optimizer] = "auto"
    optimizer_kwargs: Mapping[str, Any] | str | None = "auto"
    check_interval: int = 50

    _bounds: ClassVar[dict[str, Bound]] = {"check_interval": COUNT}
    _default_optimizer: ClassVar[str | type[Optimizer]] = "Adam"
    _base_learning_rate: ClassVar[float] = 0.1
    _learned_learning_rate: ClassVar[float] = 1.0

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.learning_rate != "auto" and not POSITIVE.admits(self.learning_rate):
            raise ValueError(f"learning_rate={self.learning_rate!r} must be 'auto' or a positive number.")
        optimizer_class(self._optimizer_choice)

    @property
    def _optimizer_choice(self) -> str | type[Optimizer]:
        """Return the optimiser that "auto" stands for, or the one given."""
        is_automatic = isinstance(self.optimizer, str) and self.optimizer == "auto"
        return self._default_optimizer if is_automatic else self.optimizer

    def _auto_learning_rate(self, phase: Phase, n: int) -> float:
        """Return the learning rate of ``phase`` for ``n`` points that "auto" stands for, also to place new points."""
        return self._base_learning_rate

    def _first_learning_rate(self, phase: Phase, n: int) -> float:
        """Return the learning rate with which a fit begins ``phase`` under ``learning_rate="auto"``."""
        return self._auto_learning_rate(phase, n)

    def _given_learning_rate(self, phase: Phase, n: int) -> float:
        """Return the learning rate that a number means as ``learning_rate``."""
        return float(self.learning_rate)

    def _optimizer_plan(self) -> OptimizerPlan:
        """Return the plan by which optimiser and scheduler of each phase are made."""
        return OptimizerPlan(
            optimizer=self._optimizer_choice,
            optimizer_kwargs=self.optimizer_kwargs,
            rate=self._first_learning_rate if self.learning_rate == "auto" else self._given_learning_rate,
            learned_rate=self._learned_learning_rate,
        )


@group
class Scheduling(Optimizing):
    """How long the loss is minimised, and at what rates.

    Parameters
    ----------
    max_iter : int or None, default=None
        Number of iterations, or of mini-batches with an encoder; None is the method's own number.
    scheduler : str, torch LRScheduler class or None, default="LinearLR"
        Learning-rate schedule, stepped every iteration; None keeps the rate constant.
    scheduler_kwargs : "auto", dict or None, default="auto"
        Keywords of the scheduler; "auto" lets ``LinearLR`` fall to 0 over all iterations.
    """

    max_iter: int | None = None
    scheduler: str | type[LRScheduler] | None = "LinearLR"
    scheduler_kwargs: Mapping[str, Any] | str | None = "auto"

    _bounds: ClassVar[dict[str, Bound]] = {"max_iter": COUNT}
    _default_max_iter: ClassVar[int] = 300

    def _check_parameters(self) -> None:
        super()._check_parameters()
        scheduler_class(self.scheduler)

    def _n_iter(self, n: int) -> int:
        """Return the number of iterations of a fit of ``n`` points."""
        return self._default_max_iter if self.max_iter is None else self.max_iter

    def _optimizer_plan(self) -> OptimizerPlan:
        return replace(super()._optimizer_plan(), scheduler=self.scheduler, scheduler_kwargs=self.scheduler_kwargs)


@group
class Moving(ParameterGroup):
    """Where points start, and how they are moved.

    Parameters
    ----------
    init : {"auto", "pca", "spectral", "random"} or array of shape (n, d), default="pca"
        First embedding. "auto" is "spectral" for up to 20 000 points whose graph is connected if its distances agree
        clearly better with path lengths in the graph, and "pca" otherwise. An array is used as it is; without
        features "pca" becomes "spectral". It has no effect with an encoder.
    init_scaling : float, default=1.0
        Standard deviation of the widest column of the first embedding, unless ``init`` is an array.
    min_grad_norm : float, default=1e-7
        The fit stops when the root mean square gradient of the rows falls below this; not under an encoder, where the
        gradient of a mini-batch may vanish by chance.
    compile : bool, default=False
        Whether to compile the loss, or torch's force tiles, with ``torch.compile``. It has no effect with an encoder,
        which may itself be a compiled module.
    """

    init: Any = "pca"
    init_scaling: float = 1.0
    min_grad_norm: float = 1e-7
    compile: bool = False

    _bounds: ClassVar[dict[str, Bound]] = {"init_scaling": POSITIVE, "min_grad_norm": NOT_NEGATIVE}
