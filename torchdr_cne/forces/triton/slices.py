"""Edges in slices of 32 rows of like degree on the device, one row a thread (sliced ELLPACK)."""

from typing import NamedTuple

import torch
from torch import Tensor

from torchdr_cne.forces.problem import ForceProblem

LANES = 32
_WINDOW = 2048


class EdgeSlices(NamedTuple):
    """The directed edges of a rank's slots, slice by slice; rows are counted from the rank's first slot.

    Attributes
    ----------
    rows : Tensor of shape (S · 32,), int32
        Row of each lane of each slice.
    degrees : Tensor of shape (S · 32,), int32
        Number of edges of the lane.
    starts : Tensor of shape (S + 1,), int64
        Where each slice begins in ``columns``.
    columns : Tensor of shape (starts[-1],), int32
        Lane v's e-th edge of slice s, to a slot, at ``starts[s] + 32 e + v``.
    weights : Tensor of shape (starts[-1],) or (1,), float32
        Their weights; one number if all edges have it.
    """

    rows: Tensor
    degrees: Tensor
    starts: Tensor
    columns: Tensor
    weights: Tensor

    @classmethod
    def of(cls, problem: ForceProblem) -> "EdgeSlices":
        """Arrange the edges of the problem's graph by its slots."""
        graph = problem.slot_graph()
        degrees = graph.indptr.diff()
        windows = torch.div(torch.arange(len(degrees), device=degrees.device), _WINDOW, rounding_mode="floor")
        order = torch.argsort((windows + 1) * graph.n_points - degrees, stable=True)
        in_order = degrees[order].view(-1, LANES)
        starts = torch.zeros(len(in_order) + 1, dtype=torch.int64, device=order.device)
        torch.cumsum(in_order.amax(dim=1) * LANES, dim=0, out=starts[1:])
        lanes = torch.arange(LANES, device=order.device).expand_as(in_order)
        first_places = torch.empty_like(degrees)
        first_places[order] = (starts[:-1].unsqueeze(1) + lanes).reshape(-1)
        columns = torch.zeros(int(starts[-1]), dtype=torch.int32, device=order.device)
        weights = torch.zeros(1 if problem.is_uniform else len(columns), dtype=torch.float32, device=order.device)
        if problem.is_uniform:
            weights[: graph.n_edges] = graph.weights[:1].float()
        for rows, edges in graph.in_parts():
            # Where the edges of a row lie: from its lane's first place on, in steps of a slice's width.
            shift = first_places[rows] - LANES * graph.indptr[:-1][rows]
            places = torch.repeat_interleave(shift, degrees[rows], output_size=edges.stop - edges.start)
            places += LANES * torch.arange(edges.start, edges.stop, device=order.device)
            columns[places] = graph.indices[edges].int()
            if not problem.is_uniform:
                weights[places] = graph.weights[edges].float()
        return cls(order.int(), in_order.reshape(-1).int(), starts, columns, weights)
