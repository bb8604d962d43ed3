"""Pairs that are drawn once and kept during a fit: points at a middle distance, and far points."""

import torch
from torch import Tensor

from torchdr_cne.hashing import bounded, hash_grid, stream_key
from torchdr_cne.neighbors.distances import pair_distances, prepare
from torchdr_cne.sampling.exclusion import NegativeSampler

N_CANDIDATES = 6
_MID_NEAR = 3
"""Purpose of the random stream used here."""


def mid_near_points(values_nf: Tensor, n_pairs: int, *, metric: str, seed: int) -> Tensor:
    """Return the second nearest of six random points, ``n_pairs`` times for each row (Wang et al., 2021).

    Parameters
    ----------
    values_nf : Tensor of shape (n, f)
        The rows, at least two.
    n_pairs : int
        Number of mid-near points of a row; each is drawn from a separate six, so that a point may occur twice.
    metric : {"euclidean", "cosine", "manhattan"}
        Distance between rows.
    seed : int
        The draws are a pure function of (seed, row, pair).

    Returns
    -------
    Tensor of shape (n, n_pairs), int64
        Points other than the row itself. If there are fewer than six others, all are candidates; a single one is taken.
    """
    n = len(values_nf)
    rows = torch.arange(n, device=values_nf.device)
    n_candidates = min(N_CANDIDATES, n - 1)
    prepared = prepare(values_nf, metric)
    found = []
    for pair in range(n_pairs):
        candidates = distinct_others(n, rows, n_candidates, stream_key(seed, pair, _MID_NEAR))
        distances = pair_distances(prepared, prepared, candidates, metric)
        place = torch.argsort(distances, dim=1, stable=True)[:, min(1, n_candidates - 1)]
        found.append(candidates.gather(1, place.unsqueeze(1)))
    return torch.cat(found, dim=1) if found else rows.new_empty((n, 0))


def distinct_others(n: int, rows: Tensor, n_draws: int, key: int) -> Tensor:
    """Return ``n_draws`` distinct others of ``n`` points for each row, (R, n_draws), by Floyd's algorithm."""
    words = hash_grid(key, rows, n_draws)
    chosen = torch.full_like(words, -1)
    for draw, top in enumerate(range(n - 1 - n_draws, n - 1)):
        candidate = bounded(words[:, draw], top + 1)
        is_taken = (chosen == candidate.unsqueeze(1)).any(dim=1)
        chosen[:, draw] = torch.where(is_taken, top, candidate)
    return chosen + (chosen >= rows.unsqueeze(1)).long()


def far_points(n: int, n_draws: int, *, seed: int, neighbors: tuple[Tensor, Tensor]) -> Tensor:
    """Return far points for each of ``n`` rows, drawn uniformly from the points that are not its neighbours.

    Parameters
    ----------
    n : int
        Number of points.
    n_draws : int
        Number of far points of a row, drawn with replacement.
    seed : int
        The draws are a pure function of (seed, row, draw).
    neighbors : tuple of (indptr, ids)
        Distinct neighbours of each row, ragged. A row whose neighbours are all other points draws from these.

    Returns
    -------
    Tensor of shape (n, n_draws), int64
    """
    indptr, ids = neighbors
    degrees = indptr.diff()
    keeps = degrees < n - 1
    ids = ids[torch.repeat_interleave(keeps, degrees)]
    degrees = torch.where(keeps, degrees, 0)
    indptr = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])
    # They are drawn one at a time, so that points may be drawn again if there are only a few.
    sampler = NegativeSampler(n, torch.arange(n, device=ids.device), 1, (indptr, ids))
    return torch.cat([sampler.draw(seed, draw) for draw in range(n_draws)], dim=1)
