"""Networks for parametric embeddings: what ``encoder=`` and ``decoder=`` stand for."""

from torchdr_cne.encoders.building import build_decoder, build_encoder, check_spec
from torchdr_cne.encoders.networks import Jitter, Standardize, Unstandardize, mlp
from torchdr_cne.encoders.running import in_batches

__all__ = [
    "Jitter",
    "Standardize",
    "Unstandardize",
    "build_decoder",
    "build_encoder",
    "check_spec",
    "in_batches",
    "mlp",
]
