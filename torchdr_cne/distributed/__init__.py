"""Several processes that fit one embedding together: their group, which rank owns what, and how ranks agree."""

from torchdr_cne.distributed.config import DistributedConfig
from torchdr_cne.distributed.group import joined
from torchdr_cne.distributed.ranks import RankError, Ranks, Signal
from torchdr_cne.distributed.share import Share
from torchdr_cne.distributed.signals import listening

__all__ = ["DistributedConfig", "RankError", "Ranks", "Share", "Signal", "joined", "listening"]
