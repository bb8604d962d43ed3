"""Functions that build the networks of a fit, try them on a few rows and check them against the phases."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from torchdr_cne.distributed import Share
from torchdr_cne.encoders.building import NetworkPlan, build_decoder, build_encoder, probe
from torchdr_cne.encoders.networks import takes_any_dtype
from torchdr_cne.hashing import reproducible
from torchdr_cne.inputs.blocks import row_blocks
from torchdr_cne.inputs.pairs import PositivePairs
from torchdr_cne.networks.loss import Loss
from torchdr_cne.networks.options import NetworkOptions
from torchdr_cne.networks.training import TrainingSet, read_block
from torchdr_cne.optimization.building import optimizer_class, scheduler_class
from torchdr_cne.optimization.phase import Phase

_ENCODER, _DECODER, _CLASSIFIER = 21, 22, 23
"""Numbers added to the seed from which the first weights of each network are drawn."""


def build_networks(options: NetworkOptions, training: TrainingSet, losses: Sequence[Loss]) -> TrainingSet:
    """Return the training set with its networks: an encoder and, if they are asked for, a decoder and a classifier.

    Raises
    ------
    ValueError
        If a network does not fit the data, or a loss needs something that is not there.
    """
    terms = [term for loss in losses for _, term in loss.terms()]
    needed = {need for term in terms for need in term.needs}
    _check_needs(options, training, terms, needed)
    first = _first_rows(training.data)
    mean, scale = torch.zeros(0, dtype=torch.float32), 1.0
    if not isinstance(options.encoder, (nn.Module, NetworkPlan)) or options.decoder is not None:
        if first.ndim != 2:
            raise ValueError(
                f"the rows have shape {tuple(first.shape[1:])}, and only tables suit a decoder, and encoders made from "
                "names or sizes; pass a torch.nn.Module as encoder and no decoder."
            )
        mean, scale = _column_statistics(training.data, training.share)
    encoder = options.encoder
    if isinstance(encoder, NetworkPlan):
        with reproducible(training.seed + _ENCODER):
            encoder = encoder.build(tuple(first.shape[1:]), training.n_components)
    networks = _built(options, encoder, training, mean, scale, with_classifier="classifier" in needed)
    _equal_weights(networks, training.share)
    found = training.with_networks(networks, scale, exact=takes_any_dtype(networks["encoder"]))
    d, rows = training.n_components, found.as_input(first)
    probe(networks["encoder"], rows, d, "encoder", "the rows of X")
    if "decoder" in networks:
        places = torch.zeros((len(rows), d), dtype=training.dtype, device=training.device)
        probe(networks["decoder"], places, first.shape[1], "decoder", f"embeddings of {d} columns")
    return found


def _built(
    options: NetworkOptions, encoder: Any, training: TrainingSet, mean: Tensor, scale: float, *, with_classifier: bool
) -> nn.ModuleDict:
    """Return the networks on the device, with their first weights."""
    settings: dict[str, Any] = {"mean": mean, "scale": scale, "n_components": training.n_components}
    seed, dtype = training.seed, training.dtype
    networks = nn.ModuleDict({"encoder": build_encoder(encoder, **settings, seed=seed + _ENCODER, dtype=dtype)})
    if options.decoder is not None:
        networks["decoder"] = build_decoder(options.decoder, **settings, seed=seed + _DECODER, dtype=dtype)
    if with_classifier:
        assert training.labels is not None
        with reproducible(seed + _CLASSIFIER):
            networks["classifier"] = nn.Linear(training.n_components, int(training.labels.max()) + 1, dtype=dtype)
    return networks.to(training.device)


def check_phases(phases: Sequence[Phase], losses: Sequence[Loss], training: TrainingSet) -> None:
    """Raise a ValueError if a phase trains nothing, or if its losses cannot be combined."""
    names = [name for name, _ in training.networks.named_parameters()]
    some = f"{', '.join(names[:4])}{', …' if len(names) > 4 else ''}"
    for number, (phase, loss) in enumerate(zip(phases, losses, strict=True)):
        sampling_of(phase, loss)
        if phase.optimizer is not None:
            optimizer_class(phase.optimizer)
        scheduler_class(phase.scheduler)
        if not any(training.moves(phase, name) for name in names):
            raise ValueError(
                f"phase {number} trains nothing: trainable={phase.trainable!r} names none of the parameters that may "
                f"move; all there are is {some or 'none'}."
            )
        for part in phase.trained_parts():
            if not any(replace(phase, trainable=part).moves(name) for name in names):
                raise ValueError(
                    f"trainable={phase.trainable!r} of phase {number} names {part!r}, and no parameter is called so or "
                    f"below it; the parameters are {some}."
                )


def sampling_of(phase: Phase, loss: Loss) -> str:
    """Return what a phase samples: the phase's own setting, or else what its losses need, or else "items"."""
    needed = {term.sampling for _, term in loss.terms() if term.sampling is not None}
    if len(needed) > 1:
        raise ValueError("a phase's losses need both edges and items; put them into phases of their own.")
    wanted = needed.pop() if needed else None
    if phase.sampling is None:
        return wanted or "items"
    if wanted is not None and (wanted == "items") != (phase.sampling == "items"):
        raise ValueError(
            f"the phase samples {phase.sampling}, and its losses need {wanted}; set sampling={wanted!r}, or leave it "
            "out."
        )
    return phase.sampling


