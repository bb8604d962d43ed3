"""The loss hooks of a method, evaluated on the edges of a mini-batch."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from torchdr_cne.networks.loss import Batch, Bound, EdgeDemand, Loss
from torchdr_cne.networks.training import TrainingSet
from torchdr_cne.objectives.pair_loss import PairLoss
from torchdr_cne.similarities import Similarity

_DRAWN = 128
"""Number of negatives in a mini-batch, unless the method asks for more or names a number."""


@dataclass(frozen=True)
class HookLoss(Loss):
    """Loss of the two hooks of a method on a mini-batch of edges and their negatives: a mean over the edges.

    Parameters
    ----------
    pair_loss : PairLoss
        The method's loss.
    similarity : Similarity or None, default=None
        Similarity of embedded points; None is the similarity of the method.
    n_negatives : int or None, default=None
        How many negatives an edge meets in the objective; None is the number of the phase, or else of the method.
    of_the_fit : bool, default=True
        Whether the method is the one that is fitted; if so, the phases already carry its exaggeration.
    """

    pair_loss: PairLoss
    similarity: Similarity | None = None
    n_negatives: int | None = None
    of_the_fit: bool = True

    name: ClassVar[str] = "relation"
    sampling: ClassVar[str | None] = "edges"

    def learned_scalars(self) -> dict[str, float]:
        """Return the learned scalars of the method, for instance log Z."""
        return dict(self.pair_loss.learned)

    def edge_demand(self) -> EdgeDemand:
        """Return what the loss asks of the edges of a mini-batch."""
        own = self.pair_loss
        return EdgeDemand(asked=own.negatives_per_row, by_default=max(_DRAWN, int(own.n_negatives)))

    def bind(self, training: TrainingSet) -> Bound:
        """Return the loss as a function of a mini-batch."""
        own = self.pair_loss
        last = own.last_phase(training.share.n)
        exaggeration = 1.0 if self.of_the_fit else last.exaggeration
        similarity = own.similarity if self.similarity is None else self.similarity

        def loss(batch: Batch) -> Tensor:
            phase = batch.state.phase
            pairs = batch.pairs(
                similarity,
                self.n_negatives or phase.negative_sample_rate or own.n_negatives,
                {**last.parameters, **batch.state.parameters},
                without_neighbors=own.discard_neighbors,
            )
            return own.total(pairs, exaggeration * phase.exaggeration) / max(1, len(pairs.weights))

        return loss
