"""Where a fit is saved as it goes."""

from pathlib import Path
from typing import ClassVar

from torchdr_cne.checks import COUNT, Bound
from torchdr_cne.parameters.group import ParameterGroup, group


@group
class Checkpointing(ParameterGroup):
    """Where a fit is saved as it goes.

    Parameters
    ----------
    checkpoint_dir : str, Path or None, default=None
        Folder in which the fit is saved as it goes; the same fit, begun again, goes on from there. A fit that a
        callback has stopped is at its end.
    checkpoint_every : int, default=50
        Iterations between checkpoints.
    """

    checkpoint_dir: str | Path | None = None
    checkpoint_every: int = 50

    _bounds: ClassVar[dict[str, Bound]] = {"checkpoint_every": COUNT}
