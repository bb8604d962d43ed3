"""An embedding composed of phases and losses."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from torchdr_cne.affinity import Affinity, UnionAffinity
from torchdr_cne.checks import COUNT, Bound
from torchdr_cne.inputs import read_labels
from torchdr_cne.matching import AffinityMatcher
from torchdr_cne.neighbors.kneighbors import Backend
from torchdr_cne.networks.loss import Loss
from torchdr_cne.networks.options import loss_of_phase, trains_decoder
from torchdr_cne.networks.terms import Classification, Position, Reconstruction
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.state import FitState
from torchdr_cne.parametric.relation import Relation
from torchdr_cne.similarities import temperature_of


class LearnedMap(AffinityMatcher):
    """A network trained in phases, each with losses of your choice.

    Parameters
    ----------
    phases : sequence of Phase, default=()
        One after the other; see `Phase`. None are one of ``max_iter`` mini-batches with ``Relation("umap")``.
    n_neighbors : int, default=15
        Neighbours of a point in the default affinity, the union kNN graph.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance in the default affinity.
    backend : {"auto", "torch", "keops", "faiss"} or FaissConfig, default="auto"
        How neighbours are found.

    Other parameters are those of `AffinityMatcher`; ``max_iter`` and ``extra_loss`` serve where there are no phases.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from torchdr_cne import LearnedMap, Phase
    >>> from torchdr_cne.parametric import Classification, Position, Relation
    >>> X, y = load_digits(return_X_y=True)
    >>> phases = [Phase(50, Position("pca")), Phase(50, 0.7 * Relation("umap") + 0.3 * Classification())]
    >>> LearnedMap(phases=phases, random_state=0).fit(X, y).transform(X[:5]).shape
    (5, 2)
    """

    phases: Sequence[Phase] = ()
    encoder: Any = "mlp"
    n_neighbors: int = 15
    metric: str = "euclidean"
    backend: Backend = "auto"
    affinity_out: ClassVar[None]  # type: ignore[misc]
    loss: ClassVar[None]  # type: ignore[assignment,misc]

    _bounds: ClassVar[dict[str, Bound]] = {**AffinityMatcher._bounds, "n_neighbors": COUNT}

    def _compute_loss(self, embedding_nd: Tensor, state: FitState) -> Tensor:
        raise TypeError("a LearnedMap is fitted through its encoder, not by moving points.")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.encoder is None:
            raise ValueError("encoder=None leaves a LearnedMap nothing to train; set 'mlp', sizes or a module.")
        phases = self.phases
        if not isinstance(phases, Sequence) or not all(isinstance(phase, Phase) for phase in phases):
            raise ValueError(
                f"phases={self.phases!r} must be a sequence of Phase, such as [Phase(500, Relation('umap'))]."
            )
        for number, phase in enumerate(phases):
            if not (phase.loss is None or isinstance(phase.loss, Loss)):
                raise ValueError(f"the loss of phase {number} is {phase.loss!r}; give a Loss such as Relation('umap').")
        say_all = len(phases) > 0 and all(phase.loss is not None for phase in phases)
        if say_all and self.extra_loss is not None:
            raise ValueError("extra_loss joins the method's own loss, and all phases have theirs; add it to these.")
        if say_all and self.decoder is not None and not any(trains_decoder(phase.loss) for phase in phases):
            raise ValueError("no phase trains the decoder; add Reconstruction() to a phase's loss, or leave it out.")

    def _phases(self, n: int) -> list[Phase]:
        return list(self.phases) or super()._phases(n)

    def _default_affinity(self) -> Affinity:
        return UnionAffinity(n_neighbors=self.n_neighbors, metric=self.metric, backend=self.backend)

    def _batch_loss(self) -> Loss:
        return Relation("umap")

    def _losses(self, phases: Sequence[Phase]) -> list[Loss]:
        return [term for phase in phases for _, term in loss_of_phase(self, phase).terms()]

    def _learned_scalars(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for term in self._losses(self._phases(2)):
            found |= term.learned_scalars()
        return found

    def _needs_graph(self, phases: Sequence[Phase]) -> bool:
        def is_needed(term: Loss) -> bool:
            if isinstance(term, Relation):
                return term.affinity is None
            if isinstance(term, Position):
                return isinstance(term.target, str) and term.target == "spectral"
            return not isinstance(term, (Reconstruction, Classification))

        edges = any(phase.sampling not in (None, "items") for phase in phases)
        return edges or any(map(is_needed, self._losses(phases)))

    def _reported(self, phase: Phase) -> dict[str, float]:
        found: dict[str, float] = {}
        for term in self._losses([phase]):
            if isinstance(term, Relation):
                found |= temperature_of(term.similarity or getattr(term.method, "_similarity", None))
        return found

    def _read_labels(self, y: Any, n: int) -> Tensor | None:
        asked = any("labels" in term.needs for term in self._losses(self._phases(n)))
        return read_labels(y, n) if asked and y is not None else None

    def _why_not_split(self) -> str:
        return ""
