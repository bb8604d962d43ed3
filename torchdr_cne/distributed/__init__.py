"""Several processes that fit one embedding together: their group, their shares of the rows, and their agreements."""

from torchdr_cne.distributed.config import DistributedConfig
from torchdr_cne.distributed.group import joined
from torchdr_cne.distributed.ranks import RankError, Ranks, Signal
from torchdr_cne.distributed.share import Share
from torchdr_cne.distributed.signals import listening

__all__ = ["DistributedConfig", "RankError", "Ranks", "Share", "Signal", "joined", "listening"]
