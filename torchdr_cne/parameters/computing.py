"""Parameters that say where and how a fit computes."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch

from torchdr_cne.checks import check_choice
from torchdr_cne.distributed import DistributedConfig
from torchdr_cne.parameters.group import ParameterGroup, group


@group
class Computing(ParameterGroup):
    """Where and how a fit computes.

    Parameters
    ----------
    device : "auto", str or torch.device, default="auto"
        Device of the computation; "auto" is that of an input tensor, or else CUDA if available, or else the CPU.
    dtype : {"float32", "float64"}, default="float32"
        Dtype of arithmetic and result. On a CPU only float32 has compiled kernels; float64 is many times slower.
    random_state : int, RandomState, Generator or None, default=None
        Seed of every random draw; None takes fresh entropy. The global random state is never touched.
    n_jobs : int or None, default=None
        Number of CPU threads; None keeps torch's setting, −1 uses all cores.
    callbacks : callable or sequence of callables, default=None
        Functions called as ``callback(estimator, step)`` after each iteration, when ``embedding_`` and ``n_iter_`` are
        up to date; a callback that returns True stops the fit.
    verbose : bool, default=False
        Whether to show a progress bar on a terminal.
    distributed : {"auto", True, False} or DistributedConfig, default="auto"
        Whether the ranks of an initialised process group, or of a launcher such as torchrun, share the fit. "auto"
        shares fits of 100 000 rows or more; smaller ones are done by rank 0 alone, and every rank receives the result.
        True shares any fit that has 256 rows for each rank. With False every rank fits independently.
    """

    device: str | torch.device = "auto"
    dtype: str = "float32"
    random_state: Any = None
    n_jobs: int | None = None
    callbacks: Callable[..., Any] | Sequence[Callable[..., Any]] | None = None
    verbose: bool = False
    distributed: bool | str | DistributedConfig = "auto"

    _dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("dtype", self.dtype, self._dtypes)
        if not (isinstance(self.distributed, (DistributedConfig, bool)) or self.distributed == "auto"):
            raise ValueError(
                f"distributed={self.distributed!r} is unknown; choose one of 'auto', True, False, or pass a "
                "DistributedConfig."
            )
        if not all(callable(callback) for callback in self._callback_list()):
            raise ValueError(f"callbacks={self.callbacks!r} must be a callable or a sequence of callables.")

    def _callback_list(self) -> list[Callable[..., Any]]:
        """Return the callbacks, one or several, as a list."""
        if self.callbacks is None:
            return []
        return list(self.callbacks) if isinstance(self.callbacks, Sequence) else [self.callbacks]

    @property
    def _torch_dtype(self) -> torch.dtype:
        return torch.float64 if self.dtype == "float64" else torch.float32
