"""The loss of related points: the hooks of a method on edges, or a divergence over all pairs of a mini-batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchdr_cne import catalogue
from torchdr_cne.affinity import Affinity, AffinityGraph
from torchdr_cne.checks import COUNT
from torchdr_cne.losses import log_one_minus
from torchdr_cne.matching import NeighborEmbedding
from torchdr_cne.networks.batches import block_of
from torchdr_cne.networks.hook_loss import HookLoss
from torchdr_cne.networks.loss import Batch, Bound, EdgeDemand, Loss
from torchdr_cne.networks.training import TrainingSet
from torchdr_cne.objectives.pairs import Pairs
from torchdr_cne.similarities import Cauchy, Similarity

ALL_PAIRS = ("kl", "cross_entropy")


@dataclass(frozen=True)
class Relation(Loss):
    """A loss that brings points that are near in the data near each other in the embedding.

    Parameters
    ----------
    loss : str, estimator or callable, default="umap"
        In a phase that samples edges: "umap", "negative_sampling", "noise_contrastive", "info_nce", a sampled method
        such as ``NegTSNE(nu=.1)`` whose loss hooks are used, or a function from log-similarities of the edges (B,) and
        of their negatives (B, M), −inf where there is none, to attraction (B,) and repulsion (B, M) or (B,), as in
        `torchdr_cne.losses`.
        In a phase that samples items: "kl", P and Q both normalised over the pairs of the mini-batch, as in t-SNE;
        "cross_entropy", as in UMAP over all pairs; or, with ``all_pairs=True``, a function from P (B, B), of sum 1,
        and log q (B, B) to a scalar.
    affinity : Affinity, callable or None, default=None
        Affinities of the data; None takes those of the estimator. A function from rows (B, f) to P (B, B) is evaluated
        and differentiated in each mini-batch of items.
    similarity : Similarity or None, default=None
        Similarity of embedded points; None is that of the loss, which is the Cauchy kernel unless it has another.
    n_negatives : int or None, default=None
        How many negatives an edge meets in the objective; None is the phase's ``negative_sample_rate``, or else the
        number of the loss.
    all_pairs : bool, default=False
        Whether a function given as ``loss`` takes all pairs.
    """

    loss: Any = "umap"
    affinity: Affinity | Callable[[Tensor], Tensor] | None = None
    similarity: Similarity | None = None
    n_negatives: int | None = None
    all_pairs: bool = False

    name: ClassVar[str] = "relation"

    def __post_init__(self) -> None:
        known = isinstance(self.loss, str) and (self.loss in catalogue.by_loss() or self.loss in ALL_PAIRS)
        if not (known or _is_method(self.loss) or (callable(self.loss) and not isinstance(self.loss, type))):
            raise ValueError(
                f"Relation(loss={self.loss!r}) is unknown; choose one of {(*catalogue.by_loss(), *ALL_PAIRS)}, or pass "
                "a sampled method such as NegTSNE(), or a function."
            )
        if not (self.affinity is None or isinstance(self.affinity, Affinity) or callable(self.affinity)):
            raise ValueError(
                f"affinity={self.affinity!r} of a Relation must be an Affinity such as UMAPAffinity(), a function from "
                "rows (B, f) to P (B, B), or None."
            )
        if not (self.similarity is None or isinstance(self.similarity, Similarity)):
            raise ValueError(
                f"similarity={self.similarity!r} of a Relation must be a Similarity such as Cauchy(), or None."
            )
        if not (self.n_negatives is None or COUNT.admits(self.n_negatives)):
            raise ValueError(f"n_negatives={self.n_negatives!r} of a Relation must be {COUNT} or None.")
        if self.sampling == "edges" and callable(self.affinity) and not isinstance(self.affinity, Affinity):
            raise ValueError(
                "a function as affinity is one of all pairs; choose loss='kl' or 'cross_entropy'; a chain of "
                "transforms lacks Neighbors(…) before or Symmetrize(…) behind."
            )
        if _is_method(self.loss):
            self.loss._check_parameters()

    @property
    def sampling(self) -> str:  # type: ignore[override]  # depend on the loss
        """What the loss needs to be sampled: "edges" or "items"."""
        of_all = self.all_pairs or (isinstance(self.loss, str) and self.loss in ALL_PAIRS)
        return "items" if of_all else "edges"

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]  # depend on the loss
        """What the loss needs besides the encoder: a table for affinities, unless each mini-batch has its own."""
        in_batch = self.affinity is not None and not isinstance(self.affinity, Affinity)
        return ("table",) if self.sampling == "items" and not in_batch else ()

    @property
    def needs_graph(self) -> bool:
        """Whether the loss relates points by the graph of the fit."""
        return self.affinity is None

    @property
    def method(self) -> Any:
        """The method whose loss hooks are used, if there is one."""
        if _is_method(self.loss):
            return self.loss
        entry = catalogue.by_loss().get(self.loss) if isinstance(self.loss, str) else None
        return None if entry is None else catalogue.load(entry)()

    @property
    def hooks(self) -> HookLoss | None:
        """The loss hooks of a method that are evaluated on edges; None if the loss has another form."""
        method = self.method
        return None if method is None else HookLoss(method._pair_loss(), self.similarity, self.n_negatives, False)

    @property
    def similarity_of_embedding(self) -> Similarity | None:
        """The similarity with which the loss is evaluated, as far as it is known before a fit."""
        if self.similarity is not None:
            return self.similarity
        hooks = self.hooks
        return None if hooks is None else hooks.pair_loss.similarity

    def learned_scalars(self) -> dict[str, float]:
        """Return the learned scalars of the method, for instance log Z."""
        hooks = self.hooks
        return {} if hooks is None else hooks.learned_scalars()

    def edge_demand(self) -> EdgeDemand | None:
        """Return what the loss asks of the edges of a mini-batch; None if it takes all pairs."""
        if self.sampling != "edges":
            return None
        affinity = self.affinity if isinstance(self.affinity, Affinity) else None
        hooks = self.hooks
        if hooks is None:
            return EdgeDemand(affinity, asked=self.n_negatives, apart=True)
        return replace(hooks.edge_demand(), affinity=affinity)

    def graph(self, training: TrainingSet) -> AffinityGraph | None:
        """Return the graph by which points are related; None if each mini-batch computes its affinities."""
        if self.affinity is None:
            return training.graph
        return training.graph_of(self.affinity) if isinstance(self.affinity, Affinity) else None

    def bind(self, training: TrainingSet) -> Bound:
        """Return the loss as a function of a mini-batch."""
        if self.sampling == "items":
            return self._of_items(training)
        hooks = self.hooks
        return self._by_function if hooks is None else hooks.bind(training)

    def _by_function(self, batch: Batch) -> Tensor:
        phase = batch.state.phase
        n_negatives = self.n_negatives or phase.negative_sample_rate or 5
        pairs = batch.pairs(self.similarity or Cauchy(), n_negatives, batch.state.parameters)
        attraction, repulsion = self._of_function(pairs)
        if repulsion.shape == pairs.log_q_edges.shape and len(pairs.weights):
            reduced = (pairs.weights * pairs.draw_weights * repulsion).sum()
        else:
            reduced = pairs.reduce_repulsion(repulsion)
        total = phase.exaggeration * pairs.reduce_attraction(attraction) + reduced
        return total / max(1, len(pairs.weights))

    def _of_function(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Return attraction and repulsion by the user's function; entries without a negative do not repel."""
        found = self.loss(pairs.log_q_edges, pairs.log_q_negatives)
        edges, negatives = pairs.log_q_edges.shape, pairs.log_q_negatives.shape
        shapes = (
            [tuple(getattr(part, "shape", ())) for part in found] if isinstance(found, tuple) else type(found).__name__
        )
        if not isinstance(found, tuple) or len(found) != 2 or shapes[0] != edges or shapes[1] not in (edges, negatives):
            raise ValueError(
                f"the function of a Relation must return attraction of shape {tuple(edges)} and repulsion of shape "
                f"{tuple(negatives)} or {tuple(edges)}, got {shapes}; do not reduce them."
            )
        attraction, repulsion = found
        if shapes[1] == negatives:
            repulsion = torch.where(torch.isfinite(pairs.log_q_negatives), repulsion, 0.0)
        return attraction, repulsion

    def _of_items(self, training: TrainingSet) -> Bound:
        graph, similarity = self.graph(training), self.similarity or Cauchy()

        def loss(batch: Batch) -> Tensor:
            p = self._affinities(batch, graph)
            log_q = similarity.table(batch.z, batch.z)
            own = torch.eye(len(log_q), dtype=torch.bool, device=log_q.device)
            p = p.masked_fill(own, 0.0)
            if self.loss == "cross_entropy":
                return _fuzzy_cross_entropy(p, log_q, own, batch.state.phase.exaggeration)
            total = p.sum()
            p = p / torch.where(total > 0, total, 1.0)
            if self.loss == "kl":
                return _divergence(p, log_q.masked_fill(own, -torch.inf), batch.state.phase.exaggeration)
            return self.loss(p, log_q)

        return loss

    def _affinities(self, batch: Batch, graph: AffinityGraph | None) -> Tensor:
        """Return the affinities (B, B) of the points in the mini-batch."""
        if graph is None:
            own: Any = self.affinity
            p = torch.as_tensor(own(batch.draw.x.to(batch.training.dtype)))
            if p.shape != (len(batch.z),) * 2:
                raise ValueError(
                    f"the affinity function gives shape {tuple(p.shape)} for {len(batch.z)} rows; "
                    f"({len(batch.z)}, {len(batch.z)}) is needed."
                )
            return p.to(batch.z)
        assert batch.draw.ids is not None
        ids = batch.draw.ids
        return block_of(graph, ids - batch.training.share.start, ids).to(batch.z)


def _is_method(loss: Any) -> bool:
    return isinstance(loss, NeighborEmbedding)


def _divergence(p: Tensor, log_q: Tensor, exaggeration: float) -> Tensor:
    """Return KL(P‖Q), where Q is q normalised over all pairs, with the attraction weighted by ``exaggeration``."""
    log_z = torch.logsumexp(log_q.flatten(), dim=0)
    related = p > 0
    entropy = torch.special.xlogy(p, p).sum()
    attraction = -(p * torch.where(related, log_q, 0.0)).sum()
    return entropy + exaggeration * attraction + p.sum() * log_z


def _fuzzy_cross_entropy(p: Tensor, log_q: Tensor, own: Tensor, exaggeration: float) -> Tensor:
    """Return the cross-entropy of fuzzy sets over all pairs, as a mean over points."""
    losses = exaggeration * -p * log_q - (1 - p) * log_one_minus(log_q.clamp_max(-1e-6))
    return losses.masked_fill(own, 0.0).sum() / len(own)
