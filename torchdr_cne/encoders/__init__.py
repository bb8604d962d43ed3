"""Networks for parametric embeddings, which ``encoder=`` and ``decoder=`` name."""

from torchdr_cne.encoders.building import NetworkPlan, build_decoder, build_encoder, check_spec
from torchdr_cne.encoders.networks import Jitter, ResidualBlock, Standardize, UnitNorm, Unstandardize, mlp, residual_mlp
from torchdr_cne.encoders.running import in_batches

__all__ = [
    "Jitter",
    "NetworkPlan",
    "ResidualBlock",
    "Standardize",
    "UnitNorm",
    "Unstandardize",
    "build_decoder",
    "build_encoder",
    "check_spec",
    "in_batches",
    "mlp",
    "residual_mlp",
]
