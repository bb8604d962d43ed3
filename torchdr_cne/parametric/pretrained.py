"""Parametric t-SNE and parametric UMAP, whose networks are first fitted to a plain embedding."""

from typing import Any, ClassVar

from torchdr_cne.affinity import Affinity, Connectivity, EntropicAffinity, Neighbors, Symmetrize
from torchdr_cne.checks import COUNT, NOT_NEGATIVE, POSITIVE, Bound
from torchdr_cne.methods.umap import UMAP
from torchdr_cne.networks.loss import Loss
from torchdr_cne.networks.terms import Position
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.parametric.learned_map import LearnedMap
from torchdr_cne.parametric.relation import Relation


class PretrainedMap(LearnedMap):
    """A map that is fitted to a plain embedding before it minimises its own loss.

    ``max_iter`` counts the mini-batches of the main phase.

    Parameters
    ----------
    pretrain_iter : int, default=500
        Number of mini-batches of the first phase; 0 omits this phase.
    """

    pretrain_iter: int = 500

    _bounds: ClassVar[dict[str, Bound]] = {"pretrain_iter": Bound(0, integer=True)}
    _pretrained_to: ClassVar[str] = "pca"

    def _phases(self, n: int) -> list[Phase]:
        first = [Phase(self.pretrain_iter, Position(self._pretrained_to))] if self.pretrain_iter else []
        return list(self.phases) or [*first, Phase(self._n_iter(n))]


class ParametricUMAP(PretrainedMap):
    """Parametric UMAP (Sainburg, McInnes & Gentner, 2021), first fitted to the spectral embedding.

    Neighbour distances are rescaled by connectivity and symmetrised, P + Pᵀ − P∘Pᵀ; the encoder is fitted to the
    standardised spectral embedding, then to the cross-entropy over edges and sampled negatives with the modified
    Cauchy similarity of ``min_dist`` and ``spread``. Labels count only through ``extra_loss``; for labels in the graph,
    as umap-learn has them, take ``UMAP(encoder="mlp").fit(X, y)``.

    Parameters
    ----------
    n_neighbors : int, default=15
        Neighbourhood size counting the point itself, as in umap-learn.
    min_dist, spread : float, default=0.1 and 1.0
        As in `UMAP`.
    n_negatives : int, default=5
        Number of negatives that an edge meets in the objective.
    """

    min_dist: float = 0.1
    spread: float = 1.0
    n_negatives: int = 5

    _bounds: ClassVar[dict[str, Bound]] = {
        "min_dist": NOT_NEGATIVE,
        "spread": POSITIVE,
        "n_negatives": COUNT,
    }
    _pretrained_to: ClassVar[str] = "spectral"

    def _batch_loss(self) -> Loss:
        return Relation(UMAP(min_dist=self.min_dist, spread=self.spread, n_negatives=self.n_negatives))

    def _default_affinity(self) -> Affinity:
        near = Neighbors(n_neighbors=max(1, self.n_neighbors - 1), metric=self.metric, backend=self.backend)
        fuzzy: Any = near | Connectivity() | Symmetrize("union")
        return fuzzy


class ParametricTSNE(PretrainedMap):
    """Parametric t-SNE (van der Maaten, 2009), first fitted to the principal components.

    The loss is KL(P‖Q) of each mini-batch of items, with entropic affinities P of the data; both P and Q are normalised
    over the pairs of the mini-batch.

    Parameters
    ----------
    perplexity : float, default=30.0
        Effective number of neighbours.
    batch_size : int or None, default=None
        Number of points in a mini-batch; None is 1 024, and 256 for fewer than 10 000 rows.
    """

    perplexity: float = 30.0

    _bounds: ClassVar[dict[str, Bound]] = {"perplexity": Bound(1, strict=True)}

    def _batch_loss(self) -> Loss:
        return Relation("kl")

    def _default_affinity(self) -> Affinity:
        return EntropicAffinity(perplexity=self.perplexity, metric=self.metric, backend=self.backend)
