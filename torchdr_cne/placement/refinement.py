"""Gradient descent of new points on a method's own loss, each by itself, among training points that do not move.

Shapes: m new points, r of them at a time, k neighbours of each, s sampled training points, d dimensions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from torchdr_cne.forces import shorten_rows
from torchdr_cne.hashing import bounded, hash_counters
from torchdr_cne.objectives.pair_loss import PairLoss
from torchdr_cne.objectives.pairs import Pairs
from torchdr_cne.optimization.building import LATE_MOMENTUM
from torchdr_cne.similarities import Similarity
from torchdr_cne.workers import Workers

ROWS = 64
"""Points are moved in multiples of this number: the remainder of a vector operation would have other bits."""
_TOGETHER = 256
_SAMPLE = 512
_CANDIDATES = 8
"""How many nearest neighbours are tried as a start, besides the weighted mean."""
_STEPS, _ROUGH_STEPS, _ROUGHLY = 20, 16, 8
"""Steps, rough steps, and the stride at which the sample repels in rough steps; in the last few, all of it does."""
_BOTH_ENDS = 2.0
"""Factor of a row's gradient: in a fit each pair is met from both ends, which doubles it."""


def repelling_sample(n: int) -> Tensor:
    """Return the training points that repel every new one: all if there are few, else a random one per equal range."""
    if n <= _SAMPLE:
        return torch.arange(n)
    bounds = torch.arange(_SAMPLE + 1) * n // _SAMPLE
    return bounds[:-1] + bounded(hash_counters(n, torch.arange(_SAMPLE)), bounds.diff())


@dataclass(frozen=True)
class Refinement:
    """Gradient descent on the two loss hooks, with a learning rate that falls to 0.

    Attributes
    ----------
    loss : callable
        Function from `Pairs` to a loss, a sum over rows in proportion to their weights.
    similarity : Similarity
        Similarity of embedded points.
    sample_sd : Tensor of shape (s, d)
        Embedding of the training points that repel.
    n_negatives : float
        How many negatives of a point the sample stands for.
    parameters : mapping of str to float or Tensor
        The method's constants and learned scalars.
    learning_rate : float
        Learning rate of the first step, as in a fit.
    longest : float or None
        Length to which longer gradients are shortened, as in a fit; None shortens none.
    """

    loss: Callable[[Pairs], Tensor]
    similarity: Similarity
    sample_sd: Tensor
    n_negatives: float
    parameters: Mapping[str, Tensor | float]
    learning_rate: float
    longest: float | None = None

    def refine(self, start_md: Tensor, ends_mkd: Tensor, weights_mk: Tensor, workers: Workers) -> Tensor:
        """Return the embedding (m, d) of points that begin at ``start_md``; m is a multiple of `ROWS`.

        A point whose loss would not fall stays where it began.
        """
        places = start_md.clone()

        def work(first: int, last: int) -> None:
            for begin in range(first, last, _TOGETHER):
                rows = slice(begin, min(begin + _TOGETHER, last))
                places[rows] = _Descent(self, ends_mkd[rows], weights_mk[rows]).run(start_md[rows])

        workers.parallel_for(work, len(places), multiple_of=ROWS)
        return places


def hook_refinement(
    loss: PairLoss,
    embedding_nd: Tensor,
    learned: Mapping[str, float],
    learning_rate: float,
    *,
    n_negatives: float | None = None,
    longest: float | None = None,
) -> Refinement:
    """Return the descent on a method's own hooks among the points of an embedding.

    Parameters
    ----------
    loss : PairLoss
        The loss of the method; the constants of its last phase apply to the embedding.
    embedding_nd : Tensor of shape (n, d)
        The embedding.
    learned : mapping of str to float
        Values of learned scalars, and other parameters that the hooks need.
    learning_rate : float
        The first step's rate.
    n_negatives : float or None, default=None
        How many negatives repel a point; None is the number of the loss.
    longest : float or None, default=None
        Length to which longer gradients are shortened; None is the bound of the loss.
    """
    n = len(embedding_nd)
    phase, sample = loss.last_phase(n), repelling_sample(n)
    return Refinement(
        loss=lambda pairs: loss.total(pairs, phase.exaggeration),
        similarity=loss.similarity,
        sample_sd=embedding_nd[sample.to(embedding_nd.device)],
        n_negatives=loss.n_negatives if n_negatives is None else n_negatives,
        parameters={**phase.parameters, **{name: embedding_nd.new_tensor(value) for name, value in learned.items()}},
        learning_rate=learning_rate,
        longest=loss.longest if longest is None else longest,
    )


