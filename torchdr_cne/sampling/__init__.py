"""Negatives, by independent draws with exclusions or by reciprocal blocks; both are pure functions of a seed."""

from torchdr_cne.sampling.blocks import BLOCK_SIZE, BlockLayout, draw_shifts
from torchdr_cne.sampling.exclusion import NegativeSampler, sample_negatives
from torchdr_cne.sampling.fixed import far_points, mid_near_points

__all__ = [
    "BLOCK_SIZE",
    "BlockLayout",
    "NegativeSampler",
    "draw_shifts",
    "far_points",
    "mid_near_points",
    "sample_negatives",
]
