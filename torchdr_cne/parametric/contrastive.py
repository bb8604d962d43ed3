"""Contrastive losses of views and of labels, in which the other rows of the mini-batch are the negatives."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from torchdr_cne.checks import POSITIVE, check_choice
from torchdr_cne.losses import info_nce, log_add_positive, log_normaliser
from torchdr_cne.networks.loss import Batch, Bound, Loss
from torchdr_cne.networks.training import TrainingSet
from torchdr_cne.objectives.pairs import rows_at
from torchdr_cne.similarities import Cauchy, CosineExp, Similarity


@dataclass(frozen=True)
class InfoNCE(Loss):
    """A loss that compares each row of a mini-batch with all others: mean of −log q(i, i⁺) + log Σ_{j≠i} q(i, j).

    With `Cauchy` this is the loss of t-SimCNE (Böhm et al., 2023), with `CosineExp` that of SimCLR (Chen et al., 2020).
    Both members of `PositivePairs` are anchors; of an edge only the head is.

    Parameters
    ----------
    similarity : Similarity, default=Cauchy()
        Similarity q of two rows of the output of the network.
    include_positive : bool, default=True
        Whether the sum includes i⁺; without it this is the decoupled loss of Yeh et al. (2022).
    """

    similarity: Similarity = field(default_factory=Cauchy)
    include_positive: bool = True

    name: ClassVar[str] = "contrast"
    sampling: ClassVar[str | None] = "edges"

    def __post_init__(self) -> None:
        if not isinstance(self.similarity, Similarity):
            raise ValueError(
                f"similarity={self.similarity!r} of InfoNCE must be a Similarity such as Cauchy() or CosineExp()."
            )

    def bind(self, training: TrainingSet) -> Bound:
        """Return the loss as a function of a mini-batch."""

        def loss(batch: Batch) -> Tensor:
            heads, tails = batch.draw.heads, batch.draw.tails
            return self.of_rows(batch.z, heads, tails, batch.draw.weights)

        return loss

    def of_rows(self, z: Tensor, heads: Tensor, tails: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the loss of positive pairs among rows.

        Parameters
        ----------
        z : Tensor of shape (r, d)
            The rows; all of them except the head itself and its tail are negatives of each head.
        heads, tails : Tensor of shape (E,)
            Numbers of the two rows of each pair.
        weights : Tensor of shape (E,), default=None
            Weight of each pair; None is 1.
        """
        log_q = self.similarity.table(rows_at(z, heads), z)
        own = torch.arange(len(z), device=z.device)
        no_negative = (own == heads.unsqueeze(1)) | (own == tails.unsqueeze(1))
        attraction, repulsion = info_nce(
            log_q.gather(1, tails.unsqueeze(1)).squeeze(1),
            log_q.masked_fill(no_negative, -torch.inf),
            include_positive=self.include_positive,
        )
        losses = attraction + repulsion
        return losses.mean() if weights is None else (weights * losses).mean()


KINDS = ("decoupled", "info_nce")


@dataclass(frozen=True)
class LabelContrast(Loss):
    """A loss that compares rows of one class with the rows of all other classes in the mini-batch.

    "decoupled" is the mean over pairs (i, p) of one class of −s_ip/τ + log Σ_{n: y_n ≠ y_i} e^{s_in/τ}, where s is the
    cosine (Yeh et al., 2022); "info_nce" includes the pair in the sum as well (Khosla et al., 2020). Rows labelled −1
    take no part. A mini-batch without such a pair has loss 0.

    Parameters
    ----------
    kind : {"decoupled", "info_nce"}, default="decoupled"
        Which of the two losses is used.
    temperature : float, default=0.07
        Temperature τ.
    """

    kind: str = "decoupled"
    temperature: float = 0.07

    name: ClassVar[str] = "contrast"
    sampling: ClassVar[str | None] = "items"
    needs: ClassVar[tuple[str, ...]] = ("labels",)

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        if not POSITIVE.admits(self.temperature):
            raise ValueError(f"temperature={self.temperature!r} of LabelContrast must be {POSITIVE}.")

    def bind(self, training: TrainingSet) -> Bound:
        """Return the loss as a function of a mini-batch."""

        def loss(batch: Batch) -> Tensor:
            assert batch.labels is not None
            return self.of_rows(batch.z, batch.labels)

        return loss

    def of_rows(self, z: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of rows (B, d) with class codes (B,), −1 where the class is unknown, in O(B²)."""
        known = labels >= 0
        log_q = CosineExp(self.temperature).table(z, z)
        is_same = labels.unsqueeze(1) == labels
        both_known = known.unsqueeze(1) & known
        log_sums = log_normaliser(log_q.masked_fill(is_same | ~both_known, -torch.inf))
        has_negatives = torch.isfinite(log_sums)
        log_sums = torch.where(has_negatives, log_sums, 0.0).unsqueeze(1)
        own = torch.eye(len(z), dtype=torch.bool, device=z.device)
        is_pair = is_same & both_known & ~own & has_negatives.unsqueeze(1)
        totals = log_sums if self.kind == "decoupled" else log_add_positive(log_q, log_sums)
        losses = torch.where(is_pair, totals - log_q, 0.0)
        return losses.sum() / is_pair.sum().clamp_min(1)
