"""t-SimCNE."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torchdr_cne.checks import COUNT, Bound, check_choice
from torchdr_cne.images.image_map import ImageMap
from torchdr_cne.images.networks import ImageNetwork
from torchdr_cne.images.stages import Stage
from torchdr_cne.optimization.phase import Phase


class TSimCNE(ImageMap):
    """A 2-D map of images by contrast of random views (Böhm, Berens & Kobak, 2023): InfoNCE of Cauchy kernels.

    The network is trained in three stages: first with 128 outputs; then only a new last layer of 2 outputs, which
    replaces them; then everything. Each stage is a phase of the one loop, with an optimiser of its own.
    ``lr="auto_batch"`` divides the rate of the third stage by 1 000.

    Parameters
    ----------
    total_epochs : int or sequence of three int, default=(1000, 50, 450)
        Number of epochs in each of the three stages; with one number, 2 outputs are trained from the beginning.
    pretrain_out_dim : int, default=128
        Number of outputs in the first stage.
    freeze_schedule : {"only_linear", None}, default="only_linear"
        What the second stage trains: the last layer only, so that no other parameter or running statistic changes, or
        with None everything.
    dim_annealing : bool, default=False
        Whether to keep the last layer and let its outputs beyond ``out_dim`` fade to 0 during the second stage, which
        then trains everything.

    Examples
    --------
    >>> import numpy as np
    >>> from torchdr_cne.images import TSimCNE
    >>> images = np.random.default_rng(0).integers(0, 256, (64, 16, 16), dtype=np.uint8)
    >>> tsimcne = TSimCNE(backbone="small", total_epochs=[2, 1, 1], batch_size=32, random_state=0)
    >>> tsimcne.fit_transform(images).shape
    (64, 2)
    """

    total_epochs: Any = (1000, 50, 450)
    pretrain_out_dim: int = 128
    freeze_schedule: str | None = "only_linear"
    dim_annealing: bool = False

    _n_stages: ClassVar[tuple[int, ...]] = (1, 3)
    _bounds: ClassVar[dict[str, Bound]] = {"pretrain_out_dim": COUNT}

    def _check_parameters(self) -> None:
        check_choice("freeze_schedule", self.freeze_schedule, ("only_linear", None))
        super()._check_parameters()
        if self.dim_annealing and len(self._stages()) == 1:
            raise ValueError("dim_annealing=True needs three stages; give total_epochs three numbers.")
        if self.dim_annealing and self.pretrain_out_dim < self.out_dim:
            raise ValueError(
                f"pretrain_out_dim={self.pretrain_out_dim} must be at least out_dim={self.out_dim} to be turned down."
            )

    def _network(self, *seen: Any, **named: Any) -> ImageNetwork:
        staged = len(self._stages()) > 1
        return replace(
            super()._network(*seen, **named),
            pretrain_dim=self.pretrain_out_dim if staged else None,
            fades=self.dim_annealing,
        )

    def _auto_rates(self, n: int) -> list[float]:
        first = super()._auto_rates(n)
        return [*first[:-1], first[-1] / 1000] if n > 1 else first

    def _auto_warmups(self, epochs: Sequence[int]) -> list[int]:
        found = super()._auto_warmups(epochs)
        return [found[0], 0, *found[2:]] if len(found) > 1 else found

    def _phase(self, number: int, stage: Stage, n: int) -> Phase:
        phase = super()._phase(number, stage, n)
        if len(self._stages()) == 1 or self.dim_annealing:
            return phase
        return replace(phase, trainable=_Trained(number, self.freeze_schedule is not None))


class _Trained:
    """A function from a parameter's name to whether a stage trains it; layers not in use keep their weights."""

    def __init__(self, number: int, freezes: bool) -> None:
        self._number, self._freezes = number, freezes

    def __repr__(self) -> str:
        return f"_Trained({self._number}, {self._freezes})"

    def __call__(self, name: str) -> bool:
        *_, layer, _ = ("", *name.split("."))
        if layer in ("wide", "narrow"):
            return (layer == "wide") == (self._number == 1)
        return self._number != 2 or not self._freezes
