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
from torchdr_cne.fitting.ranks import decide_sharing, fitted_by_first
from torchdr_cne.fitting.reading import FitInput, read
from torchdr_cne.fitting.running import Run, running
from torchdr_cne.fitting.stages import affinities, first_embedding, prepare


def fit(plan: FitPlan, observer: FitObserver, X: Any, y: Any = None, graph: Any = None) -> None:
    """Fit ``X`` as the plan says; the observer publishes the result.

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
        with taking_part(given, plan, run, observer) as part:
            if part is None:  # rank 0 does it alone
                return
            rows = prepare(part)
            edges = affinities(rows, part)
            start = first_embedding(rows, edges, part)
            optimise(rows, edges, start, part)


@contextmanager
def taking_part(given: FitInput, plan: FitPlan, run: Run, observer: FitObserver) -> Iterator[Part | None]:
    """Give each rank its part: a share of the points, or rank 0 all and the others None.

    Ranks that have no part receive the result at the end of the block.
    """
    if run.ranks.size == 1 or decide_sharing(given, plan, run.ranks):
        with _part(given, plan, run, observer) as part:
            yield part
        return
    with fitted_by_first(plan, run.ranks, observer) as listener:
        if run.ranks.is_first:
            with _part(given, plan, replace(run, ranks=Ranks()), listener) as part:
                yield part
        else:
            yield None


@contextmanager
def _part(given: FitInput, plan: FitPlan, run: Run, observer: FitObserver) -> Iterator[Part]:
    """Choose this rank's share of the points, and hold the folder in which the fit is saved."""
    share, graph = Share.of(given.n_points, run.ranks), given.graph
    if graph is not None and graph.n_rows == share.n and run.ranks.size > 1:
        graph = graph.select(share.own)
    given = replace(given, graph=graph)
    with checkpointing(plan, given, share) as checkpoint:
        yield Part(plan, given, run, share, checkpoint, observer)
