"""An estimate of the memory that a fit will take."""

from torchdr_cne.checks import COUNT, check_choice
from torchdr_cne.matching import AffinityMatcher
from torchdr_cne.methods import NegTSNE


def estimate_memory(n: int, d: int, estimator: AffinityMatcher | None = None, device: str = "cpu") -> int:
    """Return an estimate of the peak memory of a fit, before it begins.

    Parameters
    ----------
    n, d : int
        Numbers of rows and columns of the data.
    estimator : NegativeSamplingNeighborEmbedding, default=None
        An estimator with the parameters of the fit; None is ``NegTSNE()``.
    device : {"cpu", "cuda"}, default="cpu"
        Whose memory is estimated.

    Returns
    -------
    int
        Number of bytes, in addition to the data as float32 (4 n d), for a fit by pair forces with 20 000 rows or more.
        On the CPU the imported libraries take about 0.6 GB besides, and with fewer rows the search up to 0.2 GB more.
        On a GPU it is the memory for rows that are there; an array that does not fit stays on the host.

    Raises
    ------
    ValueError
        If ``n`` or ``d`` is not a positive integer, ``device`` is unknown, or if there is no estimate, as for networks,
        float64, or gradients by autograd, whose memory depends on the loss hooks.

    Examples
    --------
    >>> from torchdr_cne import InfoTSNE, estimate_memory
    >>> round(estimate_memory(1_000_000, 50, InfoTSNE()) / 1e9, 1)
    0.7
    >>> round(estimate_memory(1_000_000, 50, InfoTSNE(), device="cuda") / 1e9, 1)
    3.2
    """
    check_choice("device", device, ("cpu", "cuda"))
    for name, value in (("n", n), ("d", d)):
        if not COUNT.admits(value):
            raise ValueError(f"{name}={value!r} must be {COUNT}.")
    estimator = NegTSNE() if estimator is None else estimator
    stages = estimator._bytes_by_stage(n, d, device)
    if not stages:
        raise ValueError(
            f"the memory of {type(estimator).__name__} with gradient={getattr(estimator, 'gradient', None)!r} and "
            f"dtype={estimator.dtype!r} depends on its loss hooks; estimates are for float32 and pair forces."
        )
    return max(stages.values())
