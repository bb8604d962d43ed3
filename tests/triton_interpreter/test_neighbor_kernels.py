"""The kernels of the neighbour search against torch, in Triton's interpreter: run with TRITON_INTERPRET=1."""

import pytest
import torch

from torchdr_cne.neighbors.comparisons import GROUP, PlacedPoints, TorchComparisons
from torchdr_cne.neighbors.tile_index import TileIndex
from torchdr_cne.neighbors.tiles import tiled
from torchdr_cne.neighbors.triton_comparisons import TritonComparisons


def normal(n, f, seed=0):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed))


def placed(X, n_tiles=4):
    return PlacedPoints.of(X, tiled(X, n_tiles, GROUP))


def places_of(points):
    return torch.nonzero(points.squares.isfinite()).squeeze(1)


POINTS = [
    pytest.param(normal(700, 5), id="few columns"),
    pytest.param(normal(700, 50), id="many columns"),
    pytest.param(normal(700, 20) + 3, id="not centred"),
    pytest.param(normal(500, 3).round(), id="ties"),
]


@pytest.mark.parametrize("X", POINTS)
def test_the_nearest_of_probed_tiles_are_among_the_candidates(X):
    points, n_near = placed(X), 10
    rows = places_of(points)[::5]
    probes = torch.stack([(rows // points.size + shift) % 4 for shift in (3, 0, 1)], dim=1)
    candidates = TritonComparisons(points).probed(rows, probes, n_near).long()
    everything = (probes.unsqueeze(2) * points.size + torch.arange(points.size)).view(len(rows), -1)
    assert candidates.shape == (len(rows), n_near * GROUP)
    assert bool(points.squares[candidates].isfinite().all())
    for own, some, every in zip(rows, candidates, everything, strict=True):
        found, wanted = (
            (points.table[of] - points.table[own]).square().sum(dim=1).sort().values[:n_near]
            for of in (some.unique(), every[points.squares[every].isfinite()])
        )
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("X", POINTS)
@pytest.mark.parametrize("n_candidates", [12, 37, 300])
def test_the_nearest_candidates_are_those_of_torch(X, n_candidates):
    points = placed(X)
    rows = places_of(points)[::60]
    generator = torch.Generator().manual_seed(1)
    candidates = places_of(points)[torch.randint(0, len(X), (len(rows), n_candidates), generator=generator)].int()
    candidates[:, ::3] = candidates[:, :1].clone()
    candidates[:, 1::7] = rows.int().unsqueeze(1)
    found = TritonComparisons(points).nearest(rows, candidates, 12)
    wanted = TorchComparisons(points).nearest(rows, candidates, 12)
    assert found.dtype == torch.int32
    keys = [
        (points.table[near.long()] - points.table[rows].unsqueeze(1)).square().sum(dim=2) for near in (found, wanted)
    ]
    torch.testing.assert_close(keys[0], keys[1])
    different = found != wanted  # the last digits of equal keys may differ
    assert float(different.float().mean()) < 0.05
    others = found.masked_fill(found == rows.unsqueeze(1), -1)
    for row in others.tolist():
        kept = [place for place in row if place >= 0]
        assert len(set(kept)) == len(kept)


def test_equal_candidates_are_sorted_by_place():
    points = placed(torch.ones(200, 4), n_tiles=2)
    candidates = places_of(points).flip(0)[None].int()
    found = TritonComparisons(points).nearest(torch.tensor([2]), candidates, 5)
    assert found.tolist() == [[0, 1, 3, 4, 5]]


def test_an_index_finds_what_it_finds_by_torch():
    X = normal(300, 6)
    found, wanted = (
        index.points_of(index.joined(index.search(5)), torch.arange(len(X)))
        for index in (TileIndex(X, 5, fused=fused) for fused in (True, False))
    )
    assert float((found == wanted).float().mean()) > 0.999
