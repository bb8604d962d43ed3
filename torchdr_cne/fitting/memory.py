"""Estimates of the memory that a fit will need."""

from torchdr_cne.resources import available_memory

_EDGES_PER_NEIGHBOUR = 1.45
"""Directed edges of a symmetrised graph for each neighbour of a row; 2 if no two points list each other."""
_LANES = 16
_SEARCHED_AT_ONCE, _ARRANGED_AT_ONCE = 2.3e9, 4e8
"""Bytes of the blocks of comparisons that keep a GPU busy during the search, and of edges while they are arranged."""
_MARGIN, _LEAST = 1.12, 4e6
"""Measured factor and bytes for memory that is short-lived, small, or left to the allocator."""


def bytes_by_stage(
    n: int, d: int, *, n_neighbors: int, n_components: int, n_meetings: int, weighted: bool
) -> dict[str, int]:
    """Return the peak bytes that each stage of a fit on the CPU in float32 holds, beyond the rows themselves.

    Parameters
    ----------
    n, d : int
        Numbers of rows and columns.
    n_neighbors : int
        Number of neighbours of a row, not counting the point itself.
    n_components : int
        Dimension of the embedding.
    n_meetings : int
        Number of blocks of negatives that a row meets in an iteration.
    weighted : bool
        Whether the weights of the graph differ.
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


def bytes_by_stage_on_gpu(n: int, d: int, *, n_neighbors: int, n_components: int) -> dict[str, int]:
    """Return the peak bytes of GPU memory that each stage of a fit in float32 holds, beyond the rows themselves.

    The numbers were measured for 10⁵ to 10⁷ rows; see `bytes_by_stage` for the parameters.
    """
    listed = n * n_neighbors
    # Rows in the order of tiles, ids and distances; the sort of both directions of all edges; the graph and its slices.
    neighbours = _SEARCHED_AT_ONCE + n * (4 * d + 150) + 14 * listed
    loop = _ARRANGED_AT_ONCE + 52 * listed + n * (130 + 4 * n_components)
    stages = {"neighbours": neighbours, "graph": 117 * listed, "loop": loop}
    return {stage: round(_MARGIN * held + _LEAST) for stage, held in stages.items()}


def check_gpu_memory(needed: int, free: int, n: int, d: int, *, by_loop: bool) -> None:
    """Raise a MemoryError if ``needed`` bytes, of the loop or of all stages, are more than are ``free`` on the GPU."""
    if needed > free:
        remedy = (
            "lower n_neighbors, pass fewer rows"
            if by_loop
            else "pass the rows as a NumPy array, whose neighbours are found on the host if they do not fit"
        )
        raise MemoryError(
            f"a fit of {n} rows of {d} columns needs about {needed / 1e9:.2f} GB of GPU memory beside the data, and "
            f"{free / 1e9:.2f} GB are free; {remedy}, or set device='cpu'."
        )


def check_memory(needed: int, n: int, d: int) -> None:
    """Raise a MemoryError if ``needed`` bytes are more than are available."""
    available = available_memory()
    if available is not None and needed > available:
        raise MemoryError(
            f"a fit of {n} rows of {d} columns needs about {needed / 1e9:.2f} GB beside the data, and "
            f"{available / 1e9:.2f} GB of memory are free; pass fewer rows, reduce the columns by PCA, or lower "
            "n_neighbors."
        )
