"""Networks for images: a backbone, a projection head, and the outputs for the stages of t-SimCNE."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchdr_cne._optional import import_optional
from torchdr_cne.encoders import NetworkPlan

_HIDDEN = 1024
_STEM = "_simclr"
_LINEAR_STD = 1.0


@dataclass(frozen=True)
class ImageNetwork(NetworkPlan):
    """The plan from which an `ImageEncoder` is built.

    Parameters
    ----------
    backbone : str or Module
        "small", the name of a classification model of torchvision such as "resnet50", or such a name followed by
        "_simclr": a model for small images that begins with a 3×3 convolution of stride 1 and has no pooling there.
    head : {"mlp", "linear"} or Module
        The layers from features to outputs.
    model : Module or None
        Replacement of both backbone and head; the output is that of its last linear layer.
    pretrain_dim : int or None
        Number of outputs in the first stage; None is a network of one stage.
    fades : bool
        Whether the further outputs fade out, instead of being replaced by a new last layer.
    mean, scale : tuple of float
        Mean and scale of pixels in [0, 1], by channel or for all channels.
    half : bool
        Whether the network runs in bfloat16 under autocast.
    """

    backbone: Any = "resnet18_simclr"
    head: Any = "mlp"
    model: Any = None
    pretrain_dim: int | None = None
    fades: bool = False
    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    half: bool = False

    def build(self, shape: Sequence[int], n_components: int) -> nn.Module:
        """Return the network for images (r, C, H, W)."""
        backbone: nn.Module
        if self.model is not None:
            backbone, head = nn.Identity(), deepcopy(self.model)
        else:
            backbone = make_backbone(self.backbone, int(shape[0]))
            head = make_head(self.head, n_features(backbone, shape), self.pretrain_dim or n_components)
        head = with_last_linear(head, lambda last: self._outputs(last, n_components))
        mean, scale = (value * (shape[0] if len(value) == 1 else 1) for value in (self.mean, self.scale))
        encoder = ImageEncoder(backbone, head, mean, scale, half=self.half)
        return encoder.to(memory_format=torch.channels_last)

    def _outputs(self, last: nn.Linear, n_components: int) -> nn.Module:
        if self.pretrain_dim is None:
            return last if last.out_features == n_components else nn.Linear(last.in_features, n_components)
        if last.out_features != self.pretrain_dim:
            last = nn.Linear(last.in_features, self.pretrain_dim)
        return FadingOutputs(last, n_components) if self.fades else StagedOutputs(last, n_components)


class ImageEncoder(nn.Module):
    """A network from images (r, C, H, W) with values in [0, 1] to their embedding (r, d).

    Attributes
    ----------
    backbone : Module
        The layers from images to features (r, f).
    head : Module
        The layers from features to the embedding.
    """

    def __init__(
        self, backbone: nn.Module, head: nn.Module, mean: Sequence[float], scale: Sequence[float], *, half: bool = False
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.half_precision = backbone, head, half
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.get_default_dtype()).view(-1, 1, 1))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.get_default_dtype()).view(-1, 1, 1))

    mean: Tensor
    scale: Tensor

    def features(self, images: Tensor) -> Tensor:
        """Return the features (r, f) that the backbone gives for images."""
        rows = ((images - self.mean) / self.scale).contiguous(memory_format=torch.channels_last)
        with torch.autocast(rows.device.type, torch.bfloat16, enabled=self.half_precision):
            return self.backbone(rows).flatten(1) if not isinstance(self.backbone, nn.Identity) else rows

    def places(self, features: Tensor) -> Tensor:
        """Return the embedding (r, d) that the head gives for features, in the dtype of the network."""
        with torch.autocast(features.device.type, torch.bfloat16, enabled=self.half_precision):
            return self.head(features).to(self.mean.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Return the embedding (r, d) of images."""
        return self.places(self.features(images))


class StagedOutputs(nn.Module):
    """Two alternative last layers: a wide one for pretraining, and a narrow one from the second stage on.

    The narrow one is also used outside of fits; its first weights are drawn from N(0, 1).
    """

    def __init__(self, wide: nn.Linear, n_out: int) -> None:
        super().__init__()
        self.wide = wide
        self.narrow = nn.Linear(wide.in_features, n_out)
        nn.init.normal_(self.narrow.weight, std=_LINEAR_STD)
        self._is_pretraining = False

    def follow(self, state: Any) -> None:
        """Use the layer that the phase trains."""
        self._is_pretraining = state.phase.parameters["stage"] == 1

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (r, wide) in the first stage of a fit, and (r, narrow) otherwise."""
        return self.wide(x) if self._is_pretraining and self.training else self.narrow(x)


class FadingOutputs(nn.Module):
    """One last layer, whose outputs beyond the first few fade to 0 in the second stage."""

    def __init__(self, wide: nn.Linear, n_out: int) -> None:
        super().__init__()
        self.wide, self.n_out, self._rest = wide, n_out, 0.0

    def follow(self, state: Any) -> None:
        """Set the factor by which the further outputs are multiplied, from the state of the loop."""
        stage, phase = state.phase.parameters["stage"], state.phase
        done = (state.step - phase.start) / max(1, phase.stop - phase.start)
        self._rest = 1.0 if stage == 1 else 1.0 - done if stage == 2 else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (r, wide), of which the further ones have faded, or (r, n_out) once they are 0."""
        z = self.wide(x)
        if not self.training or self._rest == 0:
            return z[:, : self.n_out]
        return torch.cat([z[:, : self.n_out], self._rest * z[:, self.n_out :]], dim=1)


