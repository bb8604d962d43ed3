"""A fit: a function of a plan and of the data."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torchdr_cne.distributed import Ranks, Share
from torchdr_cne.fitting.checkpointing import checkpointing
from torchdr_cne.fitting.optimising import optimise
from torchdr_cne.fitting.part import FitObserver, Part
from torchdr_cne.fitting.plan import FitPlan
from torchdr_cne.fitting.ranks import decide_sharing, found_by_first
from torchdr_cne.fitting.reading import FitInput, read
from torchdr_cne.fitting.result import FitResult
from torchdr_cne.fitting.running import Run, running
from torchdr_cne.fitting.stages import affinities, first_embedding, prepare


def fit(plan: FitPlan, observer: FitObserver, X: Any, y: Any = None, graph: Any = None) -> None:
    """Fit ``X`` as the plan says, on all ranks or on rank 0 alone; the observer publishes the result.

    Parameters
    ----------
    plan : FitPlan
        What to do.
    observer : FitObserver
        Who hears of every step, and receives the result.
    X, y, graph
        What the estimator's ``fit`` was given.
    """
    with running(plan, X) as run:
        given = read(X, y, graph, plan, run)
        if run.ranks.size == 1 or decide_sharing(given, plan, run.ranks):
            fit_part(given, plan, run, observer)
            return
        alone = replace(run, ranks=Ranks())
        result = found_by_first(plan, run.ranks, lambda: fit_part(given, plan, alone, observer))
        if not run.ranks.is_first:
            observer.publish(result)


def fit_part(given: FitInput, plan: FitPlan, run: Run, observer: FitObserver) -> FitResult:
    """Do this rank's part of a fit, stage by stage."""
    with taking_part(given, plan, run, observer) as part:
        rows = prepare(part)
        graph = affinities(rows, part)
        start = first_embedding(rows, graph, part)
        return optimise(rows, graph, start, part)


@contextmanager
def taking_part(given: FitInput, plan: FitPlan, run: Run, observer: FitObserver) -> Iterator[Part]:
    """Choose this rank's share of the points, and hold the folder in which the fit is saved."""
    share, graph = Share.of(given.n_points, run.ranks), given.graph
    if graph is not None and graph.n_rows == share.n and run.ranks.size > 1:
        graph = graph.select(share.own)
    given = replace(given, graph=graph)
    with checkpointing(plan, given, share) as checkpoint:
        yield Part(plan, given, run, share, checkpoint, observer)
