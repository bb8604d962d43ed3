"""How much memory a fit needs, told before it needs it."""

from pathlib import Path
from typing import Any

from torchdr_cne.checks import COUNT

_EDGES_PER_NEIGHBOUR = 1.45
"""Directed edges of a symmetrised graph for each neighbour of a row; 2 if no two points list each other."""
_LANES = 16
_MARGIN, _LEAST = 1.12, 4e6
"""For what is short-lived, small, or left to the allocator; measured."""


def bytes_by_stage(
    n: int, d: int, *, n_neighbors: int, n_components: int, n_meetings: int, weighted: bool
) -> dict[str, int]:
    """Return what the stages of a fit on the CPU in float32 hold at their peak, beyond the rows themselves.

    Parameters
    ----------
    n, d : int
        Rows and columns.
    n_neighbors : int
        Other points that a row's neighbours are.
    n_components : int
        Dimension of the embedding.
    n_meetings : int
        Blocks of negatives a row meets in an iteration.
    weighted : bool
        Whether the graph's weights differ.
    """
    listed, edges = n * n_neighbors, _EDGES_PER_NEIGHBOUR * n * n_neighbors
    columns = -(-d // _LANES) * _LANES
    # Rows in list order; ids and distances twice, and who lists whom.
    neighbours = 4 * n * columns + 24 * listed
    # Ids, distances and weights; both directions in listing order, and the graph before its gaps are closed.
    graph = 36 * listed + 32 * n
    # The graph, its scaled weights, its slices; positions, velocities, gradients, and forces by meeting.
    slices = edges * (8 if weighted else 4) * 1.08
    loop = 12 * edges + slices + n * (96 + 20 * n_components + 4 * (n_components + 1) * n_meetings)
    stages = {"neighbours": neighbours, "graph": graph, "loop": loop}
    return {stage: round(_MARGIN * held + _LEAST) for stage, held in stages.items()}


def available_memory() -> int | None:
    """Return the bytes that can still be had on this machine, or in this control group; None where unknown."""
    known = [value for value in (_system_memory(), _group_memory()) if value is not None]
    return min(known) if known else None


def _system_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _group_memory() -> int | None:
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)


def check_memory(needed: int, n: int, d: int) -> None:
    """Raise a MemoryError if ``needed`` bytes are more than can be had."""
    available = available_memory()
    if available is not None and needed > available:
        raise MemoryError(
            f"a fit of {n} rows of {d} columns needs about {needed / 1e9:.2f} GB beside the data, and "
            f"{available / 1e9:.2f} GB of memory are free; pass fewer rows, reduce the columns by PCA, or lower "
            "n_neighbors."
        )


def estimate_memory(n: int, d: int, estimator: Any = None) -> int:
    """Estimate the memory that a fit takes at its peak, before it is begun.

    Parameters
    ----------
    n, d : int
        Rows and columns of the data.
    estimator : NegativeSamplingNeighborEmbedding, default=None
        An estimator with the parameters of the fit; None is ``NegTSNE()``.

    Returns
    -------
    int
        Bytes beside the data as float32 (4 n d) and beside the imported libraries (about 0.6 GB), for a fit on the
        CPU by pair forces with 20 000 rows or more. Below that the search takes up to 0.2 GB more.

    Raises
    ------
    ValueError
        If ``n`` or ``d`` is no positive integer, or the estimator's gradients come from autograd, whose memory
        depends on the loss hooks.

    Examples
    --------
    >>> from torchdr_cne import InfoTSNE, estimate_memory
    >>> round(estimate_memory(1_000_000, 50, InfoTSNE()) / 1e9, 1)
    0.7
    """
    for name, value in (("n", n), ("d", d)):
        if not COUNT.admits(value):
            raise ValueError(f"{name}={value!r} must be {COUNT}.")
    if estimator is None:
        from torchdr_cne.methods import NegTSNE

        estimator = NegTSNE()
    stages = estimator._bytes_by_stage(n, d)
    if not stages:
        raise ValueError(
            f"the memory of {type(estimator).__name__} with gradient={getattr(estimator, 'gradient', None)!r} and "
            f"dtype={estimator.dtype!r} depends on its loss hooks; estimates are for float32 and pair forces."
        )
    return max(stages.values())