class SmallConvNet(nn.Module):
    """A convolution, then residual blocks of 32, 64 and 128 channels, each of which halves height and width.

    It has 0.3 million parameters and 128 features, and is meant for small images on machines without a GPU.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        widths = (32, 64, 128)
        layers: list[nn.Module] = [nn.Conv2d(n_channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(32)]
        layers.append(nn.ReLU())
        for n_in, n_out in zip((widths[0], *widths), widths, strict=False):
            layers.append(_ConvBlock(n_in, n_out, stride=2))
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return features (r, 128)."""
        return self.layers(x).flatten(1)


class _ConvBlock(nn.Module):
    """x ↦ relu(S(x) + BN(C(relu(BN(C(x)))))) with 3×3 convolutions C and a 1×1 shortcut S where sizes change."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        same = n_in == n_out and stride == 1
        shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
        self.shortcut = nn.Identity() if same else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return (r, n_out, H / stride, W / stride)."""
        return torch.relu(self.shortcut(x) + self.layers(x))


def make_backbone(backbone: Any, n_channels: int) -> nn.Module:
    """Return the network up to the features: the one of that name, or a copy of a module."""
    if isinstance(backbone, nn.Module):
        return deepcopy(backbone)
    if backbone == "small":
        return SmallConvNet(n_channels)
    models = import_optional("torchvision.models", "images")
    name = backbone.removesuffix(_STEM)
    network = models.get_model(name, weights=None)
    with_last_linear(network, lambda _: nn.Identity())
    small_stem = backbone.endswith(_STEM)
    _replace_first_conv(network, n_channels, small_stem=small_stem)
    if small_stem and hasattr(network, "maxpool"):
        network.maxpool = nn.Identity()
    return network


def check_backbone(backbone: Any) -> None:
    """Raise a ValueError unless ``backbone`` is a module or a name that is known."""
    if isinstance(backbone, nn.Module) or backbone == "small":
        return
    models = import_optional("torchvision.models", "images") if isinstance(backbone, str) else None
    if models is None or backbone.removesuffix(_STEM) not in models.list_models(module=models):
        raise ValueError(
            f"backbone={backbone!r} is unknown; pass 'resnet18_simclr', 'small', another model of torchvision such as "
            "'resnet50' or 'resnet50_simclr', or a torch.nn.Module that gives features (r, f)."
        )


def make_head(head: Any, n_in: int, n_out: int) -> nn.Module:
    """Return the projection head for ``n_in`` features; a user's own module is copied."""
    if isinstance(head, nn.Module):
        return deepcopy(head)
    if head == "linear":
        return nn.Linear(n_in, n_out)
    return nn.Sequential(nn.Linear(n_in, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, n_out))


def n_features(backbone: nn.Module, shape: Sequence[int]) -> int:
    """Return how many features a backbone gives for images (C, H, W)."""
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            found = backbone(torch.zeros((1, *shape)))
    except Exception as error:  # a user's module may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"the backbone cannot take images of shape {tuple(shape)}: {reason}; change image_size or the backbone."
        ) from error
    backbone.train(was_training)
    return found.flatten(1).shape[1]


def with_last_linear(network: nn.Module, replacement: Any) -> nn.Module:
    """Return the network with its last linear layer replaced by the result of ``replacement`` for that layer."""
    if isinstance(network, nn.Linear):
        return replacement(network)
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise ValueError(
            f"{type(network).__name__} has no linear layer, as the output has to be; let it end in torch.nn.Linear."
        )
    owner, _, name = names[-1].rpartition(".")
    parent = network.get_submodule(owner)
    setattr(parent, name, replacement(getattr(parent, name)))
    return network


def _replace_first_conv(network: nn.Module, n_channels: int, *, small_stem: bool) -> None:
    convolutions = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        return
    name, module = convolutions[0]
    if module.in_channels == n_channels and not small_stem:
        return
    kernel, stride, padding = ((3, 3), 1, 1) if small_stem else (module.kernel_size, module.stride, module.padding)
    found = nn.Conv2d(n_channels, module.out_channels, kernel, stride, padding, bias=module.bias is not None)  # type: ignore[arg-type]  # pairs
    owner, _, own = name.rpartition(".")
    setattr(network.get_submodule(owner), own, found)
