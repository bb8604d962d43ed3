"""The data that mini-batches are drawn from: the rows as they are, their graph and their labels."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.affinity import Affinity, AffinityGraph
from torchdr_cne.distributed import Share
from torchdr_cne.inputs import Rows, RowSource
from torchdr_cne.optimization.phase import Phase


@dataclass(frozen=True)
class TrainingSet:
    """The data of a parametric fit.

    Attributes
    ----------
    data : ndarray, Tensor or RowSource of shape (n, f)
        All rows, on every rank, as they were given; they are read a mini-batch at a time.
    share : Share
        The rows of each rank.
    device : torch.device
        Where networks run.
    dtype : torch.dtype
        Dtype to which rows are converted, unless ``exact``.
    exact : bool
        Whether the encoder takes rows in the data's own dtype.
    labels : Tensor of shape (n,) or None
        Class codes, −1 where the class is unknown.
    rows : Rows or None
        The rows of this rank, prepared for neighbour search.
    graph : AffinityGraph or None
        The rows of the input graph that belong to this rank.
    scale : float
        Root mean square of the centred data.
    n_components : int
        Dimension of the embedding.
    seed : int
        Seed of whatever random choices are made from the data.
    frozen : frozenset of str
        Names of the parameters that came with ``requires_grad=False``.
    networks : ModuleDict or None
        The networks that are trained: "encoder" and, if the fit has them, "decoder" and "classifier".
    """

    data: Any
    share: Share
    device: torch.device
    dtype: torch.dtype
    exact: bool = False
    labels: Tensor | None = None
    rows: Rows | None = None
    graph: AffinityGraph | None = None
    scale: float = 1.0
    n_components: int = 2
    seed: int = 0
    networks: Any = None
    frozen: frozenset[str] = frozenset()

    def with_networks(self, networks: Any, scale: float, *, exact: bool) -> "TrainingSet":
        """Return the same rows with the networks that are trained on them."""
        frozen = frozenset(name for name, value in networks.named_parameters() if not value.requires_grad)
        return replace(self, networks=networks, scale=scale, exact=exact, frozen=frozen)

    def moves(self, phase: Phase, name: str) -> bool:
        """Return whether a phase trains a parameter: one that it names, or by default any with ``requires_grad``."""
        return phase.moves(name) and (phase.trainable is not None or name not in self.frozen)

    def release(self) -> None:
        """Put the networks into evaluation mode, and give each parameter the ``requires_grad`` that it came with."""
        self.networks.eval()
        for name, value in self.networks.named_parameters():
            value.requires_grad_(name not in self.frozen)

    def graph_of(self, affinity: Affinity) -> AffinityGraph:
        """Return the graph of the rows that the affinity of a loss makes, on the host."""
        if self.rows is None:
            raise ValueError("a Relation with an affinity of its own needs X; a graph alone was given.")
        return affinity(self.rows, random_state=self.seed).on_host()

    def take(self, ids: Tensor) -> Tensor:
        """Return the rows ``ids`` (r,), on the device."""
        data = self.data
        if isinstance(data, Tensor):
            return self.as_input(data[ids.to(data.device)])
        if isinstance(data, RowSource):
            order = torch.argsort(ids)
            found = as_tensor(data.take(ids[order].numpy()))
            rows = torch.empty_like(found)
            rows[order] = found
            return self.as_input(rows)
        return self.as_input(as_tensor(data[ids.numpy()]))

    def read(self, start: int, stop: int) -> Tensor:
        """Return consecutive rows, on the device."""
        return self.as_input(read_block(self.data, start, stop))

    def as_input(self, rows: Tensor) -> Tensor:
        """Return rows on the device, in the dtype that the encoder takes."""
        return as_input(rows, self.device, self.dtype, exact=self.exact)


def read_block(data: np.ndarray | Tensor | RowSource, start: int, stop: int) -> Tensor:
    """Return consecutive rows of a table, whether it is in memory or a source."""
    return as_tensor(data.read(start, stop) if isinstance(data, RowSource) else data[start:stop])


def as_tensor(rows: np.ndarray | Tensor) -> Tensor:
    """Return rows as a tensor; arrays are copied, as torch takes no foreign byte order and no negative stride."""
    if isinstance(rows, Tensor):
        return rows
    dtype = np.dtype(np.float64) if rows.dtype == np.longdouble else rows.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(rows, dtype=dtype, order="C"))


def as_input(rows: Tensor, device: torch.device, dtype: torch.dtype, *, exact: bool) -> Tensor:
    """Return rows on ``device``, converted to ``dtype`` unless ``exact``."""
    return rows.detach().to(device) if exact else rows.detach().to(device=device, dtype=dtype)
