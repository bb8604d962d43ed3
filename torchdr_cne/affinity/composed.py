"""Affinities composed of steps: ``Neighbors(15) | Connectivity() | Symmetrize("union")``."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, ClassVar

from torch import Tensor

from torchdr_cne.affinity.base import Affinity
from torchdr_cne.affinity.graph import AffinityGraph
from torchdr_cne.neighbors import NeighborGraph
from torchdr_cne.neighbors.kneighbors import Backend
from torchdr_cne.storable import Storable

ROWS, DISTANCES, WEIGHTS, GRAPH = "rows of data", "distances of neighbours", "directed weights", "a symmetric graph"
_AFFINITY = {ROWS: GRAPH}


class Composable:
    """A part that ``|`` joins with others, in the order in which they are applied."""

    def __or__(self, other: Any) -> "Chain | ComposedAffinity":
        """Return the composition that applies ``other`` to the result of this part."""
        return compose(self, other) if isinstance(other, Composable) else NotImplemented


class Step(Composable):
    """One step on the way from rows of data to a graph; steps are frozen dataclasses."""

    turns: ClassVar[dict[str, str]]
    """The kinds of input that the step takes, each with the kind of its result."""


@dataclass(frozen=True)
class Neighbors(Step):
    """The source of a composed affinity: the distances of each row's nearest other points.

    Parameters
    ----------
    n_neighbors : int, default=15
        Number of *other* points of each row.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance between rows.
    backend : {"auto", "torch", "keops", "faiss"} or FaissConfig, default="auto"
        How the neighbours are found; see `torchdr_cne.neighbors.kneighbors`.
    """

    n_neighbors: int = 15
    metric: str = "euclidean"
    backend: Backend = "auto"

    turns = {ROWS: DISTANCES}


class Transform(Step, Storable, ABC):
    """A step from distances or weights to weights, or to a graph, which changes none of its input."""

    @abstractmethod
    def apply(self, values: Any, neighbors: NeighborGraph) -> Any:
        """Return weights (q, k) or an `AffinityGraph`.

        Parameters
        ----------
        values : Tensor of shape (q, k) or AffinityGraph
            Result of the step before, or ``neighbors.distances`` in the first step; it must not be changed.
        neighbors : NeighborGraph
            The neighbours that the distances or weights belong to, and the rows of each rank.
        """

    def apply_to_new(self, values: Tensor, neighbors: NeighborGraph) -> Tensor:
        """Return the weights (q, k) of new rows; those of a row must not depend on other rows."""
        return self.apply(values, neighbors)


@dataclass(frozen=True)
class Chain(Composable):
    """Steps that do not yet form an affinity, as the source or `Symmetrize` is missing."""

    steps: tuple[Step, ...]

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.steps))

    def __call__(self, X: Any, **_: Any) -> AffinityGraph:
        """Raise a ValueError that names what is missing."""
        raise ValueError(_incomplete(self.steps))


class TransformedAffinity(Affinity):
    """An affinity that is defined by a number of neighbours and the transforms of their distances."""

    @abstractmethod
    def _transforms(self) -> tuple[Transform, ...]:
        """Return the steps from distances to a graph; raise a ValueError if parameters are not valid."""

    def from_neighbors(self, neighbors: NeighborGraph) -> AffinityGraph:
        """Return the graph after all transforms."""
        return _applied(self._transforms(), neighbors)

    def directed_weights(self, neighbors: NeighborGraph) -> Tensor:
        """Return each row's weights (q, k) of its neighbours, before any symmetrisation."""
        return _applied(self._directed(), neighbors)

    def weights_of_new(self, neighbors: NeighborGraph) -> Tensor:
        """Return the weights (q, k) of new rows, which no other row lists."""
        values = neighbors.distances
        for transform in self._directed():
            values = transform.apply_to_new(values, neighbors)
        return values

    def _directed(self) -> tuple[Transform, ...]:
        """Return the transforms before any symmetrisation."""
        return tuple(takewhile(lambda transform: transform.turns != {WEIGHTS: GRAPH}, self._transforms()))