def _check_needs(options: NetworkOptions, training: TrainingSet, terms: Sequence[Loss], needed: set[str]) -> None:
    if "decoder" in needed and options.decoder is None:
        raise ValueError("Reconstruction needs a decoder; set decoder='mlp', sizes or a torch.nn.Module.")
    by_pairs = isinstance(training.data, PositivePairs)
    if by_pairs and needed & {"labels", "table"}:
        names = sorted({type(term).__name__ for term in terms if set(term.needs) & {"labels", "table"}})
        raise ValueError(
            f"{' and '.join(names)} cannot be computed on PositivePairs, whose rows have neither numbers nor labels; "
            "pass the rows as X, or leave it out."
        )
    if "labels" in needed and training.labels is None:
        names = sorted({type(term).__name__ for term in terms if "labels" in term.needs})
        raise ValueError(f"{' and '.join(names)} needs labels; call fit(X, y) with classes, −1 where unknown.")


def _first_rows(data: Any) -> Tensor:
    """Return the first few rows in the dtype of the data."""
    if isinstance(data, PositivePairs):
        return next(data.first_members())[:8]
    return read_block(data, 0, min(8, len(data)))


def _column_statistics(data: Any, share: Share) -> tuple[Tensor, float]:
    """Return column means (f,), float64, and the root mean square of what centring leaves, over all ranks' rows.

    Sums are taken relative to the first row, so that data far from the origin lose no digits.
    """
    if isinstance(data, PositivePairs):
        blocks = (rows.double() for rows in data.first_members())
        shift, own = _first_rows(data)[0].double(), None
    else:
        own = share.own
        blocks = (block.cpu() for _, block in row_blocks(data, own))
        shift = _first_rows(data)[0].double().cpu()
    sums = torch.zeros((2, len(shift)), dtype=torch.float64)
    n = 0
    for block in blocks:
        centred = block - shift
        n += len(block)
        sums[0] += centred.sum(dim=0)
        sums[1] += centred.square().sum(dim=0)
    if own is not None:
        share.ranks.add_up(sums, "the sum of columns")
        n = share.n
    if own is None and not bool(torch.isfinite(sums).all()):
        raise ValueError("the pairs contain NaN or infinity; drop or impute such rows in the data set.")
    mean = sums[0] / n
    variance = (sums[1] / n - mean.square()).clamp_min(0).mean()
    found = torch.cat([shift + mean, variance.sqrt().unsqueeze(0)])
    share.ranks.copy_from(0, found, "the exchange of column statistics")  # loaders of pairs may differ between ranks
    return found[:-1], float(found[-1]) or 1.0


def _equal_weights(networks: nn.ModuleDict, share: Share) -> None:
    """Give every rank the first weights of rank 0, whatever weights its own module had."""
    if share.ranks.size > 1:
        with torch.no_grad():
            for value in networks.state_dict().values():
                share.ranks.copy_from(0, value, "the exchange of first weights")
