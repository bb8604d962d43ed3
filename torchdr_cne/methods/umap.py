"""UMAP."""

from typing import Any, ClassVar

from torch import Tensor

from torchdr_cne.affinity import Affinity, AffinityGraph, UMAPAffinity, intersect_labels
from torchdr_cne.checks import NOT_NEGATIVE
from torchdr_cne.distributed import Share
from torchdr_cne.forces import PairForces
from torchdr_cne.inputs import read_labels
from torchdr_cne.losses import log_one_minus
from torchdr_cne.matching import NegativeSamplingNeighborEmbedding, Pairs
from torchdr_cne.similarities import Cauchy, fit_umap_curve


class UMAP(NegativeSamplingNeighborEmbedding):
    """UMAP: cross-entropy of the fuzzy graph against sampled non-edges (McInnes, Healy & Melville, 2018).

    The attraction is −log q_ij and the repulsion −½ log(1 − q_ik) per negative, on the fuzzy union, with
    q = 1/(1 + a d^{2b}). The ½ keeps the balance of umap-learn, where a negative moves only one end of the pair; here
    it moves both. ``n_negatives`` is umap-learn's ``negative_sample_rate``.

    Parameters
    ----------
    n_neighbors : int, default=15
        Number of neighbours including the point itself, as in umap-learn.
    min_dist : float, default=0.1
        Distance up to which embedded neighbours count as touching; a and b are fitted to it.
    spread : float, default=1.0
        Scale of the embedding; a and b are fitted to it.
    a, b : float or None, default=None
        Parameters of the curve itself, which replace ``min_dist`` and ``spread``; give both or neither.
    set_op_mix_ratio : float, default=1.0
        Mixture of the fuzzy union of the directed graph and its transpose (1) with their intersection (0).
    local_connectivity : float, default=1.0
        Number of nearest neighbours that count as fully connected.
    target_weight : float, default=0.5
        Weight of the class labels of ``fit(X, y)`` against the distances, from 0 (labels are ignored) to 1 (no edges
        between classes). Labels are integers, strings or booleans, −1 where unknown. The graph is that of umap-learn
        (`torchdr_cne.affinity.intersect_labels`) except for 0, where umap-learn still weakens edges between classes by
        exp(−2.5).
    """

    min_dist: float = 0.1
    spread: float = 1.0
    a: float | None = None
    b: float | None = None
    set_op_mix_ratio: float = 1.0
    local_connectivity: float = 1.0
    target_weight: float = 0.5

    _default_init_scaling: ClassVar[float] = 6.0
    _base_learning_rate: ClassVar[float] = 0.6
    _max_row_gradient: ClassVar[float | None] = 4.0

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not (NOT_NEGATIVE.admits(self.target_weight) and self.target_weight <= 1):
            raise ValueError(f"target_weight={self.target_weight!r} must be a number in [0, 1].")

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

    def _read_labels(self, y: Any, n: int) -> Tensor | None:
        if y is None or self.target_weight == 0:
            return super()._read_labels(y, n)
        return read_labels(y, n, otherwise="set target_weight=0 to ignore y")

    def _with_labels(self, graph: AffinityGraph, labels: Tensor, share: Share) -> AffinityGraph:
        return intersect_labels(graph, labels, self.target_weight, share) if self.target_weight else graph

    def _phase_parameters(self, n: int, early: bool) -> dict[str, float]:
        curve = self._default_similarity()
        return {"a": curve.a, "b": curve.b, "floor": curve.distance_floor}

    def _pair_forces(self) -> PairForces:
        return PairForces(attractive=attractive, repulsive=repulsive)

    def _force_parameters(self, parameters: dict[str, Any]) -> tuple[float, float, float]:
        return parameters["a"], parameters["b"], parameters["floor"]


def attractive(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of log(1 + a d^{2b}): a b d^{2b−2} q, with d² floored."""
    a, b, floor = p[0], p[1], p[2]
    d2 = d2 + floor
    curve = a * power(d2, b)
    return b * curve / (d2 * (1.0 + curve))


def repulsive(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of −½ log(1 − q) = ½ log(1 + 1/(a d^{2b})): −½ b q / d², with d² floored."""
    a, b, floor = p[0], p[1], p[2]
    d2 = d2 + floor
    return -0.5 * b / (d2 * (1.0 + a * power(d2, b)))
