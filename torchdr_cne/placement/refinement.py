"""New points moved down a method's own loss, each by itself, among training points that stay where they are.

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
"""Points are moved in multiples of so many: none is in the remainder of a vector operation, which has other bits."""
_TOGETHER = 256
_SAMPLE = 512
_CANDIDATES = 8
"""So many nearest neighbours' places are tried as a start, beside the weighted mean."""
_STEPS, _ROUGH_STEPS, _ROUGHLY = 20, 16, 8
"""One of so many of the sample repels in the rough steps; all of it in the few last ones, which take most time."""
_BOTH_ENDS = 2.0
"""In a fit each pair is met from both ends, so that a point feels twice the gradient of its own row."""


def repelling_sample(n: int) -> Tensor:
    """Return the training points that repel every new one: all of few, else one at random of each of equal ranges."""
    if n <= _SAMPLE:
        return torch.arange(n)
    bounds = torch.arange(_SAMPLE + 1) * n // _SAMPLE
    return bounds[:-1] + bounded(hash_counters(n, torch.arange(_SAMPLE)), bounds.diff())


@dataclass(frozen=True)
class Refinement:
    """Gradient descent on the two loss hooks, with a rate that falls to 0.

    Attributes
    ----------
    loss : callable
        Loss of `Pairs`, a sum over rows in proportion to their weights.
    similarity : Similarity
        Similarity of embedded points.
    sample_sd : Tensor of shape (s, d)
        Places of the training points that repel.
    n_negatives : float
        How many negatives of a point they stand for.
    parameters : mapping of str to float or Tensor
        The method's constants and learned scalars.
    learning_rate : float
        The first step's rate, as in a fit.
    longest : float or None
        Longer gradients are shortened to it, as in a fit.
    """

    loss: Callable[[Pairs], Tensor]
    similarity: Similarity
    sample_sd: Tensor
    n_negatives: float
    parameters: Mapping[str, Tensor | float]
    learning_rate: float
    longest: float | None = None

    def refine(self, start_md: Tensor, ends_mkd: Tensor, weights_mk: Tensor, workers: Workers) -> Tensor:
        """Return where points end that begin at ``start_md``; their number is a multiple of `ROWS`.

        A point that would not lower its loss stays where it began.
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
        The method's loss, whose last phase's constants the embedding has.
    embedding_nd : Tensor of shape (n, d)
        The embedding.
    learned : mapping of str to float
        Values of learned scalars, and whatever else the hooks are to know.
    learning_rate : float
        The first step's rate.
    n_negatives : float or None, default=None
        How many negatives of a point repel it; None is the loss's number.
    longest : float or None, default=None
        Longer gradients are shortened to it; None is the loss's bound.
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
    """Points that repel, and how many negatives each of them stands for."""

    places_1sd: Tensor
    draw_weight: float

    @classmethod
    def of(cls, places_sd: Tensor, n_negatives: float) -> "_Sample":
        return cls(_last_axis_first(places_sd.unsqueeze(0)), n_negatives / len(places_sd))


class _Descent:
    """A few points on their way."""

    def __init__(self, refinement: Refinement, ends_rkd: Tensor, weights_rk: Tensor) -> None:
        if ends_rkd.shape[1] == 1:  # an edge of weight 0 more, so that a loss's shape always tells edges from rows
            ends_rkd = ends_rkd.repeat(1, 2, 1)
            weights_rk = torch.cat([weights_rk, torch.zeros_like(weights_rk)], dim=1)
        self._refinement = refinement
        self._ends_rkd, self._weights_rk = _last_axis_first(ends_rkd), weights_rk
        self._all = _Sample.of(refinement.sample_sd, refinement.n_negatives)
        self._few = _Sample.of(refinement.sample_sd[::_ROUGHLY], refinement.n_negatives)
        self._rows = torch.arange(len(weights_rk), device=weights_rk.device).repeat_interleave(weights_rk.shape[1])

    def run(self, start_rd: Tensor) -> Tensor:
        """Return the places after all steps, or where a point began if that is better."""
        rough = self._descend(self._promising(start_rd), self._few, range(_ROUGH_STEPS))
        places = self._best([start_rd, rough], self._all)
        return self._best([places, self._descend(places, self._all, range(_ROUGH_STEPS, _STEPS))], self._all)

    def _promising(self, start_rd: Tensor) -> Tensor:
        """Return the best of the start and of some neighbours' places: the mean of two clusters is in neither."""
        candidates = self._ends_rkd[:, :_CANDIDATES].unbind(dim=1)
        return self._best([start_rd, *candidates], self._few)

    def _best(self, candidates: list[Tensor], sample: "_Sample") -> Tensor:
        """Return each point's place of least loss; the first one's if no other's is lower."""
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
        """Return the loss of each point (r,): its derivative by the point's weight, with which it is in proportion."""
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
    """Return equal values whose last axis is the slowest in memory: sums over it are then sums of vectors."""
    return values.movedim(-1, 0).contiguous().movedim(0, -1)
