"""Estimators whose embedding a network may compute."""

from typing import Any, ClassVar

from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from torchdr_cne.inputs import read_labels
from torchdr_cne.matching.estimator import EmbeddingEstimator
from torchdr_cne.matching.neighbor_embedding import NeighborEmbedding
from torchdr_cne.networks.encoding import decode, encode
from torchdr_cne.networks.hook_loss import HookLoss
from torchdr_cne.networks.loss import Loss
from torchdr_cne.networks.options import NetworkOptions
from torchdr_cne.parameters.networks import Networks
from torchdr_cne.parameters.optimizing import Scheduling

_BATCHES, _MIN_BATCHES = 25, 3500
"""Number of mini-batches of a fit by an encoder: the factor of the square root of n, and the lower bound."""


class Encoding(Networks, Scheduling, EmbeddingEstimator):
    """An estimator that takes an ``encoder``; in a fit without one, the points themselves move.

    Attributes
    ----------
    encoder_, decoder_, classifier_ : torch.nn.Module
        The networks of a fit with an encoder, in evaluation mode.
    """

    def inverse_transform(self, Z: Any) -> Any:
        """Return the rows that the decoder makes of points of the embedding.

        Parameters
        ----------
        Z : array-like or Tensor of shape (m, n_components)
            Points, for instance from `transform`.

        Returns
        -------
        ndarray or Tensor of shape (m, n_features)

        Raises
        ------
        ValueError
            If the estimator was fitted without a decoder, or if ``Z`` has the wrong shape or contains NaN.
        """
        check_is_fitted(self, "embedding_")
        if not hasattr(self, "decoder_"):
            raise ValueError(
                f"this {type(self).__name__} was fitted without a decoder; set encoder and decoder, for instance "
                "to 'mlp', and fit again."
            )
        return decode(self.decoder_, Z, self.embedding_.shape[1], self._torch_dtype)

    def _transformed(self, X: Any) -> Any:
        if hasattr(self, "encoder_"):
            return encode(self.encoder_, self, X, self._torch_dtype)
        return self._placed(X)

    def _placed(self, X: Any) -> Any:
        """Return the embedding of new rows in a fit without an encoder."""
        raise TypeError(f"{type(self).__name__} places no points without an encoder.")

    def _n_iter(self, n: int) -> int:
        if self._by_network and self.max_iter is None:
            return max(_MIN_BATCHES, round(_BATCHES * n**0.5))
        return super()._n_iter(n)

    def _read_labels(self, y: Any, n: int) -> Tensor | None:
        if y is None or self.extra_loss is None:
            return None
        asked = any("labels" in term.needs for _, term in self.extra_loss.terms())
        return read_labels(y, n) if asked else None

    def _networks_plan(self) -> NetworkOptions | None:
        return self._network_options() if self._by_network else None


class EncodedNeighborEmbedding(Encoding, NeighborEmbedding):
    """A neighbour embedding that takes an ``encoder``; the two hooks are evaluated on mini-batches of edges."""

    _former_parameters: ClassVar[dict[str, Any]] = {}

    def _batch_loss(self) -> Loss:
        return HookLoss(self._pair_loss())

    def _placed(self, X: Any) -> Any:
        return NeighborEmbedding._transformed(self, X)
