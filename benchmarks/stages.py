"""Where the seconds of our estimators go, and how many true neighbours their search finds.

Timers are put around the stages of ``fit`` from outside; they cost microseconds a fit.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np


@dataclass
class StageClock:
    """Seconds by stage of the fits inside `watching`.

    Attributes
    ----------
    rows : ndarray of int, optional
        Rows whose found neighbours are kept in ``neighbors_rk``.
    seconds : dict of str to float
        ``neighbours``, ``graph``, ``initialisation`` and ``loop``.
    settle : callable
        Called before the clock is read, to wait for a GPU.
    """

    rows: np.ndarray | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    neighbors_rk: np.ndarray | None = None
    settle: Callable[[], None] = lambda: None

    @contextmanager
    def watching(self) -> Iterator["StageClock"]:
        """Time every fit inside the block."""
        from torchdr_cne.affinity import base
        from torchdr_cne.fitting import fit, stages

        with ExitStack() as stack:
            for owner, name, stage in (
                (base, "neighbors_of_rows", "neighbours"),
                (fit, "affinities", "graph"),
                (stages, "initial_embedding", "initialisation"),
                (fit, "optimise", "loop"),
            ):
                stack.enter_context(mock.patch.object(owner, name, self._timed(getattr(owner, name), stage)))
            yield self
        # The search runs within the graph's stage.
        self.seconds["graph"] = self.seconds.get("graph", 0.0) - self.seconds.get("neighbours", 0.0)

    def _timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.settle()
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.settle()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
            if stage == "neighbours" and self.rows is not None:
                self.neighbors_rk = result.indices[self.rows].cpu().numpy()
            return result

        return wrapper