@dataclass(frozen=True)
class _Sample:
    """Embedded points that repel, and how many negatives each of them stands for."""

    places_1sd: Tensor
    draw_weight: float

    @classmethod
    def of(cls, places_sd: Tensor, n_negatives: float) -> "_Sample":
        return cls(_last_axis_first(places_sd.unsqueeze(0)), n_negatives / len(places_sd))


class _Descent:
    """The descent of a few points."""

    def __init__(self, refinement: Refinement, ends_rkd: Tensor, weights_rk: Tensor) -> None:
        if ends_rkd.shape[1] == 1:  # one more edge, of weight 0, so that a loss's shape always tells edges from rows
            ends_rkd = ends_rkd.repeat(1, 2, 1)
            weights_rk = torch.cat([weights_rk, torch.zeros_like(weights_rk)], dim=1)
        self._refinement = refinement
        self._ends_rkd, self._weights_rk = _last_axis_first(ends_rkd), weights_rk
        self._all = _Sample.of(refinement.sample_sd, refinement.n_negatives)
        self._few = _Sample.of(refinement.sample_sd[::_ROUGHLY], refinement.n_negatives)
        self._rows = torch.arange(len(weights_rk), device=weights_rk.device).repeat_interleave(weights_rk.shape[1])

    def run(self, start_rd: Tensor) -> Tensor:
        """Return the embedded points after all steps, or as they began where that is better."""
        rough = self._descend(self._promising(start_rd), self._few, range(_ROUGH_STEPS))
        places = self._best([start_rd, rough], self._all)
        return self._best([places, self._descend(places, self._all, range(_ROUGH_STEPS, _STEPS))], self._all)

    def _promising(self, start_rd: Tensor) -> Tensor:
        """Return the best of the start and of some neighbours, as the mean of two clusters lies in neither."""
        candidates = self._ends_rkd[:, :_CANDIDATES].unbind(dim=1)
        return self._best([start_rd, *candidates], self._few)

    def _best(self, candidates: list[Tensor], sample: "_Sample") -> Tensor:
        """Return for each point the candidate of least loss, and the first candidate if no other has a lower loss."""
        best, least = candidates[0], self.losses(candidates[0], sample)
        for candidate in candidates[1:]:
            losses = self.losses(candidate, sample)
            lower = losses < least
            best, least = torch.where(lower.unsqueeze(1), candidate, best), torch.where(lower, losses, least)
        return best

    def _descend(self, places_rd: Tensor, sample: "_Sample", steps: range) -> Tensor:
        velocity = torch.zeros_like(places_rd)
        for step in steps:
            velocity = LATE_MOMENTUM * velocity + self._gradient(places_rd, sample)
            places_rd = places_rd - self._refinement.learning_rate * (1 - step / _STEPS) * velocity
        return places_rd

    def losses(self, places_rd: Tensor, sample: "_Sample") -> Tensor:
        """Return the loss (r,) of each point: its derivative by the point's weight, as it is proportional to that."""
        factors = torch.ones_like(places_rd[:, 0]).requires_grad_(True)
        loss = self._refinement.loss(self._pairs(places_rd, self._weights_rk * factors.unsqueeze(1), sample))
        return torch.autograd.grad(loss, factors)[0]

    def _gradient(self, places_rd: Tensor, sample: "_Sample") -> Tensor:
        places_rd = places_rd.detach().requires_grad_(True)
        loss = self._refinement.loss(self._pairs(places_rd, self._weights_rk, sample))
        gradient = _BOTH_ENDS * torch.autograd.grad(loss, places_rd)[0]
        if self._refinement.longest is not None:
            shorten_rows(gradient, 1, self._refinement.longest)
        return gradient

    def _pairs(self, places_rd: Tensor, weights_rk: Tensor, sample: "_Sample") -> Pairs:
        refinement, places_r1d = self._refinement, _last_axis_first(places_rd.unsqueeze(1))
        return Pairs(
            log_q_edges=refinement.similarity(places_r1d, self._ends_rkd).reshape(-1),
            weights=weights_rk.reshape(-1),
            rows=self._rows,
            log_q_negatives=refinement.similarity(places_r1d, sample.places_1sd),
            draw_weights=torch.full_like(weights_rk[:, 0], sample.draw_weight).detach(),
            parameters=refinement.parameters,
        )


def _last_axis_first(values: Tensor) -> Tensor:
    """Return a copy whose last axis is the slowest in memory, so that sums over it are sums of vectors."""
    return values.movedim(-1, 0).contiguous().movedim(0, -1)
