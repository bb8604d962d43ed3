"""Negatives: independent draws with exclusion, and reciprocal blocks; both pure functions of a seed."""

from torchdr_cne.sampling.blocks import BLOCK_SIZE, BlockLayout, draw_shifts
from torchdr_cne.sampling.exclusion import NegativeSampler, sample_negatives

__all__ = ["BLOCK_SIZE", "BlockLayout", "NegativeSampler", "draw_shifts", "sample_negatives"]
