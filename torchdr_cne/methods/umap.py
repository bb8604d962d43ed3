"""UMAP."""

from typing import Any, ClassVar

from torch import Tensor

from torchdr_cne.affinity import Affinity, UMAPAffinity
from torchdr_cne.forces import PairForces
from torchdr_cne.losses import log_one_minus
from torchdr_cne.matching import NegativeSamplingNeighborEmbedding, Pairs
from torchdr_cne.similarities import Cauchy, fit_umap_curve


class UMAP(NegativeSamplingNeighborEmbedding):
    """UMAP: cross-entropy of the fuzzy graph against sampled non-edges (McInnes, Healy & Melville, 2018).

    Attraction −log q_ij, repulsion −½ log(1 − q_ik) a negative, on the fuzzy union with q = 1/(1 + a d^{2b}). The ½ is
    umap-learn's balance: its negatives move one end of the pair, here both ends move.

    Parameters
    ----------
    n_neighbors : int, default=15
        Neighbourhood size counting the point itself, as in umap-learn.
    min_dist : float, default=0.1
        Distance up to which embedded neighbours count as touching; fits a and b.
    spread : float, default=1.0
        Scale of the embedding; fits a and b.
    a, b : float or None, default=None
        The curve itself, instead of ``min_dist`` and ``spread``; give both or none.
    set_op_mix_ratio : float, default=1.0
        1 is the fuzzy union of the directed graph with its transpose, 0 the intersection.
    local_connectivity : float, default=1.0
        Number of nearest neighbours taken as fully connected.

    Other parameters are those of `NegativeSamplingNeighborEmbedding`; ``n_negatives`` is umap-learn's
    ``negative_sample_rate``.
    """

    min_dist: float = 0.1
    spread: float = 1.0
    a: float | None = None
    b: float | None = None
    set_op_mix_ratio: float = 1.0
    local_connectivity: float = 1.0

    _base_learning_rate: ClassVar[float] = 0.6
    _max_row_gradient: ClassVar[float | None] = 4.0

    def _compute_attractive_loss(self, pairs: Pairs) -> Tensor:
        return -pairs.log_q_edges

    def _compute_repulsive_loss(self, pairs: Pairs) -> Tensor:
        return -0.5 * log_one_minus(pairs.log_q_negatives)

    def _default_similarity(self) -> Cauchy:
        if (self.a is None) != (self.b is None):
            raise ValueError(f"a={self.a} and b={self.b}: give both or neither.")
        if self.a is None or self.b is None:
            return Cauchy(*fit_umap_curve(self.min_dist, self.spread), floor=1e-6)
        return Cauchy(self.a, self.b, floor=1e-6)

    def _default_affinity(self) -> Affinity:
        return UMAPAffinity(
            n_neighbors=self.n_neighbors,
            local_connectivity=self.local_connectivity,
            set_op_mix_ratio=self.set_op_mix_ratio,
            metric=self.metric,
            backend=self.backend,
        )

    def _phase_parameters(self, n: int, early: bool) -> dict[str, float]:
        curve = self._default_similarity()
        return {"a": curve.a, "b": curve.b, "floor": curve.distance_floor}

    def _pair_forces(self) -> PairForces:
        return PairForces(attractive=attractive, repulsive=repulsive)

    def _force_parameters(self, parameters: dict[str, Any]) -> tuple[float, float, float]:
        return parameters["a"], parameters["b"], parameters["floor"]


def attractive(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of log(1 + a d^{2b}): a b d^{2b−2} q, with d² floored."""
    d2 = d2 + p[2]
    curve = p[0] * power(d2, p[1])
    return p[1] * curve / (d2 * (1.0 + curve))


def repulsive(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of −½ log(1 − q) = ½ log(1 + 1/(a d^{2b})): −½ b q / d², with d² floored."""
    d2 = d2 + p[2]
    return -0.5 * p[1] / (d2 * (1.0 + p[0] * power(d2, p[1])))
