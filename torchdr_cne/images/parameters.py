"""The parameters that estimators of images have in common."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from torchdr_cne.checks import COUNT, POSITIVE, Bound, check_choice
from torchdr_cne.images.loading import INCLUDED, check_options
from torchdr_cne.images.networks import check_backbone
from torchdr_cne.images.stages import clipping
from torchdr_cne.networks.loss import Loss
from torchdr_cne.parameters.group import ParameterGroup, group
from torchdr_cne.similarities import Cauchy, CosineExp, Gaussian, Similarity

_PRECISIONS = ("highest", "high", "medium")


@group
class ImageParameters(ParameterGroup):
    """Parameters of estimators of images: the loss, the network and the schedule.

    Parameters
    ----------
    loss : "infonce" or Loss, default="infonce"
        The loss to minimise.
    metric : {None, "euclidean", "cosine", "gauss"} or Similarity, default=None
        Similarity of outputs; None and "euclidean" are the Cauchy kernel, "cosine" is exp(cos/τ).
    temperature : float, default=0.5
        Temperature τ of "cosine".
    backbone : str or Module, default="resnet18_simclr"
        As in `torchdr_cne.images.ImageNetwork`; "small" suits a machine without a GPU.
    projection_head : {"mlp", "linear"} or Module, default="mlp"
        The layers from features to outputs: "mlp" is features → 1 024 → rectifier → outputs, "linear" is one layer.
    model : Module or None, default=None
        Backbone and head in one module, which is copied with its weights. Its last linear layer is the output, and is
        replaced if its width does not fit.
    data_transform : callable, "is_included" or None, default=None
        Function from an image to a random view of it; None is `simclr_augmentation`. "is_included" is for data sets
        whose images are already views, a different one each time, or pairs of views.
    image_size : int, (int, int) or None, default=None
        Height and width of the images that the network receives; None takes those of the first image.
    out_dim : int, default=2
        Dimension of the embedding.
    batch_size : int, default=512
        Number of images in a mini-batch, summed over all ranks.
    total_epochs : int or sequence of int
        Number of passes over the images in each stage.
    lr : "auto_batch", float or sequence of float, default="auto_batch"
        Learning rate of each stage; "auto_batch" is 0.03 · batch_size / 256.
    warmup : "auto", int or sequence of int, default="auto"
        Number of epochs in which the rate grows to ``lr``, in each stage; "auto" is 10, and 0 in stages of fewer than
        100 epochs.
    optimizer : str or Optimizer class, default="SGD"
        The optimiser, which is new in each stage; SGD has momentum .9 and weight decay 5e-4. "sgd" is also accepted.
    lr_scheduler : {"cos_annealing", None}, default="cos_annealing"
        Schedule of the rate: half a cosine to 0 in each stage, or with None a constant rate.
    num_workers : int, default=0
        Number of processes that read and augment images; the result does not depend on it. With a GPU take as many as
        there are cores.
    dl_kwargs : dict or None, default=None
        Further keywords of `torch.utils.data.DataLoader`, such as ``pin_memory``.
    trainer_kwargs : dict or None, default=None
        ``gradient_clip_val`` (4.0 unless it is given; None does not clip) and ``gradient_clip_algorithm``, "value" or
        "norm".
    mixed_precision : bool or "auto", default="auto"
        Whether the network computes in bfloat16 under autocast; "auto" does so on GPUs that support it. Losses are
        computed in 32 bits.
    float32_matmul_precision : {"highest", "high", "medium"} or None, default=None
        Argument of `torch.set_float32_matmul_precision` during a fit; the former value is restored afterwards.
    skip_unreadable : bool, default=False
        Whether images that cannot be read are omitted, with a warning that counts them, instead of raising an error.
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

    _bounds: ClassVar[dict[str, Bound]] = {
        "batch_size": COUNT,
        "out_dim": COUNT,
        "temperature": POSITIVE,
        "num_workers": Bound(0, integer=True),
    }

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
