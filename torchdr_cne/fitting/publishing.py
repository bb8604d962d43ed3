"""The only module that sets fitted attributes, and that calls the hooks and callbacks of an estimator."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from torchdr_cne.encoders.running import evaluating
from torchdr_cne.fitting.result import FitResult
from torchdr_cne.optimization.loop import Outcome
from torchdr_cne.persistence.model import results_of


class Hooked(Protocol):
    """The hooks of an estimator that a fit calls, and the counter that it keeps."""

    n_iter_: int
    learning_rate_: float

    def on_affinity_computation_start(self) -> None:
        """Do something before the graph is computed."""

    def on_affinity_computation_end(self) -> None:
        """Do something once the graph is known."""

    def on_training_step_start(self) -> None:
        """Do something before each iteration."""

    def on_training_step_end(self) -> None:
        """Do something after each iteration."""


class Publisher:
    """Keeps the fitted attributes of an estimator up to date, and calls its hooks and callbacks.

    The attributes of an earlier fit are removed when this one publishes its first attribute, and come back if this one
    fails; it is used in a ``with`` block for that.

    Parameters
    ----------
    estimator : EmbeddingEstimator
        The estimator whose hooks are called and whose attributes are set.
    callbacks : sequence of callables
        Functions that are called with the estimator and the number of iterations done.
    """

    def __init__(self, estimator: Hooked, callbacks: Sequence[Callable[[Any, int], Any]]) -> None:
        self._estimator, self._callbacks = estimator, callbacks
        self._former = results_of(estimator)
        self._stale = list(self._former)
        self._is_final = False

    def publish(self, result: FitResult) -> None:
        """Set the attributes of the final result, which stay even if it cannot be saved in the end."""
        self._set(result)
        self._is_final = True

    def _set(self, result: FitResult) -> None:
        found = result.attributes()
        for name in self._stale:
            if name not in found:
                vars(self._estimator).pop(name, None)
        self._stale = []
        for name, value in found.items():
            setattr(self._estimator, name, value)

    def affinities_begin(self) -> None:
        """Call the hook before the graph is computed."""
        self._estimator.on_affinity_computation_start()

    def affinities_end(self, result: FitResult) -> None:
        """Publish the graph and call the hook after its computation."""
        self._set(result)
        self._estimator.on_affinity_computation_end()

    def before_step(self, outcome: Outcome) -> None:
        """Call the hook before an iteration."""
        self._count(outcome)
        self._estimator.on_training_step_start()

    def after_step(self, outcome: Outcome, result: Callable[[], FitResult]) -> bool:
        """Count the iteration, and call the hook and the callbacks; returning True stops the fit."""
        self._count(outcome)
        estimator, step = self._estimator, outcome.n_iter
        estimator.on_training_step_end()
        due = [callback for callback in self._callbacks if step % getattr(callback, "every", 1) == 0]
        if not due:
            return False
        current = result()
        self._set(current)
        with evaluating(*current.networks.values()):  # a callback may call them
            return any([_is_true(callback(estimator, step)) for callback in due])

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the estimator the fitted attributes that it had before, or none, if the fit has no final result."""
        if not self._is_final:
            for name in results_of(self._estimator):
                vars(self._estimator).pop(name)
            vars(self._estimator).update(self._former)

    def _count(self, outcome: Outcome) -> None:
        self._estimator.n_iter_, self._estimator.learning_rate_ = outcome.n_iter, outcome.learning_rate


def _is_true(answer: Any) -> bool:
    """Return whether a callback has returned True: its own or NumPy's, and not just any value."""
    return answer is True or (isinstance(answer, np.bool_) and bool(answer))
