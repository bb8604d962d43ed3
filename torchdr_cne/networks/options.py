"""What a fit by networks is told of them."""

from dataclasses import dataclass
from typing import Any

from torchdr_cne.networks.loss import Loss
from torchdr_cne.networks.terms import Reconstruction
from torchdr_cne.optimization.phase import Phase


@dataclass(frozen=True)
class NetworkOptions:
    """The networks of a fit, their losses and their mini-batches.

    Attributes
    ----------
    encoder, decoder : str, sequence of int, Module, NetworkPlan or None
        What the networks are made from; without a decoder, None.
    batch_size : int or None
        Edges or items of a mini-batch; None depends on the number of rows.
    own_loss : Loss
        The method's loss, which phases without one of their own minimise.
    extra_loss : Loss or None
        What is added to it.
    sampling : str or None
        How edges are drawn, unless a phase says so.
    negatives : {"batch", "uniform"}
        Where an edge's negatives come from, unless a phase says so.
    """

    encoder: Any
    decoder: Any
    batch_size: int | None
    own_loss: Loss
    extra_loss: Loss | None = None
    sampling: str | None = None
    negatives: str = "batch"

    def loss_of(self, phase: Phase) -> Loss:
        """Return what a phase minimises: its own loss, or the method's and what is added to it."""
        if phase.loss is not None:
            found: Loss = phase.loss
            return found
        extra = self.extra_loss
        if self.decoder is not None and not (extra and trains_decoder(extra)):
            extra = Reconstruction() if extra is None else extra + Reconstruction()
        return self.own_loss if extra is None else self.own_loss + extra


def trains_decoder(loss: Loss) -> bool:
    """Tell whether a loss, or a part of a sum, needs the decoder."""
    return any("decoder" in term.needs for _, term in loss.terms())
