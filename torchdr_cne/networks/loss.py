"""Losses of a mini-batch, which can be added: ``0.7 * Relation("umap") + 0.3 * Classification()``."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchdr_cne.affinity import Affinity
from torchdr_cne.networks.batches import Draw, adjacent
from torchdr_cne.networks.training import TrainingSet
from torchdr_cne.objectives.pairs import Pairs, rows_at
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.state import FitState
from torchdr_cne.similarities import Similarity
from torchdr_cne.storable import Storable


@dataclass(frozen=True)
class Batch:
    """What a loss is given in one step.

    Attributes
    ----------
    z : Tensor of shape (r, d)
        Embedding of the rows.
    draw : Draw
        The rows, and the edges among them.
    networks : ModuleDict
        The networks: "encoder" and, if the fit has them, "decoder" and "classifier".
    state : FitState
        The current state of the loop.
    training : TrainingSet
        All rows with their graph and labels.
    """

    z: Tensor
    draw: Draw
    networks: Any
    state: FitState
    training: TrainingSet

    @property
    def labels(self) -> Tensor | None:
        """Return class codes (r,), −1 where the class is unknown; None in a fit without labels."""
        if self.training.labels is None or self.draw.ids is None:
            return None
        return self.training.labels[self.draw.ids].to(self.z.device)

    def pairs(
        self,
        similarity: Similarity,
        n_negatives: float,
        parameters: Mapping[str, Tensor | float],
        *,
        without_neighbors: bool = False,
    ) -> Pairs:
        """Return the edges of the batch with their negatives, in the form that the hooks of sampled methods take.

        Every edge is a row of its own. ``without_neighbors`` leaves out negatives that the graph joins to the edge.
        """
        draw = self.draw
        heads, others = rows_at(self.z, draw.heads), rows_at(self.z, draw.negatives)
        log_q = similarity.table(heads, others) if others.ndim == 2 else similarity(heads.unsqueeze(1), others)
        log_q = log_q.masked_fill(self._no_negatives(without_neighbors), -torch.inf)
        n_met = torch.isfinite(log_q.detach()).sum(dim=1).clamp_min(1).to(log_q.dtype)
        return Pairs(
            log_q_edges=similarity(heads, rows_at(self.z, draw.tails)),
            weights=draw.weights,
            rows=torch.arange(len(draw.heads), device=self.z.device),
            log_q_negatives=log_q,
            draw_weights=n_negatives / n_met,
            parameters=parameters,
        )

    def _no_negatives(self, without_neighbors: bool) -> Tensor:
        """Return which (edge, negative) do not count: a point with itself, or with the other end of the edge."""
        draw = self.draw
        ends = torch.stack([draw.heads, draw.tails])
        same = (ends.unsqueeze(2) == draw.negatives).any(dim=0)
        if draw.ids is None:
            return same
        ids = draw.ids.to(self.z.device)
        for end in (draw.heads, draw.tails):
            same = same | (ids[end].unsqueeze(1) == ids[draw.negatives])
        if without_neighbors and draw.graph is not None:
            rows = draw.ids[draw.heads.cpu()] - self.training.share.start
            same = same | adjacent(draw.graph, rows, draw.ids[draw.negatives.cpu()]).to(self.z.device)
        return same


Bound = Callable[[Batch], Tensor]
"""A loss that has everything it needs from the data: a function from a mini-batch to a scalar tensor."""

_NEGATIVES = 5
"""Number of negatives that an edge meets if neither the loss nor the phase sets it."""


@dataclass(frozen=True)
class EdgeDemand:
    """Requirements of a loss on the edges of a mini-batch and on their negatives.

    Attributes
    ----------
    affinity : Affinity or None
        The affinity whose graph the edges are drawn from; None is the affinity of the fit.
    asked : int or None
        How many negatives an edge is to meet in a step; None leaves it to ``by_default``.
    by_default : int or None
        How many negatives an edge meets if ``asked`` is None; None is the phase's ``negative_sample_rate``, or else 5.
    apart : bool
        Whether negatives are drawn for each edge separately, instead of the same ones for all edges.
    """

    affinity: Affinity | None = None
    asked: int | None = None
    by_default: int | None = None
    apart: bool = False

    def n_drawn(self, phase: Phase) -> int:
        """Return how many negatives an edge meets in a step of the phase."""
        return self.asked or self.by_default or phase.negative_sample_rate or _NEGATIVES


class Loss(Storable, ABC):
    """A loss of a mini-batch; losses can be added, and multiplied by numbers.

    A loss of your own is a dataclass that derives from this class and defines `bind`.
    """

    name: ClassVar[str] = "own"
    sampling: ClassVar[str | None] = None
    """Whether the loss needs "edges" or "items"; None means that it takes both."""
    needs: ClassVar[tuple[str, ...]] = ()
    """What the loss needs besides the encoder: "labels", "decoder", "classifier", "table" (rows that have numbers)."""

    @property
    def needs_graph(self) -> bool:
        """Return whether the loss needs the graph of the fit; a loss of your own does unless it says otherwise."""
        return True

    def edge_demand(self) -> EdgeDemand | None:
        """Return what the loss asks of the edges of a mini-batch; None if it takes them as they come."""
        return None

    @abstractmethod
    def bind(self, training: TrainingSet) -> Bound:
        """Return the loss as a function from `Batch` to a scalar tensor; what it needs of the data is computed here."""

    def terms(self) -> tuple[tuple[float, "Loss"], ...]:
        """Return the losses that this one adds up, each with its weight."""
        return ((1.0, self),)

    def learned_scalars(self) -> dict[str, float]:
        """Return names and initial values of scalars that are learned with the embedding."""
        return {}

    def __add__(self, other: Any) -> "WeightedSum":
        return WeightedSum(self.terms() + other.terms()) if isinstance(other, Loss) else NotImplemented

    def __radd__(self, other: Any) -> "Loss":
        """Return this loss added to a number, so that ``sum`` can begin with 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __mul__(self, factor: Any) -> "WeightedSum":
        if isinstance(factor, bool) or not isinstance(factor, (int, float)):
            return NotImplemented
        if not 0 <= factor < float("inf"):
            raise ValueError(f"a loss was multiplied by {factor!r}; weights must be numbers >= 0.")
        return WeightedSum(tuple((factor * weight, term) for weight, term in self.terms()))

    __rmul__ = __mul__


@dataclass(frozen=True)
class WeightedSum(Loss):
    """A weighted sum of losses, made by ``+`` and ``*``."""

    weighted: tuple[tuple[float, Loss], ...]

    def terms(self) -> tuple[tuple[float, Loss], ...]:
        """Return the losses with their weights."""
        return self.weighted

    def bind(self, training: TrainingSet) -> Bound:
        """Return the weighted sum as a function of a mini-batch."""
        bound = [(weight, term.bind(training)) for weight, term in self.weighted]
        return lambda batch: torch.stack([weight * term(batch) for weight, term in bound]).sum()


def named_terms(loss: Loss) -> list[tuple[str, float, Loss]]:
    """Return the losses that a sum consists of, each with a name of its own."""
    found: list[tuple[str, float, Loss]] = []
    for weight, term in loss.terms():
        n_before = sum(other.name == term.name for _, _, other in found)
        found.append((term.name if n_before == 0 else f"{term.name}_{n_before + 1}", weight, term))
    return found
