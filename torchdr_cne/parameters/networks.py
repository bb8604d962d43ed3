"""Parameters of the networks that compute an embedding, and of their training."""

from dataclasses import replace
from typing import Any, ClassVar

from torch.optim import Optimizer

from torchdr_cne.checks import COUNT, Bound
from torchdr_cne.encoders import check_spec
from torchdr_cne.networks.loss import Loss
from torchdr_cne.networks.options import NetworkOptions
from torchdr_cne.optimization.building import OptimizerPlan
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.parameters.group import group
from torchdr_cne.parameters.optimizing import Optimizing


@group
class Networks(Optimizing):
    """The networks that compute an embedding, and how they are trained.

    Parameters
    ----------
    encoder : {"mlp"}, sequence of int, torch.nn.Module or None, default=None
        Network that computes the embedding from the rows; it is trained on mini-batches, and `transform` applies it to
        new rows. "mlp" has hidden layers of sizes 100, 100, 100, and a sequence gives other sizes. A module of your own
        maps rows (r, f) of ``dtype`` to (r, n_components); it is copied, and training starts from its weights. With
        None the points themselves move. See docs/learned-maps.md.
    decoder : {"mlp"}, sequence of int, torch.nn.Module or None, default=None
        Network from the embedding back to rows, trained together with the encoder, for `inverse_transform`.
    extra_loss : Loss or None, default=None
        Loss that is added to the method's loss under an encoder, such as ``0.3 * Classification()``. With a decoder,
        ``Reconstruction()`` is added unless it is already part of the loss.
    batch_size : int or None, default=None
        Number of edges or items in a mini-batch under an encoder; None is 1 024, or 256 below 10 000 rows.
    """

    encoder: Any = None
    decoder: Any = None
    extra_loss: Any = None
    batch_size: int | None = None

    _bounds: ClassVar[dict[str, Bound]] = {"batch_size": COUNT}
    _encoder_learning_rate: ClassVar[float] = 3e-3
    _learned_rate_beside_encoder: ClassVar[float] = 0.02

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("encoder", "decoder"):
            check_spec(name, getattr(self, name))
        if not self._by_network:
            given = [name for name in ("decoder", "extra_loss") if getattr(self, name) is not None]
            if given:
                raise ValueError(
                    f"{' and '.join(given)} cannot be without an encoder; set encoder='mlp' or leave out what needs it."
                )
            return
        if not (self.extra_loss is None or isinstance(self.extra_loss, Loss)):
            raise ValueError(f"extra_loss={self.extra_loss!r} must be None or a Loss such as 0.3 * Classification().")

    @property
    def _by_network(self) -> bool:
        """Whether a network computes the embedding."""
        return self.encoder is not None

    @property
    def _optimizer_choice(self) -> str | type[Optimizer]:
        is_automatic = isinstance(self.optimizer, str) and self.optimizer == "auto"
        return "Adam" if is_automatic and self._by_network else super()._optimizer_choice

    def _optimizer_plan(self) -> OptimizerPlan:
        plan = super()._optimizer_plan()
        if not self._by_network:
            return plan
        if self.learning_rate != "auto":
            return replace(plan, learned_rate=self._learned_rate_beside_encoder)
        rate = self._encoder_learning_rate
        return replace(plan, rate=lambda phase, n: rate, learned_rate=self._learned_rate_beside_encoder)

    def _batch_loss(self) -> Loss:
        """Return the loss of the method on a mini-batch."""
        raise TypeError(f"{type(self).__name__} states no _batch_loss.")

    def _network_options(self, **options: Any) -> NetworkOptions:
        """Return the options of the networks; ``options`` are those that only some classes have."""
        return NetworkOptions(
            encoder=self.encoder,
            decoder=self.decoder,
            batch_size=self.batch_size,
            own_loss=self._batch_loss(),
            extra_loss=self.extra_loss,
            **options,
        )

    def _loss_of(self, phase: Phase) -> Loss:
        """Return the loss that a phase minimises: its own, or else the method's with ``extra_loss`` added."""
        return self._network_options().loss_of(phase)
