"""The objective of a fit by networks: the gradients of their parameters on mini-batches."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchdr_cne.encoders import in_batches
from torchdr_cne.hashing import reproducible, stream_key
from torchdr_cne.inputs import PositivePairs
from torchdr_cne.networks.batches import Batches
from torchdr_cne.networks.loss import Batch, Bound, Loss, named_terms
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.state import FitState

_TRAINING = 15
"""Purpose of the random numbers of dropout and the like; see `torchdr_cne.hashing.stream_key`."""


def evaluated(terms: list[tuple[str, float, Bound]], batch: Batch) -> dict[str, Tensor]:
    """Return "loss" and the weighted parts whose sum it is."""
    parts = {}
    for name, weight, term in terms:
        value = term(batch)
        if not isinstance(value, Tensor) or value.ndim != 0:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"the loss {name!r} gives {shape} where a tensor without dimensions is needed; reduce it.")
        parts[f"{name}_loss"] = weight * value
    return {"loss": torch.stack(list(parts.values())).sum(), **parts}


def bound_terms(loss: Loss, training: Any) -> list[tuple[str, float, Bound]]:
    """Return the losses of a sum as functions of a mini-batch."""
    return [(name, weight, term.bind(training)) for name, weight, term in named_terms(loss)]


class NetworkObjective:
    """Differentiates a phase's loss with respect to the networks' parameters.

    Each rank has all networks and draws mini-batches of its own rows; all ranks use the mean of their gradients.

    Parameters
    ----------
    networks : ModuleDict
        The networks: "encoder" and, if the fit has them, "decoder" and "classifier".
    training : TrainingSet
        The rows and all that belongs to them.
    loss_of : callable
        Function from a phase to its loss.
    batches_of : callable
        Function from a phase and its loss to its mini-batches.
    """

    own_threads = False
    n_points = 1

    def __init__(
        self,
        networks: nn.ModuleDict,
        training: Any,
        loss_of: Callable[[Phase], Loss],
        batches_of: Callable[[Phase, Loss], Batches],
    ) -> None:
        self._networks, self._moving, self._training = networks, dict[str, Tensor](), training
        self._loss_of, self._batches_of = loss_of, batches_of
        self._ranks = training.share.ranks
        self._gradient_sum = torch.zeros((), dtype=torch.float32)

    @property
    def networks(self) -> nn.ModuleDict:
        """All networks, including those that the phase does not train."""
        return self._networks

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters that the phase trains."""
        return self._moving

    def epoch_length(self, phase: Phase) -> int:
        """Return the number of mini-batches in an epoch."""
        return self._batches_of(phase, self._loss_of(phase)).length

    def begin(self, state: FitState) -> None:
        """Prepare the mini-batches of the phase, and unfreeze the parameters that it trains."""
        loss = self._loss_of(state.phase)
        self._batches, self._terms = self._batches_of(state.phase, loss), bound_terms(loss, self._training)
        self._moving = {
            name: value for name, value in self.networks.named_parameters() if self._training.moves(state.phase, name)
        }
        set_modes(self.networks, partial(self._training.moves, state.phase))

    def compute_gradients(self, state: FitState) -> None:
        """Compute the gradients of the loss on the mini-batch of this step."""
        tell(self.networks, state)
        with reproducible(stream_key(state.seed, state.step, _TRAINING), self._training.device):
            draw = self._batches.draw(state.step - state.phase.start)
            z = self.networks["encoder"](draw.x)
            losses = evaluated(self._terms, Batch(z, draw, self.networks, state, self._training))
            if not losses["loss"].requires_grad:
                names = ", ".join(name for name, _, _ in self._terms)
                raise ValueError(
                    f"the loss ({names}) does not depend on what the phase trains; change its trainable, or see that "
                    "no network detaches its output."
                )
            wanted = [*self.parameters.values(), *state.learned.values()]
            gradients = torch.autograd.grad(losses["loss"], wanted, allow_unused=True)
        filled = [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, gradients, strict=True)]
        for parameter, gradient in zip(wanted, self._averaged(filled), strict=True):
            parameter.grad = gradient
        clip(list(self.parameters.values()), state.phase)
        state.add_losses({name: value / self._ranks.size for name, value in losses.items()})
        self._gradient_sum = torch.stack([gradient.sum() for gradient in filled]).sum()

    def _averaged(self, gradients: list[Tensor]) -> list[Tensor]:
        """Return the means of the gradients over the ranks."""
        if self._ranks.size > 1:
            together = torch.cat([gradient.flatten() for gradient in gradients])
            self._ranks.add_up(together, "the mean of gradients")
            parts = (together / self._ranks.size).split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        return gradients

    def gradient_sum(self) -> Tensor:
        """Return the sum of all gradients."""
        return self._gradient_sum

    def add_up(self, of_parameter: Tensor) -> Tensor:
        """Return ``of_parameter`` as it is: every rank has all parameters."""
        return of_parameter

    def square_sum(self) -> float:
        """Return the sum of the squared gradients."""
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        return float(torch.stack([gradient.square().sum() for gradient in gradients]).sum()) if gradients else 0.0

    def to_points(self, like_parameter: Tensor) -> Tensor:
        """Return ``like_parameter``: no parameter belongs to points."""
        return like_parameter

    def from_points(self, values_nd: Tensor) -> Tensor:
        """Return ``values_nd``."""
        return values_nd

    def embedding(self) -> Tensor:
        """Return the embedding (n, d) of all rows, computed in batches; each rank computes that of its own rows."""
        self._equal_buffers()
        share, training = self._training.share, self._training
        if isinstance(training.data, PositivePairs):
            parts = [self._encoded(training.as_input(rows)) for rows in training.data.first_members()]
            return torch.cat(parts)
        found = in_batches(
            self.networks["encoder"],
            lambda start, stop: training.read(share.start + start, share.start + stop),
            len(share),
        )
        return share.gather(found, "the exchange of the embedding")

    def _encoded(self, rows: Tensor) -> Tensor:
        return in_batches(self.networks["encoder"], lambda start, stop: rows[start:stop], len(rows))

    def to_save(self) -> dict[str, Tensor]:
        """Return the networks' parameters and buffers."""
        self._equal_buffers()
        return {f"network/{name}": value for name, value in self.networks.state_dict().items()}

    def load(self, tensors: Any) -> None:
        """Load the parameters and buffers that `to_save` returned."""
        prefix = "network/"
        found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        self.networks.load_state_dict(found)

    def _equal_buffers(self) -> None:
        """Give every rank the buffers, such as running statistics, of rank 0."""
        for buffer in self.networks.buffers() if self._ranks.size > 1 else ():
            self._ranks.copy_from(0, buffer, "the exchange of running statistics")


def clip(parameters: Sequence[Tensor], phase: Phase) -> None:
    """Clip the gradients by value or by norm, as the phase says."""
    if phase.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, phase.clip_value)
    if phase.clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, phase.clip_norm)


def tell(networks: nn.ModuleDict, state: FitState) -> None:
    """Tell the state of the loop to all modules that have a method ``follow(state)``."""
    for module in networks.modules():
        follow = getattr(module, "follow", None)
        if callable(follow):
            follow(state)


def set_modes(networks: nn.ModuleDict, moves: Callable[[str], bool]) -> None:
    """Enable gradients of the parameters that a phase trains, and put all other modules into evaluation mode.

    A module without parameters, such as a normalisation without weights, is judged by its buffers' names.
    """
    for name, parameter in networks.named_parameters():
        parameter.requires_grad_(moves(name))
    for network in networks.values():
        network.train(any(parameter.requires_grad for parameter in network.parameters()))
    for prefix, module in networks.named_modules():
        own = list(module.parameters(recurse=False))
        buffers = [f"{prefix}.{name}" for name, _ in module.named_buffers(recurse=False)]
        moved = [parameter.requires_grad for parameter in own] or [moves(name) for name in buffers]
        if moved and not any(moved):
            module.training = False
