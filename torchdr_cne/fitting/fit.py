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
    """Fit ``X`` according to the plan; the observer publishes the result.

    Parameters
    ----------
    plan : FitPlan
        The plan of the fit.
    observer : FitObserver
        Object that is notified of every step, and receives the result.
    X, y, graph
        Arguments of the estimator's ``fit``.
    """
    with running(plan, X) as run:
        given = read(X, y, graph, plan, run)
        with taking_part(given, plan, run, observer) as part:
            if part is None:  # rank 0 fits alone
                return
            rows = prepare(part)
            edges = affinities(rows, part)
            start = first_embedding(rows, edges, part)
            optimise(rows, edges, start, part)


@contextmanager
def taking_part(given: FitInput, plan: FitPlan, run: Run, observer: FitObserver) -> Iterator[Part | None]:
    """Yield this rank's part: a share of the points or, if rank 0 fits alone, all of them there and None elsewhere.

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
    """Yield this rank's part in the fit; the folder in which the fit is saved is held meanwhile."""
    share, graph = Share.of(given.n_points, run.ranks), given.graph
    if graph is not None and graph.n_rows == share.n and run.ranks.size > 1:
        graph = graph.select(share.own)
    given = replace(given, graph=graph)
    with checkpointing(plan, given, share) as checkpoint:
        yield Part(plan, given, run, share, checkpoint, observer)
