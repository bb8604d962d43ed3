"""When and how a fit is split over ranks."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """How ranks work together; every field has a working default.

    Attributes
    ----------
    min_rows : int, default=100_000
        With fewer rows rank 0 works alone and hands its result to the others: exchanging positions would take longer
        than the steps.
    timeout : float, default=300.0
        Seconds that a rank waits for another before it gives up with an error.
    """

    min_rows: int = 100_000
    timeout: float = 300.0

    def __post_init__(self) -> None:
        if self.min_rows < 0:
            raise ValueError(f"min_rows={self.min_rows} must be at least 0; 0 splits whatever can be split.")
        if not self.timeout > 0:
            raise ValueError(f"timeout={self.timeout} must be a positive number of seconds.")
