"""Callbacks that are not called at every iteration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchdr_cne.checks import COUNT


@dataclass(frozen=True)
class Every:
    """Call ``callback(estimator, step)`` at each ``every``-th iteration only.

    The embedding is computed for these iterations and no others, which counts where an encoder computes it.

    Parameters
    ----------
    every : int
        Iterations from one call to the next.
    callback : callable
        Sees ``n_iter_``, ``embedding_``, ``history_``, learned scalars such as ``log_z_`` and networks, with which
        `transform` works, as they are; returning True stops the fit.
    """

    every: int
    callback: Callable[[Any, int], Any]

    def __post_init__(self) -> None:
        if not COUNT.admits(self.every):
            raise ValueError(f"every={self.every!r} must be {COUNT}.")
        if not callable(self.callback):
            raise ValueError(f"callback={self.callback!r} must be a callable.")

    def __call__(self, estimator: Any, step: int) -> Any:
        """Call the callback, which the fit does when it is due."""
        return self.callback(estimator, step)
