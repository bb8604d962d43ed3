"""Symmetric Sinkhorn scaling in log space, for any kernel whose row sums can be computed."""

from collections.abc import Callable

from torch import Tensor


def sinkhorn_scaling(
    log_row_sums: Callable[[Tensor], Tensor], start: Tensor, n_steps: int, tolerance: float | None = None
) -> Tensor:
    """Return f (n,) such that e^{f_i} Σ_j k_ij e^{f_j} is 1 for each i.

    Each step goes half the way to row sums of 1, which converges for every positive symmetric kernel
    (Knight, Ruiz & Uçar, 2014).

    Parameters
    ----------
    log_row_sums : callable
        Function from f to log Σ_j k_ij e^{f_j}, (n,).
    start : Tensor of shape (n,)
        Initial f.
    n_steps : int
        Largest number of steps.
    tolerance : float or None, default=None
        Largest |log| of a row sum at which the steps end; None takes all steps, without waiting for the device.
    """
    f = start
    for _ in range(n_steps):
        miss = f + log_row_sums(f)
        if tolerance is not None and float(miss.abs().max()) <= tolerance:
            break
        f = f - miss / 2
    return f
