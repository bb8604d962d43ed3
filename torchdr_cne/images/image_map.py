"""The base of the estimators of images, which reads images, builds the network, fits it and applies it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from torchdr_cne.encoders.running import evaluating, random_numbers_kept
from torchdr_cne.fitting.fit import fit as run_fit
from torchdr_cne.fitting.publishing import Publisher
from torchdr_cne.images.augmentation import simclr_augmentation
from torchdr_cne.images.loading import ImagePairs, Loading, plain_batches, sample, size_for
from torchdr_cne.images.networks import ImageNetwork
from torchdr_cne.images.parameters import ImageParameters
from torchdr_cne.images.sources import open_images, readable
from torchdr_cne.images.stages import Stage, clipping, read_stages
from torchdr_cne.networks.loss import Loss
from torchdr_cne.networks.options import NetworkOptions
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.schedules import WarmCosine
from torchdr_cne.parametric.contrastive import InfoNCE
from torchdr_cne.parametric.graphless import GraphlessMap
from torchdr_cne.resources import limited_threads, matmul_precision, resolve_device

_SAMPLED = 1000
_RATE, _RATE_BATCH = 0.03, 256
_WARMUP, _LONG = 10, 100
_PRECISIONS = ("highest", "high", "medium")


class ImageMap(ImageParameters, GraphlessMap, replaces=("n_components", "learning_rate")):
    """A network on images that is trained with two random views of each image.

    Attributes
    ----------
    embedding_ : ndarray of shape (n, out_dim)
        Embedding of the images of the fit.
    labels_ : ndarray of shape (n,)
        ``y``, or else the labels of the data set; a label that is no whole number becomes −1.
    classes_ : tuple of str
        Names of the classes if the images come from a folder of folders.
    encoder_ : ImageEncoder
        The network; ``encoder_.backbone`` gives features.
    skipped_ : list of int
        Numbers of images that could not be read.
    """

    # A parameter of the base class, which mypy takes for an attribute of instances.
    n_components: ClassVar[Any] = property(lambda self: self.out_dim)  # type: ignore[misc]  # out_dim is the parameter

    _former_parameters: ClassVar[dict[str, Any]] = {"use_ffcv": False}
    _n_stages: ClassVar[tuple[int, ...]] = (1,)

    # ---- fitting and applying ------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, *, graph: Any = None) -> "ImageMap":
        """Train the network on the images of a data set.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C), torch Dataset, str or Path
            Images: bytes, or floats in [0, 1]; a map-style data set of PIL images or tensors, with or without labels;
            or a folder of files, whose folders are classes.
        y : array-like of shape (n,), default=None
            Labels to return as ``labels_``; the network does not learn from them.
        graph : None
            Refused, as the pairs are two views of an image.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the images cannot be used; the message says what to change.
        """
        self._refuse(graph)
        plan = self._plan()
        given = open_images(X)
        if y is not None and len(y) != len(given):
            raise ValueError(f"y has {len(y)} labels for {len(given)} images; pass one for each, or none.")
        images = readable(given, skip=self.skip_unreadable)
        size = size_for(images, self.image_size)
        pairs = ImagePairs(images, self._loading(size))
        some = sample(images, size, _SAMPLED)
        seen = {
            "pixel_mean": some.double().mean(dim=(0, 2, 3)).tolist(),
            "pixel_scale": some.double().std(dim=(0, 2, 3)).clamp_min(1e-3).tolist(),
            "half_precision": self._halves(),
        }
        with matmul_precision(self.float32_matmul_precision):
            plan = replace(plan, networks=self._network_options(**seen), extras=seen)
            run_fit(plan, Publisher(self, self._callback_list()), pairs)
        if y is not None:
            self.labels_ = np.asarray(y)[list(images.numbers)]
        elif pairs.labels is not None:  # else rank 0 has fitted alone, and handed them out
            self.labels_ = pairs.labels.numpy()
        self.classes_ = list(images.classes)
        self.skipped_ = sorted(set(given.numbers) - set(images.numbers))
        return self

    def fit_transform(
        self,
        X: Any,
        y: Any = None,
        *,
        graph: Any = None,
        return_labels: bool = False,
        return_backbone_features: bool = False,
    ) -> Any:
        """Train the network and return the embedding of the images; parameters are as in `fit` and `transform`."""
        self.fit(X, y, graph=graph)
        if return_backbone_features:
            return self.transform(X, return_labels=return_labels, return_backbone_features=True)
        return (self.embedding_, self.labels_) if return_labels else self.embedding_

    def transform(self, X: Any, *, return_labels: bool = False, return_backbone_features: bool = False) -> Any:
        """Return the embedding of images, in their order and without any augmentation.

        Parameters
        ----------
        X : as in `fit`
            Images of any size; they are brought to the size of the fit.
        return_labels : bool, default=False
            Whether to return the labels too, −1 where there is none.
        return_backbone_features : bool, default=False
            Whether to return the features of the backbone too, in the last place.

        Returns
        -------
        ndarray of shape (n, out_dim), or a tuple with labels (n,) and features (n, f)
            float32.
        """
        check_is_fitted(self, "embedding_")
        if return_backbone_features and self.model is not None:
            raise ValueError("model= has no backbone of its own; give backbone= and projection_head= instead.")
        images = readable(open_images(X), skip=self.skip_unreadable)
        height, width = self.input_shape_[1:]
        loading = replace(self._loading((int(height), int(width))), view=None)
        encoder: Any = self.encoder_
        device = next(encoder.parameters()).device
        found: dict[str, list[Tensor]] = {"places": [], "labels": [], "features": []}
        with limited_threads(self.n_jobs), torch.no_grad(), evaluating(encoder), random_numbers_kept(encoder):
            for batch, labels in plain_batches(images, loading):
                if batch.shape[1] != self.input_shape_[0]:
                    raise ValueError(
                        f"images have {batch.shape[1]} channels, and those of the fit {self.input_shape_[0]}; convert "
                        "them."
                    )
                rows = batch.to(device=device, dtype=self._torch_dtype)
                found["labels"].append(labels)
                features = encoder.features(rows)
                found["places"].append(encoder.places(features).cpu())
                if return_backbone_features:
                    found["features"].append(features.to(rows.dtype).cpu())
        wanted = ["places"] + ["labels"] * return_labels + ["features"] * return_backbone_features
        arrays = [torch.cat(found[name]).numpy() for name in wanted]
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    def features(self, X: Any) -> np.ndarray:
        """Return the backbone's features (n, f) of images, for a linear probe or a search; see `transform`."""
        return self.transform(X, return_backbone_features=True)[-1]

    # ---- what a fit asks for -------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._stages()

    def _loading(self, size: tuple[int, int]) -> Loading:
        view = self.data_transform
        view = simclr_augmentation(size) if view is None else view
        return Loading(size, view, self.batch_size, self.num_workers, dict(self.dl_kwargs or {}))

    def _halves(self) -> bool:
        device = resolve_device(self.device, None)
        if self.mixed_precision == "auto":
            return device.type == "cuda" and torch.cuda.is_bf16_supported()
        return bool(self.mixed_precision)

    def _network(
        self,
        pixel_mean: Sequence[float] = (0.0,),
        pixel_scale: Sequence[float] = (1.0,),
        half_precision: bool = False,
    ) -> ImageNetwork:
        """Return the plan of the network, for images whose channels have this mean and scale."""
        return ImageNetwork(
            self.backbone,
            self.projection_head,
            self.model,
            mean=tuple(pixel_mean),
            scale=tuple(pixel_scale),
            half=half_precision,
        )

    @property
    def encoder(self) -> ImageNetwork:
        """The plan from which the fitted network was built, and can be rebuilt."""
        names = ("pixel_mean", "pixel_scale", "half_precision")
        return self._network(**{name: vars(self)[f"{name}_"] for name in names if f"{name}_" in vars(self)})

    def _network_options(self, **seen: Any) -> NetworkOptions:
        return NetworkOptions(self._network(**seen), None, self.batch_size, self._batch_loss())

    def _networks_plan(self) -> NetworkOptions:
        return self._network_options()

    def _batch_loss(self) -> Loss:
        return self.loss if isinstance(self.loss, Loss) else InfoNCE(self._similarity())

    # ---- stages --------------------------------------------------------------------------------------------

    def _stages(self) -> list[Stage]:
        return read_stages(self, self._n_stages)

    def _auto_rates(self, n: int) -> list[float]:
        return [_RATE * self.batch_size / _RATE_BATCH] * n

    def _auto_warmups(self, epochs: Sequence[int]) -> list[int]:
        return [_WARMUP if count >= _LONG else 0 for count in epochs]

    def _phases(self, n: int) -> list[Phase]:
        """Return the stages as phases of ``n`` mini-batches an epoch."""
        return [self._phase(number, stage, n) for number, stage in enumerate(self._stages(), 1)]

    def _phase(self, number: int, stage: Stage, n: int) -> Phase:
        is_sgd = self._optimizer_choice == "SGD"
        automatic = {"momentum": 0.9, "weight_decay": 5e-4} if is_sgd else {}
        given = self.optimizer_kwargs if isinstance(self.optimizer_kwargs, Mapping) else automatic
        schedule = {
            "scheduler": WarmCosine,
            "scheduler_kwargs": {"total": stage.epochs * n, "warmup": stage.warmup * n},
        }
        return Phase(
            stage.epochs * n,
            self._batch_loss(),
            optimizer=self._optimizer_choice,
            optimizer_kwargs=given,
            learning_rate=stage.rate,
            parameters={"stage": number},
            **(schedule if self.lr_scheduler is not None else {}),  # type: ignore[arg-type]  # keywords of a Phase
            **clipping(self.trainer_kwargs),  # type: ignore[arg-type]  # keywords of a Phase
        )

    @property
    def _optimizer_choice(self) -> Any:
        names = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "auto": "SGD"}
        return names.get(self.optimizer, self.optimizer) if isinstance(self.optimizer, str) else self.optimizer
