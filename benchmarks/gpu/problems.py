"""Random graphs on the device, single steps of a method, and its loop without the stages before it."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.steps import problem_of, state_of
from torchdr_cne import TSNE, catalogue
from torchdr_cne.affinity import AffinityGraph, UnionAffinity
from torchdr_cne.distributed import Ranks
from torchdr_cne.fitting.plan import FitPlan
from torchdr_cne.forces import ForceProblem, StepCoefficients
from torchdr_cne.matching import NegativeSamplingNeighborEmbedding
from torchdr_cne.optimization.loop import LoopSettings, Outcome, run
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.optimization.phase import number_phases
from torchdr_cne.optimization.state import FitState
from torchdr_cne.resources import torch_threads
from torchdr_cne.sampling import BlockLayout, draw_shifts

_HALF_DEGREE = 10.5
"""Undirected edges a point: the union of 15 neighbours each has about as many on MNIST."""
_NEVER = 1 << 40


def sampled_methods() -> dict[str, Any]:
    """Return the methods of sampled negatives that declare forces, by name."""
    classes = [catalogue.load(entry) for entry in catalogue.by_command().values()]
    found = [made for made in classes if issubclass(made, NegativeSamplingNeighborEmbedding)]
    return {made.__name__: made for made in found if not made()._why_not_forces()}


def is_weighted(method: Any) -> bool:
    """Return whether the edges of the method's own graph differ in weight."""
    return not isinstance(method()._input_affinity(), UnionAffinity)


def random_graph(n: int, device: torch.device, *, weighted: bool, seed: int = 0) -> AffinityGraph:
    """Return a symmetric graph of random edges, 21 a row, with weights 1 or between 0.1 and 1."""
    generator = torch.Generator(device).manual_seed(seed)
    ends = torch.randint(0, n, (2, int(_HALF_DEGREE * n)), generator=generator, device=device)
    ends = ends[:, ends[0] != ends[1]]
    keys = torch.unique(torch.cat([ends[0] * n + ends[1], ends[1] * n + ends[0]]))
    del ends
    rows, columns = torch.div(keys, n, rounding_mode="floor"), keys % n
    indptr = torch.cat([rows.new_zeros(1), torch.bincount(rows, minlength=n).cumsum(0)])
    if not weighted:
        return AffinityGraph(indptr, columns.int(), torch.ones(len(keys), device=device))
    # A hash of the undirected edge, the same from both ends.
    mixed = (torch.minimum(rows, columns) * 40_503 + torch.maximum(rows, columns) * 30_011) % 1000
    return AffinityGraph(indptr, columns.int(), 0.1 + 0.9 * mixed.float() / 1000)


def moved(graph: AffinityGraph, device: torch.device) -> AffinityGraph:
    """Return the graph on ``device``."""
    return graph.to(device, graph.weights.dtype)


def start_of(n: int, d: int, device: torch.device) -> Tensor:
    """Return a random embedding."""
    return 3 * torch.randn(n, d, generator=torch.Generator(device).manual_seed(1), device=device)


# ---- single steps -----------------------------------------------------------------------------------------


def one_step(
    method: Any, graph: AffinityGraph, start_nd: Tensor, **options: Any
) -> tuple[ForceProblem, Tensor, StepCoefficients]:
    """Return what a fit's force engine is given for one step of its last phase: problem, positions, coefficients."""
    if method is TSNE:
        return _edges_of_tsne(graph, start_nd)
    n, d = start_nd.shape
    estimator = method(random_state=0, n_components=d, **options)
    state = state_of(estimator, graph, start_nd, 0, estimator._phases(n)[-1])
    problem, n_shifts = problem_of(estimator, state, start_nd)
    shifts = draw_shifts(problem.layout.n_blocks, n_shifts, seed=0, step=1)
    with torch.no_grad():
        coefficients = estimator._pair_loss().coefficients(state, shifts)
    return problem, problem.layout.scatter(start_nd).t().contiguous(), coefficients


def _edges_of_tsne(graph: AffinityGraph, start_nd: Tensor) -> tuple[ForceProblem, Tensor, StepCoefficients]:
    """Return t-SNE's attraction, which an engine sums without drawing negatives."""
    estimator = TSNE(random_state=0, n_components=start_nd.shape[1])
    state = state_of(estimator, graph, start_nd, 0, estimator._phases(len(start_nd))[-1])
    layout, loss = BlockLayout.random(len(start_nd), 0, start_nd.device), estimator._pair_loss()
    none_drawn = state.graph.weights.new_zeros(layout.n_slots)
    problem = ForceProblem(layout, state.graph, replace(loss.declared(), normaliser=None), none_drawn)
    return problem, layout.scatter(start_nd).t().contiguous(), loss.coefficients(state, [])


# ---- the loop ---------------------------------------------------------------------------------------------


@dataclass
class Descent:
    """A fit at its last stage: the loop can be run for any number of steps."""

    plan: FitPlan
    state: FitState
    objective: Objective

    @classmethod
    def of(cls, method: Any, graph: AffinityGraph, start_nd: Tensor, **options: Any) -> "Descent":
        """Return the loop of a fit of ``graph`` from ``start_nd``, as `torchdr_cne.fitting.optimising` makes it."""
        estimator = method(random_state=0, n_components=start_nd.shape[1], **options)
        plan: FitPlan = estimator._plan()
        assert plan.points is not None
        state = state_of(estimator, graph, start_nd, 0, plan.phases(len(start_nd))[-1])
        return cls(plan, state, plan.points.make_objective(state, start_nd))

    @property
    def engine(self) -> str:
        """Name of the class that sums the forces."""
        return type(getattr(self.objective, "_engine", self.objective)).__name__

    def steps(self, n_steps: int, before: Callable[[int], None]) -> None:
        """Take steps of the last phase, without checks in between; ``before`` is told the number of each."""
        phase = replace(self.state.phase, n_iter=n_steps, early=True)  # does not end early
        settings = LoopSettings(Ranks(), _NEVER, 0.0, self.plan.reported, is_resumable=False)
        with torch_threads(1) if self.objective.own_threads else nullcontext():
            run(self.objective, self.state, number_phases([phase]), self.plan.optimizers, settings, _Told(before))


class _Told:
    """An observer of the loop that passes on the beginning of each step."""

    def __init__(self, before: Callable[[int], None]) -> None:
        self._before = before

    def before_step(self, outcome: Outcome) -> None:
        self._before(outcome.n_iter)

    def after_step(self, outcome: Outcome) -> bool:
        return False

    def checked(self, outcome: Outcome, losses: Mapping[str, float]) -> None:
        pass

    def recorded(self, outcome: Outcome) -> None:
        pass
