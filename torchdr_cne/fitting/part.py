"""One rank's part in a fit, and the data that pass between the stages."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from scipy.sparse import csr_array

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.distributed import Share
from torchdr_cne.fitting.checkpointing import FitCheckpoint
from torchdr_cne.fitting.plan import FitPlan
from torchdr_cne.fitting.reading import FitInput
from torchdr_cne.fitting.result import FitResult
from torchdr_cne.fitting.running import Run
from torchdr_cne.inputs import Rows
from torchdr_cne.neighbors import KeptRows
from torchdr_cne.networks.training import TrainingSet
from torchdr_cne.optimization.loop import Outcome
from torchdr_cne.optimization.phase import Phase


class FitObserver(Protocol):
    """An object that is notified of the progress of a fit, and publishes its results for the estimator."""

    def affinities_begin(self) -> None:
        """Receive the notice that the graph is about to be computed."""

    def affinities_end(self, result: FitResult) -> None:
        """Receive the graph, as part of a result."""

    def before_step(self, outcome: Outcome) -> None:
        """Receive the notice that an iteration begins."""

    def after_step(self, outcome: Outcome, result: Callable[[], FitResult]) -> bool:
        """Receive the notice that an iteration is done, and ``result`` of the fit so far; True stops the fit."""

    def publish(self, result: FitResult) -> None:
        """Receive the result of the fit."""


@dataclass(frozen=True)
class Part:
    """One rank's part in a fit: the plan, its input, where it runs, and the observer."""

    plan: FitPlan
    given: FitInput
    run: Run
    share: Share
    checkpoint: FitCheckpoint
    observer: FitObserver

    @property
    def seed(self) -> int:
        """Seed of every draw: that of the checkpoint, or else that of the input."""
        return self.checkpoint.seed

    def result(self, graph: "InputGraph | None") -> FitResult:
        """Return the part of the result that is known before the loop."""
        found = FitResult(self.given.columns, self.run.n_ranks, extras=self.plan.extras)
        if graph is None:
            return found
        return replace(found, graph=graph.csr, graph_start=self.share.start, n_connected_components=graph.n_components)


@dataclass(frozen=True)
class Prepared:
    """One rank's rows, ready for the neighbour search, and the data that networks are trained on.

    Attributes
    ----------
    rows : Rows or None
        This rank's rows, centred and scaled in the same way on all ranks; None if there is only a graph.
    kept : KeptRows or None
        The rows that stay with the estimator.
    phases : list of Phase
        The phases of the fit.
    training : TrainingSet or None
        Rows, labels and networks of a fit by networks.
    """

    rows: Rows | None
    kept: KeptRows | None
    phases: list[Phase]
    training: TrainingSet | None


@dataclass(frozen=True)
class InputGraph:
    """One rank's rows of the input graph, also as a SciPy matrix, and the number of components of the whole graph."""

    graph: AffinityGraph
    csr: csr_array
    n_components: int
