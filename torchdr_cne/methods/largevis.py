"""LargeVis."""

from typing import Any, ClassVar

from torch import Tensor

from torchdr_cne.affinity import Affinity, EntropicAffinity
from torchdr_cne.checks import NOT_NEGATIVE, Bound
from torchdr_cne.forces import PairForces
from torchdr_cne.losses import log_one_minus
from torchdr_cne.matching import NegativeSamplingNeighborEmbedding, Pairs
from torchdr_cne.similarities import Cauchy

_FLOOR = 0.1
"""Added to d², as in the repulsion of the authors' code, so that points that nearly coincide are not flung apart."""


class LargeVis(NegativeSamplingNeighborEmbedding, replaces=("n_neighbors",)):
    """LargeVis: likelihood of the entropic graph against sampled non-edges (Tang, Liu, Zhang & Mei, 2016).

    The attraction is −log q_ij and the repulsion −γ log(1 − q_ik) per negative, on t-SNE's affinities, with
    q = 1/(1 + d² + 0.1). By default the first fifth of the iterations has an early exaggeration of 2γ, without which
    more clusters are torn in two.

    Parameters
    ----------
    perplexity : float, default=50.0
        Effective number of neighbours of a point, in place of ``n_neighbors``; three times as many are searched for.
    gamma : float, default=7.0
        Weight γ of a negative; larger values spread the clusters out.
    """

    perplexity: float = 50.0
    gamma: float = 7.0

    _bounds: ClassVar[dict[str, Bound]] = {
        "perplexity": Bound(1, strict=True),
        "gamma": NOT_NEGATIVE,
    }
    _default_max_iter: ClassVar[int] = 400
    _default_negatives_per_row: ClassVar[int] = 128
    _base_learning_rate: ClassVar[float] = 0.5
    _default_init_scaling: ClassVar[float] = 3.0
    _max_row_gradient: ClassVar[float | None] = 4.0

    def _compute_attractive_loss(self, pairs: Pairs) -> Tensor:
        return -pairs.log_q_edges

    def _compute_repulsive_loss(self, pairs: Pairs) -> Tensor:
        return -self.gamma * log_one_minus(pairs.log_q_negatives)

    def _default_similarity(self) -> Cauchy:
        return Cauchy(floor=_FLOOR)

    def _default_affinity(self) -> Affinity:
        return EntropicAffinity(perplexity=self.perplexity, metric=self.metric, backend=self.backend)

    def _early_exaggeration(self) -> float | None:
        return max(2 * self.gamma, 1.0) if self.early_exaggeration is None else self.early_exaggeration

    def _pair_forces(self) -> PairForces:
        return PairForces(attractive=attractive, repulsive=repulsive)

    def _force_parameters(self, parameters: dict[str, Any]) -> tuple[float, float]:
        return self.gamma, self._default_similarity().distance_floor


def attractive(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of log(1 + d²): q, with d² floored."""
    floor = p[1]
    return 1.0 / (1.0 + d2 + floor)


def repulsive(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of −γ log(1 − q) = γ log(1 + 1/d²): −γ q / d², with d² floored."""
    gamma, floor = p[0], p[1]
    d2 = d2 + floor
    return -gamma / (d2 * (1.0 + d2))
