"""CO-SNE."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.checks import NOT_NEGATIVE, POSITIVE, Bound
from torchdr_cne.matching import AllPairsNeighborEmbedding, FitState, RowSums
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.optimization.poincare import LARGEST_RADIUS, PoincareSGD, inside_ball
from torchdr_cne.overriding import overridden
from torchdr_cne.similarities import HyperbolicCauchy, Similarity, hyperbolic_distance

_FARTHEST = 4.0
"""Hyperbolic distance from the centre at which the row of largest norm is to lie."""
_START_RADIUS = 0.9
_ROUNDING = 1e-4


class COSNE(AllPairsNeighborEmbedding):
    """CO-SNE: t-SNE in the Poincaré ball, for data that branch out (Guo, Guo & Yu, 2022).

    The loss is −Σ P log Q + λ mean_i (t_i² − d_H(z_i, 0)²)². Q is 1/(1 + (d_H/γ)²) of the hyperbolic distances d_H,
    normalised over all pairs. t_i is the norm of the centred row i, scaled so that the largest is 4: rows far from the
    centre of the data, such as the leaves of a tree, lie near the rim. All points stay within a Euclidean radius of
    .975. A given ``init`` has to lie inside the unit ball. `torchdr_cne.similarities.hyperbolic_distance` computes
    distances in the embedding.

    Parameters
    ----------
    gamma : float, default=2.0
        Distance γ at which q is one half.
    radius_strength : float, default=0.01
        Weight λ of the term with the norms, which needs rows of ``X``; 0 leaves it out.
    """

    gamma: float = 2.0
    radius_strength: float = 0.01
    init_scaling: float = 0.1
    scheduler: str | type[LRScheduler] | None = None

    _bounds: ClassVar[dict[str, Bound]] = {
        "gamma": POSITIVE,
        "radius_strength": NOT_NEGATIVE,
    }
    _default_max_iter: ClassVar[int] = 500
    _default_optimizer: ClassVar[str | type[Optimizer]] = PoincareSGD
    _base_learning_rate: ClassVar[float] = 0.3

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.optimizer != "auto" and self.optimizer is not PoincareSGD:
            raise ValueError(
                f"optimizer={self.optimizer!r} would move points out of the Poincaré ball; leave it at 'auto', "
                "which is PoincareSGD, and give its keywords as optimizer_kwargs."
            )

    def _compute_repulsive_loss(self, pairs: RowSums) -> Tensor:
        return pairs.log_total

    def _compute_loss(self, embedding_nd: Tensor, state: FitState) -> Tensor:
        loss = super()._compute_loss(embedding_nd, state)
        if self.radius_strength == 0:
            return loss
        own = embedding_nd[state.share.own]
        radii = hyperbolic_distance(own, torch.zeros_like(own))
        misses = state.carried["target_radii"][state.share.own].square() - radii.square()
        return loss + self.radius_strength * misses.square().sum()

    def _default_similarity(self) -> Similarity:
        return HyperbolicCauchy(self.gamma)

    def _make_objective(self, state: FitState, start_nd: Tensor) -> Objective:
        if isinstance(self.init, str):
            # Points of a checkpoint may lie beyond the radius of a start, and have to stay there.
            is_outside = start_nd.norm(dim=1, keepdim=True) > LARGEST_RADIUS + _ROUNDING
            start_nd = torch.where(is_outside, inside_ball(start_nd, _START_RADIUS), start_nd)
        elif float(start_nd.norm(dim=1).max()) >= 1:
            raise ValueError(
                f"init has a point of norm {float(start_nd.norm(dim=1).max()):.3g}, and the Poincaré ball ends at 1; "
                "scale it down."
            )
        if self.radius_strength:
            state.carried["target_radii"] = self._target_radii(state, start_nd)
        return super()._make_objective(state, start_nd)

    def _target_radii(self, state: FitState, like: Tensor) -> Tensor:
        """Return the hyperbolic distances from the centre (n,) that follow from the norms of the rows."""
        if state.rows is None:
            raise ValueError(
                f"radius_strength={self.radius_strength} asks for the norms of rows, and a graph alone was given; pass "
                "X with graph=, or set radius_strength=0."
            )
        norms = state.rows.values.double().norm(dim=1).to(like)
        norms = state.share.gather(norms, "the exchange of norms")
        largest = norms.max()
        return norms * (_FARTHEST / torch.where(largest > 0, largest, 1.0))

    def _why_not_split(self) -> str:
        newer = overridden(type(self), COSNE, "sharing")
        return f"{', '.join(newer)} is overridden, and may need all rows at once" if newer else ""
