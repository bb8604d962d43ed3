"""The settings that say when and how a fit is split over ranks."""

import numbers
from dataclasses import dataclass

from torchdr_cne.storable import Storable

_LONGEST = 1e9


@dataclass(frozen=True, kw_only=True)
class DistributedConfig(Storable):
    """Settings for the work of ranks together; every field has a working default.

    Attributes
    ----------
    min_rows : int, default=100_000
        With fewer rows rank 0 works alone and hands its result to the others, as exchanging the embedding would take
        longer than the iterations.
    timeout : float, default=300.0
        Seconds that a rank waits for another before it gives up with an error.
    """

    min_rows: int = 100_000
    timeout: float = 300.0

    def __post_init__(self) -> None:
        if not isinstance(self.min_rows, numbers.Integral) or self.min_rows < 0:
            raise ValueError(f"min_rows={self.min_rows!r} must be an integer >= 0; 0 splits whatever can be split.")
        if not isinstance(self.timeout, numbers.Real) or not 0 < self.timeout < _LONGEST:
            raise ValueError(f"timeout={self.timeout!r} must be a positive number of seconds, below {_LONGEST:g}.")
