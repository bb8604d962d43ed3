"""What an estimator's parameters say about networks; those themselves are imported only where there is an encoder."""

from typing import Any

from torchdr_cne.optimization.phase import Phase


def check_networks(estimator: Any) -> None:
    """Raise a ValueError unless the parameters about networks go together."""
    for name in ("encoder", "decoder"):
        if getattr(estimator, name) is not None:
            from torchdr_cne.encoders import check_spec

            check_spec(name, getattr(estimator, name))
    if estimator.encoder is None:
        given = [name for name in ("decoder", "extra_loss") if getattr(estimator, name) is not None]
        if given:
            raise ValueError(
                f"{' and '.join(given)} cannot be without an encoder; set encoder='mlp' or leave out what needs it."
            )
        return
    from torchdr_cne.networks.loss import Loss

    if not (estimator.extra_loss is None or isinstance(estimator.extra_loss, Loss)):
        raise ValueError(f"extra_loss={estimator.extra_loss!r} must be None or a Loss such as 0.3 * Classification().")
    if estimator._batch_loss() is None:
        raise ValueError(
            f"{type(estimator).__name__} has no loss of a mini-batch, as an encoder needs; set encoder=None."
        )


def trains_decoder(loss: Any) -> bool:
    """Tell whether a loss, or a part of a sum, needs the decoder."""
    return any("decoder" in term.needs for _, term in loss.terms())


def loss_of_phase(estimator: Any, phase: Phase) -> Any:
    """Return what a phase minimises under an encoder: its own loss, or the method's and what is added to it."""
    from torchdr_cne.networks.terms import Reconstruction

    if phase.loss is not None:
        return phase.loss
    extra = estimator.extra_loss
    if estimator.decoder is not None and not (extra and trains_decoder(extra)):
        extra = Reconstruction() if extra is None else extra + Reconstruction()
    return estimator._batch_loss() if extra is None else estimator._batch_loss() + extra
