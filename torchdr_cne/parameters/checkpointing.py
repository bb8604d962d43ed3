"""Parameters that say where and how often a fit is saved while it runs."""

from pathlib import Path
from typing import ClassVar

from torchdr_cne.checks import COUNT, Bound
from torchdr_cne.parameters.group import ParameterGroup, group


@group
class Checkpointing(ParameterGroup):
    """Where and how often a fit is saved while it runs.

    Parameters
    ----------
    checkpoint_dir : str, Path or None, default=None
        Folder in which the fit is saved while it runs; the same fit, started again, resumes from there. A fit that a
        callback has stopped counts as finished.
    checkpoint_every : int, default=50
        Number of iterations between checkpoints.
    """

    checkpoint_dir: str | Path | None = None
    checkpoint_every: int = 50

    _bounds: ClassVar[dict[str, Bound]] = {"checkpoint_every": COUNT}

    def _check_parameters(self) -> None:
        super()._check_parameters()
        folder = self.checkpoint_dir
        if folder is not None and not (isinstance(folder, (str, Path)) and str(folder)):
            raise ValueError(f"checkpoint_dir={self.checkpoint_dir!r} names no folder; give its path, or None.")
