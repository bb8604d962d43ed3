"""Callbacks that are not called at every iteration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchdr_cne.checks import COUNT


@dataclass(frozen=True)
class Every:
    """A callback that calls ``callback(estimator, step)`` at each ``every``-th iteration only.

    The embedding is computed in these iterations only, which saves time if an encoder computes it.

    Parameters
    ----------
    every : int
        Number of iterations from one call to the next.
    callback : callable
        Function of the estimator, which has ``n_iter_``, ``embedding_``, ``history_``, learned scalars such as
        ``log_z_`` and the networks as they are in that iteration, so that `transform` works; returning True stops the
        fit.
    """

    every: int
    callback: Callable[[Any, int], Any]

    def __post_init__(self) -> None:
        if not COUNT.admits(self.every):
            raise ValueError(f"every={self.every!r} must be {COUNT}.")
        if not callable(self.callback):
            raise ValueError(f"callback={self.callback!r} must be a callable.")

    def __call__(self, estimator: Any, step: int) -> Any:
        """Return what the callback returns; the fit calls this when the callback is due."""
        return self.callback(estimator, step)
