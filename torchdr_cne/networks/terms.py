"""Losses of single points: their distance from given points, their reconstruction and their class."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from torchdr_cne.initialization import initial_embedding
from torchdr_cne.networks.loss import Batch, Bound, Loss
from torchdr_cne.networks.training import TrainingSet


@dataclass(frozen=True)
class Position(Loss):
    """Mean squared error between the embedding and given points.

    Parameters
    ----------
    target : {"pca", "spectral"} or array of shape (n, d), default="pca"
        The given points; "pca" and "spectral" are centred and scaled so that the widest column has standard deviation
        1.
    """

    target: Any = "pca"

    name: ClassVar[str] = "position"
    needs: ClassVar[tuple[str, ...]] = ("table",)

    def __post_init__(self) -> None:
        if isinstance(self.target, str) and self.target not in ("pca", "spectral"):
            raise ValueError(
                f"Position(target={self.target!r}) is unknown; choose 'pca' or 'spectral', or give places."
            )
        if not isinstance(self.target, str) and np.ndim(self.target) != 2:
            raise ValueError(f"Position(target=…) must be an array (n, d), got {np.ndim(self.target)} dimensions.")

    @property
    def needs_graph(self) -> bool:
        """Return whether the given points are computed from the graph."""
        return isinstance(self.target, str) and self.target == "spectral"

    def bind(self, training: TrainingSet) -> Bound:
        """Return the loss as a function of a mini-batch, after computing the given points."""
        if isinstance(self.target, str):
            settings = self.target, training.rows, training.graph, training.n_components, 1.0, training.seed
            places = initial_embedding(*settings, training.share)
        else:
            given = self.target  # a copy if it is read-only, of which torch warns
            places = given if isinstance(given, Tensor) else torch.from_numpy(np.require(given, None, "W"))
            wanted = (training.share.n, training.n_components)
            if tuple(places.shape) != wanted or not bool(torch.isfinite(places).all()):
                raise ValueError(
                    f"the places of Position must be finite, of shape (n_samples, n_components) = {wanted}; they have "
                    f"shape {tuple(places.shape)}."
                )
        places = places.to(device=training.device, dtype=training.dtype)

        def loss(batch: Batch) -> Tensor:
            assert batch.draw.ids is not None
            return mse_loss(batch.z, places[batch.draw.ids.to(places.device)])

        return loss

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Position) and np.array_equal(np.asarray(self.target), np.asarray(other.target))

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash


@dataclass(frozen=True)
class Reconstruction(Loss):
    """Mean squared error between the rows and what the decoder makes of their embedding, relative to the variance."""

    name: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("decoder",)
    needs_graph = False

    def bind(self, training: TrainingSet) -> Bound:
        """Return the loss as a function of a mini-batch."""

        def loss(batch: Batch) -> Tensor:
            decoded = batch.networks["decoder"](batch.z)
            return mse_loss(decoded / training.scale, batch.draw.x.to(decoded.dtype) / training.scale)

        return loss


@dataclass(frozen=True)
class Classification(Loss):
    """Cross-entropy of a linear classifier on the embedding, over the labelled points.

    Rows labelled −1 do not count, and a mini-batch that has no other rows has loss 0.
    """

    name: ClassVar[str] = "classification"
    needs: ClassVar[tuple[str, ...]] = ("labels", "classifier")
    needs_graph = False

    def bind(self, training: TrainingSet) -> Bound:
        """Return the loss as a function of a mini-batch."""

        def loss(batch: Batch) -> Tensor:
            scores, labels = batch.networks["classifier"](batch.z), batch.labels
            assert labels is not None
            n_known = (labels >= 0).sum()
            return cross_entropy(scores, labels, ignore_index=-1, reduction="sum") / n_known.clamp_min(1)

        return loss
