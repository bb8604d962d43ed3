"""The state that a fit carries from step to step, apart from the estimator and its parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.distributed import Share
from torchdr_cne.optimization.phase import Phase


class Sampler(Protocol):
    """An object that draws the negatives of some rows as a pure function of seed and step."""

    def draw(self, seed: int, step: int) -> Tensor:
        """Return the negatives (r, M) of the rows."""


@dataclass
class FitState:
    """The state of a fit: its graph, its learned scalars and its current phase and step.

    Attributes
    ----------
    graph : AffinityGraph or None
        This rank's rows of the input graph on the device of the fit, with weights scaled to mean row weight 1; None in
        a fit without a graph.
    share : Share
        The rows of each rank; a single process has all rows.
    seed : int
        Seed of every random draw of the fit.
    phase : Phase
        The current phase.
    step : int
        The current iteration, counted over all phases.
    learned : dict of str to Tensor
        Scalars that are learned with the embedding, for instance ``log_z``.
    rows : Rows or None
        This rank's rows of the data, as prepared for the neighbour search; None in a fit of a graph alone.
    carried : dict of str to Tensor
        Tensors that a method keeps from step to step; they are the same on all ranks, and saved with the fit.
    target : Tensor of shape (n, n) or None
        The matrix P if whole matrices are matched.
    sampler : Sampler or None
        The sampler of the negatives of this rank's rows if negatives are drawn by row.
    fixed_pairs : FixedPairs or None
        The pairs of a fit whose pairs are chosen once.
    fixed_edges : FixedEdges or None
        The attracting pairs as one list if the loss is differentiated by autograd.
    training : TrainingSet or None
        The rows and labels if mini-batches are drawn from them.
    losses : dict of str to Tensor
        The loss of this rank and its parts, summed over the steps since the last check.
    """

    graph: Any
    share: Share
    seed: int
    phase: Phase
    step: int = 0
    learned: dict[str, Tensor] = field(default_factory=dict)
    rows: Any = None
    carried: dict[str, Tensor] = field(default_factory=dict)
    target: Tensor | None = None
    sampler: Sampler | None = None
    fixed_pairs: Any = None
    fixed_edges: Any = None
    training: Any = None
    losses: dict[str, Tensor] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Tensor | float]:
        """The constants of the phase and the learned scalars, by name."""
        return {**self.phase.parameters, **self.learned}

    def whole_rows(self, what: str, otherwise: str) -> Tensor:
        """Return the rows (n, f); raise a ValueError that ``what`` needs them if they have stayed in a file."""
        if self.rows is None:
            raise ValueError(
                f"{what} need rows, and a graph alone was given; pass rows as X and the affinities as graph=, or "
                f"{otherwise}."
            )
        if not self.rows.in_memory:
            raise ValueError(
                f"{what} need all rows of X in memory, and these have stayed in their file; raise memory_budget, pass "
                f"an array, or {otherwise}."
            )
        found: Tensor = self.rows.values
        return found

    def add_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Add the loss of this step and its parts to the sums, without waiting for the device."""
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0) + value.detach()

    def mean_losses(self, n: int) -> dict[str, float]:
        """Return the sums of all ranks divided by ``n``, and set them back to 0."""
        losses, self.losses = self.losses, {}
        if not losses:
            return {}
        sums = torch.stack([value.double() for value in losses.values()])
        means = self.share.ranks.add_up(sums, "the check of the losses") / n
        return dict(zip(losses, means.tolist(), strict=True))


def initial_state(
    graph: AffinityGraph | None,
    start_nd: Tensor,
    seed: int,
    phase: Phase,
    share: Share,
    learned: Mapping[str, float],
) -> FitState:
    """Return the state in which a fit begins; the graph's weights are scaled to mean row weight 1."""
    if graph is not None:
        graph = graph.to(start_nd.device, start_nd.dtype)
        mean_row_weight = float(share.total(graph.row_weights, "the mean row weight")) / share.n
        graph = replace(graph, weights=graph.weights / mean_row_weight)
    scalars = {
        name: torch.full((), value, dtype=start_nd.dtype, device=start_nd.device, requires_grad=True)
        for name, value in learned.items()
    }
    return FitState(graph=graph, share=share, seed=seed, phase=phase, learned=scalars)
