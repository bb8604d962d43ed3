"""Functions that make the optimiser and scheduler of a phase from names, classes and keyword dictionaries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.optimization.delta_bar_delta import DeltaBarDelta
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.poincare import PoincareSGD

_ELEMENTWISE = (
    "SGD",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "Adagrad",
    "Adadelta",
    "ASGD",
    "RMSprop",
    "Rprop",
)
EARLY_MOMENTUM, LATE_MOMENTUM = 0.5, 0.8
GAINS_MOMENTUM = 0.9


def optimizer_class(optimizer: str | type[Optimizer]) -> Any:
    """Return the class that ``optimizer`` names; optimisers with closures are refused, as the loop gives gradients."""
    chosen = _named_class(optimizer, torch.optim, Optimizer, "optimizer")
    if chosen in (torch.optim.LBFGS, torch.optim.SparseAdam):
        raise ValueError(
            f"optimizer={chosen.__name__!r} needs closures or sparse gradients, which the loop does not give; "
            "choose 'SGD' or 'Adam'."
        )
    return chosen


def check_elementwise(optimizer: str | type[Optimizer]) -> None:
    """Raise a ValueError unless the optimiser updates each number by itself, as ranks with some of the numbers must."""
    elementwise = [DeltaBarDelta, PoincareSGD, *(getattr(torch.optim, name) for name in _ELEMENTWISE)]
    if optimizer_class(optimizer) not in elementwise:
        raise ValueError(
            f"optimizer={optimizer!r} may look at several points at once, which ranks do not share; choose one of "
            f"{', '.join(_ELEMENTWISE)}, or set distributed=False."
        )


def scheduler_class(scheduler: str | type[LRScheduler] | None) -> Any:
    """Return the class that ``scheduler`` names, or None."""
    if scheduler is None:
        return None
    chosen = _named_class(scheduler, torch.optim.lr_scheduler, LRScheduler, "scheduler")
    if chosen is torch.optim.lr_scheduler.ReduceLROnPlateau:
        raise ValueError("scheduler='ReduceLROnPlateau' needs a metric at each step; choose another, or 'LinearLR'.")
    return chosen


def make_optimizer(
    optimizer: str | type[Optimizer],
    optimizer_kwargs: str | Mapping[str, Any] | None,
    phase: Phase,
    groups: list[dict[str, Any]],
) -> Optimizer:
    """Return the optimiser of a phase over parameter ``groups``, each with its own ``lr``."""
    chosen = optimizer_class(optimizer)
    momentum = EARLY_MOMENTUM if phase.early else LATE_MOMENTUM
    automatic: dict[Any, dict[str, Any]] = {
        torch.optim.SGD: {"momentum": momentum, "fused": True},
        torch.optim.Adam: {"fused": True},
        torch.optim.AdamW: {"fused": True},
        DeltaBarDelta: {"momentum": GAINS_MOMENTUM},
    }
    try:
        return chosen(groups, **_keywords(optimizer_kwargs, automatic.get(chosen, {})))
    except TypeError as error:
        raise ValueError(f"optimizer_kwargs={optimizer_kwargs} do not fit {optimizer!r}: {error}.") from error


def make_scheduler(
    scheduler: str | type[LRScheduler] | None,
    scheduler_kwargs: str | Mapping[str, Any] | None,
    phase: Phase,
    optimizer: Optimizer,
) -> LRScheduler | None:
    """Return the scheduler of a phase, which is stepped once an iteration; None keeps the rate constant.

    "auto" lets ``LinearLR`` fall from 1 at the first iteration of the fit to 0 after the last, across phases, and
    ``CosineAnnealingLR`` span its phase.
    """
    if scheduler is None:
        return None
    schedulers = torch.optim.lr_scheduler
    chosen = scheduler_class(scheduler)
    n_iter = phase.stop - phase.start
    automatic: dict[Any, dict[str, Any]] = {
        schedulers.LinearLR: {
            "start_factor": 1 - phase.start / phase.total,
            "end_factor": 1 - phase.stop / phase.total,
            "total_iters": n_iter,
        },
        schedulers.CosineAnnealingLR: {"T_max": n_iter},
    }
    try:
        return chosen(optimizer, **_keywords(scheduler_kwargs, automatic.get(chosen, {})))
    except TypeError as error:
        raise ValueError(
            f"scheduler_kwargs={scheduler_kwargs} do not fit {scheduler!r}: {error}; pass what it needs."
        ) from error


def _keywords(given: str | Mapping[str, Any] | None, automatic: dict[str, Any]) -> Mapping[str, Any]:
    """Return the keywords of the user, or the automatic ones for "auto"."""
    if isinstance(given, str):
        if given != "auto":
            raise ValueError(f"optimizer_kwargs and scheduler_kwargs must be 'auto', a dict or None, got {given!r}.")
        return automatic
    return given or {}


def _named_class(choice: str | type, home: Any, base: type, field: str) -> Any:
    """Return the class that a name has in ``home``, or a class as it is; it must derive from ``base``."""
    found = getattr(home, choice, None) if isinstance(choice, str) else choice
    if not (isinstance(found, type) and issubclass(found, base) and found is not base):
        raise ValueError(
            f"{field}={choice!r} is unknown; give the name of a class of {home.__name__}, or such a class."
        )
    return found


def parameter_groups(
    parameters: Mapping[str, Tensor], learned: Mapping[str, Tensor], rate: float, learned_rate: float
) -> list[dict[str, Any]]:
    """Return one group of the parameters and one of the learned scalars, with their learning rates."""
    groups: list[dict[str, Any]] = [{"params": list(parameters.values()), "lr": rate}]
    if learned:
        groups.append({"params": list(learned.values()), "lr": learned_rate})
    return groups


@dataclass(frozen=True)
class OptimizerPlan:
    """How the optimiser and the schedule of each phase are made, unless the phase has its own.

    Attributes
    ----------
    optimizer : str or Optimizer class
        The optimiser.
    optimizer_kwargs : "auto", dict or None
        Keywords of the optimiser.
    rate : callable
        Function from a phase and a number of points to a learning rate.
    learned_rate : float
        Learning rate of the learned scalars.
    scheduler : str, LRScheduler class or None
        The schedule; None keeps the rate constant.
    scheduler_kwargs : "auto", dict or None
        Keywords of the schedule.
    """

    optimizer: str | type[Optimizer]
    optimizer_kwargs: Mapping[str, Any] | str | None
    rate: Callable[[Phase, int], float]
    learned_rate: float
    scheduler: str | type[LRScheduler] | None = None
    scheduler_kwargs: Mapping[str, Any] | str | None = "auto"

    def build(
        self, phase: Phase, objective: Objective, learned: Mapping[str, Tensor]
    ) -> tuple[Optimizer, LRScheduler | None, float]:
        """Return the optimiser, the scheduler and the learning rate of a phase."""
        given = phase.learning_rate
        rate = self.rate(phase, objective.n_points) if given is None else float(given)
        groups = parameter_groups(objective.parameters, learned, rate, self.learned_rate)
        kwargs = self.optimizer_kwargs if phase.optimizer is None else "auto"
        kwargs = kwargs if phase.optimizer_kwargs is None else phase.optimizer_kwargs
        optimizer = make_optimizer(phase.optimizer or self.optimizer, kwargs, phase, groups)
        if phase.scheduler is not None:
            alone = replace(phase, start=0, total=phase.stop - phase.start)
            scheduler = make_scheduler(phase.scheduler, phase.scheduler_kwargs or "auto", alone, optimizer)
        else:
            scheduler = make_scheduler(self.scheduler, self.scheduler_kwargs, phase, optimizer)
        return optimizer, scheduler, rate
