"""The one optimisation loop."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.distributed import Ranks, Signal
from torchdr_cne.optimization.building import OptimizerPlan
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.snapshot import Snapshot, restore_optimizer
from torchdr_cne.optimization.state import FitState

_FARTHEST, _GROWTH = 1e5, 10.0
"""Coordinates up to which an embedding has not run away, and multiples of those at the beginning of a phase."""


@dataclass
class Outcome:
    """The current state of the loop and, in the end, its result.

    Attributes
    ----------
    optimizer : Optimizer or None
        The last optimiser.
    learning_rate : float
        Learning rate of that optimiser before the scheduler.
    n_iter : int
        Number of iterations done.
    signal : Signal
        The signal that ended the loop early, if any.
    history : dict of str to list
        The values recorded at every check, by name.
    is_whole : bool
        Whether the last step is complete; False if the loop ended within a step.
    """

    optimizer: Optimizer | None = None
    learning_rate: float = math.nan
    n_iter: int = 0
    signal: Signal = Signal.NONE
    history: dict[str, list[float]] = field(default_factory=dict)
    is_whole: bool = True

    def record(self, **values: float) -> None:
        """Append one number to each named list, and NaN to all others; new lists are filled with NaN up to here."""
        n_before = max(map(len, self.history.values()), default=0)
        for name in {**self.history, **values}:
            self.history.setdefault(name, [math.nan] * n_before).append(values.get(name, math.nan))


class Observer(Protocol):
    """An object that is notified of the progress of the loop."""

    def before_step(self, outcome: Outcome) -> None:
        """Receive the notice that an iteration begins."""

    def after_step(self, outcome: Outcome) -> bool:
        """Receive the notice that an iteration is done; returning True stops the loop on all ranks."""

    def checked(self, outcome: Outcome, losses: Mapping[str, float]) -> None:
        """Receive the mean losses since the last check."""

    def recorded(self, outcome: Outcome) -> None:
        """Receive the notice that an iteration is done and, if a check was due, recorded."""


@dataclass(frozen=True)
class LoopSettings:
    """Settings of the checks that the loop makes.

    Attributes
    ----------
    ranks : Ranks
        The processes that take every step together, and the signals that they exchange.
    check_interval : int
        Number of iterations between checks of the gradient (the only times the host waits for the device).
    min_grad_norm : float
        The loop stops once the root mean square gradient of the rows falls below this, after early exaggeration.
    constants : callable
        Function from a phase to those of its constants that ``history_`` records.
    is_resumable : bool
        Whether a fit that is told to stop can be resumed later as if it had not been interrupted.
    """

    ranks: Ranks
    check_interval: int
    min_grad_norm: float
    constants: Callable[[Phase], Mapping[str, float]]
    is_resumable: bool


def run(
    objective: Objective,
    state: FitState,
    phases: list[Phase],
    optimizers: OptimizerPlan,
    settings: LoopSettings,
    observer: Observer,
    resumed: Snapshot | None = None,
) -> Outcome:
    """Minimise the objective phase by phase, from ``resumed`` on if given, and return the outcome; Ctrl-C ends early.

    Raises
    ------
    FloatingPointError
        If a gradient is not finite or points run away; the message names the iteration and the learning rate.
    """
    outcome = Outcome() if resumed is None else Outcome(n_iter=resumed.step, history=resumed.history)
    with _interruptible(outcome, "encoder=est.encoder_" if objective.networks else "init=est.embedding_"):
        for phase in phases:
            if phase.stop <= outcome.n_iter and phase is not phases[-1]:
                continue
            state.phase = phase
            objective.begin(state)
            optimizer, scheduler, outcome.learning_rate = optimizers.build(phase, objective, state.learned)
            outcome.optimizer = optimizer
            if resumed is not None and resumed.finished:
                break
            if resumed is not None and resumed.step > phase.start:
                restore_optimizer(optimizer, scheduler, resumed.step - phase.start, resumed, objective, state)
            _Run(objective, state, optimizer, scheduler, settings, observer, outcome).phase()
            if outcome.signal:
                break
    return outcome


class _Run:
    """One phase of the loop."""

    def __init__(
        self,
        objective: Objective,
        state: FitState,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        settings: LoopSettings,
        observer: Observer,
        outcome: Outcome,
    ) -> None:
        self._objective, self._state, self._settings, self._outcome = objective, state, settings, outcome
        self._optimizer, self._scheduler, self._observer = optimizer, scheduler, observer
        self._sums: list[Tensor] = []
        self._rate = 0.0
        self._farthest = max(_FARTHEST, _GROWTH * float(self._reach()))

    def phase(self) -> None:
        """Take the steps of the phase; the signal of the outcome tells whether they ended early."""
        phase, ranks, outcome, observer = self._state.phase, self._settings.ranks, self._outcome, self._observer
        interval = phase.report_interval or self._settings.check_interval
        for step in range(max(phase.start, outcome.n_iter), phase.stop):
            self._state.step = ranks.step = step
            outcome.signal = ranks.agreed_signal()
            if outcome.signal:
                break
            observer.before_step(outcome)
            self._objective.compute_gradients(self._state)
            self._move()
            self._tell_after_step()
            if step == phase.stop - 1 or (step + 1) % interval == 0:
                self._check()
            observer.recorded(outcome)
        goes_on = self._settings.is_resumable and outcome.signal & (Signal.PREEMPTED | Signal.INTERRUPTED)
        if self._sums and not goes_on:
            self._check()

    def _move(self) -> None:
        """Step the optimiser along the gradients, and step the schedule."""
        self._sums.append(self._objective.gradient_sum())  # read at the next check, without waiting now
        self._rate = self._optimizer.param_groups[0]["lr"]
        self._optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()
        self._outcome.n_iter = self._state.step + 1

    def _tell_after_step(self) -> None:
        try:
            if self._observer.after_step(self._outcome):
                self._settings.ranks.signal |= Signal.STOP
        except KeyboardInterrupt:  # all ranks stop between the same two steps
            self._settings.ranks.signal |= Signal.INTERRUPTED

    def _check(self) -> None:
        """Check and record the gradients since the last check."""
        objective, settings, outcome = self._objective, self._settings, self._outcome
        first_rate = self._optimizer.param_groups[0].get("initial_lr", self._rate)
        ran_away = (self._reach() > self._farthest).to(self._sums[0].dtype)
        *sums, ran_away = objective.add_up(torch.stack([*self._sums, ran_away]))
        self._sums.clear()
        _raise_if_diverged(torch.stack(sums), bool(ran_away), outcome.n_iter, first_rate)
        grad_norm = (objective.square_sum() / objective.n_points) ** 0.5
        found = {name: float(value.detach()) for name, value in self._state.learned.items()}
        found |= settings.constants(self._state.phase)
        losses = self._state.mean_losses(len(sums) * objective.n_points)
        found |= losses
        outcome.record(step=outcome.n_iter, learning_rate=self._rate, grad_norm=grad_norm, **found)
        self._observer.checked(outcome, losses)
        if not self._state.phase.early and grad_norm < settings.min_grad_norm:
            settings.ranks.signal |= Signal.STOP

    def _reach(self) -> Tensor:
        """Return the largest coordinate of this rank's points, (); 0 if networks compute the embedding."""
        points = self._objective.parameters.get("embedding")
        return torch.zeros(()) if points is None or not points.numel() else points.detach().abs().max()


def _raise_if_diverged(sums: Tensor, ran_away: bool, n_iter: int, rate: float) -> None:
    """Raise an error if a sum of the last gradients, up to iteration ``n_iter``, is not finite, or points ran away."""
    if ran_away:
        raise FloatingPointError(
            f"points ran away from each other by iteration {n_iter} with learning rate {rate:.4g}; lower learning_rate."
        )
    bad = torch.nonzero(~torch.isfinite(sums)).flatten().tolist()
    if bad:
        raise FloatingPointError(
            f"the gradient became NaN or infinite at iteration {n_iter - len(sums) + bad[0]} with learning rate "
            f"{rate:.4g}; lower learning_rate, or check the loss hooks of a method of your own."
        )


@contextmanager
def _interruptible(outcome: Outcome, start: str) -> Iterator[None]:
    """Turn Ctrl-C in the block into a warning, and mark the outcome as interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        outcome.signal |= Signal.INTERRUPTED
        outcome.is_whole = False
    if Signal.INTERRUPTED in outcome.signal:
        warnings.warn(
            f"interrupted after {outcome.n_iter} iterations; the estimator is fitted with the embedding so far, "
            f"and fit(X, …) with {start} continues from it.",
            UserWarning,
            stacklevel=2,
        )
