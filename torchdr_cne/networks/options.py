"""The options of a fit by networks."""

from dataclasses import dataclass
from typing import Any

from torchdr_cne.networks.loss import Loss
from torchdr_cne.networks.terms import Reconstruction
from torchdr_cne.optimization.phase import Phase


@dataclass(frozen=True)
class NetworkOptions:
    """Options of the networks of a fit, of their losses and of their mini-batches.

    Attributes
    ----------
    encoder, decoder : str, sequence of int, Module, NetworkPlan or None
        What the networks are built from; ``decoder`` is None in a fit without one.
    batch_size : int or None
        Number of edges or items in a mini-batch; with None it depends on the number of rows.
    own_loss : Loss
        The loss of the method, which phases without a loss of their own minimise.
    extra_loss : Loss or None
        A loss that is added to ``own_loss``.
    sampling : str or None
        How edges are drawn, unless a phase sets it.
    negatives : {"batch", "uniform"}
        Where the negatives of an edge come from, unless a phase sets it.
    """

    encoder: Any
    decoder: Any
    batch_size: int | None
    own_loss: Loss
    extra_loss: Loss | None = None
    sampling: str | None = None
    negatives: str = "batch"

    def loss_of(self, phase: Phase) -> Loss:
        """Return the loss that a phase minimises: its own, or else the method's with ``extra_loss`` added."""
        if phase.loss is not None:
            found: Loss = phase.loss
            return found
        extra = self.extra_loss
        if self.decoder is not None and not (extra and trains_decoder(extra)):
            extra = Reconstruction() if extra is None else extra + Reconstruction()
        return self.own_loss if extra is None else self.own_loss + extra


def trains_decoder(loss: Loss) -> bool:
    """Return whether a loss, or a part of a sum of losses, needs the decoder."""
    return any("decoder" in term.needs for _, term in loss.terms())
