"""Objectives of sampled negatives: by autograd of the hooks, or by declared forces on reciprocal blocks."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from torchdr_cne.distributed import Share
from torchdr_cne.forces import ForceProblem, make_engine, replayed
from torchdr_cne.objectives.blocks import PairwiseObjective, rows_by_slot
from torchdr_cne.objectives.pair_loss import PairLoss
from torchdr_cne.objectives.pairs import Pairs, rows_at
from torchdr_cne.optimization.state import FitState
from torchdr_cne.sampling import BlockLayout, NegativeSampler
from torchdr_cne.sampling.blocks import n_shifts_for
from torchdr_cne.similarities import Similarity

_FEW_DRAWS_UNTIL = 0.7
"""Fraction of the iterations after which all negatives are drawn, for methods that begin with fewer."""


@dataclass(frozen=True)
class DrawnBlocks:
    """How many blocks of negatives a step draws.

    Attributes
    ----------
    by_default : int
        Number of negatives of a row if the user sets none.
    early_share : float
        Fraction of them that the first seven tenths of the iterations draw: few find the embedding, many sharpen it.
    compile : bool
        Whether torch's force tiles are compiled.
    """

    by_default: int
    early_share: float
    compile: bool


def n_drawn(asked: int | None, by_default: int, n: int) -> int:
    """Return how many negatives are drawn for each of ``n`` points, which is at most all other points."""
    if asked is not None and asked >= n:
        warnings.warn(
            f"negatives_per_row={asked} is more than the {n - 1} other points; "
            f"{n - 1} are drawn, with the same objective.",
            UserWarning,
            stacklevel=2,
        )
    return min(by_default if asked is None else asked, n - 1)


def make_sampler(loss: PairLoss, by_default: int, state: FitState, start_nd: Tensor, *, compiles: bool) -> None:
    """Give the fit's state a sampler, which draws the negatives of this rank's rows in each step."""
    n = len(start_nd)
    drawn = n_drawn(loss.negatives_per_row, by_default, n)
    exclude = (state.graph.indptr, state.graph.indices) if loss.discard_neighbors else None
    own = torch.arange(state.share.start, state.share.stop, device=start_nd.device)
    sampler = NegativeSampler(n, own, drawn, exclude)
    if compiles:  # its 64-bit constants are beyond the compiler's integer ranges
        sampler.draw = torch.compiler.disable(sampler.draw)  # type: ignore[method-assign]  # of this object only
    state.sampler = sampler


def sampled_pairs(similarity: Similarity, n_negatives: float, embedding_nd: Tensor, state: FitState) -> Pairs:
    """Return the edges of this rank's rows and the negatives that this step draws for them."""
    assert state.sampler is not None
    graph = state.graph
    negatives = state.sampler.draw(state.seed, state.step)
    rows, columns, weights = graph.rows, graph.indices.long(), graph.weights
    own_nd = embedding_nd[state.share.own]
    if len(rows) == len(own_nd):
        # One more edge, of weight 0, so that a loss's shape always tells edges from rows.
        rows, columns = (torch.cat([ids, ids[-1:]]) for ids in (rows, columns))
        weights = torch.cat([weights, torch.zeros_like(weights[-1:])])
    return Pairs(
        log_q_edges=similarity(rows_at(own_nd, rows), rows_at(embedding_nd, columns)),
        weights=weights,
        rows=rows,
        log_q_negatives=similarity(own_nd.unsqueeze(1), rows_at(embedding_nd, negatives)),
        draw_weights=torch.full_like(own_nd[:, 0], n_negatives / negatives.shape[1]).detach(),
        parameters=state.parameters,
    )


def block_objective(loss: PairLoss, draws: DrawnBlocks, state: FitState, start_nd: Tensor) -> PairwiseObjective:
    """Return the objective that sums the declared forces of edges and of drawn blocks."""
    problem, n_shifts = force_problem(loss, draws, state, start_nd)
    engine = replayed(make_engine(problem, start_nd, compile=draws.compile), problem)

    def shifts_now(state: FitState) -> int:
        early = state.step < _FEW_DRAWS_UNTIL * state.phase.total
        return max(1, round(n_shifts * draws.early_share)) if early else n_shifts

    return PairwiseObjective(start_nd, problem.layout, problem.share, engine, shifts_now, loss.coefficients)


def force_problem(loss: PairLoss, draws: DrawnBlocks, state: FitState, start_nd: Tensor) -> tuple[ForceProblem, int]:
    """Return the force problem of the points in blocks, and the number of shifts in a step."""
    n = len(start_nd)
    layout = BlockLayout.random(n, state.seed, start_nd.device)
    n_shifts = n_shifts_for(n_drawn(loss.negatives_per_row, draws.by_default, n), layout.n_blocks)
    n_allowed = torch.full_like(start_nd[:, 0], n - 1)
    if loss.discard_neighbors:
        n_allowed -= state.share.gather(state.graph.indptr.diff(), "the exchange of degrees")
        if bool((n_allowed < 1).any()):
            raise ValueError(
                "discard_neighbors=True leaves a point without any negative, because all others are its "
                "neighbours; lower n_neighbors or set discard_neighbors=False."
            )
    # Two points meet in one of n_blocks shifts.
    drawn = n_allowed / layout.n_blocks
    share = Share.of(layout.n_slots, state.share.ranks)
    graph, slots = rows_by_slot(state.graph, state.share, layout, share)
    problem = ForceProblem(
        layout=layout,
        graph=graph,
        slots=slots,
        share=share,
        forces=loss.declared(),
        draw_weights=layout.scatter(loss.n_negatives / drawn),
        exclude_edges=loss.discard_neighbors,
    )
    return problem, n_shifts
