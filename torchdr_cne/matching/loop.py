"""The one optimisation loop."""

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.matching.objective import Objective
from torchdr_cne.matching.state import FitState, Phase


@dataclass(frozen=True)
class LoopSettings:
    """How the loop watches itself.

    Attributes
    ----------
    check_interval : int
        Iterations between looks at the gradient (the only times the host waits for the device).
    min_grad_norm : float
        Stop once the root mean square gradient of the rows falls below this, after early exaggeration.
    before_step : callable
        Called before each iteration.
    after_step : callable
        Called after each iteration; returning True stops.
    progress : callable
        Called with the number of iterations done at every check.
    """

    check_interval: int
    min_grad_norm: float
    before_step: Callable[[], None]
    after_step: Callable[[], bool]
    progress: Callable[[int], None]


@dataclass
class Outcome:
    """What the loop leaves: iterations done, whether it was interrupted, and what was recorded."""

    n_iter: int = 0
    interrupted: bool = False
    history: dict[str, list[float]] = field(default_factory=dict)

    def record(self, **values: float) -> None:
        """Append one number to each named list."""
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)


def run(
    objective: Objective,
    state: FitState,
    phases: list[Phase],
    make_optimizer: Callable[[Phase], tuple[Optimizer, LRScheduler | None]],
    settings: LoopSettings,
) -> Outcome:
    """Minimise phase by phase; Ctrl-C ends it early with what there is.

    Raises
    ------
    FloatingPointError
        If a gradient is not finite; names the iteration and the learning rate.
    """
    outcome = Outcome()
    with _interruptible(outcome):
        for phase in phases:
            state.phase = phase
            optimizer, scheduler = make_optimizer(phase)
            if _run_phase(objective, state, optimizer, scheduler, settings, outcome):
                break
    return outcome


def _run_phase(
    objective: Objective,
    state: FitState,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    settings: LoopSettings,
    outcome: Outcome,
) -> bool:
    """Run one phase; True asks the loop to stop."""
    phase = state.phase
    sums: list[Tensor] = []
    for step in range(phase.start, phase.stop):
        state.step = step
        settings.before_step()
        objective.compute_gradients(state)
        gradient = objective.parameter.grad
        assert gradient is not None
        sums.append(gradient.sum())  # read at the next check: the host does not wait for the device
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        outcome.n_iter = step + 1
        stop = settings.after_step()
        is_check = stop or step == phase.stop - 1 or (step + 1) % settings.check_interval == 0
        if is_check:
            _raise_if_diverged(sums, step, optimizer.param_groups[0].get("initial_lr", rate))
            sums.clear()
            grad_norm = float((gradient.square().sum() / objective.n_points).sqrt())
            learned = {name: float(value.detach()) for name, value in state.learned.items()}
            outcome.record(step=step + 1, learning_rate=rate, grad_norm=grad_norm, **learned)
            settings.progress(step + 1)
            stop = stop or (not phase.early and grad_norm < settings.min_grad_norm)
        if stop:
            return True
    return False


def _raise_if_diverged(sums: list[Tensor], step: int, rate: float) -> None:
    """Raise if one of the last gradients, up to that of ``step``, does not have a finite sum."""
    bad = torch.nonzero(~torch.isfinite(torch.stack(sums))).flatten().tolist()
    if bad:
        raise FloatingPointError(
            f"the gradient became NaN or infinite at iteration {step + 1 - len(sums) + bad[0]} with learning rate "
            f"{rate:.4g}; lower learning_rate, or check the loss hooks of a method of your own."
        )


@contextmanager
def _interruptible(outcome: Outcome):  # type: ignore[no-untyped-def]
    """Turn Ctrl-C into a warning; the outcome then is marked as interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        outcome.interrupted = True
        warnings.warn(
            f"interrupted after {outcome.n_iter} iterations; the estimator is fitted with the embedding so far, "
            "and fit(X, …) with init=est.embedding_ continues from it.",
            UserWarning,
            stacklevel=2,
        )