class ComposedAffinity(TransformedAffinity, Composable):
    """An affinity made with ``|`` from `Neighbors` and transforms.

    Parameters
    ----------
    n_neighbors : int, default=15
        Number of other points of each row.
    transforms : tuple of Transform
        The transforms of their distances, in order.
    metric, backend
        See `Affinity`.
    """

    n_neighbors: int = 15
    transforms: tuple[Transform, ...] = ()

    def __repr__(self, N_CHAR_MAX: int = 0) -> str:
        return " | ".join(map(repr, steps_of(self)))

    def _n_neighbors_needed(self, n: int) -> int:
        self._transforms()
        return self.n_neighbors

    def _transforms(self) -> tuple[Transform, ...]:
        if _turns_of(steps_of(self)) != _AFFINITY:
            raise ValueError(_incomplete(steps_of(self)))
        return self.transforms

    def from_neighbors(self, neighbors: NeighborGraph) -> AffinityGraph:
        """Return the graph after all transforms; a graph without any edge is an error."""
        graph = super().from_neighbors(neighbors)
        if not bool(neighbors.share.ranks.all_gather_ints([graph.n_edges], "the count of edges").any()):
            raise ValueError(f"{self!r} gives no edge any weight; let its function be above 0 for some neighbours.")
        return graph

    def fingerprint(self) -> str:
        """Return text that distinguishes this affinity from others, including those with other user functions."""
        return " | ".join(str(getattr(step, "fingerprint", step)) for step in steps_of(self))


def compose(first: Composable, second: Composable) -> Chain | ComposedAffinity:
    """Return the joined steps, as an affinity if they lead from rows of data to a symmetric graph.

    Raises
    ------
    ValueError
        If the second part cannot be applied to the result of the first.
    """
    before, after = steps_of(first), steps_of(second)
    turns = _turns_of(before + after)
    if not turns:
        given, taken = _turns_of(before).values(), _turns_of(after)
        raise ValueError(
            f"{after[0]!r} cannot follow {before[-1]!r}: it takes {_either(taken)} and gets {_either(given)}; "
            "the order is Neighbors, then Perplexity, Connectivity, Binary or Function, then Symmetrize, then "
            "Normalize or Function."
        )
    source, *transforms = before + after
    if turns != _AFFINITY:
        return Chain(before + after)
    return ComposedAffinity(**vars(source), transforms=tuple(transforms))


def steps_of(part: Composable) -> tuple[Step, ...]:
    """Return the steps of which a part of a composition consists."""
    if isinstance(part, ComposedAffinity):
        return (Neighbors(part.n_neighbors, part.metric, part.backend), *part.transforms)
    if isinstance(part, Chain):
        return part.steps
    assert isinstance(part, Step)
    return (part,)


def _turns_of(steps: tuple[Step, ...]) -> dict[str, str]:
    """Return the kinds of input that all steps together take, each with the kind of its result; empty if none fits."""
    turns = steps[0].turns
    for step in steps[1:]:
        turns = {taken: step.turns[given] for taken, given in turns.items() if given in step.turns}
    return turns


def _applied(transforms: tuple[Transform, ...], neighbors: NeighborGraph) -> Any:
    values: Any = neighbors.distances
    for transform in transforms:
        values = transform.apply(values, neighbors)
    return values


def _either(kinds: Any) -> str:
    return " or ".join(dict.fromkeys(kinds))


def _incomplete(steps: tuple[Step, ...]) -> str:
    """Return text that says what steps lack to be an affinity."""
    turns = _turns_of(steps)
    whole = " | ".join(map(repr, steps))
    if not turns:
        return f"{whole} is not an affinity: each step has to take what the one before gives."
    remedy = "end with Symmetrize(…)" if ROWS in turns else "begin with Neighbors(…)"
    return f"{whole} is not an affinity: it gives {_either(turns.values())} of {_either(turns)}; {remedy}."
