"""A progress bar, which is shown on a terminal only."""

from collections.abc import Mapping
from typing import Any


class Progress:
    """A context manager that shows a progress bar; call it with the number of iterations done, and known losses."""

    def __init__(self, total: int, name: str, *, visible: bool) -> None:
        self._total, self._name, self._visible = total, name, visible
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        if self._visible:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, desc=self._name, unit="it", disable=None)
        return self

    def __call__(self, n_done: int, losses: Mapping[str, float]) -> None:
        """Show that ``n_done`` iterations are done; the bar estimates the time that is left."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in losses.items()}, refresh=False)
            self._bar.update(n_done - self._bar.n)

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()
