"""What estimators of images have in common: reading, the network, fitting and applying it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from torchdr_cne.checks import COUNT, POSITIVE, Bound, check_choice
from torchdr_cne.encoders.running import evaluating, random_numbers_kept
from torchdr_cne.images.augmentation import simclr_augmentation
from torchdr_cne.images.loading import INCLUDED, ImagePairs, Loading, check_options, plain_batches, sample, size_for
from torchdr_cne.images.networks import ImageNetwork, check_backbone
from torchdr_cne.images.sources import open_images, readable
from torchdr_cne.images.stages import Stage, clipping, read_stages
from torchdr_cne.networks.loss import Loss
from torchdr_cne.networks.options import NetworkOptions
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.schedules import WarmCosine
from torchdr_cne.parametric.contrastive import InfoNCE
from torchdr_cne.parametric.graphless import GraphlessMap
from torchdr_cne.resources import limited_threads, matmul_precision, resolve_device
from torchdr_cne.similarities import Cauchy, CosineExp, Gaussian, Similarity

_SAMPLED = 1000
_RATE, _RATE_BATCH = 0.03, 256
_WARMUP, _LONG = 10, 100
_PRECISIONS = ("highest", "high", "medium")


class ImageMap(GraphlessMap, replaces=("n_components", "learning_rate")):
    """A network on images, trained by two random views of each.

    Parameters
    ----------
    loss : "infonce" or Loss, default="infonce"
        What is minimised.
    metric : {None, "euclidean", "cosine", "gauss"} or Similarity, default=None
        Similarity of outputs: None and "euclidean" are the Cauchy kernel, "cosine" is exp(cos/τ).
    temperature : float, default=0.5
        τ of "cosine".
    backbone : str or Module, default="resnet18_simclr"
        See `torchdr_cne.images.ImageNetwork`; "small" for a machine without a GPU.
    projection_head : {"mlp", "linear"} or Module, default="mlp"
        From the backbone's features to the outputs: features → 1 024 → rectifier → outputs, or one layer.
    model : Module or None, default=None
        Backbone and head in one, of the same parameters as they come. Its last linear layer is the output, replaced
        where its width does not fit. Copied.
    data_transform : callable, "is_included" or None, default=None
        From an image to a random view of it; None is `simclr_augmentation`. "is_included" are data sets whose images
        are views already, others each time they are asked for, or pairs of views.
    image_size : int, (int, int) or None, default=None
        Height and width that the network sees; None is that of the first image.
    out_dim : int, default=2
        Dimension of the embedding.
    batch_size : int, default=512
        Images of a mini-batch, of all ranks together.
    total_epochs : int or sequence of int
        Passes over the images, of each stage.
    lr : "auto_batch", float or sequence of float, default="auto_batch"
        Learning rate of each stage; "auto_batch" is 0.03 · batch_size / 256.
    warmup : "auto", int or sequence of int, default="auto"
        Epochs in which the rate grows to it, of each stage; "auto" is 10, and none in stages of fewer than 100.
    optimizer : str or Optimizer class, default="SGD"
        A new one in each stage; SGD has momentum .9 and weight decay 5e-4. "sgd" is understood.
    lr_scheduler : {"cos_annealing", None}, default="cos_annealing"
        Half a cosine to 0 in each stage, or a constant rate.
    num_workers : int, default=0
        Processes that read and augment images; they change nothing else. With a GPU take as many as there are cores.
    dl_kwargs : dict or None, default=None
        Further keywords of `torch.utils.data.DataLoader`, such as ``pin_memory``.
    trainer_kwargs : dict or None, default=None
        ``gradient_clip_val`` (4.0 unless it is given; None does not clip) and ``gradient_clip_algorithm``, "value" or
        "norm".
    mixed_precision : bool or "auto", default="auto"
        Whether the network computes in bfloat16 under autocast; "auto" is on GPUs that can. Losses are of 32 bits.
    float32_matmul_precision : {"highest", "high", "medium"} or None, default=None
        `torch.set_float32_matmul_precision` during a fit, set back afterwards.
    skip_unreadable : bool, default=False
        Leave out images that cannot be read, with a warning that counts them; else they are an error.

    Attributes
    ----------
    embedding_ : ndarray of shape (n, out_dim)
        Places of the images of the fit.
    labels_ : ndarray of shape (n,)
        ``y``, or the data set's labels as far as they are whole numbers, else −1.
    classes_ : tuple of str
        Names of the classes, of a folder of folders.
    encoder_ : ImageEncoder
        The network; ``encoder_.backbone`` gives features.
    skipped_ : list of int
        Numbers of images that could not be read.
    """

    loss: Any = "infonce"
    metric: Any = None
    temperature: float = 0.5
    backbone: Any = "resnet18_simclr"
    projection_head: Any = "mlp"
    model: Any = None
    data_transform: Any = None
    image_size: Any = None
    out_dim: int = 2
    batch_size: int = 512
    total_epochs: Any = 1000
    lr: Any = "auto_batch"
    warmup: Any = "auto"
    optimizer: Any = "SGD"
    lr_scheduler: str | None = "cos_annealing"
    num_workers: int = 0
    dl_kwargs: Mapping[str, Any] | None = None
    trainer_kwargs: Mapping[str, Any] | None = None
    mixed_precision: bool | str = "auto"
    float32_matmul_precision: str | None = None
    skip_unreadable: bool = False

    # A parameter of the base class, which mypy takes for an attribute of instances.
    n_components: ClassVar[Any] = property(lambda self: self.out_dim)  # type: ignore[misc]

    _former_parameters: ClassVar[dict[str, Any]] = {"use_ffcv": False}
    _n_stages: ClassVar[tuple[int, ...]] = (1,)
    _bounds: ClassVar[dict[str, Bound]] = {
        "batch_size": COUNT,
        "out_dim": COUNT,
        "temperature": POSITIVE,
        "num_workers": Bound(0, integer=True),
    }

    # ---- fitting and applying ------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, *, graph: Any = None) -> "ImageMap":
        """Train the network on the images of a data set.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C), torch Dataset, str or Path
            Images: bytes, or floats in [0, 1]; a map-style data set of PIL images or tensors, with or without labels;
            or a folder of files, whose folders are classes.
        y : array-like of shape (n,), default=None
            Labels to hand back as ``labels_``; they are not learned from.
        graph : None
            Refused: two views of an image are a pair.

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
            self._fit(replace(plan, networks=self._network_options(**seen), extras=seen), pairs, None, None)
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
        """Train the network and return the places of its images; parameters as in `fit` and `transform`."""
        self.fit(X, y, graph=graph)
        if return_backbone_features:
            return self.transform(X, return_labels=return_labels, return_backbone_features=True)
        return (self.embedding_, self.labels_) if return_labels else self.embedding_

    def transform(self, X: Any, *, return_labels: bool = False, return_backbone_features: bool = False) -> Any:
        """Return the places of images, in their order, without any augmentation.

        Parameters
        ----------
        X : as in `fit`
            Images, of any size that can be brought to that of the fit.
        return_labels : bool, default=False
            Return their labels too, −1 where there is none.
        return_backbone_features : bool, default=False
            Return the backbone's features too, last.

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
        check_choice("projection_head", self.projection_head, ("mlp", "linear", self._own(self.projection_head)))
        check_choice("lr_scheduler", self.lr_scheduler, ("cos_annealing", None))
        check_choice("float32_matmul_precision", self.float32_matmul_precision, (None, *_PRECISIONS))
        check_choice("mixed_precision", self.mixed_precision, ("auto", True, False))
        if not (self.model is None or isinstance(self.model, nn.Module)):
            raise ValueError(f"model={self.model!r} must be a torch.nn.Module or None.")
        if self.model is None:
            check_backbone(self.backbone)
        self._check_loss()
        clipping(self.trainer_kwargs)
        self._stages()
        check_options(self.dl_kwargs)

    def _check_loss(self) -> None:
        self._similarity()
        if not (isinstance(self.loss, Loss) or self.loss == "infonce"):
            raise ValueError(f"loss={self.loss!r} is unknown; choose 'infonce', or pass a Loss such as InfoNCE(…).")
        view = self.data_transform
        if not (view is None or callable(view) or view == INCLUDED):
            raise ValueError(
                f"data_transform={view!r} is unknown; pass a function from an image to a view, {INCLUDED!r}, or None."
            )

    @staticmethod
    def _own(value: Any) -> Any:
        return value if isinstance(value, nn.Module) else "mlp"

    def _similarity(self) -> Similarity:
        if isinstance(self.metric, Similarity):
            return self.metric
        known = {"euclidean": Cauchy(), "cosine": CosineExp(self.temperature), "gauss": Gaussian()}
        check_choice("metric", self.metric, (None, *known))
        return known["euclidean" if self.metric is None else self.metric]

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
        """What the fitted network was made from, for rebuilding it."""
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
            **(schedule if self.lr_scheduler is not None else {}),  # type: ignore[arg-type]
            **clipping(self.trainer_kwargs),  # type: ignore[arg-type]
        )

    @property
    def _optimizer_choice(self) -> Any:
        names = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "auto": "SGD"}
        return names.get(self.optimizer, self.optimizer) if isinstance(self.optimizer, str) else self.optimizer
