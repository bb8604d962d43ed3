"""An embedding composed of phases and losses."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from torchdr_cne.affinity import Affinity, AffinityGraph, UnionAffinity
from torchdr_cne.distributed import Share
from torchdr_cne.fitting.plan import GraphPlan
from torchdr_cne.inputs import read_labels
from torchdr_cne.matching import Encoding
from torchdr_cne.networks.loss import Loss
from torchdr_cne.networks.options import trains_decoder
from torchdr_cne.optimization.phase import Phase, number_phases
from torchdr_cne.parameters.graph import Graph, Search
from torchdr_cne.parametric.relation import Relation
from torchdr_cne.similarities import temperature_of


class LearnedMap(Encoding, Graph, Search):
    """A network trained in phases, each with losses of your choice.

    ``max_iter`` and ``extra_loss`` apply only if ``phases`` is empty.

    Parameters
    ----------
    phases : sequence of Phase, default=()
        The phases in order; see `Phase`. If empty, one phase of ``max_iter`` mini-batches with ``Relation("umap")``.
    encoder : {"mlp"}, sequence of int or torch.nn.Module, default="mlp"
        Network that computes the embedding from the rows; it is trained on mini-batches. "mlp" has hidden layers of
        sizes 100, 100, 100, and a sequence gives other sizes. A module of your own maps rows (r, f) of ``dtype`` to
        (r, n_components); it is copied, and training starts from its weights.

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

    _former_parameters: ClassVar[dict[str, Any]] = {
        "init": "pca",
        "init_scaling": 1.0,
        "min_grad_norm": 1e-7,
        "compile": False,
    }

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
        return list(self.phases) or number_phases([Phase(self._n_iter(n))])

    def _default_affinity(self) -> Affinity:
        """Return the affinity used when ``affinity_in`` is None."""
        return UnionAffinity(n_neighbors=self.n_neighbors, metric=self.metric, backend=self.backend)

    def _batch_loss(self) -> Loss:
        return Relation("umap")

    def _losses(self, phases: Sequence[Phase]) -> list[Loss]:
        return [term for phase in phases for _, term in self._loss_of(phase).terms()]

    def _learned_scalars(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for term in self._losses(self._phases(2)):
            found |= term.learned_scalars()
        return found

    def _needs_graph(self, phases: Sequence[Phase]) -> bool:
        edges = any(phase.sampling not in (None, "items") for phase in phases)
        return edges or any(term.needs_graph for term in self._losses(phases))

    def _reported(self, phase: Phase) -> dict[str, float]:
        found: dict[str, float] = {}
        for term in self._losses([phase]):
            if isinstance(term, Relation):
                found |= temperature_of(term.similarity_of_embedding)
        return found

    def _read_labels(self, y: Any, n: int) -> Tensor | None:
        asked = any("labels" in term.needs for term in self._losses(self._phases(n)))
        return read_labels(y, n) if asked and y is not None else None

    def _graph_plan(self) -> GraphPlan:
        return GraphPlan(
            affinity=self.affinity_in if isinstance(self.affinity_in, Affinity) else self._default_affinity(),
            is_precomputed=self._is_precomputed,
            is_needed=self._needs_graph,
            relabel=_as_it_is,
            memory_budget=self.memory_budget,
            keeps_rows=False,
            bytes_by_stage=lambda n, d, device: {},
        )


def _as_it_is(graph: AffinityGraph, labels: Tensor, share: Share) -> AffinityGraph:
    return graph
