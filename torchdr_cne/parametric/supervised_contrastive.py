"""Supervised contrastive learning."""

from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR

from torchdr_cne.checks import COUNT, POSITIVE, Bound, check_choice
from torchdr_cne.encoders import check_spec
from torchdr_cne.inputs import read_labels
from torchdr_cne.networks.loss import Loss
from torchdr_cne.networks.options import NetworkOptions
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.parametric.contrastive import KINDS, LabelContrast
from torchdr_cne.parametric.graphless import GraphlessMap

_HALVED_AFTER = 10
_PAIRS_AT_ONCE = 1 << 24


class SupervisedContrastive(GraphlessMap):
    """An embedding by unit vectors that are similar within a class (Khosla et al., 2020; Yeh et al., 2022).

    A network learns from pairs of rows of one class, with all rows of other classes in the mini-batch as negatives;
    new rows are recognised by the training rows they are most similar to.

    Parameters
    ----------
    n_components : int, default=64
        Length of the vectors.
    encoder : {"residual_mlp", "mlp"}, sequence of int or Module, default="residual_mlp"
        Network on the rows. "residual_mlp" is linear to 256, two residual blocks, linear, unit norm; the outputs of
        others are brought to unit norm where they are handed out.
    loss : {"decoupled", "info_nce"}, default="decoupled"
        Whether the pair itself is left out of the sum; see `torchdr_cne.parametric.LabelContrast`.
    temperature : float, default=0.07
        Temperature τ.
    n_epochs : int, default=10
        Number of passes over the rows.
    batch_size : int, default=50
        Number of rows in a mini-batch.
    learning_rate : float, default=3e-4
        Learning rate of AdamW, which has weight decay .01; it falls exponentially, by half in ten epochs.

    Attributes
    ----------
    embedding_ : ndarray or Tensor of shape (n, n_components)
        Unit vectors of the training rows, in the kind of ``X``.
    classes_ : ndarray of shape (C,)
        The classes, sorted.
    labels_ : ndarray of shape (n,)
        Class numbers of the training rows, −1 where the class is unknown.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from torchdr_cne import SupervisedContrastive
    >>> X, y = load_digits(return_X_y=True)
    >>> estimator = SupervisedContrastive(n_epochs=3, random_state=0).fit(X[:1500], y[:1500])
    >>> estimator.score(X[1500:], y[1500:]) > 0.85
    True
    >>> similarities, numbers = estimator.kneighbors(X[1500:1502], 3)
    >>> numbers.shape
    (2, 3)
    """

    n_components: int = 64
    encoder: Any = "residual_mlp"
    loss: str = "decoupled"
    temperature: float = 0.07
    n_epochs: int = 10
    batch_size: int = 50
    learning_rate: float | str = 3e-4
    optimizer: str | type[Optimizer] = "AdamW"

    _bounds: ClassVar[dict[str, Bound]] = {"temperature": POSITIVE, "n_epochs": COUNT, "batch_size": COUNT}

    def fit(self, X: Any, y: Any = None, *, graph: Any = None) -> "SupervisedContrastive":
        """Learn from rows and their classes.

        Parameters
        ----------
        X : array-like, Tensor, data frame or memmap of shape (n, f)
            The rows.
        y : array-like of shape (n,)
            Classes; rows of class −1 are embedded, and not learned from.
        graph : None
            Refused, as the pairs are rows of one class.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If labels are missing, all of one class, or no two rows have the same.
        """
        super().fit(X, y, graph=graph)
        found: Any = vars(self)["embedding_"]
        labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
        codes = read_labels(y, len(labels))
        assert codes is not None
        self.labels_ = codes.numpy()
        first = [int(np.argmax(self.labels_ == code)) for code in range(int(self.labels_.max()) + 1)]
        self.classes_ = labels[first]
        self.embedding_ = self._unit(found)
        return self

    def _transformed(self, X: Any) -> Any:
        return self._unit(super()._transformed(X))

    def kneighbors(self, X: Any, n_neighbors: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """Return the training rows that are most similar to each row.

        Parameters
        ----------
        X : array-like or Tensor of shape (m, f)
            Rows.
        n_neighbors : int, default=5
            Number of training rows to return for each row.

        Returns
        -------
        similarities : ndarray of shape (m, n_neighbors)
            Cosines, descending.
        numbers : ndarray of shape (m, n_neighbors), int64
            Numbers of these training rows.
        """
        check_is_fitted(self, "embedding_")
        return self._nearest(X, n_neighbors, torch.as_tensor(self.embedding_).cpu())

    def _nearest(self, X: Any, n_neighbors: int, kept: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return similarities and numbers of the vectors in ``kept`` (k, d) most similar to those of the rows."""
        if not COUNT.admits(n_neighbors) or n_neighbors > len(kept):
            raise ValueError(f"n_neighbors={n_neighbors!r} must be {COUNT} and at most {len(kept)}, the training rows.")
        found = self.transform(X)
        vectors = found.cpu() if isinstance(found, Tensor) else torch.from_numpy(np.array(found))
        step = max(1, _PAIRS_AT_ONCE // len(kept))
        parts = (vectors[start : start + step] @ kept.T for start in range(0, len(vectors), step))
        similarities, numbers = zip(*(torch.topk(part, n_neighbors, dim=1) for part in parts), strict=True)
        return torch.cat(similarities).numpy(), torch.cat(numbers).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of the most similar training row that has one, (m,)."""
        check_is_fitted(self, "embedding_")
        known = np.flatnonzero(self.labels_ >= 0)
        _, numbers = self._nearest(X, 1, torch.as_tensor(self.embedding_).cpu()[known])
        return self.classes_[self.labels_[known[numbers[:, 0]]]]

    def score(self, X: Any, y: Any) -> float:
        """Return the fraction of rows whose class `predict` finds."""
        wanted = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
        found = self.predict(X)
        if wanted.shape != found.shape:
            raise ValueError(f"y has shape {wanted.shape} for {len(found)} rows; give one label a row.")
        return float(np.mean(found == wanted))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    @staticmethod
    def _unit(vectors: Any) -> Any:
        rows = vectors if isinstance(vectors, Tensor) else torch.from_numpy(np.array(vectors))  # of a frame, too
        rows = torch.nn.functional.normalize(rows, dim=1)
        return rows if isinstance(vectors, Tensor) else rows.numpy()

    def _check_parameters(self) -> None:
        check_choice("loss", self.loss, KINDS)
        super()._check_parameters()
        check_spec("encoder", self.encoder)
        if self.encoder is None:
            raise ValueError(
                "encoder=None leaves SupervisedContrastive nothing to train; set 'residual_mlp', sizes or a module."
            )

    def _read_labels(self, y: Any, n: int) -> Tensor | None:
        if y is None:
            raise ValueError(
                "SupervisedContrastive requires y to be passed, but the target y is None; call fit(X, y) with classes, "
                "−1 where unknown."
            )
        codes = read_labels(y, n)
        counts = torch.bincount(codes[codes >= 0]) if codes is not None else torch.zeros(0)
        if len(counts) < 2:
            raise ValueError(
                f"y has {len(counts)} class{'' if len(counts) == 1 else 'es'}; a contrast needs two or more, so pass "
                "rows of others as well."
            )
        if int(counts.max()) < 2:
            raise ValueError("no two rows of y are of the same class, and pairs are needed; pass coarser classes.")
        return codes

    def _batch_loss(self) -> Loss:
        return LabelContrast(self.loss, self.temperature)

    def _networks_plan(self) -> NetworkOptions:
        return NetworkOptions(self.encoder, None, self.batch_size, self._batch_loss())

    def _phases(self, n: int) -> list[Phase]:
        n_batches = max(1, min(-(-n // self.batch_size), n // 2))
        rate = 0.5 ** (1 / (_HALVED_AFTER * n_batches))
        return [
            Phase(
                self.n_epochs * n_batches,
                self._batch_loss(),
                scheduler=ExponentialLR,
                scheduler_kwargs={"gamma": rate},
            )
        ]
