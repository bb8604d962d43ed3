"""Where the stages run, on how many points and on which data, and how they take times."""

import importlib.util
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import data
from benchmarks.data import Dataset

Result = dict[str, Any]
"""A result of a stage: ``result`` names it, ``ok`` tells whether a check has held (None is no check), and further
values follow; ``brief`` is what the last table says of it, and ``minor`` leaves it out of that table if all is well."""
Stage = Callable[["Setting"], Iterator[Result]]
_SMALL = 320
_SMALL_STEPS = 30
_FRAMES = 6
_COLUMNS = 50


@dataclass(frozen=True)
class Setting:
    """What the stages are given.

    Attributes
    ----------
    device : torch.device
        Where everything runs.
    small : bool
        Whether all sizes are small ones, to try the stages themselves.
    file : Path or None
        Archive with X (n, 50) and y (n,); None is MNIST where it is at hand, or else random blobs.
    """

    device: torch.device
    small: bool
    file: Path | None = None

    @cached_property
    def data(self) -> Dataset:
        """The data of the fits."""
        if self.small:
            return blobs(_SMALL)
        if self.file is not None:
            with np.load(self.file) as archive:
                return Dataset(self.file.stem, archive["X"].astype(np.float32), archive["y"].astype(np.int64))
        try:
            return data.load("mnist")
        except (FileNotFoundError, ImportError):
            return blobs(70_000)

    @property
    def is_mnist(self) -> bool:
        """Whether the data can be held to the floors of MNIST."""
        return self.data.X.shape == (70_000, _COLUMNS) and self.data.name != "blobs"

    @cached_property
    def tensor(self) -> torch.Tensor:
        """The rows of the data on the device."""
        return torch.from_numpy(np.array(self.data.X)).to(self.device)

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def size(self, n: int) -> int:
        """Return ``n``, or a few points in a small run."""
        return min(n, _SMALL) if self.small else n

    @property
    def options(self) -> dict[str, Any]:
        """Parameters of fits: the defaults, but for few steps in a small run."""
        return {"max_iter": _SMALL_STEPS} if self.small else {}

    @property
    def options_for_few(self) -> dict[str, Any]:
        """Parameters of fits of 5 000 points, whose search is left to FAISS where that is installed."""
        found = {} if importlib.util.find_spec("faiss") else {"backend": "torch"}
        return {**found, **self.options}

    def wait(self) -> None:
        """Wait until the device has done all that it was told to do."""
        if self.on_cuda:
            torch.cuda.synchronize(self.device)

    def timed(self, function: Callable[[], Any]) -> tuple[float, Any]:
        """Return the seconds of a call until the device is done, and what it returns."""
        self.wait()
        start = time.perf_counter()
        found = function()
        self.wait()
        return time.perf_counter() - start, found

    def median_ms(self, function: Callable[[], Any], repeats: int = 20, warm_ups: int = 3) -> float:
        """Return the median of a call's milliseconds, by events of the device, one call right after the other."""
        for _ in range(warm_ups):
            function()
        clock = Marks(self)
        for _ in range(repeats):
            clock.mark()
            function()
        clock.mark()
        return statistics.median(clock.gaps_ms())


class Marks:
    """Moments in the device's stream of work, or by the host's clock where there is no GPU."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._marks: list[Any] = []

    def mark(self) -> None:
        """Put a mark, without waiting."""
        if not self._setting.on_cuda:
            self._marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def gaps_ms(self) -> list[float]:
        """Return the milliseconds between successive marks."""
        self._setting.wait()
        pairs = pairwise(self._marks)
        if self._setting.on_cuda:
            return [first.elapsed_time(second) for first, second in pairs]
        return [1e3 * (second - first) for first, second in pairs]


def blobs(n: int, n_columns: int = _COLUMNS) -> Dataset:
    """Return ten Gaussian clusters."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 10
    centers = rng.normal(size=(10, n_columns)).astype(np.float32) / 2
    noise = rng.standard_normal((n, n_columns), dtype=np.float32)
    return Dataset("blobs", centers[labels] + noise, labels)


def attempt(name: str, function: Callable[[], Result]) -> Result:
    """Return what ``function`` finds under ``name``, or the error that it raises: other results still follow."""
    try:
        return {"result": name, "ok": None, **function()}
    except Exception as error:
        return {"result": name, "ok": False, **described(error)}


def described(error: BaseException) -> Result:
    """Return type, message and last frames of an error."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    where = [f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.line}" for frame in frames]
    return {"error": f"{type(error).__name__}: {str(error)[:600]}", "where": where}
