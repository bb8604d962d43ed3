"""Phases: stretches of the loop with one loss, one optimiser and constant coefficients."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.checks import COUNT, POSITIVE, check_choice
from torchdr_cne.storable import Storable

SAMPLINGS = ("edges", "weighted edges", "items")
NEGATIVES = ("batch", "uniform")


@dataclass(frozen=True)
class Phase(Storable):
    """A stretch of iterations.

    A parameter that is None takes the value of the estimator, so that a phase states only what is special about it.

    Parameters
    ----------
    n_iter : int or None, default=None
        Number of iterations, which are mini-batches if there is an encoder; give either this or ``n_epochs``.
    loss : Loss or None, default=None
        The loss to minimise, see `torchdr_cne.parametric`; None is the method's own loss.
    n_epochs : int or None, default=None
        Number of passes over the items or edges.
    sampling : {"edges", "weighted edges", "items"} or None, default=None
        What a mini-batch consists of: edges of the graph, each once an epoch; edges drawn in proportion to their
        weights; or items, each once an epoch. None is what the losses need, and items if they take either.
    batch_size : int or None, default=None
        Number of edges or items in a mini-batch, summed over all ranks.
    batches_per_epoch : int or None, default=None
        Number of mini-batches after which an epoch ends; with None it ends after every item or edge has been drawn.
    negatives : {"batch", "uniform"} or None, default=None
        Where the negatives of an edge come from: the rows of its mini-batch, or points drawn uniformly in addition.
    negative_sample_rate : int or None, default=None
        How many negatives an edge meets in the objective of relations that do not set it themselves.
    optimizer, optimizer_kwargs, scheduler, scheduler_kwargs, learning_rate
        As in `AffinityMatcher`. A schedule of the phase's own spans the phase; that of the estimator spans all phases.
    trainable : str, sequence of str, callable or None, default=None
        The parameters to train: names or beginnings of names such as "encoder" or "encoder.3", or a function from a
        name to a bool; None is all that came with ``requires_grad``. Modules without any trained parameter, including
        their normalisation layers, stay as they are.
    clip_value, clip_norm : float or None, default=None
        With an encoder, the size to which each number of the gradient is cut, or the length to which the whole
        gradient is shortened.
    exaggeration : float, default=1.0
        Weight of the attraction.
    report_interval : int or None, default=None
        Number of iterations between entries of ``history_``.
    early : bool, default=False
        Whether this phase is early exaggeration (lower momentum, no early stop).
    parameters : mapping of str to float
        Constants of the method in this phase, for instance ``log_nu``.
    start, total : int
        The first iteration, and the number of iterations of all phases; `number_phases` sets both.
    """

    n_iter: int | None = None
    loss: Any = None
    _: KW_ONLY
    n_epochs: int | None = None
    sampling: str | None = None
    batch_size: int | None = None
    batches_per_epoch: int | None = None
    negatives: str | None = None
    negative_sample_rate: int | None = None
    optimizer: str | type[Optimizer] | None = None
    optimizer_kwargs: Mapping[str, Any] | str | None = None
    scheduler: str | type[LRScheduler] | None = None
    scheduler_kwargs: Mapping[str, Any] | str | None = None
    learning_rate: float | None = None
    trainable: str | Sequence[str] | Callable[[str], bool] | None = None
    clip_value: float | None = None
    clip_norm: float | None = None
    exaggeration: float = 1.0
    report_interval: int | None = None
    early: bool = False
    parameters: Mapping[str, float] = field(default_factory=dict)
    start: int = 0
    total: int = 0

    def __post_init__(self) -> None:
        counts = (
            "n_iter",
            "n_epochs",
            "batch_size",
            "batches_per_epoch",
            "negative_sample_rate",
            "report_interval",
        )
        for name in counts:
            value = getattr(self, name)
            if value is not None and not COUNT.admits(value):
                raise ValueError(f"{name}={value!r} of a phase must be {COUNT} or None.")
        for name in ("exaggeration", "learning_rate", "clip_value", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not POSITIVE.admits(value):
                raise ValueError(f"{name}={value!r} of a phase must be {POSITIVE}.")
        if (self.n_iter is None) == (self.n_epochs is None):
            raise ValueError(f"n_iter={self.n_iter} and n_epochs={self.n_epochs}: give a phase one of the two.")
        check_choice("sampling", self.sampling, (None, *SAMPLINGS))
        check_choice("negatives", self.negatives, (None, *NEGATIVES))

    @property
    def stop(self) -> int:
        """The iteration after the last one of the phase."""
        assert self.n_iter is not None
        return self.start + self.n_iter

    def moves(self, name: str) -> bool:
        """Return whether the parameter ``name`` is trained."""
        if self.trainable is None:
            return True
        if callable(self.trainable):
            return bool(self.trainable(name))
        return any(name == part or name.startswith(f"{part}.") for part in self.trained_parts())

    def trained_parts(self) -> Sequence[str]:
        """Return the names and beginnings of names in ``trainable``; none if it is a function or None."""
        if self.trainable is None or callable(self.trainable):
            return ()
        return [self.trainable] if isinstance(self.trainable, str) else self.trainable


def number_phases(phases: Sequence[Phase], epoch_length: Callable[[Phase], int] | None = None) -> list[Phase]:
    """Return the phases with ``start`` and ``total`` set; ``epoch_length`` gives mini-batches per epoch."""
    counted = []
    for phase in phases:
        if phase.n_iter is None:
            if epoch_length is None:
                raise ValueError("n_epochs needs mini-batches, which only an encoder has; set n_iter instead.")
            phase = replace(phase, n_iter=int(phase.n_epochs or 1) * epoch_length(phase), n_epochs=None)
        counted.append(phase)
    total, start, placed = sum(int(phase.n_iter or 0) for phase in counted), 0, []
    for phase in counted:
        placed.append(replace(phase, start=start, total=total))
        start = placed[-1].stop
    return placed
