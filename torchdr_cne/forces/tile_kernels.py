"""Meetings of two blocks: every pair is computed once and serves both of its ends.

The second block's 64 points stand in a scratch buffer, four vectors an array; the loops over them and over the
components have constant bounds. A pair that is none (padding, or a block's own earlier points) has weight 0, and a
distance that no force can trip over.
"""

from types import SimpleNamespace

import numpy as np

from torchdr_cne.forces.numerics import power, prefer_wide_vectors
from torchdr_cne.forces.vectors import lane_sum, load, splat, store

_F = np.float32


def make(f: SimpleNamespace, n_components: int) -> SimpleNamespace:
    """Return the kernels ``total`` and ``force`` for the compiled functions in ``f``."""
    return SimpleNamespace(
        scratch_size=(2 * n_components + 3) * 64 + 16 * n_components,
        total=_tile_total(f, n_components),
        force=_tile_force(f, n_components),
    )


def _tile_total(f: SimpleNamespace, d: int):
    normaliser = f.normaliser
    PRESENT, FAR, SUM = d * 64, (d + 1) * 64, (d + 2) * 64

    @f.jit
    def tile_total(blocks, a, b, p, scratch, out_a, out_b):
        """Sum q over the other block's points, for the rows of ``a`` into ``out_a``, of ``b`` into ``out_b``."""
        prefer_wide_vectors()
        z, mask = blocks.z, blocks.mask
        for k in range(64):
            for c in range(d):
                scratch[c * 64 + k] = z[c, b * 64 + k]
            scratch[PRESENT + k] = mask[b * 64 + k]
            scratch[FAR + k] = _F(1) - mask[b * 64 + k]
            scratch[SUM + k] = _F(0)
            out_a[k] = _F(0)
        for t in range(blocks.sizes[a]):
            if a == b:
                scratch[PRESENT + t], scratch[FAR + t] = _F(0), _F(1)
            total = splat(_F(0))
            for k in range(0, 64, 16):
                d2 = load(scratch, FAR + k)
                for c in range(d):
                    difference = z[c, a * 64 + t] - load(scratch, c * 64 + k)
                    d2 += difference * difference
                q = load(scratch, PRESENT + k) * normaliser(d2, p, power)
                total += q
                store(scratch, SUM + k, load(scratch, SUM + k) + q)
            out_a[t] = lane_sum(total)
        for k in range(64):
            out_b[k] = scratch[SUM + k] + (out_a[k] if a == b else _F(0))

    return tile_total


def _tile_force(f: SimpleNamespace, d: int):
    repulsive, repulsive_scalar, learns = f.repulsive, f.repulsive_scalar, f.learns
    SCALE, PRESENT, FAR = d * 64, (d + 1) * 64, (d + 2) * 64
    SUM, TOTAL = (d + 3) * 64, (2 * d + 3) * 64

    @f.jit
    def tile_force(blocks, a, b, scale, p, scratch, out_a, out_b):
        """Sum (scale_i + scale_k) f(d²_ik) (z_i − z_k) for both blocks' rows; return the learned scalar's part."""
        prefer_wide_vectors()
        z, mask = blocks.z, blocks.mask
        for k in range(64):
            for c in range(d):
                scratch[c * 64 + k] = z[c, b * 64 + k]
                scratch[SUM + c * 64 + k] = _F(0)
                out_a[c, k] = _F(0)
            scratch[SCALE + k] = scale[b * 64 + k]
            scratch[PRESENT + k] = mask[b * 64 + k]
            scratch[FAR + k] = _F(1) - mask[b * 64 + k]
        tile_scalar = 0.0
        for t in range(blocks.sizes[a]):
            if a == b:
                scratch[SCALE + t], scratch[PRESENT + t], scratch[FAR + t] = _F(0), _F(0), _F(1)
            own = scale[a * 64 + t]
            scalar = splat(_F(0))
            for c in range(d):
                store(scratch, TOTAL + 16 * c, splat(_F(0)))
            for k in range(0, 64, 16):
                d2 = load(scratch, FAR + k)
                for c in range(d):
                    difference = z[c, a * 64 + t] - load(scratch, c * 64 + k)
                    d2 += difference * difference
                pair_scale = own * load(scratch, PRESENT + k) + load(scratch, SCALE + k)
                if learns:
                    scalar += pair_scale * repulsive_scalar(d2, p, power)
                coefficient = pair_scale * repulsive(d2, p, power)
                for c in range(d):
                    force = coefficient * (z[c, a * 64 + t] - load(scratch, c * 64 + k))
                    store(scratch, TOTAL + 16 * c, load(scratch, TOTAL + 16 * c) + force)
                    store(scratch, SUM + c * 64 + k, load(scratch, SUM + c * 64 + k) - force)
            for c in range(d):
                out_a[c, t] = lane_sum(load(scratch, TOTAL + 16 * c))
            if learns:
                tile_scalar += lane_sum(scalar)
        for c in range(d):
            for k in range(64):
                out_b[c, k] = scratch[SUM + c * 64 + k] + (out_a[c, k] if a == b else _F(0))
        return tile_scalar

    return tile_force
