"""The launches of a step, recorded in a CUDA graph and replayed, so that the host sends one instead of many."""

import warnings
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from torchdr_cne.forces.problem import ReplayableEngine, StepCoefficients

_MOST_GRAPHS = 8
"""Number of recordings that are kept; the memory of all is shared."""
Found = tuple[Tensor, Tensor | None]


class ReplayedForces:
    """Computes an engine's gradient: a step of a new kind is launched, the second is recorded, and others are replayed.

    The result lies in the same memory each time. Where a step cannot be recorded, all are launched.
    """

    own_threads = False

    def __init__(self, engine: ReplayableEngine) -> None:
        self._engine = engine
        self._recorded: dict[Hashable, tuple[torch.cuda.CUDAGraph, Found] | None] = {}
        self._pool: Any = None
        self._records = True

    def gradient(self, z_ds: Tensor, step: StepCoefficients) -> Found:
        """Return the gradient (d, own slots) and the learned scalar's derivative (), if there is one."""
        if not (self._records and self._engine.is_replayable):
            return self._engine.gradient(z_ds, step)
        kind = (z_ds.data_ptr(), tuple(z_ds.shape), self._engine.send(z_ds, step))
        if kind not in self._recorded:
            if len(self._recorded) == _MOST_GRAPHS:
                del self._recorded[next(iter(self._recorded))]
            self._recorded[kind] = None
            return self._engine.launch(z_ds, step)
        recorded = self._recorded[kind] or self._record(z_ds, step)
        if recorded is None:
            return self._engine.launch(z_ds, step)
        self._recorded[kind] = recorded
        graph, found = recorded
        graph.replay()
        return found

    def _record(self, z_ds: Tensor, step: StepCoefficients) -> tuple[torch.cuda.CUDAGraph, Found] | None:
        """Return the recorded step, or None if it cannot be recorded."""
        graph, now, aside = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(now)
        try:
            with torch.cuda.stream(aside):
                # torch.cuda.graph would collect all garbage of the process first, which takes longer than many steps.
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    found = self._engine.launch(z_ds, step)
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            self._records = False
            warnings.warn(
                f"the steps are launched one kernel at a time, as CUDA could not record them: {error}",
                UserWarning,
                stacklevel=2,
            )
            return None
        now.wait_stream(aside)
        self._pool = graph.pool()
        return graph, found
